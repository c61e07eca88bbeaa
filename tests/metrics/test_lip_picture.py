"""Color, sharpness, flicker and untouched rest of dubs, on pictures whose answer is known."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.lips import face
from torch import Tensor

from lipsync_core.metrics.lip_picture import (
    Flicker,
    InnerMouthSharpness,
    LipColor,
    UntouchedPicture,
)
from lipsync_core.types import FaceTrack, Frames

COUNT, SIDE = 6, 128
# of the drawn face: eyes, nose, corners of the mouth
FIVE = torch.tensor([[0.35, 0.3], [0.65, 0.3], [0.5, 0.55], [0.365, 0.72], [0.635, 0.72]]) * SIDE
MOUTH_ROW, SKIN_ROW = round(0.72 * SIDE), round(0.9 * SIDE)


def points(opening: float = 0.3) -> Tensor:
    return face(opening, size=SIDE).repeat(COUNT, 1, 1)


def track() -> FaceTrack:
    visible = torch.ones(COUNT, dtype=torch.bool)
    return FaceTrack(
        torch.tensor([[10.0, 10, 118, 122]]).repeat(COUNT, 1), FIVE.repeat(COUNT, 1, 1), visible
    )


def gray(level: int = 100) -> Tensor:
    return torch.full((COUNT, SIDE, SIDE, 3), level, dtype=torch.uint8)


def grain(sigma: float = 0.0) -> Tensor:
    noise = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    if sigma:
        axis = torch.arange(-12, 13).float()
        kernel = torch.exp(-axis.square() / (2 * sigma**2))
        kernel = (kernel / kernel.sum())[None, None, None]
        noise = F.conv2d(F.conv2d(noise, kernel, padding="same"), kernel.mT, padding="same")
    return (noise[0, 0, ..., None] * 255).byte().expand(COUNT, -1, -1, 3).contiguous()


def fed(metric: Any, source: Tensor, made: Tensor, *, size: int = COUNT) -> Any:
    for start in range(0, COUNT, size):
        pieces = [Frames(x[start : start + size], start) for x in (source, made)]
        metric.update(*pieces, track())
    return metric.compute()


def test_color_of_black_and_white_lips_differs_by_100() -> None:
    same, far = LipColor(), LipColor()
    same.update(Frames(gray()), Frames(gray()), points(), points())
    far.update(Frames(gray(0)), Frames(gray(255)), points(), points())
    assert same.compute() == 0 and far.compute() == pytest.approx(100, abs=0.1)
    skin_alone = gray()
    skin_alone[:, SKIN_ROW:] = 255
    elsewhere = LipColor()
    elsewhere.update(Frames(gray()), Frames(skin_alone), points(), points())
    assert elsewhere.compute() == 0
    unseen = LipColor()
    unseen.update(Frames(gray()), Frames(gray()), points() * math.nan, points())
    assert unseen.compute() is None


def test_a_blurred_mouth_loses_its_inner_sharpness_and_a_closed_one_has_none() -> None:
    values: list[float] = []
    for sigma in (0.0, 1.0, 2.0, 4.0):
        metric = InnerMouthSharpness()
        metric.update(Frames(grain(sigma)), points())
        values.append(metric.compute() or 0)
    assert all(b < 0.6 * a for a, b in pairwise(values)) and values[-1] > 0
    closed = InnerMouthSharpness()
    closed.update(Frames(grain()), points(0.0))
    assert closed.compute() is None


def test_an_inner_mouth_by_hand() -> None:
    """A checkerboard of 100 and 120: its Laplacian is 4 * 20 everywhere."""
    board = gray()
    odd = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 == 1
    board[:, odd] = 120
    metric = InnerMouthSharpness()
    metric.update(Frames(board), points())
    assert metric.compute() == pytest.approx(80, rel=1e-5)


def test_what_a_dub_may_change_costs_nothing_and_one_pixel_elsewhere_its_share() -> None:
    made = gray()
    made[:, MOUTH_ROW - 8 : MOUTH_ROW + 8, 50:78] = 7
    found = fed(UntouchedPicture(), gray(), made)
    assert (found.exact, found.change) == (1, 0)
    made[:, 2, 3, 1] += 30  # one channel of one pixel is not the source's any more
    found = fed(UntouchedPicture(), gray(), made)
    assert found.exact is not None and found.change is not None
    outside = round(1 / (1 - found.exact))
    assert 0.3 * SIDE**2 < outside < 0.8 * SIDE**2
    assert found.change == pytest.approx(10 / outside, rel=1e-3)
    with pytest.raises(ValueError, match="expected the same frames twice"):
        fed(UntouchedPicture(), gray(), gray()[:, :-2])


def test_skin_that_flickers_is_measured_and_lips_that_move_are_not() -> None:
    lips, skin = gray(), gray()
    lips[::2, MOUTH_ROW - 6 : MOUTH_ROW + 6, 50:78] += 50
    skin[::2, SKIN_ROW:] += 10
    assert fed(Flicker(), gray(), gray()) == 0
    assert fed(Flicker(), gray(), lips) == 0
    little = fed(Flicker(), gray(), skin)
    skin[::2, SKIN_ROW:] += 10
    assert little > 1 and fed(Flicker(), gray(), skin) == pytest.approx(2 * little)
    assert fed(Flicker(), skin, skin) == 0  # where the source flickers nothing is measured


@pytest.mark.parametrize("size", [1, 4])
def test_pieces_change_no_bit(size: int) -> None:
    source, made = grain(), grain(1.0)
    made[::2] = made[::2] // 2
    for kind in (Flicker, UntouchedPicture):
        assert fed(kind(), source, made, size=size) == fed(kind(), source, made)
    color, whole = LipColor(), LipColor()
    whole.update(Frames(source), Frames(made), points(), points())
    for start in range(0, COUNT, size):
        part = slice(start, start + size)
        color.update(Frames(source[part]), Frames(made[part]), points()[part], points()[part])
    assert color.compute() == whole.compute() is not None


def test_a_picture_that_shakes_flickers_and_one_that_is_blurred_does_not() -> None:
    source = grain(2.0)
    shaken = torch.stack([frame.roll(i % 2, 1) for i, frame in enumerate(source)])
    assert fed(Flicker(), source, shaken) > 1
    assert fed(Flicker(), source, grain(4.0)) == 0
    assert fed(UntouchedPicture(), source, shaken).change > 1
