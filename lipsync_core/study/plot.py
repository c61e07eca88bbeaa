"""Write the report as a table, as JSON and as a picture of the scores with their intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.atomic import atomic_write
from .report import Estimate, StudyReport
from .store import QUESTIONS, SCALE, StudyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f5f8b", "#c2703d", "#4f7f52")


def save_report(report: StudyReport, folder: Path) -> None:
    """Write report.md, report.json and report.png into ``folder``, replacing older ones.

    Args:
        report: Report of a study.
        folder: Folder for the files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{folder} is not a folder for a report ({error.strerror}); give another --out"
        ) from error
    for name, text in {
        "report.md": report.to_markdown(),
        "report.json": report.to_json() + "\n",
    }.items():
        with atomic_write(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    with atomic_write(folder / "report.png") as part:
        plot_report(report, part)


def plot_report(report: StudyReport, out: Path) -> None:
    """Draw the scores and strengths of a report.

    Args:
        report: Report of a study.
        out: Picture to write (.png, .svg or .pdf).
    """
    from matplotlib.figure import Figure

    names = [m.method for m in report.methods]
    figure = Figure(figsize=(9.5, 1.8 + 0.62 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2], sharey=True)
    for k, question in enumerate(QUESTIONS):
        shift = 0.2 * (k - 1)
        _points(left, [m.opinions[question] for m in report.methods], shift, _COLOURS[k], question)
    _points(
        right, [m.strength for m in report.methods], -0.1, _COLOURS[0], "strength (Bradley-Terry)"
    )
    _points(right, [m.share for m in report.methods], 0.1, _COLOURS[1], "share of its screens")
    left.set(
        xlim=(SCALE[0] - 0.1, SCALE[-1] + 0.1), xticks=list(SCALE), xlabel="mean opinion score"
    )
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    right.set(xlim=(-0.03, 1.03), xlabel="preferred")
    for axes in (left, right):
        axes.grid(axis="x", color="#e4e2de")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8.5
        )
    figure.savefig(out, dpi=150)


def _points(
    axes: "Axes", estimates: Sequence[Estimate], shift: float, colour: str, label: str
) -> None:
    """Draw each estimate as a dot and its interval, if it has one, as a line.

    The estimates stand one row below the other.
    """
    rows = [
        (i + shift, e.value, e.low, e.high) for i, e in enumerate(estimates) if e.value is not None
    ]
    axes.plot(
        [r[1] for r in rows], [r[0] for r in rows], "o", color=colour, label=label, markersize=5
    )
    for y, _, low, high in rows:
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
