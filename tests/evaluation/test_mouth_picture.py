"""The script behind the figures of how dubbed mouths look."""

import numpy as np
import pytest
from helpers.lips import face

from benchmarks.mouth_picture import (
    FIGURES,
    changes,
    lip_color,
    lip_sharpness,
    measure_change,
    table,
)

POINTS = face(0.1, size=96)[0].numpy()


def picture(level: int = 0) -> np.ndarray:
    """(96,96,3) uint8: grey noise, lips and all below of another color."""
    pixels = np.random.default_rng(level).integers(90, 110, (96, 96, 3)).astype(np.uint8)
    pixels[50:] = (150 + level, 60, 60)
    return pixels


def test_lips_have_a_color_that_differs_as_seen() -> None:
    same, other = lip_color(picture(), POINTS), lip_color(picture(30), POINTS)
    assert np.allclose(same, lip_color(picture(), POINTS)) and same[1] > 20  # red
    assert 3 < np.linalg.norm(other - same) < 30


def test_a_flat_mouth_is_not_sharp() -> None:
    rough = np.random.default_rng(1).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    assert lip_sharpness(rough, POINTS) > 100 * lip_sharpness(picture(), POINTS)


def test_flicker_is_change_where_the_source_is_still() -> None:
    still = np.stack([picture()] * 2)
    assert measure_change(still, still, POINTS) == (0, 0, 0)
    shaken = still.copy()
    shaken[1] += 6
    flicker, dub, source = measure_change(still, shaken, POINTS)
    assert flicker == pytest.approx(6) and dub == pytest.approx(6) and source == 0
    assert float(changes(shaken[0], shaken[1]).mean()) == pytest.approx(6)
    assert np.isnan(measure_change(shaken * 3, still, POINTS)[0])  # the source moves everywhere


def test_photos_are_no_part_of_the_line_of_all_videos() -> None:
    row = {"method": "mini", "person": "a", "group": "wild"} | dict.fromkeys(FIGURES, 1.0)
    photo = row | {"person": "b", "group": "photo", "color_self": None}
    lines = table([row, photo]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["wild", "photo", "all videos"]
    assert "1 (1)" in lines[-1]
