"""The script behind the table of lips: its list of pairs, its methods, series by other points,
means over people."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mouth import Openings, mean_over_people, parse_method, read_pairs, table
from benchmarks.openings import DLIB, MESH, is_done, opening
from lipsync_core.image.landmarks import mouth_opening


def test_pairs_have_a_person_and_a_group(tmp_path: Path) -> None:
    listed = tmp_path / "pairs.csv"
    listed.write_text(
        "face,sound,person,group\nann/a.mp4,bob/b.mp4,,\nc.mp4,b.mp4,Cy,wild\n", encoding="utf-8"
    )
    first, second = read_pairs(listed, tmp_path)
    assert (first.face, first.sound) == (tmp_path / "ann/a.mp4", tmp_path / "bob/b.mp4")
    assert (first.person, first.group, second.person, second.group) == ("ann", "all", "Cy", "wild")
    listed.write_text("video,sound\na,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="columns face and sound"):
        read_pairs(listed, tmp_path)


def test_a_method_is_a_model_with_options(tmp_path: Path) -> None:
    method = parse_method("mini:reference=nearest-closed,silence=close")
    assert method.model == "mini" and method.options == {
        "reference": "nearest-closed",
        "silence": "close",
    }
    assert parse_method("mini").options == {}
    with pytest.raises(ValueError, match="expected MODEL:OPTION=VALUE"):
        parse_method("mini:closed")


def test_series_by_other_points_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    times = np.arange(100) / 25
    target = tmp_path / "mesh/ann/a.npz"
    target.parent.mkdir(parents=True)
    np.savez(target, times=times, openings=0.1 + times, size=7, seconds=8.0)
    assert is_done(target, 7, 8.0) and not is_done(target, 8, 8.0) and not is_done(target, 7, 3.0)
    openings = Openings(tmp_path / "mesh", seconds=2.0, device="cpu")
    found = openings(tmp_path / "videos/ann/a.mp4")
    assert found is not None and torch.allclose(
        found, 0.1 + torch.arange(50, dtype=torch.float64) / 25
    )
    assert openings(tmp_path / "ann/other.mp4") is None and openings.missing == [
        tmp_path / "ann/other.mp4"
    ]
    assert openings.points == "mesh"


@pytest.mark.parametrize(("count", "layout"), [(478, MESH), (68, DLIB)])
def test_the_standalone_script_measures_what_the_library_does(
    count: int, layout: tuple[tuple[tuple[int, int], ...], tuple[int, int]]
) -> None:
    points = torch.rand(
        1, count, 2, generator=torch.Generator().manual_seed(count), dtype=torch.float64
    )
    assert opening(points[0].numpy(), layout) == pytest.approx(
        float(mouth_opening(points)), abs=1e-9
    )


def test_intervals_are_those_over_people() -> None:
    """Two people of two rows each: the interval reaches from one's mean to the other's, and not to
    single rows."""
    rows = [
        {"person": person, "truth": value, "group": "all", "method": "mini"}
        for person, values in {"ann": (0.1, 0.3), "bob": (0.7, 0.9)}.items()
        for value in values
    ]
    found = mean_over_people(rows, "truth")
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.2, 0.8))
    nothing = mean_over_people([{"person": "ann", "truth": None}], "truth")
    assert math.isnan(nothing.mean)
    full = [row | dict.fromkeys(("leak", "chance", "old", "new", "movement"), None) for row in rows]
    full = [row | {"closure_recall": None, "closure_precision": 0.5} for row in full]
    assert "4 (2)" in table(full) and "0.500 [0.200, 0.800]" in table(full)
