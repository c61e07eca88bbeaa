"""Lips that leak, freeze or differ from the truth, on drawn mouths whose answer is known."""

import math

import pytest
import torch
from helpers.lips import face
from torch import Tensor

from lipsync_core.image.landmarks import mouth_aspect, mouth_opening
from lipsync_core.metrics.lip_shapes import (
    LIPS,
    LipDistance,
    LipLeak,
    MouthDivergence,
    ProcrustesDisparity,
    SilentLips,
)

COUNT = 40
NAN = torch.full((1, 102, 2), torch.nan)


def mouths(*openings: float) -> Tensor:
    return torch.cat([face(opening, size=200) for opening in openings])


def talk(shift: int = 0) -> Tensor:
    """(40,102,2): two periods of a mouth that opens and closes."""
    phase = 2 * math.pi * (torch.arange(COUNT) - shift) / 20
    return mouths(*(0.1 * (1 + phase.cos())).tolist())


def turned(points: Tensor, degrees: float) -> Tensor:
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    return 1.7 * points @ turn.T + torch.tensor([30.0, -5.0])


def test_the_aspect_ratio_is_that_of_gap_and_width_whatever_the_size() -> None:
    points = mouths(0.2)
    wanted = mouth_opening(points) * 0.44 / 0.27  # both in widths of the drawn crop
    wide = (points[:, 61] - points[:, 73]).norm(dim=1) / 200
    assert torch.allclose(mouth_aspect(points), wanted * wide / 0.44, atol=1e-4)
    assert torch.allclose(mouth_aspect(turned(points, 30)), mouth_aspect(points), atol=1e-4)


def test_shares_of_open_and_of_closed_mouths_are_counted_over_frames_with_a_face() -> None:
    leak, silent = LipLeak(), SilentLips()
    points = torch.cat([mouths(0, 0, 0.01, 0.1), NAN, mouths(0.3, 0.4)])
    for metric in (leak, silent):
        metric.update(points)
    assert leak.compute() == pytest.approx(2 / 6) and silent.compute() == pytest.approx(3 / 6)
    assert LipLeak().compute() is None and SilentLips().compute() is None


def test_a_frozen_mouth_did_not_move_and_a_talking_one_did() -> None:
    frozen, moving, small = MouthDivergence(), MouthDivergence(), MouthDivergence()
    frozen.update(mouths(0.1).repeat(COUNT, 1, 1))
    moving.update(talk())
    small.update(mouths(*([0.1, 0.102] * 20)))
    assert frozen.compute() == pytest.approx(0, abs=1e-9) and frozen.moved() is False
    assert (moving.compute() or 0) > 0.05 and moving.moved() is True
    assert small.moved() is False and 0 < (small.compute() or 0) < 0.01
    assert MouthDivergence().moved() is None


def test_disparity_ignores_place_size_and_roll_and_grows_with_the_shape() -> None:
    def disparity(made: Tensor, true: Tensor) -> float:
        metric = ProcrustesDisparity()
        metric.update(made, true)
        found = metric.compute()
        assert found is not None
        return found

    true = mouths(0.1)
    assert disparity(turned(true, 25), true) == pytest.approx(0, abs=1e-6)
    values = [disparity(mouths(opening), true) for opening in (0.1, 0.15, 0.25, 0.4)]
    assert values == sorted(values) and values[-1] > 0.02
    mirrored = true * torch.tensor([-1.0, 1.0])
    assert disparity(mirrored, true) > 0.1  # points keep their names: no mirror image is allowed


def test_disparity_by_hand() -> None:
    """Of a line and a cross of norm 2 each, A'B / 4 is [[1/2, 1/2], [0, 0]] with the singular values
    sqrt(1/2) and 0: the disparity is 1 - 1/2."""
    line, cross = torch.zeros(1, 68, 2), torch.zeros(1, 68, 2)
    lips = LIPS[68]
    line[0, lips][:4], cross[0, lips][:4] = (
        torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]]),
        torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]),
    )
    metric = ProcrustesDisparity()
    metric.update(line, cross)
    assert metric.compute() == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ValueError, match="expected twice"):
        metric.update(line, cross[:, :50])


def test_lip_distances_agree_with_themselves_and_less_the_later_they_are() -> None:
    def agreement(made: Tensor) -> tuple[float | None, float | None]:
        metric = LipDistance()
        metric.update(made, talk())
        return metric.compute()

    assert agreement(talk()) == (pytest.approx(1), pytest.approx(1))
    opposite = agreement(talk(10))
    assert opposite[0] == pytest.approx(-1, abs=1e-3) and 0 < (opposite[1] or 0) < 0.4
    late = [agreement(talk(shift))[0] or 0 for shift in (0, 2, 4, 8)]
    assert late == sorted(late, reverse=True)
    still = agreement(mouths(0.1).repeat(COUNT, 1, 1))
    assert still[0] == 0 and (still[1] or 0) > 0.7  # a usually open mouth is no good one
    assert LipDistance().compute() == (None, None)


def test_pieces_change_no_bit() -> None:
    made, true = torch.cat([talk(3), NAN]), torch.cat([talk(), NAN])

    def fed(size: int) -> list[object]:
        ratios = [LipLeak(), SilentLips(), MouthDivergence()]
        shapes = [ProcrustesDisparity(), LipDistance()]
        for a, b in zip(made.split(size), true.split(size), strict=True):
            for metric in ratios:
                metric.update(a)
            for metric in shapes:
                metric.update(a, b)
        return [metric.compute() for metric in (*ratios, *shapes)]

    assert fed(1) == fed(7) == fed(COUNT + 1)


DAMAGES = {
    "frozen": lambda: mouths(0.1).repeat(COUNT, 1, 1),
    "late": lambda: talk(6),
    "old lips": lambda: mouths(*(0.1 * (1 + (torch.arange(COUNT) * 0.7).sin())).tolist()),
    "shaking": lambda: talk() + 2 * torch.randn(COUNT, 102, 2, generator=SEED.manual_seed(0)),
}
SEED = torch.Generator()


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_costs_agreement_with_the_truth(name: str) -> None:
    damaged, divergence = DAMAGES[name](), MouthDivergence()
    distance, disparity = LipDistance(), ProcrustesDisparity()
    distance.update(damaged, talk())
    disparity.update(damaged, talk())
    pcld, csld = distance.compute()
    assert pcld is not None and csld is not None and pcld < 0.97 and csld < 0.99
    assert (disparity.compute() or 0) > 0.003
    divergence.update(damaged)
    assert divergence.moved() is (name != "frozen")


def test_landmarks_that_tremble_pass_for_a_mouth_that_moves() -> None:
    """What the divergence cannot tell, as the documents say."""
    trembling = mouths(0.1).repeat(COUNT, 1, 1)
    trembling = trembling + torch.randn(COUNT, 102, 2, generator=SEED.manual_seed(0))
    divergence, distance = MouthDivergence(), LipDistance()
    divergence.update(trembling)
    distance.update(trembling, talk())
    assert divergence.moved() is True and abs(distance.compute()[0] or 0) < 0.3
