"""How often an expert tells synchronized clips from others, as in table 3 of the paper."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LipSyncError
from ..faces import Detector
from ..faces.selection import FaceSelector, select
from ..faces.tracking import track_window
from ..image.affine import crop_to_frame
from ..image.crop import crop_pictures
from ..media import probe, read_audio, read_frames
from ..media.clip import VideoClip
from ..metrics.sync import embed_audio_windows
from ..metrics.sync_embedder import Scorer
from ..pipelines.score import load_scorer
from ..pipelines.track_faces import Finding, load_detector, select_device, track_faces
from .tables import Mean, bootstrap_ratio, format_markdown

SEEN = (1, 3, 5)  # frames, as in the paper's table
AVERAGED = (1, 5)  # windows
_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
_CHUNK = 32
_NAMED = 5  # reasons why there are no usable clips

Trials = tuple[Tensor, Tensor]
"""Distances of one clip's windows to the sound that belongs to them, and to sound that does not;
(N,) both."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One row. ``seen``: frames of a window that the expert was shown.

    ``averaged``: windows in one decision. ``threshold``: decisions by a threshold on the distance
    that was set on the other half of the clips; ``pairwise``: how often the true sound lies nearer
    than the false one, which needs none. ``trials``: decisions about true sound, and as many about
    false.
    """

    seen: int
    averaged: int
    threshold: Mean
    pairwise: Mean
    trials: int


@dataclass(frozen=True, slots=True)
class ExpertReport:
    """The rows for an ``expert`` whose own windows have ``track_window`` frames, on ``clips``
    clips; ``skipped``: the others, with the reason. False sound begins at least ``apart`` frames
    away in the same clip."""

    expert: str
    window: int
    apart: int
    clips: int
    skipped: Mapping[str, str]
    rows: tuple[Accuracy, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        """Markdown, with what is compared."""
        header = ["frames seen", "windows averaged", "accuracy, %", "nearer of two, %", "decisions"]
        rows = [
            [
                str(row.seen),
                str(row.averaged),
                row.threshold.percent(),
                row.pairwise.percent(),
                str(2 * row.trials),
            ]
            for row in self.rows
        ]
        notes = (
            f"{self.expert} on {self.clips} clips ({len(self.skipped)} skipped): its windows have "
            f"{self.window} frames; where "
            "it is shown fewer, the outer ones repeat the nearest that it is shown, and the sound "
            "stays as it is. The paper "
            f"trained an expert for each width instead. False sound: {self.apart} or more frames "
            "away in the same clip. "
            "Intervals: 95 %, bootstrap over clips."
        )
        return f"{format_markdown(header, rows)}\n\n{notes}"


def measure_accuracy(
    folder: Path,
    *,
    expert: str = "judge",
    apart: int = 5,
    seen: Sequence[int] = SEEN,
    averaged: Sequence[int] = AVERAGED,
    frames: int = 250,
    seed: int = 0,
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> ExpertReport:
    """How accurate ``expert`` is on the videos below ``folder``, which must be in sync.

    The first ``frames`` of each count.

    For every window one decision about its own sound and one about sound that begins at least
    ``apart`` frames earlier or later, drawn at random. Raises LipSyncError with fewer than two
    usable clips, ValueError for widths beyond the expert's.
    """
    if not folder.is_dir():
        raise LipSyncError(f"{folder} is no folder; wanted one with videos in sync")
    scorer = load_scorer(expert, select_device(device))
    if apart < 1 or min(averaged) < 1 or not all(1 <= width <= scorer.window for width in seen):
        raise ValueError(
            f"apart={apart}, seen={list(seen)}, averaged={list(averaged)}; wanted 1 or more, and "
            "widths up to the "
            f"{scorer.window} frames of {expert}'s window"
        )
    detector, key = load_detector(finding, select_device(device))
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    found: list[Mapping[tuple[int, int], Trials]] = []
    skipped: dict[str, str] = {}
    for done, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        try:
            vision, sound = _embedded(path, scorer, seen, frames, detector, key)
            chance = random.Random(f"{seed} {name}")
            found.append(
                {(s, k): trials(vision[s], sound, k, apart, chance) for s in seen for k in averaged}
            )
        except (LipSyncError, ValueError) as error:
            skipped[name] = str(error)
        if on_progress is not None:
            on_progress(done + 1, len(paths))
    if len(found) < 2:
        raise LipSyncError(
            f"{len(found)} of {len(paths)} videos below {folder} are usable; wanted two or "
            f"more{_grouped(folder, skipped)}"
        )
    rows = [accuracy(s, k, [clip[s, k] for clip in found]) for s in seen for k in averaged]
    return ExpertReport(expert, scorer.window, apart, len(found), skipped, tuple(rows))


def _grouped(folder: Path, skipped: Mapping[str, str]) -> str:
    """Why clips were skipped, the commonest reasons first.

    A reason that names its clip is told without.
    """
    paths = {str(folder / name): reason for name, reason in skipped.items()}
    counts = Counter(
        reason.removeprefix(f"{path}: ").replace(path, "the file") for path, reason in paths.items()
    )
    lines = [f"\n- {count} skipped: {reason}" for reason, count in counts.most_common(_NAMED)]
    more = len(counts) - len(lines)
    return "".join([":" if lines else "", *lines, f"\n- and {more} other reasons" if more else ""])


def _embedded(
    path: Path,
    scorer: Scorer,
    seen: Sequence[int],
    most: int,
    detector: Detector,
    key: tuple[str, str] | None,
) -> tuple[dict[int, Tensor], Tensor]:
    """Window by window what the expert makes of the largest face, by frames seen, and of the sound
    from there on."""
    footage = VideoClip(path, replace(probe(path), fps=scorer.fps))
    people, _ = track_faces(footage, detector, detector_key=key)
    person = select(people, FaceSelector())
    away = (~person.visible).nonzero()
    first, count = person.start, min(int(away[0]) if len(away) else len(person.visible), most)
    person = track_window(person, first, count)
    crops: list[Tensor] = []
    for piece in read_frames(path, chunk=_CHUNK, fps=scorer.fps, start=first, stop=first + count):
        here = slice(piece.start - first, piece.start - first + piece.pixels.shape[0])
        maps = crop_to_frame(
            person.boxes[here].float(), person.points[here].float(), scorer.framing, scorer.size
        )
        crops.append(
            crop_pictures(
                piece.pixels, maps, scorer.size, antialias=scorer.framing.kind == "aligned"
            )
        )
    sound = embed_audio_windows(read_audio(path, rate=scorer.rate), scorer)[first:]
    return {width: _seen(torch.cat(crops), width, scorer) for width in seen}, sound


def _seen(crops: Tensor, width: int, scorer: Scorer) -> Tensor:
    """(N-window+1, D) windows of which only the middle ``width`` frames are shown."""
    span = scorer.window
    if crops.shape[0] < span:
        raise ValueError(
            f"the face is seen in {crops.shape[0]} frames on end; wanted {span} or more"
        )
    if width == span:
        return scorer.embed_video(crops)
    first = (span - width) // 2
    shown = torch.arange(span).clamp(first, first + width - 1)
    return torch.cat(
        [scorer.embed_video(crops[i + shown]) for i in range(crops.shape[0] - span + 1)]
    )


def trials(
    video: Tensor, sound: Tensor, averaged: int, apart: int, chance: random.Random
) -> Trials:
    """One decision about each run of ``averaged`` windows of video (N,D) and sound (A,D), which
    begin together; runs do not overlap. ValueError where the clip is too short for one."""
    count = min(video.shape[0], sound.shape[0])
    distances = torch.cdist(video[:count].double(), sound.double())
    true: list[Tensor] = []
    false: list[Tensor] = []
    for first in range(0, count - averaged + 1, averaged):
        others = [i for i in range(sound.shape[0] - averaged + 1) if abs(i - first) >= apart]
        if others:
            run = torch.arange(averaged)
            true.append(distances[first + run, first + run].mean())
            false.append(distances[first + run, chance.choice(others) + run].mean())
    if not true:
        raise ValueError(
            f"{count} windows with sound; wanted {averaged} and as many more {apart} frames away"
        )
    return torch.stack(true), torch.stack(false)


def accuracy(seen: int, averaged: int, clips: Sequence[Trials]) -> Accuracy:
    """The row of these clips; at least two."""
    halves = (clips[0::2], clips[1::2])
    # each half is judged by the other's
    thresholds = {0: _threshold(halves[1]), 1: _threshold(halves[0])}
    right: list[tuple[float, float]] = []
    nearer: list[tuple[float, float]] = []
    for i, (true, false) in enumerate(clips):
        limit = thresholds[i % 2]
        right.append((float((true < limit).sum() + (false >= limit).sum()), 2.0 * len(true)))
        nearer.append((float((true < false).sum()), float(len(true))))
    count = sum(len(true) for true, _ in clips)
    return Accuracy(seen, averaged, bootstrap_ratio(right), bootstrap_ratio(nearer), count)


def _threshold(clips: Sequence[Trials]) -> float:
    """The distance below which the most decisions are right when they say "in sync"."""
    true, false = (torch.cat([clip[side] for clip in clips]).sort().values for side in (0, 1))
    candidates = torch.cat([true, false]).sort().values
    limits = (candidates[:-1] + candidates[1:]) / 2
    right = torch.searchsorted(true, limits) + len(false) - torch.searchsorted(false, limits)
    return float(limits[right.argmax()])
