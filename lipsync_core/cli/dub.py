"""``lipsync dub``: its options, and what they mean to ``dub``."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from ..runtime.timecode import parse_seconds
from .progress import Bar

if TYPE_CHECKING:
    from ..blend.blender import Blend
    from ..models.generator import TalkingFace
    from ..pipelines.dub import DubReport
    from ..types import ProgressCallback


def parse_time(text: str) -> Fraction:
    """``parse_seconds``, for options."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_fps(text: str) -> Fraction:
    """A frame rate such as 25, 29.97 or 30000/1001."""
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise typer.BadParameter(
            f"{text!r} is no frame rate; wanted a number or a ratio, such as 25 or 30000/1001"
        )
    return fps


def parse_pair(text: str) -> tuple[Path, str]:
    """FACE=AUDIO -> (audio, face)."""
    face, equals, audio = text.partition("=")
    if not equals or not audio:
        raise typer.BadParameter(f"{text!r} is no pair; wanted FACE=AUDIO, such as left=anna.wav")
    return Path(audio), face


def _pads(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        top, bottom, left, right = (int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} are no pads; wanted 'top bottom left right' in px, such as '0 10 0 0'"
        ) from None
    return top, bottom, left, right


FaceFile = Annotated[Path, typer.Argument(help="Video or photo (PNG, JPEG, WebP) with the face.")]
Speech = Annotated[Path | None, typer.Argument(help="Speech: any file with sound.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="The dubbed video: .mp4, .mov, .mkv or .webm.")
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(help="FACE=AUDIO, once for each speaker; instead of AUDIO and --face."),
]
Which = Annotated[str, typer.Option("--face", help="largest | left | right | INDEX | x,y")]
Model = Annotated[str, typer.Option(help="A name (see `lipsync models list`) or a weight file.")]
Mask = Annotated[Literal["mouth", "lower", "face", "box"], typer.Option(help="What is redrawn.")]
BlendOption = Annotated[
    Literal["paste", "feather", "pyramid", "poisson", "seamless"],
    typer.Option(help="How it joins its frame."),
]
Feather = Annotated[
    float, typer.Option(min=0, max=0.5, help="Width of the soft edge, as a part of the crop.")
]
FeatherPx = Annotated[
    float | None, typer.Option(min=0, help="The same in px of the picture, instead of --feather.")
]
Detail = Annotated[
    float,
    typer.Option(min=0, max=1, help="How much of the picture's sharpness a drawn mouth gets."),
]
Grain = Annotated[float, typer.Option(min=0, max=1, help="How much of its grain.")]
Colour = Annotated[
    Literal["off", "spread", "covariance"],
    typer.Option(
        "--colour-match",
        help="Bring the colours of the new skin to the old's: in Lab, or as light changes them.",
    ),
]
OcclusionOption = Annotated[
    Literal["ignore", "compare", "parse"],
    typer.Option(
        "--occlusion",
        help="Keep hands, microphones, hair before the mouth: by its first frame, or face_parsing.",
    ),
]
Steady = Annotated[
    float, typer.Option(min=0, max=1, help="How much of a drawn mouth's trembling is taken off.")
]
OwnPixels = Annotated[
    bool,
    typer.Option(
        help="Move the frame's own pixels where the model can (mini); else enlarge its crop."
    ),
]
Strength = Annotated[
    float, typer.Option(min=0, max=1, help="1 shows the new mouth, 0 the old one.")
]
RestoreOption = Annotated[
    str | None,
    typer.Option(
        "--restore",
        help="Restore the faces then: gfpgan, restoreformer, codeformer (pulled) or a file.",
    ),
]
RestoreStrength = Annotated[
    float, typer.Option(min=0, max=1, help="How much of the restored face is seen.")
]
RestoreMask = Annotated[
    Literal["mouth", "lower", "face", "box"], typer.Option(help="Where it is seen.")
]
SilenceOption = Annotated[
    Literal["keep", "close", "generate"],
    typer.Option(
        "--silence",
        help="While nobody speaks: the old mouth, a closed one, or what the model makes of silence.",
    ),
]
ReferenceOption = Annotated[
    Literal["auto", "current", "first", "nearest-closed"],
    typer.Option("--reference", help="Which picture of the person a mouth is drawn from."),
]
SpeakersOption = Annotated[
    str | None,
    typer.Option(
        "--speakers",
        help="auto, or a table of turns (see `lipsync speakers`): who speaks AUDIO, and when.",
    ),
]
Pads = Annotated[
    str | None,
    typer.Option(help="'top bottom left right' px round the detector's box (wav2lip weights)."),
]
Lead = Annotated[
    int | None,
    typer.Option(help="Sound heard this long before its frame; 40 mends wav2lip's early lips."),
]
Start = Annotated[str, typer.Option(help="Cut the video: from here (seconds or h:m:s).")]
End = Annotated[str | None, typer.Option(help="Cut the video: to here.")]
Fps = Annotated[
    str | None, typer.Option(help="Frames per second; the source's average by default.")
]
LongerOption = Annotated[
    Literal["pingpong", "loop", "hold", "trim"],
    typer.Option("--when-audio-is-longer", help="What the picture does then."),
]
Detector = Annotated[Literal["mini", "yunet", "s3fd"], typer.Option(help="Face detector.")]
Landmarks = Annotated[
    Path | None,
    typer.Option(
        help="InsightFace's 2d106det.onnx, for masks by its outline of each face instead of ours."
    ),
]
MinScore = Annotated[float, typer.Option(min=0.01, max=0.99, help="Least score of a face.")]
Cache = Annotated[bool, typer.Option(help="Keep and reuse where the faces are.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda | mps")]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option("--precision", help="auto: bfloat16 where the CPU is built for it."),
]
Batch = Annotated[int, typer.Option(min=1, help="Frames at a time.")]
Codec = Annotated[str | None, typer.Option(help="FFmpeg encoder; H.264 for MP4 by default.")]
Crf = Annotated[float, typer.Option(help="Quality, lower is better and larger.")]
Preset = Annotated[str, typer.Option(help="Encoder preset.")]
Tag = Annotated[bool, typer.Option(help="Say in the metadata that the picture is generated.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def dub_command(
    face: FaceFile,
    audio: Speech = None,
    out: Out = Path("dubbed.mp4"),
    pair: Pairs = None,
    which: Which = "largest",
    model: Model = "mini",
    mask: Mask = "mouth",
    blend: BlendOption = "seamless",
    feather: Feather = 0.08,
    feather_px: FeatherPx = None,
    detail: Detail = 1.0,
    grain: Grain = 1.0,
    colour_match: Colour = "off",
    occlusion: OcclusionOption = "ignore",
    steady: Steady = 0.0,
    own_pixels: OwnPixels = True,
    strength: Strength = 1.0,
    restore: RestoreOption = None,
    restore_strength: RestoreStrength = 1.0,
    restore_mask: RestoreMask = "mouth",
    silence: SilenceOption = "generate",
    reference: ReferenceOption = "auto",
    speakers: SpeakersOption = None,
    pads: Pads = None,
    lead_ms: Lead = None,
    start: Start = "0",
    end: End = None,
    fps: Fps = None,
    longer: LongerOption = "pingpong",
    detector: Detector = "mini",
    min_score: MinScore = 0.7,
    landmarks: Landmarks = None,
    cache: Cache = True,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    batch: Batch = 8,
    codec: Codec = None,
    crf: Crf = 18,
    preset: Preset = "veryfast",
    tag: Tag = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make the face of a video or photo speak."""
    options = dict(locals())  # by the names of the parameters, as rows of `batch` give them too
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as bar:
        report = dub_as_told(options, on_progress=bar)
    _print_report(report, as_json)


def dub_as_told(
    options: Mapping[str, Any],
    *,
    model: "TalkingFace | None" = None,
    on_progress: "ProgressCallback | None" = None,
) -> "DubReport":
    """``dub`` with the ``options`` of `lipsync dub`, named as the parameters of ``dub_command`` and
    parsed by it; ``model``: the network that they name, where somebody holds it."""
    from ..pipelines.dub import dub

    arguments = dub_arguments(options)
    if model is not None:
        arguments["model"] = model
    return dub(**arguments, on_progress=on_progress)


def dub_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``dub`` takes for these options, by its own names. Raises BadParameter and ValueError."""
    from ..pipelines.dub import Cut, Encoding, Finding
    from ..pipelines.restore import Restore

    o = SimpleNamespace(**options)
    if (o.audio is None) == (not o.pair):
        raise typer.BadParameter("give either AUDIO or --pair FACE=AUDIO", param_hint="AUDIO")
    if o.speakers is not None and o.pair:
        raise typer.BadParameter("give either --speakers or --pair", param_hint="--speakers")
    start, end = parse_time(o.start), parse_time(o.end) if o.end else None
    return {
        "face": o.face,
        "audio": o.audio if o.audio is not None else [parse_pair(text) for text in o.pair],
        "out": o.out,
        "model": o.model,
        "model_name": Path(o.model).name,
        "select": o.which,
        "blend": blend_of(o),
        "restore": Restore(o.restore, o.restore_strength, o.restore_mask) if o.restore else None,
        "cut": Cut(start, end, parse_fps(o.fps) if o.fps else None, o.longer),
        "finding": Finding(o.detector, o.min_score, o.cache, landmarks=o.landmarks),
        "encoding": Encoding(o.codec, o.crf, o.preset, o.tag, o.overwrite),
        "silence": o.silence,
        "reference": o.reference,
        "speakers": o.speakers,
        "pads": _pads(o.pads),
        "lead_ms": o.lead_ms,
        "device": o.device,
        "precision": o.precision,
        "batch": o.batch,
    }


def blend_of(options: SimpleNamespace) -> "Blend":
    """The blend that ``options`` of `lipsync dub` name."""
    from ..blend.blender import Blend

    o = options
    return Blend(
        mask=o.mask,
        kind=o.blend,
        feather=o.feather,
        colour_match=None if o.colour_match == "off" else o.colour_match,
        own_pixels=o.own_pixels,
        strength=o.strength,
        feather_px=o.feather_px,
        detail=o.detail,
        grain=o.grain,
        occlusion=o.occlusion,
        steady=o.steady,
    )


def _print_report(report: "DubReport", as_json: bool) -> None:
    if as_json:
        print(report.to_json())
        return
    table = Table(title=str(report.out), show_header=False)
    table.add_row("frames", f"{report.frames} at {float(report.fps):g} fps")
    table.add_row("dubbed", f"{report.dubbed}; {report.passed_through} passed through")
    table.add_row("model", f"{report.model}, faces by {report.detector}")
    if report.restorer is not None:
        table.add_row("restored by", report.restorer)
    table.add_row(
        "seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items())
    )
    for warning in report.warnings:
        table.add_row("warning", warning)
    Console().print(table)
