"""Which of the people in a clip is meant: ``--face largest | left | right | INDEX | x,y``."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations

import torch
from torch import Tensor

from ..errors import NoFaceError
from ..types import FaceTrack, Overlays
from .landmarks import fill_missing_points
from .selector import FaceSelector
from .similarity import portrait_similarity
from .tracking import track_window
from .turned_faces import TRIED

# of the longest time that anybody is visible in the scene: who is there less is no end of the row
_MAIN_SHARE = 0.25
_POINT_MARGIN = 0.5  # of the box's size: how far beside a face a point may be and still mean it
_LISTED = 8  # people named in an error


def select(tracks: Sequence[FaceTrack], selector: FaceSelector) -> FaceTrack:
    """The track of the chosen person, from the first frame with a face to the last.

    People are not recognized across a cut, so the rule is applied again in each scene, and the
    tracks chosen are joined. In a scene in which it finds no face (an INDEX too high, no face at
    x,y), the person is invisible.

    largest: the person who covers the most picture over the time that they are visible; times when
    that person is away go to the next largest, if those two are never visible together. left,
    right: the end of the row at first appearance, of those who are there for at least a quarter of
    the time of the one who is there longest. INDEX: place in the row of all people, each where they
    first appear. x,y: the person who first appears nearest around the point, at most half a face
    beside it; the earlier one where two do.

    Raises NoFaceError if no face is chosen in any scene; it says who is there.
    """
    return join_tracks(select_each(tracks, selector))


def select_each(tracks: Sequence[FaceTrack], selector: FaceSelector) -> list[FaceTrack]:
    """Those of ``tracks`` that ``select`` joins, scene by scene. NoFaceError."""
    return _chosen(tracks, lambda people: _RULES[selector.rule](people, selector), str(selector))


def select_like(
    tracks: Sequence[FaceTrack], portraits: Sequence[Tensor], reference: Tensor
) -> FaceTrack:
    """Return the track of the person who looks most like a reference.

    One is chosen in each scene and joined as by ``select``, even if only one is there: how alike
    two pictures are does not tell whether they show the same person (see ``faces.similarity``).

    Args:
        tracks: the faces of the clip.
        portraits: for each of ``tracks``, pictures of it (P,3,S,S).
        reference: (3,S,S).

    Raises:
        NoFaceError: If there is no face.
        ValueError: Unless every visible track has portraits.
    """
    if len(portraits) != len(tracks):
        raise ValueError(
            f"got portraits of {len(portraits)} people for {len(tracks)} tracks; expected as many"
        )
    pairs = [pair for pair in zip(tracks, portraits, strict=True) if bool(pair[0].visible.any())]
    alike = {person: portrait_similarity(pictures, reference) for person, pictures in pairs}
    return join_tracks(
        _chosen(
            tracks, lambda people: [max(people, key=alike.__getitem__)], "most like the reference"
        )
    )


def rows_by_scene(tracks: Sequence[FaceTrack]) -> list[list[FaceTrack]]:
    """List the people scene by scene, from left to right at first appearance, as INDEX counts."""
    scenes: dict[int, list[FaceTrack]] = {}
    for person in tracks:
        if bool(person.visible.any()):
            scenes.setdefault(person.scene, []).append(person)
    return [
        sorted(scenes[scene], key=lambda person: _centre(_first(person)[1])[0])
        for scene in sorted(scenes)
    ]


def _chosen(
    tracks: Sequence[FaceTrack], rule: Callable[[list[FaceTrack]], list[FaceTrack]], name: str
) -> list[FaceTrack]:
    """Those that ``rule`` picks of each scene's row."""
    scenes = rows_by_scene(tracks)
    chosen = [person for people in scenes for person in rule(people)]
    if not chosen:
        raise NoFaceError(_nobody(scenes, name))
    return chosen


def _largest(people: list[FaceTrack], _: FaceSelector) -> list[FaceTrack]:
    def covered(person: FaceTrack) -> float:
        sides = person.boxes[:, 2:] - person.boxes[:, :2]
        return float(sides.prod(1)[person.visible].sum())

    chosen: list[FaceTrack] = []
    for person in sorted(people, key=covered, reverse=True):
        if not any(_meet(person, other) for other in chosen):
            chosen.append(person)
    return chosen


def _end_of_row(people: list[FaceTrack], selector: FaceSelector) -> list[FaceTrack]:
    durations = [int(person.visible.sum()) for person in people]
    main = [
        p
        for p, duration in zip(people, durations, strict=True)
        if duration >= _MAIN_SHARE * max(durations)
    ]
    return [main[0 if selector.rule == "left" else -1]]


def _indexed(people: list[FaceTrack], selector: FaceSelector) -> list[FaceTrack]:
    return people[selector.index : selector.index + 1]


def _at_point(people: list[FaceTrack], selector: FaceSelector) -> list[FaceTrack]:
    point = torch.tensor(selector.point)
    near: list[tuple[int, float, int]] = []
    for i, person in enumerate(people):
        frame, box = _first(person)
        centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        if bool(((point - centre).abs() <= sides * (0.5 + _POINT_MARGIN)).all()):
            near.append((frame, float((point - centre).norm()), i))
    return [people[min(near)[2]]] if near else []


_RULES: dict[str, Callable[[list[FaceTrack], FaceSelector], list[FaceTrack]]] = {
    "largest": _largest,
    "left": _end_of_row,
    "right": _end_of_row,
    "index": _indexed,
    "point": _at_point,
}


def first_appearance(person: FaceTrack) -> tuple[int, tuple[float, float]]:
    """Clip frame and centre (x, y in px) of the first appearance, where ``x,y`` means this face."""
    frame, box = _first(person)
    return frame, _centre(box)


def _first(person: FaceTrack) -> tuple[int, Tensor]:
    """Clip frame and box (4,) of the first appearance."""
    i = int(person.visible.int().argmax())
    return person.start + i, person.boxes[i]


def median_center(boxes: Tensor) -> tuple[int, int]:
    """Where the face of boxes (N,4) mostly is: x, y in whole px, as ``--face x,y`` takes it."""
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).median(0).values.tolist()
    return round(x), round(y)


def _centre(box: Tensor) -> tuple[float, float]:
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _meet(a: FaceTrack, b: FaceTrack) -> bool:
    """Whether some frame shows both."""
    start, end = max(a.start, b.start), min(a.start + len(a.visible), b.start + len(b.visible))
    if start >= end:
        return False
    return bool(
        (
            a.visible[start - a.start : end - a.start] & b.visible[start - b.start : end - b.start]
        ).any()
    )


def shared_faces(tracks: Sequence[FaceTrack], names: Sequence[str], fps: Fraction) -> list[str]:
    """Describe where two speakers are one person, because one mouth cannot speak two sounds.

    Args:
        tracks: The face of each speaker.
        names: What chose each.
        fps: Frames per second of the clip.

    Returns:
        A sentence for each two that are the same face in some frames and different ones in others.

    Raises:
        ValueError: Two are the same face wherever both are visible.
    """
    sentences: list[str] = []
    for (a, name), (b, other) in combinations(zip(tracks, names, strict=True), 2):
        start, end = max(a.start, b.start), min(a.start + len(a.visible), b.start + len(b.visible))
        first, second = (track_window(track, start, max(end - start, 0)) for track in (a, b))
        both = first.visible & second.visible
        same = both & (first.boxes == second.boxes).all(1)
        if not bool(same.any()):
            continue
        frame = int(same.int().argmax())
        x, y = _centre(first.boxes[frame])
        sentence = (
            f"{name} and {other} choose the same face, at {x:.0f},{y:.0f} from "
            f"{float((start + frame) / fps):g} s on"
        )
        if bool((same == both).all()):
            raise ValueError(
                f"{sentence}; expected a face of its own for each speaker: choose one by its index "
                "or x,y, or take one speaker out"
            )
        sentences.append(f"{sentence}, where its mouth speaks both; a table of turns parts them")
    return sentences


def join_tracks(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """One track of several that never meet.

    Where landmarks were looked for and found of some only, the others get the usual ones
    (``fill_missing_points``).
    """
    tracks = fill_missing_points(tracks)
    kinds = {None if track.dense is None else track.dense.shape[1] for track in tracks}
    if len(kinds) > 1:
        raise ValueError(
            f"the tracks have dense points of {sorted(map(str, kinds))}; expected all of one "
            "layout, or none"
        )
    start = min(track.start for track in tracks)
    count = max(track.start + len(track.visible) for track in tracks) - start
    boxes, points = torch.zeros(count, 4), torch.zeros(count, 5, 2)
    visible = torch.zeros(count, dtype=torch.bool)
    (kind,) = kinds
    dense = None if kind is None else torch.zeros(count, kind, 2)
    scores = torch.ones(count)  # full confidence
    covered = torch.full((count,), -1, dtype=torch.int64)
    masks: list[Tensor] = []
    places: list[Tensor] = [torch.zeros(0, 4)]
    for track in tracks:
        frames = track.start - start + track.visible.nonzero()[:, 0]
        boxes[frames], points[frames] = track.boxes[track.visible], track.points[track.visible]
        if dense is not None and track.dense is not None:
            dense[frames] = track.dense[track.visible]
        if track.dense_scores is not None:
            scores[frames] = track.dense_scores[track.visible]
        if track.overlays is not None:
            index = track.overlays.index[track.visible]
            covered[frames] = torch.where(index < 0, -1, index + len(masks))
            masks += track.overlays.masks
            places.append(track.overlays.places)
        visible[frames] = True
    overlays = Overlays(covered, tuple(masks), torch.cat(places)) if masks else None
    scored = scores if any(track.dense_scores is not None for track in tracks) else None
    scene = min(track.scene for track in tracks)
    aspect = tracks[0].pixel_aspect
    return FaceTrack(boxes, points, visible, start, scene, dense, scored, overlays, aspect)


def _nobody(scenes: list[list[FaceTrack]], name: str) -> str:
    if not scenes:
        return (
            f"no face was found in any frame (searched {TRIED}); the detector wants a face at "
            "least partly turned to the camera, not too small, no drawing and no animal: try "
            "another detector or a lower score, or crop the picture to the person"
        )
    lines: list[str] = []
    for people in scenes:
        for index, person in enumerate(people):
            frame, box = _first(person)
            x, y = _centre(box)
            lines.append(f"{index} at {x:.0f},{y:.0f} from frame {frame}")
    listed = "; ".join(lines[:_LISTED]) + (
        f"; and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    )
    where = "" if len(scenes) == 1 else f" in {len(scenes)} scenes, counted again in each"
    return (
        f"no frame has the face {name}; {len(lines)} found{where}: {listed}. Choose one of these, "
        "or largest"
    )
