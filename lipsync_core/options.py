"""The options of a dub, as dataclasses whose fields describe themselves.

The command line, the node inputs and the documentation are made from them; see
``runtime.options``. This module imports neither torch nor PyAV, so that a host can list the
options without loading the library.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from .runtime.options import Option
from .runtime.timecode import parse_fps, parse_seconds

MaskKind = Literal["mouth", "lower", "face", "box"]
BlendKind = Literal["paste", "feather", "pyramid", "poisson", "seamless"]
ColorMatch = Literal["spread", "covariance"]
Occlusion = Literal["ignore", "compare", "parse"]
Longer = Literal["pingpong", "loop", "hold", "trim"]
Shorter = Literal["trim", "keep", "keep-sound"]
DetectorName = Literal["mini", "yunet", "s3fd"]
Precision = Literal["auto", "float32", "bfloat16"]
Silence = Literal["keep", "close", "generate"]
"""Mouth in silence: ``keep`` the source's, ``close`` a closed one of the same person, ``generate``
what the network draws for silence."""
Reference = Literal["auto", "current", "first", "nearest-closed"]
"""Which picture a mouth is drawn from. ``auto``: the best for the model: for one that moves lips
(``LipWarp``) the same person's mouths that are nearest to the shapes of the speech, for others the
frame itself. ``current``: the frame itself. ``first``: the first frame of the frame's stretch.
``nearest-closed``: the nearest in time of those frames of its stretch that show the mouth closed. A
stretch ends if the face goes away, with a cut, and if the track passes to another person."""

SMOOTHING_SECONDS = 0.12
"""Standard deviation of the smoother of ``detect_tracks``: the strongest that costs no accuracy.
With YuNet on every fifth frame, rms distance to what it finds in the frames between / jitter
(second difference), in % of the face's size: 27 clips of talking people to choose on, 1.00 / 0.26
at 0 s, 1.00 / 0.10 at 0.12 s, 1.08 / 0.06 at 0.2 s; 15 others, 1.09 / 0.33, 1.11 / 0.12, 1.28 /
0.07. The jitter of YuNet on every frame is 1.3."""


@dataclass(frozen=True, slots=True)
class Blend:
    """How a generated mouth is blended into its frame.

    Attributes:
        mask: The part of the face that is replaced.
        kind: ``paste``: a hard edge. ``feather``: a soft one. ``pyramid``, ``poisson``,
            ``seamless``: a soft edge, and the generated skin is corrected to agree with the source
            all round the mask (see ``blend.seamless``); if the model moves pixels, ``seamless``
            also lets the movement fall off towards the edge.
        feather: Width of the soft edge as a fraction of the crop's side.
        colour_match: Match the generated skin's tones to the source's round the mouth (see
            ``blend.color_match``).
        own_pixels: A model that moves pixels moves those of the frame at its own resolution, which
            keeps large faces sharp. If False, or with ``colour_match``, its crop is enlarged.
        strength: Opacity of the new mouth in [0,1].
        feather_px: Width of the soft edge in px of the frame; replaces ``feather``.
        detail: Share in [0,1] of the source's sharpness that a painted mouth gets, unless it is
            pasted; moved pixels have their own.
        grain: Share in [0,1] of the source's grain, likewise.
        occlusion: Keep a hand, a microphone or hair in front of the face: found by comparison with
            the face's first frame (``compare``, see ``blend.occlusion``), or by a face parser
            (``parse``), which also limits the mask to skin and lips.
        steady: Strength in [0,1] of the stabilizer (``blend.smoothing``). At 0.5 lips in silence
            tremble less by 13 to 29 %, lips that speak move less by 7 to 14 %, and the sync
            scorer's confidence falls by 3 % (three clips; at 1 by 8 %).
    """

    mask: Annotated[
        MaskKind,
        Option(
            "How much of the face is replaced.",
            "mouth: mouth and chin. lower: its lower half. face: the whole face. box: the square.",
        ),
    ] = "mouth"
    kind: Annotated[
        BlendKind,
        Option(
            "How the new mouth joins the frame.",
            "seamless: no visible seam. feather: a soft edge. paste: a hard edge. poisson, "
            "pyramid: the two methods that seamless combines.",
            name="blend",
            node_name="blend",
            metavar="[seamless|feather|paste]",
        ),
    ] = "seamless"
    feather: Annotated[
        float,
        Option(
            "Width of the soft edge, as a part of the face's size.",
            minimum=0,
            maximum=0.5,
            step=0.01,
            pixels="feather_px",
        ),
    ] = 0.08
    colour_match: Annotated[
        ColorMatch | None,
        Option(
            "Match the colors of the new skin to the frame's.",
            "spread: each color channel by itself. covariance: the channels together, for "
            "colored light.",
            panel="Blending",
        ),
    ] = None
    own_pixels: Annotated[
        bool,
        Option(
            "Move the frame's own pixels if the model can (mini), so that large faces stay sharp.",
            panel="Blending",
            advanced=True,
        ),
    ] = True
    strength: Annotated[
        float,
        Option(
            "Opacity of the new mouth: 0 shows the old one.",
            minimum=0,
            maximum=1,
            step=0.01,
            panel="Blending",
        ),
    ] = 1.0
    feather_px: Annotated[
        float | None,
        Option(
            "Width of the soft edge in pixels of the frame, instead of 'feather'.",
            minimum=0,
            step=1,
            hidden=True,
            advanced=True,
        ),
    ] = None
    detail: Annotated[
        float,
        Option(
            "How much of the frame's sharpness a generated mouth gets.",
            "mini moves the frame's own pixels, which are as sharp already.",
            minimum=0,
            maximum=1,
            step=0.05,
            hidden=True,
        ),
    ] = 1.0
    grain: Annotated[
        float,
        Option(
            "How much of the frame's grain a generated mouth gets.",
            minimum=0,
            maximum=1,
            step=0.05,
            hidden=True,
            advanced=True,
        ),
    ] = 1.0
    occlusion: Annotated[
        Occlusion,
        Option(
            "Keep hands, microphones and hair in front of the mouth.",
            "ignore: draw over them. compare: find them by comparison with a frame that shows the "
            "mouth. parse: find them with a face parser (53 MB, downloaded on first use; "
            "non-commercial research only), which also limits the mask to skin and lips.",
        ),
    ] = "ignore"
    steady: Annotated[
        float,
        Option(
            "Reduce the jitter of a generated mouth; 1 reduces most.",
            "Lips that move are hardly changed.",
            minimum=0,
            maximum=1,
            step=0.05,
            panel="Blending",
            advanced=True,
        ),
    ] = 0.0

    @property
    def needs_source(self) -> bool:
        """Whether the crops of the frames themselves are needed."""
        return (
            bool(self.colour_match)
            or self.kind not in ("paste", "feather")
            or self.occlusion == "compare"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a face video that is dubbed.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds; None for the end of the file.
        fps: Frame rate of the output; None for the source's.
        longer: How the picture continues if the speech outlasts it. A photo just stays.
        shorter: What follows the speech if the picture outlasts it: nothing, or the rest of the
            picture with its own mouth, in silence or with its own sound.
        audio_track: Number of the sound track that is read of a file with several, from 1; None
            for the default one.
        max_side: Longest side of the output in px; None for the source's.
    """

    start: Annotated[
        Fraction,
        Option("Start of the cut: seconds or h:mm:ss.", parse=parse_seconds, metavar="TIME"),
    ] = Fraction(0)
    end: Annotated[
        Fraction | None,
        Option(
            "End of the cut; by default that of the video.", parse=parse_seconds, metavar="TIME"
        ),
    ] = None
    fps: Annotated[
        Fraction | None,
        Option(
            "Frames per second, such as 25 or 30000/1001; by default the video's.",
            panel="Encoding",
            parse=parse_fps,
            metavar="RATE",
        ),
    ] = None
    longer: Annotated[
        Longer,
        Option(
            "What the picture does if the speech is longer.",
            "pingpong: play forwards and backwards. loop: start again. hold: stay on the last "
            "frame. trim: stop the speech with the picture.",
            flags=("--when-audio-is-longer",),
        ),
    ] = "pingpong"
    shorter: Annotated[
        Shorter,
        Option(
            "What follows the speech if the video is longer.",
            "trim: nothing. keep: the rest of the video in silence. keep-sound: the rest with its "
            "own sound.",
            panel="Advanced",
            flags=("--when-audio-is-shorter",),
        ),
    ] = "trim"
    audio_track: Annotated[
        int | None,
        Option(
            "Sound track to use of a file with several, from 1; by default the one that players "
            "choose.",
            minimum=1,
            panel="Advanced",
        ),
    ] = None
    max_side: Annotated[
        int | None,
        Option(
            "Scale the picture down to this longest side in px.",
            "Photos of cameras and phones are larger than most players show.",
            minimum=64,
            panel="Encoding",
            metavar="PX",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How closely faces are followed; see ``detect_tracks``.

    Attributes:
        every: The detector runs on one frame in this many.
        smoothing: Seconds over which tracks are smoothed; 0 for none.
    """

    every: int = 5
    smoothing: float = SMOOTHING_SECONDS


@dataclass(frozen=True, slots=True)
class Finding:
    """How faces are found.

    Attributes:
        detector: The face detector.
        min_score: Its least score in (0,1).
        cache: Whether tracks are stored and reused.
        pace: How closely faces are followed.
        min_size: Least median size of a face, in px of its longer side.
        landmarks: InsightFace's 2d106det.onnx, to find the dense landmarks; None for the bundled
            network.
        dense: Whether tracks carry dense landmarks, so that masks follow each face's own outline.
    """

    detector: Annotated[DetectorName, Option("Face detector.", panel="Faces")] = "mini"
    min_score: Annotated[
        float,
        Option(
            "Least confidence of a detected face: lower finds more faces, and more false ones.",
            minimum=0.01,
            maximum=0.99,
            step=0.01,
            panel="Faces",
        ),
    ] = 0.7
    cache: Annotated[bool, Option("Store and reuse the faces found.", panel="Faces")] = True
    pace: Pace = Pace()
    min_size: int = 0
    landmarks: Annotated[
        Path | None,
        Option(
            "InsightFace's 2d106det.onnx, to use its face outlines for masks.",
            panel="Faces",
        ),
    ] = None
    dense: bool = True


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the output is encoded.

    Attributes:
        codec: A video codec of FFmpeg; None for the one that suits the container (H.264 in MP4).
        crf: Constant rate factor, 0 to 51 (63 for VP9 and AV1); lower is better and larger. NVENC
            takes it as ``cq``; a warning says if the codec has none.
        preset: Speed preset of the codec; ``veryfast`` because encoding is the slowest stage on a
            CPU. NVENC takes p1 to p7, SVT-AV1 0 to 13.
        tag: Whether the file's metadata say that the picture is generated, and by what.
        overwrite: Whether an existing file is replaced.
        repeatable: Whether the same input gives the same bytes; see ``VideoWriter``.
    """

    codec: Annotated[
        str | None,
        Option("FFmpeg video encoder; by default H.264 for MP4.", panel="Encoding"),
    ] = None
    crf: Annotated[
        float,
        Option(
            "Quality of the video: lower is better and larger.",
            panel="Encoding",
            advanced=True,
        ),
    ] = 18
    preset: Annotated[
        str, Option("Encoder preset: slower ones make smaller files.", panel="Encoding")
    ] = "veryfast"
    tag: Annotated[
        bool, Option("State in the file's metadata that the video is generated.", panel="Encoding")
    ] = True
    overwrite: Annotated[bool, Option("Replace an existing output.", flags=("--overwrite",))] = (
        False
    )
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Restore:
    """Options of face restoration after the dub.

    Attributes:
        network: Public name (gfpgan, restoreformer, codeformer; pulled before) or file (.pth,
            .safetensors).
        strength: Opacity of the restored face in [0,1].
        mask: The part of the face that is restored.
    """

    network: Annotated[
        Path | str,
        Option(
            "Sharpen the faces afterwards with gfpgan, restoreformer, codeformer or a weight file.",
            name="restore",
            metavar="NAME[:STRENGTH[:MASK]]",
        ),
    ]
    strength: Annotated[
        float,
        Option(
            "Opacity of the restored face: 0 shows the generated one.",
            minimum=0,
            maximum=1,
            step=0.05,
            name="restore_strength",
            hidden=True,
        ),
    ] = 1.0
    mask: Annotated[
        MaskKind,
        Option(
            "How much of the face is restored.",
            "mouth: mouth and chin. lower: its lower half. face: the whole face. box: the square.",
            name="restore_mask",
            hidden=True,
        ),
    ] = "mouth"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; expected 0 (as it is) to 1 (restored)")
