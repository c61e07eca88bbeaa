"""Means, intervals, tables, plots."""

import math
import random
from pathlib import Path

import pytest

from lipsync_core.evaluation.tables import (
    bootstrap_mean,
    bootstrap_ratio,
    format_markdown,
    plot_distributions,
    rate_interval,
)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    chance = random.Random(5)
    covered = 0
    for seed in range(200):
        found = bootstrap_mean([chance.gauss(3, 1) for _ in range(30)], draws=400, seed=seed)
        covered += found.low <= 3 <= found.high
    assert 180 <= covered <= 198  # 95 %; the bootstrap of 30 values is a little too sure


def test_the_interval_is_as_wide_as_theory_says_and_the_same_every_time() -> None:
    chance = random.Random(7)
    values = [chance.gauss(0, 1) for _ in range(400)]
    spread = math.sqrt(sum(v * v for v in values) / 400 - (sum(values) / 400) ** 2)
    found = bootstrap_mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread / 20, rel=0.1)
    assert found == bootstrap_mean(values) and found.count == 400


def test_few_values_have_no_interval() -> None:
    assert str(bootstrap_mean([])) == "–" and str(bootstrap_mean([2.0])) == "2.000"
    assert str(bootstrap_mean([2.0, 2.0])) == "2.000 [2.000, 2.000]"


def test_a_share_is_drawn_by_clips() -> None:
    sure = bootstrap_ratio([(50, 100)] * 20)
    assert (sure.mean, sure.low, sure.high) == (0.5, 0.5, 0.5)  # every clip says the same
    torn = bootstrap_ratio([(100, 100), (0, 100)] * 10)
    assert torn.mean == 0.5 and torn.low < 0.35 and torn.high > 0.65
    assert torn.percent().startswith("50.0 [")


def test_a_table_lines_up_and_escapes_bars() -> None:
    assert (
        format_markdown(["a", "long"], [["x|y", "1"]])
        == "| a    | long |\n|------|------|\n| x\\|y | 1    |"
    )


def test_a_plot_shows_methods_without_values_too(tmp_path: Path) -> None:
    plot_distributions({"q": {"one": [1.0, 2.0, 3.0], "none": []}}, "title", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_rate_has_wilsons_interval() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20."""
    found = [rate_interval(*case) for case in ((81, 263), (15, 148), (0, 20), (0, 0))]
    assert [[round(end, 4) for end in pair] for pair in found] == [
        [0.2553, 0.3662], [0.0624, 0.1605], [0.0, 0.1611], [0.0, 1.0]
    ]  # fmt: skip
