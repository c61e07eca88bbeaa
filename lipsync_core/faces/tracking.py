"""From faces in single frames to people over time: association, gaps, smoothing."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ..image.boxes import box_iou
from ..options import SMOOTHING_SECONDS
from ..types import Detections, FaceTrack, Frames
from . import Detector
from .detector_runs import DetectorRuns
from .gaps import Pictures, confirm_gaps

# Association. Distances in face sizes, a size being the square root of the box's area.
# how far and how much larger than predicted a face may be to be the same person
_REACH, _GROWTH = 1.0, math.log(2.0)
# the same after an absence, when only the place speaks for it
_REACH_AFTER_GAP, _GROWTH_AFTER_GAP = 0.5, math.log(1.5)
# more than any cost: people seen in the last run choose before those who were lost
_SEEN_FIRST = 10.0

# Of the longest gap that is filled, a second: what is there for less is taken for a false alarm,
# and the velocity is that over this time.
_LEAST_SHARE = 0.4
_LEAST_SIGHTINGS = 3
_USUAL_FPS = 25  # at which the accuracy of ``every`` was measured

_SMOOTHED_AT_ONCE = 2048  # frames


@dataclass(slots=True)
class _Person:
    """Sightings of one person in one scene.

    Frame indices and values (14 + 2K,): the box, the five points and K dense ones.
    """

    frames: list[int] = field(default_factory=list[int])
    values: list[Tensor] = field(default_factory=list[Tensor])

    def predict(self, frame: int, max_gap: int) -> Tensor:
        """Return the box (4,) expected in ``frame``, or the last one if that is long ago."""
        box = self.values[-1][:4]
        gap = frame - self.frames[-1]
        if len(self.frames) < 2 or gap > max_gap:
            return box
        first = self.frames[-1] - _LEAST_SHARE * max_gap
        earlier = min(bisect_left(self.frames, first), len(self.frames) - 2)
        velocity = (box - self.values[earlier][:4]) / (self.frames[-1] - self.frames[earlier])
        shift = (velocity[:2] + velocity[2:]) / 2 * gap  # of the centre: extrapolated sizes explode
        return box + shift.repeat(2)


def detect_tracks(
    frames: Iterable[Frames],
    detector: Detector,
    *,
    scale: float | tuple[float, float],
    every: int,
    fps: Fraction,
    smoothing: float = SMOOTHING_SECONDS,
    pictures: Pictures = lambda frames: (),
) -> list[FaceTrack]:
    """Follows every face through a clip.

    ``frames`` are all frames of the clip in order, reduced to a size that suits the detector;
    ``scale`` is source px per reduced px, one number or (x, y). The detector runs on every
    ``every``-th frame of a scene (more densely below 25 frames per second, so that no more time is
    between two runs than there), on its first and last frame, and where a face comes or goes on all
    frames between two runs; on talking people 5 stays within 1.1 % of the face's size of what every
    frame would give. Gaps of up to a second are filled where ``pictures``, which gives single
    frames in source pixels, show that the face is there (``confirm_gaps``); without it, none are.
    The tracks are in source pixels, as ``link_detections`` describes them. Memory: one chunk of
    frames, those since the last run, and a few numbers per face and run. smoothing: in seconds.
    Raises ValueError for ``every`` < 1 or smoothing < 0.
    """
    if every < 1:
        raise ValueError(f"every is {every}; expected 1 (each frame) or more")
    if smoothing < 0:
        raise ValueError(f"smoothing is {smoothing} s; expected 0 (none) or more")
    x, y = scale if isinstance(scale, tuple) else (scale, scale)
    stretch = torch.tensor([x, y])
    # as many seconds between two runs as at the usual rate, where a clip has fewer frames
    every = min(every, max(1, round(every * fps / _USUAL_FPS)))
    runs = DetectorRuns(detector, every)
    runs.run(frames)
    return link_detections(
        [(index, _stretched(found, stretch)) for index, found in runs.found],
        cuts=runs.cuts,
        max_gap=max(every, round(fps)),
        smoothing=smoothing * float(fps),
        pictures=pictures,
    )


def link_detections(
    detections: Iterable[tuple[int, Detections]],
    *,
    cuts: Sequence[int],
    max_gap: int,
    smoothing: float,
    trusted: bool = False,
    pictures: Pictures | None = None,
) -> list[FaceTrack]:
    """Joins the faces found in single frames into people, in the order of their first appearance.

    ``detections`` are (frame index, faces) of every frame that the detector saw, faces or not, in
    rising order; ``cuts`` the frames at which a new scene begins, rising; ``max_gap`` the longest
    absence in frames that is filled by interpolation, where ``pictures`` look like the face
    (``confirm_gaps``; None to fill it everywhere); ``smoothing`` the smoother's standard deviation
    in frames, 0 for none.

    A track never crosses a cut, and spans the frames from the person's first sighting in the scene
    to the last; frames outside its span are invisible (``track_window`` pads them), as are absences
    beyond ``max_gap``. A person who comes back to the same place at about the same size is the same
    person. A stretch without a long absence counts only if it lasts at least 0.4 of ``max_gap`` (or
    half of the scene) and has at least 3 sightings (or as many as that time has frames, or half of
    the scene's runs, if those are fewer): shorter ones are taken for false alarms and dropped,
    unless the detections are ``trusted``.
    """
    scenes: dict[int, list[tuple[int, Tensor]]] = {}
    for frame, found in detections:
        places = [found.points] if found.dense is None else [found.points, found.dense]
        values = torch.cat([found.boxes, *(place.flatten(1) for place in places)], 1).float()
        scenes.setdefault(bisect_right(cuts, frame), []).append((frame, values))
    linked: list[tuple[FaceTrack, Tensor]] = []
    for scene, runs in scenes.items():
        begin, frames = cuts[scene - 1] if scene > 0 else 0, [frame for frame, _ in runs]
        for person in _associate(runs, max_gap):
            stretches = _stretches(person, frames, max_gap, trusted)
            if stretches:
                track = _fill(person, stretches, smoothing, begin)
                linked.append((track, _guessed(person, frames, track)))
    linked.sort(key=lambda pair: pair[0].start)
    tracks = [track for track, _ in linked]
    return (
        tracks if pictures is None else confirm_gaps(tracks, [gap for _, gap in linked], pictures)
    )


def _guessed(person: _Person, runs: list[int], track: FaceTrack) -> Tensor:
    """(N,) bool: visible frames of ``track`` between sightings that are not of runs in a row."""
    guessed = torch.zeros_like(track.visible)
    for first, second in pairwise(person.frames):
        if not _neighbours(runs, first, second):
            guessed[max(first + 1 - track.start, 0) : max(second - track.start, 0)] = True
    return guessed & track.visible


def _stretched(found: Detections, stretch: Tensor) -> Detections:
    """``found`` in an image ``stretch`` (x, y) times as large, on the CPU."""
    dense = None if found.dense is None else found.dense.cpu() * stretch
    boxes, points = found.boxes.cpu() * stretch.repeat(2), found.points.cpu() * stretch
    return Detections(boxes, points, found.scores.cpu(), dense)


def track_window(person: FaceTrack, start: int, count: int) -> FaceTrack:
    """The frames ``start`` ..

    ``start+count-1`` of a track, padded with invisible frames where it does not reach.
    """
    before = min(max(person.start - start, 0), count)
    first = min(max(start - person.start, 0), person.visible.shape[0])
    last = min(max(start + count - person.start, first), person.visible.shape[0])
    after = count - before - (last - first)
    boxes = F.pad(person.boxes[first:last], (0, 0, before, after))
    points = F.pad(person.points[first:last], (0, 0, 0, 0, before, after))
    visible = F.pad(person.visible[first:last], (before, after))
    dense = (
        None
        if person.dense is None
        else F.pad(person.dense[first:last], (0, 0, 0, 0, before, after))
    )
    scores = (
        None
        if person.dense_scores is None
        else F.pad(person.dense_scores[first:last], (before, after))
    )
    overlays = person.overlays
    if overlays is not None:
        index = F.pad(overlays.index[first:last], (before, after), value=-1)
        overlays = replace(overlays, index=index)
    return FaceTrack(
        boxes,
        points,
        visible,
        start,
        person.scene,
        dense,
        scores,
        overlays,
        person.pixel_aspect,
    )


def cut_tracks(people: Sequence[FaceTrack], stop: int) -> list[FaceTrack]:
    """The parts of tracks before frame ``stop``, of those people who are visible there."""
    cut: list[FaceTrack] = []
    for person in people:
        seen = person.visible[: max(stop - person.start, 0)].nonzero()[:, 0]
        if len(seen):
            cut.append(track_window(person, person.start, int(seen[-1]) + 1))
    return cut


def smooth_values(values: Tensor, sigma: float) -> Tensor:
    """Remove jitter by a local parabola fit.

    Constant, linear and quadratic motion come through unchanged, without lag and up to both ends: a
    plain Gaussian would shrink every nod and pull the ends inwards.

    Args:
        values: (N,C), one row per frame.
        sigma: frames; standard deviation of the Gaussian that weighs the neighbors.

    Returns:
        (N,C), at each frame the value of the parabola that fits its neighbors best.
    """
    count = values.shape[0]
    # the neighbours weigh nothing; a parabola meets three points exactly
    if sigma < 0.3 or count <= 3:
        return values
    radius = max(2, math.ceil(3 * sigma))
    # piece by piece, with the neighbours that count: the same in less memory
    parts: list[Tensor] = []
    for begin in range(0, count, _SMOOTHED_AT_ONCE):
        first, end = max(0, begin - radius), begin + _SMOOTHED_AT_ONCE
        parts.append(
            _parabolas(values[first : end + radius], sigma, radius)[begin - first : end - first]
        )
    return torch.cat(parts)


def _parabolas(values: Tensor, sigma: float, radius: int) -> Tensor:
    """Fit parabolas to ``radius`` neighbors on each side of a frame; their values (N,C) there."""
    count = values.shape[0]
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    powers = weight * (offset / radius) ** torch.arange(5)[:, None]  # (5, 2 radius + 1)
    # Outside the stretch there is nothing: zero weight, instead of values made up by padding.
    there = F.conv1d(torch.ones(1, 1, count, dtype=torch.float64), powers[:, None], padding=radius)[
        0
    ]
    sums = F.conv1d(values.double().T[:, None], powers[:3, None], padding=radius)  # (C,3,N)
    normal = torch.stack([there[i : i + 3] for i in range(3)]).permute(2, 0, 1)  # (N,3,3)
    return torch.linalg.solve(normal, sums.permute(2, 1, 0))[:, 0].to(values.dtype)


def _associate(runs: list[tuple[int, Tensor]], max_gap: int) -> list[_Person]:
    """People of one scene from the values (F,14+2K) of each run of the detector, nearest first."""
    people: list[_Person] = []
    previous = -1
    for frame, values in runs:
        # False alarms are not waited for: their number would grow with the length of the scene.
        known = [
            p
            for p in people
            if len(p.frames) >= _LEAST_SIGHTINGS or frame - p.frames[-1] <= max_gap
        ]
        free = set(range(values.shape[0]))
        waiting = set(range(len(known)))
        for _, person, face in sorted(_candidates(known, values, frame, previous, max_gap)):
            if person in waiting and face in free:
                waiting.remove(person)
                free.remove(face)
                known[person].frames.append(frame)
                known[person].values.append(values[face])
        people += [_Person([frame], [values[face]]) for face in sorted(free)]
        previous = frame
    return people


def _candidates(
    people: list[_Person], values: Tensor, frame: int, previous: int, max_gap: int
) -> list[tuple[float, int, int]]:
    """(cost, person, face) of every pair that may belong together."""
    if not people or values.shape[0] == 0:
        return []
    gaps = torch.tensor([frame - person.frames[-1] for person in people])
    # (P,1,4)
    expected = torch.stack([person.predict(frame, max_gap) for person in people])[:, None]
    found = values[None, :, :4]  # (1,F,4)
    size_expected, size_found = _size(expected), _size(found)
    distance = ((expected[..., :2] + expected[..., 2:] - found[..., :2] - found[..., 2:]) / 2).norm(
        dim=-1
    )
    distance = distance / torch.sqrt(size_expected * size_found)
    growth = torch.log(size_found / size_expected).abs()
    absent = (gaps > max_gap)[:, None]
    near = distance < torch.where(absent, _REACH_AFTER_GAP, _REACH)
    alike = growth < torch.where(absent, _GROWTH_AFTER_GAP, _GROWTH)
    cost = (
        distance
        + growth
        + 1
        - box_iou(expected[:, 0], found[0])
        + _SEEN_FIRST * (gaps > frame - previous)[:, None]
    )
    pairs = (near & alike).nonzero().tolist()
    return [(float(cost[person, face]), person, face) for person, face in pairs]


def _size(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3).prod(-1).sqrt()


def _stretches(
    person: _Person, runs: list[int], max_gap: int, trusted: bool
) -> list[tuple[int, int]]:
    """(first, last) frame of every time that the person is there.

    Unless ``trusted``, without those taken for false alarms.
    """
    stretches: list[list[int]] = []
    for frame in person.frames:
        # Two runs in a row are no absence, however far apart the detector's runs are.
        if stretches and (
            frame - stretches[-1][-1] - 1 <= max_gap or _neighbours(runs, stretches[-1][-1], frame)
        ):
            stretches[-1].append(frame)
        else:
            stretches.append([frame])
    duration = _LEAST_SHARE * max_gap
    sightings = min(_LEAST_SIGHTINGS, math.ceil(len(runs) / 2), math.ceil(duration))
    length = min(duration, (runs[-1] - runs[0]) / 2)
    return [
        (s[0], s[-1])
        for s in stretches
        if trusted or (len(s) >= sightings and s[-1] - s[0] >= length)
    ]


def _neighbours(runs: list[int], first: int, second: int) -> bool:
    return runs[bisect_right(runs, first)] == second


def _fill(
    person: _Person, stretches: list[tuple[int, int]], smoothing: float, scene: int
) -> FaceTrack:
    """Return a track over all ``stretches``, interpolated between sightings and smoothed."""
    start, end = stretches[0][0], stretches[-1][1] + 1
    values = _interpolate(
        torch.tensor(person.frames), torch.stack(person.values), torch.arange(start, end)
    )
    visible = torch.zeros(end - start, dtype=torch.bool)
    for first, last in stretches:
        here = slice(first - start, last + 1 - start)
        values[here] = smooth_values(values[here], smoothing)
        visible[here] = True
    boxes, points, dense = values.split([4, 10, values.shape[1] - 14], 1)
    shaped = dense.reshape(len(dense), -1, 2).clone() if dense.shape[1] else None
    return FaceTrack(boxes.clone(), points.reshape(-1, 5, 2).clone(), visible, start, scene, shaped)


def _interpolate(times: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Interpolate ``values`` (D,C) at rising ``times`` (D,) linearly at ``at`` (N,): (N,C)."""
    right = torch.searchsorted(times, at).clamp(min=1, max=max(1, times.shape[0] - 1))
    if times.shape[0] == 1:
        return values.expand(at.shape[0], -1).clone()
    left = right - 1
    share = ((at - times[left]) / (times[right] - times[left]))[:, None].to(values.dtype)
    return torch.lerp(values[left], values[right], share)
