"""Plot scores: confidence over time, and the distance curve that gave the offset."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import MediaError
from ..media.paths import PLOT_SUFFIXES, check_output_path
from ..runtime.atomic import atomic_write
from ..types import SyncScore
from .score import ScoreReport, TrackScore, explain_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 10.0, 2.6  # inches; the height of one track
_DPI = 120
_MOST_ROWS = 8  # 3200 px high


def plot_scores(report: ScoreReport, path: Path, *, overwrite: bool = False) -> None:
    """Plot a report to a PNG, SVG or PDF file, with one row per face track.

    Args:
        report: The scores.
        path: File to write; its suffix selects the format.
        overwrite: Whether an existing file may be replaced.

    Raises:
        MediaError: If the file cannot be written.
    """
    check_output_path(path, overwrite=overwrite, suffixes=PLOT_SUFFIXES)
    figure = _figure(report, f"{report.video.name}: {report.scorer}, mode {report.mode}")
    try:
        with atomic_write(path) as part:
            figure.savefig(part, dpi=_DPI)
    except OSError as error:
        raise MediaError(f"{path}: the plot cannot be written ({error.strerror})") from error


def draw_scores(report: ScoreReport) -> Tensor:
    """Draw the first eight tracks of a report as a picture, without the file's name.

    Args:
        report: The scores.

    Returns:
        (H,W,3) uint8 picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    some = replace(report, tracks=report.tracks[:_MOST_ROWS])
    left_out = len(report.tracks) - len(some.tracks)
    canvas = FigureCanvasAgg(
        _figure(some, f"{report.scorer}" + (f" ({left_out} faces more)" if left_out else ""))
    )
    canvas.figure.set_dpi(_DPI)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba())[..., :3])


def _figure(report: ScoreReport, title: str) -> "Figure":
    from matplotlib.figure import Figure

    rows = len(report.tracks)
    figure = Figure(figsize=(_WIDTH, _HEIGHT * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, 2, squeeze=False, width_ratios=(3, 2))
    for track, (over_time, curve) in zip(report.tracks, axes, strict=True):
        _draw_time(over_time, track, report)
        _draw_curve(curve, track.score)
    return figure


def _draw_time(axes: "Axes", track: TrackScore, report: ScoreReport) -> None:
    score = track.score
    begin = float(track.first_frame / report.fps)
    seconds = begin + torch.arange(len(score.frame_confidence)) / float(report.scorer_fps)
    axes.plot(seconds, score.frame_confidence, color="C0", linewidth=1.2)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set_xlim(begin, float((track.last_frame + 1) / report.fps))
    axes.set_xlabel("seconds")
    axes.set_ylabel("confidence")
    x, y = track.centre
    axes.set_title(f"face at {x},{y}: {explain_score(score, report.fps)}", fontsize=9, wrap=True)


def _draw_curve(axes: "Axes", score: SyncScore) -> None:
    offsets = score.search_frames - torch.arange(len(score.curve))
    axes.plot(offsets, score.curve, color="C0", marker=".", linewidth=1.2)
    if score.offset_frames is not None:
        axes.axvline(score.offset_frames, color="C3", linewidth=1)
        if score.uncertainty is not None:
            span = (
                score.offset_frames - score.uncertainty,
                score.offset_frames + score.uncertainty,
            )
            axes.axvspan(*span, color="C3", alpha=0.15, linewidth=0)
    axes.set_xlabel("offset in frames (> 0: sound early)")
    axes.set_ylabel("mean distance")
    axes.set_title(f"distance {score.distance:.3f}, confidence {score.confidence:.3f}", fontsize=9)
