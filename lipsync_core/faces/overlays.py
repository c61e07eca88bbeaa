"""Find burnt-in captions and logos over faces: edges that stay in place while the face moves.

An edge counts where its slope keeps its place, size and direction over a second. On a face that
keeps still its own edges do so, too; an overlay is therefore only accepted where the picture round
such edges changes, or where they are sharp and the landmarks under them are seen to move. On 104
clips of talking people the edges of a face itself reach 0.0027 of its width squared by the first
rule and 0.0078 by the second; drawn captions and logos 0.006 and 0.019 or more in 95 of 100 clips.
Edges that the face moves along do not count: of 34 further clips with captions 32 are found with
that rule and 34 without, but so is the mouth of a photo that sways.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import FaceTrack, Frames, Overlays

VERSION = 2
"""Of what ``OverlaySearch`` finds: raise it when that changes, to use nothing stored before."""

_RATE = 12.5  # frames per second that are looked at
_BLOCK, _BLOCKS = 4, 3  # such frames whose sums are kept together, and blocks of a window
_STEADY = 0.25  # spread of an edge's slope as a share of it, at most
_FAINT, _CLEAR, _SHARP = 16.0, 24.0, 48.0  # slopes in levels of 255 per px
_ACTIVE = 7.0  # levels by which the picture round an edge varies over a window
# Areas of edges by which an overlay is accepted, as shares of the face's width squared, and the
# part of them with which a window is kept that may show the same overlay as an accepted one.
_AMID_MOTION, _SHARP_AREA, _KEPT = 0.006, 0.015, 0.5
_BESIDE = 0.15  # of the face's width: how far from its landmarks an edge is over the face
_MOVED = 0.02  # of the face's width: the least movement of landmarks under an accepted edge
_REACH = 0.12  # of the face's width: how far from accepted edges fainter ones belong to them
_AROUND = 0.06  # of the face's width: what "round an edge" means
_STROKE = 0.03  # of the face's width: half of the widest stroke that is filled
_SAME = 0.5  # share of the larger of two masks that both have, where they show one overlay
# Levels: spread over place and time of a plain box behind a text, and how far it is from a face.
_PLAIN, _STILL, _UNLIKE_FACE = 8.0, 3.0, 40.0


class _Sums:
    """Sums over the frames of a block, (h,w): luma, its square, and the squares of its slopes."""

    def __init__(self, first: int, luma: Tensor) -> None:
        self.first = first
        self.count = 0
        self.luma, self.luma2, self.slope2 = (torch.zeros_like(luma) for _ in range(3))

    def add(self, luma: Tensor) -> None:
        """Add a frame (h,w)."""
        across, down = luma.diff(dim=1), luma.diff(dim=0)
        self.luma += luma
        self.luma2.addcmul_(luma, luma)
        self.slope2[:, :-1].addcmul_(across, across)
        self.slope2[:-1].addcmul_(down, down)
        self.count += 1

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Return the mean slopes (h,w) across and down."""
        mean = self.luma / self.count
        return F.pad(mean.diff(dim=1), (0, 1)), F.pad(mean.diff(dim=0), (0, 0, 0, 1))

    def __add__(self, other: "_Sums") -> "_Sums":
        both = _Sums(self.first, self.luma)
        both.count = self.count + other.count
        both.luma, both.luma2 = self.luma + other.luma, self.luma2 + other.luma2
        both.slope2 = self.slope2 + other.slope2
        return both


@dataclass(slots=True)
class _Window:
    """A window that holds many steady edges.

    Attributes:
        first: Frame from which its edges are there.
        stop: Frame before which they are.
        edges: (h,w) bool, its steady edges and the plain box behind them.
        amid: (h,w) bool, clear edges with motion round them.
        sharp: (h,w) bool, sharp edges.
        slopes: (2,h,w) mean slopes across and down.
        frames: (first, stop) of the frames that it was measured on.
    """

    first: int
    stop: int
    edges: Tensor
    amid: Tensor
    sharp: Tensor
    slopes: Tensor
    frames: tuple[int, int]


@dataclass(slots=True)
class _Edges:
    """The steady edges of a window: places (h,w) bool, mean slopes across and down (K,)."""

    places: Tensor
    across: Tensor
    down: Tensor

    def show_in(self, luma: Tensor) -> bool:
        """Whether most of the edges are in a frame (h,w), if faintly."""
        across = F.pad(luma.diff(dim=1), (0, 1))[self.places]
        down = F.pad(luma.diff(dim=0), (0, 0, 0, 1))[self.places]
        dot = across * self.across + down * self.down
        return bool((dot / (self.across.square() + self.down.square())).median() >= 0.3)


@dataclass(slots=True)
class _Area:
    """What is collected about one track, in reduced px.

    Attributes:
        box: Left, top, right and bottom of the lower face over the whole track.
        width: Of the face, median.
        blocks: The last blocks, the current one last.
        windows: Windows with many steady edges.
        open: The last window and its edges, while the overlay may go on after it.
        recent: The last frames (h,w) with their numbers, also those that are not looked at.
    """

    box: tuple[int, int, int, int]
    width: float
    blocks: list[_Sums] = field(default_factory=list[_Sums])
    windows: list[_Window] = field(default_factory=list[_Window])
    open: tuple[_Window, _Edges] | None = None
    recent: deque[tuple[int, Tensor]] = field(default_factory=deque[tuple[int, Tensor]])


class OverlaySearch:
    """Collects what lies still over faces, from the frames in which they were found.

    Args:
        tracks: The faces.
        scale: Px of the tracks per px of the frames, across and down.
        fps: Frames per second.
    """

    def __init__(self, tracks: Sequence[FaceTrack], scale: tuple[float, float], fps: float) -> None:
        self._tracks = list(tracks)
        self._stretch = torch.tensor(scale)
        self._step = max(1, round(fps / _RATE))
        self._areas: list[_Area | None] = [None] * len(tracks)

    def watch(self, frames: Iterable[Frames]) -> Iterable[Frames]:
        """Yield frames, reduced as for the detector, and look at them."""
        for chunk in frames:
            self.add(chunk)
            yield chunk

    def add(self, frames: Frames) -> None:
        """Look at the next frames."""
        size = (frames.pixels.shape[2], frames.pixels.shape[1])
        scale = 1.0 if frames.pixels.dtype == torch.uint8 else 255.0
        for number, track in enumerate(self._tracks):
            for index, picture in enumerate(frames.pixels, frames.start):
                place = index - track.start
                if not 0 <= place < len(track.visible) or not bool(track.visible[place]):
                    continue
                area = self._areas[number] or _place_area(track, self._stretch, size)
                self._areas[number] = area
                x0, y0, x1, y1 = area.box
                if x1 - x0 > 2 and y1 - y0 > 2:
                    # green is most of the luma, and a third of the work
                    cut = picture[y0:y1, x0:x1, 1].cpu()
                    self._add(area, index, cut.contiguous() if scale == 1 else cut * scale)

    def _add(self, area: _Area, index: int, luma: Tensor) -> None:
        recent, blocks = area.recent, area.blocks
        if recent and index > recent[-1][0] + 1:  # was away
            recent.clear()
            blocks.clear()
            area.open = None
        recent.append((index, luma))
        if len(recent) > (_BLOCKS + 1) * _BLOCK * self._step:
            recent.popleft()
        if area.open is not None:
            window, edges = area.open
            if edges.show_in(luma.float()):
                window.stop = index + 1
            else:
                area.open = None
        if index % self._step:
            return
        if not blocks or blocks[-1].count == _BLOCK:
            blocks.append(_Sums(index, luma.float()))
        blocks[-1].add(luma.float())
        if blocks[-1].count == _BLOCK:
            del blocks[:-_BLOCKS]
            if len(blocks) == _BLOCKS:
                self._close_window(area)

    def _close_window(self, area: _Area) -> None:
        """Keep the window of the last blocks if it holds many steady edges."""
        a, b, c = area.blocks
        sums = a + b + c
        across, down = sums.slopes()
        slope2 = across.square() + down.square()
        spread2 = (sums.slope2 / sums.count - slope2).clamp_min(0)
        steady = (slope2 >= _FAINT**2) & (spread2 <= _STEADY**2 * slope2)
        clear = steady & (slope2 >= _CLEAR**2)
        least = _KEPT * area.width**2
        if int(clear.sum()) < least * _AMID_MOTION:
            return
        luma = sums.luma / sums.count
        varied = (sums.luma2 / sums.count - luma.square()).clamp_min(0).sqrt()
        loose = (~steady).float()
        around = _average(torch.stack([varied * loose, loose]), _AROUND * area.width)
        amid = clear & (around[0] >= _ACTIVE * around[1].clamp_min(0.05))
        sharp = steady & (slope2 >= _SHARP**2)
        if int(amid.sum()) < least * _AMID_MOTION and int(sharp.sum()) < least * _SHARP_AREA:
            return
        boxes = _find_boxes(steady, luma, varied, max(1, int(_AROUND * area.width)))
        first, stop = a.first, area.recent[-1][0] + 1
        slopes = torch.stack([across, down])
        window = _Window(first, stop, steady | boxes, amid, sharp, slopes, (first, stop))
        edges = _Edges(steady, across[steady], down[steady])
        for index, picture in reversed(area.recent):
            if index < window.first:
                if not edges.show_in(picture.float()):
                    break
                window.first = index
        area.windows.append(window)
        area.open = (window, edges)

    def finish(self, tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
        """Return the tracks, as many as were given, with what lies over them.

        Args:
            tracks: The same tracks, with dense landmarks where they were found.
        """
        return [
            track if area is None else self._finish(track, area)
            for track, area in zip(tracks, self._areas, strict=True)
        ]

    def _finish(self, track: FaceTrack, area: _Area) -> FaceTrack:
        runs = [run for run in _chain(area.windows) if self._accept(track, area, run)]
        if not runs:
            return track
        masks: list[Tensor] = []
        index = torch.full((len(track.visible),), -1, dtype=torch.int64)
        for run in runs:
            mask = _join(run, area.width)
            first = max(min(w.first for w in run) - track.start, 0)
            stop = max(max(w.stop for w in run) - track.start, first)
            here = index[first:stop]
            for other in here.unique().tolist():  # two at once: a mask of both
                masks.append(mask if other < 0 else torch.maximum(mask, masks[other]))
                here[here == other] = len(masks) - 1
        x0, y0, x1, y1 = area.box
        place = torch.tensor([x0, y0, x1, y1]) * self._stretch.repeat(2)
        return replace(track, overlays=Overlays(index, tuple(masks), place.expand(len(masks), 4)))

    def _accept(self, track: FaceTrack, area: _Area, run: Sequence[_Window]) -> bool:
        """Whether the edges of a run of windows lie over the face and not on it."""
        unit = area.width**2
        for window in run:
            near, moved = self._look_at_face(track, area, window)
            amid, sharp = int((window.amid & near).sum()), int((window.sharp & moved).sum())
            if amid >= _AMID_MOTION * unit or sharp >= _SHARP_AREA * unit:
                return True
        return False

    def _look_at_face(
        self, track: FaceTrack, area: _Area, window: _Window
    ) -> tuple[Tensor, Tensor]:
        """(h,w) bool: the edges of a window by the face, and those that would move with the face.

        An edge that the face moves along, such as the line between the lips of a head that sways,
        keeps its place as an overlay does: it is neither.
        """
        edges = window.amid | window.sharp
        near, moved = torch.zeros_like(edges), torch.zeros_like(edges)
        first, stop = (max(frame - track.start, 0) for frame in window.frames)
        seen = track.visible[first:stop]
        points = track.points if track.dense is None else track.dense
        points = points[first:stop][seen].float() / self._stretch
        if not len(points):
            return near, moved
        places = edges.nonzero().flip(1) + points.new_tensor(area.box[:2]) + 0.5
        nearest = torch.cdist(places, points.mean(0)).topk(3, largest=False)
        around = points[:, nearest.indices]  # (N,K,3,2)
        slope = window.slopes[:, edges].T
        normal = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-6)
        least = max(1.0, _MOVED * area.width)
        across = _range((around * normal[:, None]).sum(-1)).amin(1) >= least
        along = _range(around).norm(dim=-1).amax(1) >= least
        by = nearest.values[:, 0] <= _BESIDE * area.width
        near[edges] = by & (across | ~along)
        moved[edges] = by & across & (track.dense is not None)
        return near, moved


def _range(values: Tensor) -> Tensor:
    """The range of values (N,...) over N frames."""
    return values.amax(0) - values.amin(0)


def covered_frames(track: FaceTrack) -> Tensor:
    """(N,) bool: the visible frames in which an overlay lies over the face."""
    if track.overlays is None:
        return torch.zeros_like(track.visible)
    return track.visible & (track.overlays.index >= 0)


def _place_area(track: FaceTrack, stretch: Tensor, size: tuple[int, int]) -> _Area:
    boxes = track.boxes[track.visible] / stretch.repeat(2)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    left, right = int(boxes[:, 0].min()), int(boxes[:, 2].max()) + 1
    top = int((boxes[:, 1] + 0.45 * height).min())
    bottom = int((boxes[:, 3] + 0.2 * height).max()) + 1
    box = (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1]))
    return _Area(box, float(width.median()))


def _average(x: Tensor, reach: float) -> Tensor:
    """(C,h,w) averages over squares of about ``reach`` px to each side, on a coarser grid."""
    step = max(1, int(reach / 1.5))
    coarse = F.avg_pool2d(x[None], step, ceil_mode=True)
    coarse = F.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)
    return F.interpolate(coarse, scale_factor=step)[0, :, : x.shape[1], : x.shape[2]]


def _grow(mask: Tensor, reach: int) -> Tensor:
    """(h,w) bool: ``mask`` and all within ``reach`` px, across and down."""
    side = 2 * reach + 1
    rows = F.max_pool2d(mask.float()[None, None], (side, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, side), 1, (0, reach))[0, 0] > 0


def _find_boxes(steady: Tensor, luma: Tensor, varied: Tensor, reach: int) -> Tensor:
    """(h,w) bool: the plain, still box behind a text, of another brightness than the face."""
    still = (varied <= _STILL) & ~steady
    beside, face = luma[still & _grow(steady, 2)], luma[(varied > _STILL) & ~steady]
    if not len(beside):
        return still & False
    level = beside.median()
    if (level - (face if len(face) else luma).median()).abs() < _UNLIKE_FACE:
        return still & False
    return still & ((luma - level).abs() <= _PLAIN) & _grow(steady, 2 * reach)


def _chain(windows: Sequence[_Window]) -> list[list[_Window]]:
    """Join windows that follow one another and show the same overlay."""
    runs: list[list[_Window]] = []
    for window in windows:
        last = runs[-1][-1] if runs else None
        if last is not None and window.frames[0] < last.frames[1]:
            both = int((window.edges & last.edges).sum())
            if both >= _SAME * max(int(window.edges.sum()), int(last.edges.sum())):
                runs[-1].append(window)
                continue
        runs.append([window])
    return runs


def _join(run: Sequence[_Window], width: float) -> Tensor:
    """(h,w) in [0,1]: the soft mask of an overlay by the windows that show it."""
    often = torch.stack([window.edges for window in run]).float().mean(0) >= 0.5
    sure = torch.stack([window.amid | window.sharp for window in run]).any(0) & often
    kept = often & _grow(sure, max(2, int(_REACH * width)))
    kept = kept | F.pad(kept[:, :-1], (1, 0)) | F.pad(kept[:-1], (0, 0, 1, 0))  # both ends of edges
    stroke = max(1, int(_STROKE * width))
    filled = ~_grow(~_grow(kept, stroke), stroke)
    mask = _grow(filled | kept, 1).float()
    return F.avg_pool2d(F.pad(mask[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
