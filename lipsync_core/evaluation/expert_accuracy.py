"""Measure how often an expert tells clips in sync from others, as in table 3 of the paper."""

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
from ..faces.selection import select
from ..faces.selector import FaceSelector
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
    """One row of the table.

    Attributes:
        seen: Frames of a window that the expert was shown.
        averaged: Windows in one decision.
        threshold: Share of right decisions in [0,1] by a threshold on the distance, which was set
            on the other half of the clips; higher is better, 0.5 is chance.
        pairwise: Share of decisions in [0,1] in which the true audio is nearer than the false one,
            without a threshold; higher is better, 0.5 is chance.
        trials: Decisions about true audio, and as many about false.
    """

    seen: int
    averaged: int
    threshold: Mean
    pairwise: Mean
    trials: int


@dataclass(frozen=True, slots=True)
class ExpertReport:
    """Accuracy of an expert on a set of clips.

    Attributes:
        expert: Name of the expert.
        window: Frames of the expert's own windows.
        apart: Least distance in frames of the false audio, which is from the same clip.
        clips: Number of clips.
        skipped: Reasons of the skipped clips, by their names.
        rows: The rows.
    """

    expert: str
    window: int
    apart: int
    clips: int
    skipped: Mapping[str, str]
    rows: tuple[Accuracy, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Format the rows as Markdown, with a description of the comparison."""
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
            f"{self.window} frames; where it is shown fewer, the outer ones repeat the nearest "
            "that it is shown, and the sound stays as it is. The paper trained an expert for each "
            f"width instead. False sound: {self.apart} or more frames away in the same clip. "
            "Intervals: 95 %, bootstrap over clips."
        )
        return f"{format_markdown(header, rows)}\n\n{notes}"


def measure_accuracy(  # noqa: PLR0913
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
    """Measure how accurate an expert is on videos that are in sync.

    For every window there is one decision about its own audio and one about audio that begins at
    least ``apart`` frames earlier or later, drawn at random.

    Args:
        folder: Folder of the videos, which must be in sync.
        expert: Scorer, as ``load_scorer`` takes it.
        apart: Least distance in frames of the false audio.
        seen: Frames of a window to show to the expert.
        averaged: Windows per decision.
        frames: Frames of each video to use, from its beginning.
        seed: Seed of the draw.
        finding: Detector and tracking.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_progress: Called with the videos done and their number.

    Returns:
        One row for each combination of ``seen`` and ``averaged``.

    Raises:
        LipSyncError: If fewer than two clips are usable.
        ValueError: If a width is beyond the expert's.
    """
    if not folder.is_dir():
        raise LipSyncError(f"{folder} is not a folder; expected one with videos in sync")
    scorer = load_scorer(expert, select_device(device))
    if apart < 1 or min(averaged) < 1 or not all(1 <= width <= scorer.window for width in seen):
        raise ValueError(
            f"apart={apart}, seen={list(seen)}, averaged={list(averaged)}; expected 1 or more, and "
            f"widths up to the {scorer.window} frames of {expert}'s window"
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
            f"{len(found)} of {len(paths)} videos below {folder} are usable; expected two or "
            f"more{_grouped(folder, skipped)}"
        )
    rows = [accuracy(s, k, [clip[s, k] for clip in found]) for s in seen for k in averaged]
    return ExpertReport(expert, scorer.window, apart, len(found), skipped, tuple(rows))


def _grouped(folder: Path, skipped: Mapping[str, str]) -> str:
    """List why clips were skipped, most frequent reasons first.

    The name of the clip is removed from a reason.
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
    """Return embeddings of the windows of the largest face, by frames seen, and of the audio.

    The windows of audio begin with those of video.
    """
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
    """Return (N-window+1,D) embeddings of windows that show only the middle ``width`` frames."""
    span = scorer.window
    if crops.shape[0] < span:
        raise ValueError(
            f"the face is seen in {crops.shape[0]} frames on end; expected {span} or more"
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
    """Decide about each run of ``averaged`` windows of a clip; runs do not overlap.

    Args:
        video: (N,D) embeddings of windows of video.
        sound: (A,D) embeddings of windows of audio, which begin together with those of video.
        averaged: Windows in one decision.
        apart: Least distance in frames of the false audio.
        chance: Source of random numbers.

    Returns:
        The decisions.

    Raises:
        ValueError: If the clip is too short for one.
    """
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
            f"{count} windows with sound; expected {averaged} and as many more {apart} frames away"
        )
    return torch.stack(true), torch.stack(false)


def accuracy(seen: int, averaged: int, clips: Sequence[Trials]) -> Accuracy:
    """Compute one row from the decisions of at least two clips."""
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
    """Return the distance that gives the most right decisions when lower values mean "in sync"."""
    true, false = (torch.cat([clip[side] for clip in clips]).sort().values for side in (0, 1))
    candidates = torch.cat([true, false]).sort().values
    limits = (candidates[:-1] + candidates[1:]) / 2
    right = torch.searchsorted(true, limits) + len(false) - torch.searchsorted(false, limits)
    return float(limits[right.argmax()])
