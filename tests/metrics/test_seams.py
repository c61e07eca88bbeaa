"""What gives a mouth away: each figure sees its own fault, and none in the source itself."""

import pytest
import torch
from torch import Tensor

from lipsync_core.metrics.seams import SeamFigures, Seams
from lipsync_core.types import Frames


def clip(count: int = 4) -> Tensor:
    """(N,H,W,3) uint8: a smooth picture that stands still."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    picture = torch.nn.functional.interpolate(noise, (60, 60), mode="bicubic")
    return (picture * 255).round().byte().permute(0, 2, 3, 1).expand(count, -1, -1, -1).contiguous()


def disc(count: int = 4, *, soft: float = 1.0) -> Tensor:
    axis = torch.arange(60) - 29.5
    distance = 18 - (axis[:, None].square() + axis.square()).sqrt()
    return (distance / soft).clamp(0, 1).expand(count, -1, -1)


def figures(after: Tensor, alpha: Tensor) -> SeamFigures:
    seams = Seams()
    seams.update(Frames(clip()), Frames(after), alpha)
    return seams.compute()


def lifted(levels: Tensor, alpha: Tensor) -> Tensor:
    """The clip, lighter by ``levels`` (N,) under the mask."""
    return (
        (clip().float() + levels[:, None, None, None] * alpha[..., None])
        .round()
        .clamp(0, 255)
        .byte()
    )


def test_the_source_has_no_seam() -> None:
    assert figures(clip(), disc()) == SeamFigures(0, 0, 0)


def test_a_lighter_patch_is_a_line_and_a_step_but_no_flicker() -> None:
    found = figures(lifted(torch.full((4,), 20.0), disc()), disc())
    assert found.step == pytest.approx(20, abs=1.5) and found.flicker == 0
    assert found.line is not None and found.line > 4


def test_a_soft_edge_is_a_weaker_line() -> None:
    hard, soft = (
        figures(lifted(torch.full((4,), 20.0), disc(soft=width)), disc(soft=width)).line
        for width in (1.0, 8.0)
    )
    assert hard is not None and soft is not None and soft < 0.6 * hard


def test_a_patch_that_comes_and_goes_flickers() -> None:
    found = figures(lifted(torch.tensor([0.0, 10, 0, 10]), disc()), disc())
    assert found.flicker is not None and found.flicker > 3


def test_light_and_dark_sides_do_not_cancel() -> None:
    sides = torch.where(torch.arange(60) < 30, -15.0, 15.0).expand(60, 60)
    after = (clip().float() + (sides * disc())[..., None]).round().clamp(0, 255).byte()
    step = figures(after, disc()).step
    assert step is not None and step > 10


def test_chunks_do_not_matter_and_nothing_measured_is_none() -> None:
    after, alpha = lifted(torch.tensor([0.0, 10, 3, 10]), disc()), disc()
    seams = Seams()
    for i in range(4):
        seams.update(Frames(clip()[i : i + 1], i), Frames(after[i : i + 1], i), alpha[i : i + 1])
    assert seams.compute() == figures(after, alpha)
    assert figures(after, torch.zeros(4, 60, 60)) == SeamFigures(None, None, None)
