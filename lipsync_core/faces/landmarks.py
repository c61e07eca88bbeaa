"""Dense landmarks of the people in a clip, found by our own network and steadied over time."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply, crop_to_frame, invert
from ..image.crop import crop_frames, crop_pictures
from ..image.landmarks import INNER_LIPS, JAW, LIP_LAYOUTS, OUTER_LIPS, POINTS, to_own_points
from ..models.face_landmarks import FRAMING, FaceLandmarks
from ..models.layers import prepare_for_inference
from ..models.precision import Precision, choose_dtype
from ..types import FaceTrack, Frames, YuvFrames
from .tracking import smooth_values

VERSION = 3
"""Of what ``add_dense_points`` computes: raise it when that changes, and no stored landmarks of
before are used again."""

SURE = 0.5
"""The least confidence at which landmarks are believed."""

_BATCH = 32  # crops at once: more is no faster on CPUs, and 64 x 64 x 16 numbers of each are held
# Lips follow speech: they are smoothed over so much of the time. Of 0.12 s that keeps 0.97 of what
# moves four times a second and 0.93 of a closure of two frames at 25 fps; the whole of it 0.06 and
# 0.39.
_LIPS_SHARE = 1 / 4
LIPS = {POINTS: (OUTER_LIPS.start, INNER_LIPS.stop), 106: (52, 72)}
"""First and last + 1 of the points of the lips, by the number of points."""
# what speech moves: of our own points the jaw, too
_SPEAKING = {**LIPS, POINTS: (OUTER_LIPS.start, JAW.stop)}


class LandmarkFinder:
    """Finds the 102 points of faces with ``model``, on the device where it is now.

    See ``models.face_landmarks``.

    ``precision``: of the convolutions (see ``choose_dtype``); coordinates are always computed in
    the weights' own. ``version``: what points are stored under, such as the hash of the weights.
    """

    def __init__(
        self, model: FaceLandmarks, *, precision: Precision = "auto", version: str = ""
    ) -> None:
        self.version = version
        self.size = model.config.size
        self._framing = model.config.framing
        self._model = prepare_for_inference(copy.deepcopy(model))
        weight = next(self._model.parameters())
        self._device, self._dtype = weight.device, choose_dtype(weight, precision)
        self._model.trunk.to(self._dtype)
        self._model.narrow.to(self._dtype)

    def maps(self, boxes: Tensor, points: Tensor) -> Tensor:
        """Return the (N,2,3) ``crop_to_frame`` maps of the network's crops.

        boxes (N,4), points (N,5,2).
        """
        return crop_to_frame(boxes.float(), points.float(), self._framing, self.size)

    @torch.no_grad()
    def look(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points of each crop.

        Args:
            crops: (N,3,S,S) RGB in [0,1], framed by ``maps``.

        Returns:
            (N,102,2) points in px of the crop and (N,) how sure in [0,1], float32 on the CPU.
        """
        points, scores = [torch.zeros(0, POINTS, 2)], [torch.zeros(0)]
        for part in crops.split(_BATCH):
            part = part.to(self._device, self._dtype, memory_format=torch.channels_last)
            places, logits = self._model(part)
            points.append(places.cpu())
            scores.append(logits.sigmoid().cpu())
        return torch.cat(points), torch.cat(scores)

    def find(
        self, frames: Frames | YuvFrames, boxes: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find the landmarks of one face in each of ``frames``.

        Args:
            frames: N of them, of any kind.
            boxes: (N,4) the face's boxes, px of the frames.
            points: (N,5,2) its five points, likewise.

        Returns:
            (N,102,2) points in px of the frames and (N,) how sure in [0,1], float32 on the CPU.
        """
        maps = self.maps(boxes, points)
        found, scores = self.look(crop_frames(frames, maps.to(frames.pixels.device), self.size))
        return apply(maps.cpu(), found), scores

    def lips(self, frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor]]:
        """Yield (clip index, outer and inner lips (40,2) in px) of each frame with the face."""
        here = _seen(track, frames)
        seen = Frames(frames.pixels[here - frames.start])
        found, _ = self.find(
            seen, track.boxes[here - track.start], track.points[here - track.start]
        )
        first, last = LIPS[POINTS]
        yield from zip(here.tolist(), found[:, first:last], strict=True)


def add_dense_points(
    tracks: Sequence[FaceTrack],
    frames: Iterable[Frames],
    finder: LandmarkFinder,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    smoothing: float = 0.0,
) -> list[FaceTrack]:
    """Look for the landmarks of everybody in a clip.

    What the network is not sure of is filled in from the nearest frames of which it is, moved with
    eyes and nose. Nothing is smoothed across absences; lips are smoothed over a quarter of the
    time, because they must follow speech.

    Args:
        tracks: the people, each of one scene.
        frames: all of the clip's frames in order, whole or reduced.
        finder: the network.
        scale: px of the tracks that are one px of ``frames``, across and down.
        smoothing: the smoother's standard deviation in frames, 0 for none.

    Returns:
        The tracks with ``dense`` (N,102,2) in their own px and ``dense_scores``; those of which the
        network is mostly unsure while they are visible have the scores alone.
    """
    stretch = torch.tensor(scale)
    maps = [
        finder.maps(track.boxes / stretch.repeat(2), track.points / stretch).cpu()
        for track in tracks
    ]
    dense = [torch.zeros(len(track.visible), POINTS, 2) for track in tracks]
    scores = [torch.zeros(len(track.visible)) for track in tracks]
    for chunk in frames:
        seen = [_seen(track, chunk) for track in tracks]
        crops = [
            crop_pictures(
                chunk.pixels[here - chunk.start],
                own[here - track.start].to(chunk.pixels.device),
                finder.size,
            )
            for track, own, here in zip(tracks, maps, seen, strict=True)
            if len(here)
        ]
        if not crops:
            continue
        counts = [len(here) for here in seen]
        found, sure = finder.look(torch.cat(crops))
        each = zip(
            tracks, dense, scores, seen, found.split(counts), sure.split(counts), maps, strict=True
        )
        size = (chunk.pixels.shape[2], chunk.pixels.shape[1])
        for track, points, score, here, own, certain, to_frame in each:
            at = here - track.start
            points[at] = own
            score[at] = certain.cpu() * _lips_inside(apply(to_frame[at], own.cpu()), size)
    return [
        _finished(track, points, score, own, stretch, smoothing)
        for track, points, score, own in zip(tracks, dense, scores, maps, strict=True)
    ]


def _lips_inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,) 1 where all lips of landmarks (N,102,2) are inside a frame of (width, height), else 0.

    The network guesses what the frame cuts off, and is sure of it.
    """
    first, last = LIPS[POINTS]
    lips = points[:, first:last]
    return ((lips >= 0) & (lips <= lips.new_tensor(size))).all(2).all(1).float()


def smooth_dense(dense: Tensor, visible: Tensor, sigma: float) -> Tensor:
    """Take the jitter from dense points over time, from what speech moves only a little.

    Args:
        dense: (N,K,2), one row a frame.
        visible: (N,) bool; what is not visible is neither smoothed nor used.
        sigma: the smoother's standard deviation in frames (see ``tracking.smooth``).

    Returns:
        (N,K,2).
    """
    out = dense.clone()
    lips = torch.zeros(dense.shape[1], dtype=torch.bool)
    if dense.shape[1] in _SPEAKING:
        lips[slice(*_SPEAKING[dense.shape[1]])] = True
    edges = (
        torch.cat([torch.tensor([0]), visible.cpu().int(), torch.tensor([0])])
        .diff()
        .nonzero()[:, 0]
    )
    for begin, end in edges.view(-1, 2).tolist():
        for which, share in ((lips, _LIPS_SHARE), (~lips, 1.0)):
            part = dense[begin:end, which]
            if part.numel():
                out[begin:end, which] = smooth_values(part.flatten(1), sigma * share).unflatten(
                    1, part.shape[1:]
                )
    return out


def to_own_layout(track: FaceTrack) -> FaceTrack:
    """Give a track the 102 points of our own layout in place of another layout's.

    Args:
        track: a face, with dense points of any layout or none.

    Returns:
        The track; without dense points if its own cannot be converted (``to_own_points``).
    """
    if track.dense is None or track.dense.shape[1] == POINTS or not bool(track.visible.any()):
        return track
    # what lies in frames without the face has no meaning, and may not count as a mouth
    seen = to_own_points(track.dense[track.visible])
    if seen is None:
        return replace(track, dense=None)
    dense = torch.zeros(len(track.visible), POINTS, 2)
    dense[track.visible] = seen.cpu()
    return replace(track, dense=dense)


def unusable_landmarks_warning(tracks: Sequence[FaceTrack]) -> str | None:
    """A sentence for a report where given landmarks do not say where lips are, or None."""
    kinds = {
        track.dense.shape[1]
        for track in tracks
        if track.dense is not None and to_own_layout(track).dense is None
    }
    if not kinds:
        return None
    counts = ", ".join(map(str, sorted(kinds)))
    known = ", ".join(map(str, sorted(LIP_LAYOUTS)))
    return (
        f"the {counts} landmarks given for a face do not show its lips (expected a layout of "
        f"{known} points, with a mouth 0.2 to 1.5 times as wide as the eyes are apart), so lips "
        "are found by the bundled network"
    )


def confident_frames(track: FaceTrack) -> Tensor:
    """(N,) bool: the visible frames whose dense points can be believed.

    All of them if no confidence is known.
    """
    if track.dense is None:
        return torch.zeros_like(track.visible)
    return (
        track.visible
        if track.dense_scores is None
        else track.visible & (track.dense_scores >= SURE)
    )


def confidence_weights(track: FaceTrack) -> Tensor | None:
    """Compute per frame whether the landmarks of a track can be trusted, (N,) in [0,1].

    1 if they can, 0 if they cannot, with a transition of two frames inside the trusted stretch;
    None if no confidence is known.
    """
    if track.dense_scores is None:
        return None
    sure = (track.dense_scores >= SURE).float()
    least = -F.max_pool1d(F.pad(-sure[None], (1, 1), value=-1.0), 3, 1)
    return F.avg_pool1d(F.pad(least, (1, 1), mode="replicate"), 3, 1)[0] * sure


def low_confidence_warning(tracks: Sequence[FaceTrack], *, passed: bool = False) -> str | None:
    """A sentence for a report where landmarks were looked for in ``tracks`` and not found.

    Args:
        tracks: the faces that speak.
        passed: whether such frames are passed through; then one frame in twenty is worth a
            sentence, else every second one.

    Returns:
        The sentence, or None.
    """
    scored = [
        track for track in tracks if track.dense_scores is not None and bool(track.visible.any())
    ]
    unsure = [_unsure_share(track) for track in scored]
    if not unsure or max(unsure) <= (0.05 if passed else 0.5):
        return None
    if passed:
        return (
            f"in {max(unsure):.0%} of its frames a face shows no clear landmarks (turned away, "
            "covered or drawn), so its mouth stays there as it is; another model may do (--model "
            "mini-2, or wav2lip after `lipsync models pull wav2lip`)"
        )
    return (
        f"in {max(unsure):.0%} of its frames a face shows no clear landmarks (turned away, covered "
        "or drawn), so its mask there follows five points instead of its outline"
    )


def fill_missing_points(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """Give tracks without found landmarks the usual ones of the same person's other tracks.

    Args:
        tracks: of one person; their dense points, where there are any, of one layout.

    Returns:
        The tracks, with the mean face of those that have dense points laid upon the eyes and the
        nose of those that have only scores. Unchanged where none or all have them.
    """
    known = [track for track in tracks if track.dense is not None and bool(track.visible.any())]
    if not known:
        return list(tracks)
    shapes: list[Tensor] = []
    for track in known:
        assert track.dense is not None
        seen = confident_frames(track)
        seen = seen if bool(seen.any()) else track.visible
        shapes.append(apply(invert(_unit(track, seen)), track.dense[seen].float()))
    usual = torch.cat(shapes).mean(0)
    filled: list[FaceTrack] = []
    for track in tracks:
        if track.dense is None and track.dense_scores is not None:
            dense = torch.zeros(len(track.visible), len(usual), 2)
            dense[track.visible] = apply(
                _unit(track, track.visible), usual.expand(int(track.visible.sum()), -1, -1)
            )
            track = replace(track, dense=dense)
        filled.append(track)
    return filled


def _unit(track: FaceTrack, which: Tensor) -> Tensor:
    """Return (n,2,3) maps from a unit square laid upon eyes and nose to px.

    They are those of the frames ``which`` (N,) bool.
    """
    return crop_to_frame(track.boxes[which].float(), track.points[which].float(), FRAMING, 1)


def _unsure_share(track: FaceTrack) -> float:
    assert track.dense_scores is not None
    return float((track.dense_scores[track.visible] < SURE).float().mean())


def _seen(track: FaceTrack, frames: Frames) -> Tensor:
    """(n,) clip indices of the ``frames`` in which the face is visible."""
    first = max(frames.start, track.start)
    last = min(frames.start + len(frames.pixels), track.start + len(track.visible))
    return (
        first
        + track.visible[first - track.start : max(last, first) - track.start].cpu().nonzero()[:, 0]
    )


def _finished(
    track: FaceTrack,
    points: Tensor,
    scores: Tensor,
    maps: Tensor,
    stretch: Tensor,
    smoothing: float,
) -> FaceTrack:
    """``track`` with ``points`` (N,102,2), crop px, filled in and smoothed, in its own px."""
    scored = replace(track, dense_scores=scores)
    visible = track.visible.cpu()
    if not bool(visible.any()) or _unsure_share(scored) > 0.5:
        return scored
    placed = apply(maps, _filled(points, visible, visible & (scores >= SURE))).mul_(stretch)
    return replace(
        scored, dense=smooth_dense(placed, visible, smoothing).mul_(visible[:, None, None])
    )


def _filled(points: Tensor, visible: Tensor, sure: Tensor) -> Tensor:
    """Interpolate the unsure visible frames of ``points`` (N,K,2) between the nearest sure ones."""
    known, wanted = sure.nonzero()[:, 0], (visible & ~sure).nonzero()[:, 0]
    if not len(known) or not len(wanted):
        return points
    right = torch.searchsorted(known, wanted)
    before, after = known[(right - 1).clamp_min(0)], known[right.clamp_max(len(known) - 1)]
    share = ((wanted - before) / (after - before).clamp_min(1)).clamp(0, 1)[:, None, None]
    filled = points.clone()
    filled[wanted] = torch.lerp(points[before], points[after], share)
    return filled
