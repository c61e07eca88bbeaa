"""Means with their intervals, as Markdown tables and as plots; and the figures of the paper."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

T = TypeVar("T")

_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of values with its 95 % interval.

    Attributes:
        mean: The mean; NaN without values.
        low: Lower end of the interval; NaN for fewer than two values.
        high: Upper end of the interval, likewise.
        count: Number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:.3f}" + (
            "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        )

    def percent(self) -> str:
        """Format a share in percent."""
        return f"{100 * self.mean:.1f}" + (
            "" if math.isnan(self.low) else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        )


def bootstrap_mean(values: Sequence[float], *, draws: int = _DRAWS, seed: int = 0) -> Mean:
    """Compute a mean and its percentile bootstrap interval.

    Args:
        values: The values.
        draws: Number of samples of the same size, drawn with replacement; the interval holds 95 %
            of their means.
        seed: Seed, fixed so that the same values give the same interval.

    Returns:
        The mean and its interval.
    """
    return _bootstrap(values, fmean, draws, seed)


def bootstrap_ratio(
    parts: Sequence[tuple[float, float]], *, draws: int = _DRAWS, seed: int = 0
) -> Mean:
    """Compute the sum of hits over the sum of trials, and its bootstrap interval over parts.

    Trials within one part are alike, and counting each as independent would give too narrow an
    interval.

    Args:
        parts: (hits, trials) of independent parts, such as clips.
        draws: Number of samples.
        seed: Seed.

    Returns:
        The ratio and its interval.
    """

    def ratio(some: Sequence[tuple[float, float]]) -> float:
        return sum(hits for hits, _ in some) / sum(trials for _, trials in some)

    return _bootstrap(parts, ratio, draws, seed)


def _bootstrap(
    items: Sequence[T], statistic: Callable[[Sequence[T]], float], draws: int, seed: int
) -> Mean:
    count = len(items)
    if count < 2:
        return Mean(statistic(items) if items else math.nan, math.nan, math.nan, count)
    chance = random.Random(seed)
    found = sorted(statistic(chance.choices(items, k=count)) for _ in range(draws))
    cut = round(0.025 * draws)
    return Mean(statistic(items), found[cut], found[-1 - cut], count)


def rate_interval(hits: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % interval of a rate by Wilson's score.

    Args:
        hits: Number of successes.
        trials: Number of trials; without any, nothing is known.

    Returns:
        The lower and the upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    if not trials:
        return 0.0, 1.0
    interval = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Compute Spearman's rank correlation.

    Args:
        first: Values.
        second: Values of the same things, in the same order.

    Returns:
        The correlation of the ranks in [-1,1], equal values sharing theirs; None for fewer than
        three pairs, and where all values of one side are equal.
    """
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def format_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns; a bar in a cell is escaped.

    Args:
        header: Names of the columns.
        rows: Cells.

    Returns:
        The table.
    """
    cells = [
        [cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


# Table 1 of the paper (Prajwal et al. 2020, arXiv 2008.10010): LSE-D, LSE-C, FID on LRW, LRS2 and
# LRS3.
PAPER: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "Speech2Vid": (
        ("13.14", "1.762", "11.15"),
        ("14.23", "1.587", "12.32"),
        ("13.97", "1.681", "11.91"),
    ),
    "LipGAN": (
        ("10.05", "3.350", "2.833"),
        ("10.33", "3.199", "4.861"),
        ("10.65", "3.193", "4.732"),
    ),
    "Wav2Lip": (
        ("6.512", "7.490", "3.189"),
        ("6.386", "7.789", "4.887"),
        ("6.652", "7.887", "4.844"),
    ),
    "Wav2Lip + GAN": (
        ("6.774", "7.263", "2.475"),
        ("6.469", "7.781", "4.446"),
        ("6.986", "7.574", "4.350"),
    ),
    "Real": (("7.012", "6.931", "–"), ("6.736", "7.838", "–"), ("6.956", "7.592", "–")),
}
# What others measured with the public weights: LPIPS-AttnWav2Lip (2026, arXiv 2602.00189), its rows
# of Wav2Lip. On LRS2 two reports in the issues of the public code (Rudrabha/Wav2Lip, 445) agree.
MEASURED_AGAIN: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "Wav2Lip, measured again": (
        ("7.185", "6.532", "–"),
        ("7.151", "6.761", "4.922"),
        ("7.002", "7.146", "–"),
    ),
    "Wav2Lip + GAN, measured again": (
        ("–", "–", "–"),
        ("7.208", "6.782", "4.469"),
        ("–", "–", "–"),
    ),
}
SETS = ("LRW", "LRS2", "LRS3")


def format_paper_table() -> str:
    """Format LSE-D / LSE-C / FID for each data set: the paper's rows, and those measured again."""
    header = ["method", *(f"{name} LSE-D / LSE-C / FID" for name in SETS)]
    return format_markdown(
        header,
        [
            [name, *(" / ".join(figures) for figures in row)]
            for name, row in (*PAPER.items(), *MEASURED_AGAIN.items())
        ],
    )


def plot_distributions(
    panels: Mapping[str, Mapping[str, Sequence[float]]], title: str, path: Path
) -> None:
    """Plot each quantity in a panel, as PNG: values as dots, boxes of the middle half, and means.

    A box holds the median too; the mean is a diamond.

    Args:
        panels: Values by quantity and method.
        title: Title of the plot.
        path: File to write.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(method for panel in panels.values() for method in panel))
    figure = Figure(figsize=(4.6 * len(panels), 1.6 + 0.55 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    spread = np.random.default_rng(0)
    for axes, (quantity, values) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for row, method in enumerate(methods):
            found = np.asarray(values.get(method, ()), np.float64)
            if not found.size:
                continue
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
            axes.broken_barh(
                [(low, high - low)], (row - 0.3, 0.6), facecolor="none", edgecolor="black"
            )
            axes.plot([middle, middle], [row - 0.3, row + 0.3], color="black")
            axes.plot(
                found, row + spread.uniform(-0.22, 0.22, found.size), ".", alpha=0.45, markersize=5
            )
            axes.plot(found.mean(), row, "D", color="black", markersize=5)
        axes.set_yticks(
            range(len(methods)), [f"{name} ({len(values.get(name, ()))})" for name in methods]
        )
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_xlabel(quantity)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
