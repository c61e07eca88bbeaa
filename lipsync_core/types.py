"""Hold the values that pass between the modules.

Conventions, stated once: RGB; frames are (N,H,W,3), in memory interleaved or (what files give, and
quicker) views of planes, uint8 in [0,255] or float in [0,1]; crops are planar (N,3,S,S) float in
[0,1]; coordinates are continuous pixels, pixel i spans [i, i+1) (align_corners=False); boxes are
xyxy, half-open; points are (x, y); matrices are named for what they map; time is a frame index, fps
a Fraction, a sample rate an int in Hz. ``__post_init__`` checks shapes and dtypes, never values
(that would synchronize a GPU).
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and its total."""


def _check(ok: bool, name: str, got: Tensor, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {tuple(got.shape)} {got.dtype}; expected {expected}")


def _check_dense(dense: Tensor | None, count: int, scores: Tensor | None = None) -> None:
    if dense is not None:
        ok = (
            dense.ndim == 3
            and dense.shape[0] == count
            and dense.shape[2] == 2
            and dense.is_floating_point()
        )
        _check(ok, "dense", dense, f"({count},K,2) float")
    if scores is not None:
        ok = scores.shape == (count,) and scores.is_floating_point()
        _check(ok, "dense_scores", scores, f"({count},) float")


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Sound samples with their rate.

    Attributes:
        samples: (C,T) float32 in [-1,1].
        rate: Sample rate in Hz, above 0.
    """

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        _check(
            self.samples.ndim == 2 and self.samples.is_floating_point(),
            "samples",
            self.samples,
            "(C,T) float",
        )
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate} Hz; expected a positive integer")


@dataclass(frozen=True, slots=True)
class ColourTags:
    """The codes of ITU-T H.273 that say how decoded YUV maps to light; 2 means unspecified.

    Attributes:
        primaries: Code of the color primaries.
        transfer: Code of the transfer characteristics.
        matrix: Code of the matrix coefficients.
        full_range: Whether luma spans 0..255.
    """

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about one video stream.

    Attributes:
        width: Width in px after rotation.
        height: Height in px after rotation.
        fps: Frames per second, constant.
        frames: Number of frames; None when the container does not say.
        colour: How its YUV maps to light.
        still: Whether it is a still picture.
        pixel_aspect: Width of a pixel as shown, divided by its height; not 1 in anamorphic video.
    """

    width: int
    height: int
    fps: Fraction
    frames: int | None
    colour: ColourTags = ColourTags()
    still: bool = False
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Consecutive RGB frames, the unit of streaming.

    Attributes:
        pixels: (N,H,W,3) uint8 in [0,255] or float in [0,1].
        start: Clip index of ``pixels[0]``.
    """

    pixels: Tensor
    start: int = 0

    def __post_init__(self) -> None:
        ok = self.pixels.ndim == 4 and self.pixels.shape[-1] == 3
        ok = ok and (self.pixels.dtype == torch.uint8 or self.pixels.is_floating_point())
        _check(ok, "pixels", self.pixels, "(N,H,W,3) uint8 in [0,255] or float in [0,1]")


@dataclass(frozen=True, slots=True, eq=False)
class YuvFrames:
    """Consecutive YUV 4:2:0 frames as most files hold them: half the bytes of RGB, and lossless.

    Chroma is taken to be centered on its four pixels of luma; most files place it half a pixel to
    the left, which is not visible.

    Attributes:
        pixels: (N,H*3/2,W) uint8, H and W even: H rows of luma, then (2,H/2,W/2) chroma (blue,
            red).
        colour: How the YUV maps to light.
        start: Clip index of ``pixels[0]``.
    """

    pixels: Tensor
    colour: ColourTags
    start: int = 0

    def __post_init__(self) -> None:
        ok = self.pixels.ndim == 3 and self.pixels.dtype == torch.uint8
        ok = ok and self.pixels.shape[1] % 3 == 0 and self.pixels.shape[2] % 2 == 0
        _check(ok, "pixels", self.pixels, "(N,H*3/2,W) uint8 with even H and W")

    @property
    def luma(self) -> Tensor:
        """The luma (N,1,H,W), a view."""
        return self.pixels[:, None, : self.pixels.shape[1] * 2 // 3]

    @property
    def chroma(self) -> Tensor:
        """The chroma (N,2,H/2,W/2), a view."""
        n, rows, width = self.pixels.shape
        return self.pixels[:, rows * 2 // 3 :].view(n, 2, rows // 3, width // 2)


AnyFrames = TypeVar("AnyFrames", bound=Frames | YuvFrames)


def size_of(frames: Frames | YuvFrames) -> tuple[int, int]:
    """Return the height and width of ``frames`` in px."""
    height, width = frames.pixels.shape[1:3]
    return (height * 2 // 3, width) if isinstance(frames, YuvFrames) else (height, width)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces of one image, best first.

    Attributes:
        boxes: (F,4) xyxy in px.
        points: (F,5,2) right eye, left eye, nose, right and left mouth corner in px (the person's
            right, so image-left first).
        scores: (F,) in [0,1].
        dense: (F,K,2) landmarks in px, in the layout given by K (``blend.landmark_masks.LAYOUTS``);
            None without landmarks.
    """

    boxes: Tensor
    points: Tensor
    scores: Tensor
    dense: Tensor | None = None

    def __post_init__(self) -> None:
        f = self.scores.shape[0]
        _check(self.scores.ndim == 1, "scores", self.scores, "(F,)")
        _check(self.boxes.shape == (f, 4), "boxes", self.boxes, f"({f},4)")
        _check(self.points.shape == (f, 5, 2), "points", self.points, f"({f},5,2)")
        _check_dense(self.dense, f)


@dataclass(frozen=True, slots=True, eq=False)
class Overlays:
    """Burnt-in captions and logos over a face, which lie still in the picture.

    Attributes:
        index: (N,) int64, for each frame of the track the number of its mask; -1 for none.
        masks: K masks (h,w) in [0,1], how much of each place is covered.
        places: (K,4) xyxy in px, the rectangle of the picture that each mask covers.
    """

    index: Tensor
    masks: tuple[Tensor, ...]
    places: Tensor

    def __post_init__(self) -> None:
        k = len(self.masks)
        _check(self.index.dtype == torch.int64, "index", self.index, "(N,) int64")
        _check(self.places.shape == (k, 4), "places", self.places, f"({k},4)")


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """One person over the clip frames ``start`` .. ``start+N-1``.

    Frames in which the person is not visible pass through untouched; their boxes and points have no
    meaning. A cut begins a new scene and new tracks.

    Attributes:
        boxes: (N,4) xyxy in px.
        points: (N,5,2) in px, ordered as in ``Detections``.
        visible: (N,) bool.
        start: Clip index of the first frame.
        scene: Clip index of the first frame of the track's scene.
        dense: (N,K,2) landmarks in px, in the layout given by K (``blend.landmark_masks.LAYOUTS``);
            None without landmarks.
        dense_scores: (N,) in [0,1], the landmark network's confidence in each frame; None when
            unknown. Scores without ``dense`` mean that landmarks were searched for and mostly not
            found.
        overlays: Captions and logos over the face; None for none, or if they were not looked for.
        pixel_aspect: Width of a pixel as shown, divided by its height.
    """

    boxes: Tensor
    points: Tensor
    visible: Tensor
    start: int = 0
    scene: int = 0
    dense: Tensor | None = None
    dense_scores: Tensor | None = None
    overlays: Overlays | None = None
    pixel_aspect: float = 1.0

    def __post_init__(self) -> None:
        n = self.visible.shape[0]
        if self.overlays is not None:
            index = self.overlays.index
            _check(index.shape == (n,), "overlays.index", index, f"({n},)")
        _check(
            self.visible.ndim == 1 and self.visible.dtype == torch.bool,
            "visible",
            self.visible,
            "(N,) bool",
        )
        _check(self.boxes.shape == (n, 4), "boxes", self.boxes, f"({n},4)")
        _check(self.points.shape == (n, 5, 2), "points", self.points, f"({n},5,2)")
        _check_dense(self.dense, n, self.dense_scores)


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Reference pictures of one person, cut out of single frames of the source.

    Attributes:
        patches: K pictures around the face, coded as in the source, wide enough for crops by the
            face's points or by its box.
        boxes: (K,4) box of the face in px of its patch.
        points: (K,5,2) points of the face in px of its patch.
        index: (T,) int64, the patch used for each output frame.
        dense: (K,L,2) landmarks in px of its patch; None without landmarks.
        pixel_aspect: Width of a pixel as shown, divided by its height.
    """

    patches: tuple[Frames | YuvFrames, ...]
    boxes: Tensor
    points: Tensor
    index: Tensor
    dense: Tensor | None = None
    pixel_aspect: float = 1.0

    def __post_init__(self) -> None:
        k = len(self.patches)
        _check_dense(self.dense, k)
        _check(self.boxes.shape == (k, 4), "boxes", self.boxes, f"({k},4)")
        _check(self.points.shape == (k, 5, 2), "points", self.points, f"({k},5,2)")
        _check(
            self.index.ndim == 1 and self.index.dtype == torch.int64,
            "index",
            self.index,
            "(T,) int64",
        )


@dataclass(frozen=True, slots=True, eq=False)
class SyncScore:
    """How well lips and sound agree; scores of two different ``scorer``s are not comparable.

    Attributes:
        scorer: Name of the network that scored.
        offset_frames: Above 0 when the sound is early (leads the picture); delaying it by
            offset/fps seconds repairs that. None when the curve shows no offset.
        offset_ms: The same offset in milliseconds.
        distance: Minimum of ``curve``.
        confidence: Median of ``curve`` minus its minimum.
        frame_confidence: (N,) the confidence of each frame.
        curve: (2K+1,) mean distance with the sound taken K-j frames earlier, j = 0..2K; NaN if
            nothing was compared.
        search_frames: K, the largest offset searched.
        uncertainty: Standard error of the offset in frames; None when unavailable.
        reason: Why there is no offset; None if there is one.
    """

    scorer: str
    offset_frames: int | None
    offset_ms: float | None
    distance: float
    confidence: float
    frame_confidence: Tensor
    curve: Tensor
    search_frames: int
    uncertainty: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        _check(
            self.curve.shape == (2 * self.search_frames + 1,),
            "curve",
            self.curve,
            "(2*search_frames+1,)",
        )
        if (self.offset_frames is None) == (self.reason is None):
            raise ValueError("a score has either an offset or a reason for having none")
