"""The values that flow between the rooms.

Conventions, stated once: RGB; frames are (N,H,W,3), in memory interleaved or (what files give, and
quicker) views of planes, uint8 in [0,255] or float in [0,1]; crops are planar (N,3,S,S) float in
[0,1]; coordinates are continuous pixels, pixel i spans [i, i+1) (align_corners=False); boxes are
xyxy, half-open; points are (x, y); matrices are named for what they map; time is a frame index, fps
a Fraction, a sample rate an int in Hz. ``__post_init__`` checks shapes and dtypes, never values
(that would synchronise a GPU).
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and its total."""


def _check(ok: bool, name: str, got: Tensor, wanted: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {tuple(got.shape)} {got.dtype}; wanted {wanted}")


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
    """Sound: ``samples`` (C,T) float32 in [-1,1] at ``rate`` Hz."""

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
            raise ValueError(f"rate is {self.rate} Hz; wanted a positive integer")


@dataclass(frozen=True, slots=True)
class ColourTags:
    """How decoded YUV maps to light, as the codes of ITU-T H.273; 2 means unspecified.
    ``full_range``: 0..255 luma."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A picture stream: size in px after rotation, constant ``fps``, ``frames`` (None when the
    container does not say)."""

    width: int
    height: int
    fps: Fraction
    frames: int | None
    colour: ColourTags = ColourTags()
    still: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The unit of streaming: ``pixels`` (N,H,W,3) uint8 or float; ``start`` is the clip index of
    ``pixels[0]``."""

    pixels: Tensor
    start: int = 0

    def __post_init__(self) -> None:
        ok = self.pixels.ndim == 4 and self.pixels.shape[-1] == 3
        ok = ok and (self.pixels.dtype == torch.uint8 or self.pixels.is_floating_point())
        _check(ok, "pixels", self.pixels, "(N,H,W,3) uint8 in [0,255] or float in [0,1]")


@dataclass(frozen=True, slots=True, eq=False)
class YuvFrames:
    """Frames as most files hold them, half the bytes and nothing lost on the way through:
    ``pixels`` (N,H*3/2,W) uint8, the first H rows luma, in the rest (2,H/2,W/2) chroma (blue, red),
    coded as ``colour`` says. H and W are even. Chroma is taken to lie amid its four pixels of luma;
    most files place it half a pixel to the left, which nobody sees."""

    pixels: Tensor
    colour: ColourTags
    start: int = 0

    def __post_init__(self) -> None:
        ok = self.pixels.ndim == 3 and self.pixels.dtype == torch.uint8
        ok = ok and self.pixels.shape[1] % 3 == 0 and self.pixels.shape[2] % 2 == 0
        _check(ok, "pixels", self.pixels, "(N,H*3/2,W) uint8 with even H and W")

    @property
    def luma(self) -> Tensor:
        """(N,1,H,W), a view."""
        return self.pixels[:, None, : self.pixels.shape[1] * 2 // 3]

    @property
    def chroma(self) -> Tensor:
        """(N,2,H/2,W/2), a view."""
        n, rows, width = self.pixels.shape
        return self.pixels[:, rows * 2 // 3 :].view(n, 2, rows // 3, width // 2)


AnyFrames = TypeVar("AnyFrames", bound=Frames | YuvFrames)


def size_of(frames: Frames | YuvFrames) -> tuple[int, int]:
    """Height and width in px."""
    height, width = frames.pixels.shape[1:3]
    return (height * 2 // 3, width) if isinstance(frames, YuvFrames) else (height, width)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces of one image, best first: ``boxes`` (F,4) xyxy; ``points`` (F,5,2) right eye, left eye,
    nose, right and left mouth corner (the person's right, so image-left first); ``scores`` (F,) in
    [0,1]. ``dense`` (F,K,2): landmarks in a layout that K tells (``blend.outlines.LAYOUTS``), where
    there are any."""

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
class FaceTrack:
    """One person: ``boxes`` (N,4), ``points`` (N,5,2), ``visible`` (N,) bool, for clip frames
    ``start`` .. ``start+N-1``. Invisible frames pass through untouched; their boxes and points are
    not meaningful. ``scene`` is the clip index at which the scene begins that the track lies in: a
    cut begins a new scene and new tracks. ``dense`` (N,K,2): landmarks in a layout that K tells
    (``blend.outlines.LAYOUTS``), where there are any. ``dense_scores`` (N,) in [0,1]: how sure the
    network that found them is of each frame; None where nobody tells. Scores without ``dense``:
    looked for, and mostly not found."""

    boxes: Tensor
    points: Tensor
    visible: Tensor
    start: int = 0
    scene: int = 0
    dense: Tensor | None = None
    dense_scores: Tensor | None = None

    def __post_init__(self) -> None:
        n = self.visible.shape[0]
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
    """Pictures of one person to draw from: K ``patches``, single frames cut out of the source round
    the face, as the source codes them, wide enough for crops by its points or by its box; ``boxes``
    (K,4) and ``points`` (K,5,2) of the face in px of its patch; ``index`` (T,) which one stands for
    each output frame. ``dense`` (K,L,2): landmarks in px of its patch, where there are any."""

    patches: tuple[Frames | YuvFrames, ...]
    boxes: Tensor
    points: Tensor
    index: Tensor
    dense: Tensor | None = None

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
    """How well lips and sound agree. ``offset_frames`` > 0: the sound is early (leads the picture)
    and is repaired by delaying it offset/fps seconds; None where the curve tells nothing, and
    ``reason`` says why. ``curve`` (2K+1,) mean distance with the sound taken K-j frames earlier, j
    = 0..2K, NaN where nothing was compared; ``distance`` its minimum, ``confidence`` its median
    minus that; ``frame_confidence`` (N,) the same, frame by frame. ``search_frames``: K.
    ``uncertainty``: standard error of the offset in frames (None: not to be had). Figures of two
    ``scorer``s do not compare."""

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
