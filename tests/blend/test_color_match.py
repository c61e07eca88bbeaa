"""Colours of a generated face: the tones of its source, bounded, and eased over time."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lipsync_core.blend.blender import Blender, BlendState, FaceCrops, Mouth
from lipsync_core.blend.color_match import (
    from_match_space,
    match_tones,
    measure_tones,
    to_match_space,
)
from lipsync_core.blend.masks import face_mask
from lipsync_core.options import Blend, ColorMatch
from lipsync_core.types import Frames

SIZE = 48
KINDS = ("spread", "covariance")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def skin(seed: int, count: int = 2) -> Tensor:
    """(count,3,S,S) smooth, reddish, its channels going up and down together, as light has them."""
    light = torch.nn.functional.interpolate(
        torch.rand(count, 1, 6, 6, generator=rng(seed)), (SIZE, SIZE), mode="bicubic"
    )
    own = torch.nn.functional.interpolate(
        torch.rand(count, 3, 6, 6, generator=rng(seed + 99)), (SIZE, SIZE), mode="bicubic"
    )
    return torch.tensor([0.55, 0.42, 0.36]).view(3, 1, 1) + 0.2 * (light - 0.5) + 0.05 * (own - 0.5)


def points(count: int) -> Tensor:
    return (
        torch.tensor([[0.29, 0.2], [0.71, 0.2], [0.5, 0.435], [0.343, 0.655], [0.657, 0.655]])
        * SIZE
    ).expand(count, 5, 2)


def match_color(
    made: Tensor, source: Tensor, weight: Tensor, *, kind: ColorMatch, limit: float = 0.2
) -> Tensor:
    """``made`` with the tones that ``source`` has under ``weight``."""
    values, target = to_match_space(made, kind), to_match_space(source, kind)
    has, wants = measure_tones(values, weight), measure_tones(target, weight)
    return from_match_space(match_tones(values, has, wants, kind=kind, limit=limit), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_another_light_is_taken_back(kind) -> None:
    source = skin(3)
    if kind == "covariance":  # light from elsewhere: a linear map of linear light
        turn = torch.tensor([[1.08, 0.04, 0.0], [0.04, 0.95, 0.02], [0.0, 0.02, 0.9]])
        other = from_match_space(
            torch.einsum("cd,ndhw->nchw", turn, to_match_space(source, kind)) + 0.01, kind
        )
    else:  # paler, and with more contrast
        other = from_match_space(
            to_match_space(source, kind) * torch.tensor([1.1, 0.9, 1.05]).view(3, 1, 1) + 0.02, kind
        )
    back = match_color(other, source, torch.ones(2, 1, SIZE, SIZE), kind=kind)
    assert float((other - source).abs().max()) > 0.03
    assert float((back - source).abs().max()) < 0.004


@pytest.mark.parametrize("kind", KINDS)
def test_what_fits_is_left_alone_and_colours_come_back(kind) -> None:
    source = skin(4)
    torch.testing.assert_close(
        from_match_space(to_match_space(source, kind), kind), source, atol=1e-4, rtol=0
    )
    same = match_color(source, source, face_mask("mouth", points(2), SIZE), kind=kind)
    torch.testing.assert_close(same, source, atol=1e-3, rtol=0)  # a quarter of a level


@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_at_the_weight_alone(kind) -> None:
    source, made = skin(4), skin(5)
    weight = torch.zeros(2, 1, SIZE, SIZE)
    weight[:, :, :10] = 1
    other = made.clone()
    other[:, :, 10:] *= 0.3  # a dark mouth outside the weight
    a, b = (match_color(x, source, weight, kind=kind)[:, :, :10] for x in (other, made))
    torch.testing.assert_close(a, b)
    assert bool(
        match_color(made, source, torch.zeros(2, 1, SIZE, SIZE), kind=kind).isfinite().all()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gains_and_shifts_are_limited(kind) -> None:
    values = torch.randn(1, 3, 200, 200, generator=rng(0)) * 0.05 + 0.2
    wants = measure_tones(values, torch.ones(1, 1, 200, 200))
    # far lighter, ten times the contrast
    wants = torch.cat([wants[:, :3] + 0.6, wants[:, 3:] * 100], 1)
    out = match_tones(
        values, measure_tones(values, torch.ones(1, 1, 200, 200)), wants, kind=kind, limit=0.2
    )
    torch.testing.assert_close(out.mean((2, 3)), values.mean((2, 3)) + 0.2, atol=1e-3, rtol=0)
    gain = out.std((2, 3)) / values.std((2, 3))
    assert float(gain.min()) > 1.05 and float(gain.max()) < 1.201


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_picture_has_no_spread_to_match(kind) -> None:
    grey = torch.full((1, 3, SIZE, SIZE), 0.5)
    assert bool(
        match_color(grey, skin(6, 1), torch.ones(1, 1, SIZE, SIZE), kind=kind).isfinite().all()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_float64_gradients(kind) -> None:
    made = (
        0.3 + 0.4 * torch.rand(1, 3, 4, 4, generator=rng(0), dtype=torch.float64)
    ).requires_grad_(True)
    source = 0.3 + 0.4 * torch.rand(1, 3, 4, 4, generator=rng(1), dtype=torch.float64)
    weight = torch.rand(1, 1, 4, 4, generator=rng(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda g: match_color(g, source, weight, kind=kind, limit=0.9), (made,)
    )


def test_tones_change_slowly_but_follow_a_cut() -> None:
    """A generated face whose light flickers is flattened; after a cut nothing is kept of the other
    light."""
    count = 30
    calm = skin(8, 1).expand(count, -1, -1, -1)
    flicker = 0.02 * torch.rand(count, 1, 1, 1, generator=rng(9)) - 0.01
    faces = FaceCrops(torch.eye(2, 3).expand(count, 2, 3), points(count), pixels=calm)
    frames = Frames(calm.permute(0, 2, 3, 1).contiguous())
    blend = Blend(kind="feather", colour_match="spread", own_pixels=False, detail=0, grain=0)
    blender = Blender(blend, SIZE)

    def light(made: Tensor, start: int, state: BlendState) -> Tensor:
        index = torch.arange(start, start + count)
        mask = blender.make_mask(faces, index, state)
        out = blender.composite(frames, Mouth(made), faces, mask, index, state)
        return out.pixels[:, 30:40, 20:28].mean((1, 2, 3))

    state = blender.start(Fraction(25))
    one = light(calm + flicker, 0, state)
    # it is not chased
    assert float(one.diff().abs().mean()) > 0.5 * float(flicker[:, 0, 0, 0].diff().abs().mean())
    other = (calm * 0.6).clamp(0, 1)  # the generated picture gets darker at once
    two = light(other, count, state)
    alone = light(other, 0, blender.start(Fraction(25)))
    torch.testing.assert_close(two, alone, atol=1e-3, rtol=0)
