"""Pixels that move: from the frame itself or from another picture, ebbing away before the edge."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from helpers.blends import SIZE, frames, generated, placed, points, rng, whole
from torch import Tensor

from lipsync_core.blend.blender import Blender, FaceCrops, Mouth
from lipsync_core.blend.composite import Patch, PixelSource, composite
from lipsync_core.blend.masks import face_mask
from lipsync_core.image.affine import compose
from lipsync_core.options import Blend
from lipsync_core.types import ColourTags, Frames, YuvFrames


def still(n: int) -> PixelSource:
    return PixelSource(torch.zeros(n, 2, SIZE, SIZE), torch.ones(n, 1, SIZE, SIZE))


@pytest.mark.parametrize("floating", [False, True])
def test_pixels_that_do_not_move_stay(floating: bool) -> None:
    """At the frame's own resolution: noise would not survive a crop and its enlargement."""
    before, mask = frames(3, floating=floating), torch.ones(3, 1, SIZE, SIZE)
    after = composite(before, Patch(generated(3), mask, placed(3), (still(3),)))
    off = (after.pixels.float() - before.pixels.float()).abs() * (1 if floating else 1 / 255)
    assert off.max() <= (1e-4 if floating else 1.01 / 255)


def test_pixels_are_moved_by_the_crops_scale() -> None:
    before, maps = (
        frames(1),
        compose(whole(20, 10), torch.tensor([[[1.5, 0.0, 0.0], [0.0, 1.5, 0.0]]])),
    )
    movement = PixelSource(
        torch.tensor([2.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE), still(1).weight
    )
    mask = torch.ones(1, 1, SIZE, SIZE)
    after = composite(before, Patch(generated(1), mask, maps, (movement,))).pixels
    # 2 and -4 px of the crop are 3 and -6 px of the frame
    assert torch.equal(after[:, 20:60, 30:70], before.pixels[:, 14:54, 33:73])
    assert torch.equal(after[:, :9], before.pixels[:, :9])


def test_where_nothing_is_moved_the_paint_shows() -> None:
    before, made, mask = frames(2), generated(2), torch.ones(2, 1, SIZE, SIZE)
    painted = PixelSource(
        torch.randn(2, 2, SIZE, SIZE, generator=rng(5)), torch.zeros(2, 1, SIZE, SIZE)
    )
    wanted = composite(before, Patch(made, mask, placed(2)))
    assert torch.equal(
        composite(before, Patch(made, mask, placed(2), (painted,))).pixels,
        wanted.pixels,
    )


def test_movement_ebbs_away_before_the_edge() -> None:
    before, maps = frames(2, floating=True), placed(2)
    faces, index = FaceCrops(maps, points(2)), torch.arange(2)
    source = PixelSource(torch.full((2, 2, SIZE, SIZE), 6.0), torch.ones(2, 1, SIZE, SIZE))
    changes = []
    for kind in ("feather", "seamless"):
        blender = Blender(Blend(kind=kind), SIZE)
        state = blender.start(Fraction(25))
        mask = blender.make_mask(faces, index, state)
        mouth = Mouth(generated(2), (source,))
        after = blender.composite(before, mouth, faces, mask, index, state)
        changes.append((after.pixels - before.pixels).abs().mean(3))
    share = blender.compute_alpha((90, 110), faces, mask)
    border, core = (share > 0.02) & (share < 0.4), share > 0.999
    assert float(changes[1][border].max()) < 0.01 < 5 * 0.01 < float(changes[0][border].mean())
    assert float(changes[1][core].mean()) > 0.9 * float(changes[0][core].mean())


def coded(n: int, *, height: int = 90, width: int = 110, seed: int = 1) -> YuvFrames:
    pixels = torch.randint(
        16, 236, (n, height * 3 // 2, width), generator=rng(seed), dtype=torch.uint8
    )
    return YuvFrames(pixels, ColourTags(1, 1, 1))


def single(pictures: Frames | YuvFrames, i: int) -> Frames | YuvFrames:
    return replace(pictures, pixels=pictures.pixels[i : i + 1], start=0)


def moving(n: int, seed: int = 6) -> PixelSource:
    share = torch.rand(n, 1, SIZE, SIZE, generator=rng(seed))
    return PixelSource(4 * torch.randn(n, 2, SIZE, SIZE, generator=rng(seed + 1)), share)


@pytest.mark.parametrize("before", [frames(3), frames(3, floating=True), coded(3)])
def test_frames_that_are_their_own_origins_give_the_same_bits(before: Frames | YuvFrames) -> None:
    maps, mask, movement = placed(3), face_mask("face", points(3), SIZE), moving(3)
    named = replace(movement, pictures=[single(before, i) for i in range(3)], crop_to_picture=maps)
    wanted, got = (
        composite(before, Patch(generated(3), mask, maps, (each,))).pixels
        for each in (movement, named)
    )
    assert torch.equal(got, wanted) and not torch.equal(got, before.pixels)


@pytest.mark.parametrize("floating", [False, True])
def test_pixels_come_from_their_origins_at_the_place_and_scale_there(floating: bool) -> None:
    """One picture stands for two faces, in which it lies twice as large as in the frame."""
    before, one = frames(2, floating=floating), frames(4, floating=floating, height=130, width=140)
    origin = single(one, 3)
    double = compose(whole(20, 16), torch.tensor([[[2.0, 0, 0], [0, 2.0, 0]]])).expand(2, -1, -1)
    movement = replace(still(2), pictures=[origin, origin], crop_to_picture=double)
    maps, mask = whole(30, 20).expand(2, -1, -1), torch.ones(2, 1, SIZE, SIZE)
    after = composite(before, Patch(generated(2), mask, maps, (movement,))).pixels
    # cubic, halfway between each two
    even = origin.pixels[0, 16 : 16 + 2 * SIZE, 20 : 20 + 2 * SIZE].double()
    a, b, c, d = (even.roll(1 - k, 0) for k in range(4))
    rows = (-3 * a + 19 * b + 19 * c - 3 * d)[::2] / 32
    a, b, c, d = (rows.roll(1 - k, 1) for k in range(4))
    wanted = ((-3 * a + 19 * b + 19 * c - 3 * d)[:, ::2] / 32)[2:-2, 2:-2].clamp(
        0, 1 if floating else 255
    )
    for picture in after:
        got = picture[20 : 20 + SIZE, 30 : 30 + SIZE][2:-2, 2:-2].double()
        torch.testing.assert_close(got, wanted, atol=1e-4 if floating else 0.51, rtol=0)
    assert torch.equal(after[:, :18], before.pixels[:, :18])


def test_coded_pixels_come_from_their_origins() -> None:
    before, origin = coded(2), coded(1, height=64, width=80, seed=8)
    movement = replace(
        still(2), pictures=[origin, origin], crop_to_picture=whole(12, 8).expand(2, -1, -1)
    )
    maps, mask = whole(30, 20).expand(2, -1, -1), torch.ones(2, 1, SIZE, SIZE)
    after = composite(before, Patch(generated(2), mask, maps, (movement,)))
    luma, chroma = origin.luma[:, :, 8 : 8 + SIZE, 12 : 12 + SIZE], origin.chroma[:, :, 4:28, 6:30]
    assert torch.equal(after.luma[:, :, 20 : 20 + SIZE, 30 : 30 + SIZE], luma.expand(2, -1, -1, -1))
    assert torch.equal(
        after.chroma[:, :, 11:33, 16:38], chroma[:, :, 1:-1, 1:-1].expand(2, -1, -1, -1)
    )


def test_origins_that_do_not_fit_are_refused() -> None:
    before, one, maps = frames(2), frames(1), placed(2)

    def spoken(**pictures) -> Frames:
        movement = replace(still(2), **pictures)
        return composite(
            before, Patch(generated(2), torch.ones(2, 1, SIZE, SIZE), maps, (movement,))
        )

    with pytest.raises(ValueError, match="1, 2; expected 2"):
        spoken(pictures=[one], crop_to_picture=maps)
    with pytest.raises(ValueError, match="0, 2; expected 2"):
        spoken(crop_to_picture=maps)
    for wrong in (frames(1, floating=True), coded(1), frames(2)):
        with pytest.raises(ValueError, match=r"frames' format: torch\.uint8 of RGB"):
            spoken(pictures=[one, wrong], crop_to_picture=maps)


def test_gradients_reach_the_origins() -> None:
    picture = torch.rand(1, 9, 8, 3, generator=rng(), dtype=torch.float64)
    origin = torch.rand(1, 12, 11, 3, generator=rng(3), dtype=torch.float64, requires_grad=True)
    made = torch.rand(1, 3, 5, 5, generator=rng(1), dtype=torch.float64)
    offset = torch.rand(1, 2, 5, 5, generator=rng(4), dtype=torch.float64)
    share = 0.2 + 0.6 * torch.rand(1, 1, 5, 5, generator=rng(5), dtype=torch.float64)
    mask, maps = (
        torch.full_like(share, 0.7),
        torch.tensor([[[1.1, -0.2, 1.3], [0.2, 1.1, 1.7]]]).double(),
    )

    def mixed(origin: Tensor) -> Tensor:
        movement = PixelSource(offset, share, [Frames(origin)], maps * 1.2)
        return composite(Frames(picture), Patch(made, mask, maps, (movement,))).pixels

    assert torch.autograd.gradcheck(mixed, (origin,), fast_mode=True)
