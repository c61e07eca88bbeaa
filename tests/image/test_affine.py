"""Framings, transforms and warps: exact maps, faithful crops, batches that equal their parts."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_core.image.affine import (
    ALIGNED,
    Framing,
    apply,
    compose,
    crop_bounds,
    crop_to_frame,
    fit_similarity,
    invert,
    scale_of,
    translation,
    unit_maps,
)
from lipsync_core.image.crop import crop_pictures, sample_affine


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turn(
    degrees: float, scale: float, x: float, y: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(1,2,3) rotation and scale about the origin, then a shift."""
    a = math.radians(degrees)
    c, s = scale * math.cos(a), scale * math.sin(a)
    return torch.tensor([[[c, -s, x], [s, c, y]]], dtype=dtype)


def smooth(height: int, width: int, period: float = 24.0) -> Tensor:
    """(1,H,W,3) float picture in [0,1] without detail finer than ``period`` px."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    waves = [
        torch.sin(2 * math.pi * (x * a + y * b) / period + k)
        for k, (a, b) in enumerate([(1, 0), (0, 1), (0.6, 0.6)])
    ]
    return (0.5 + 0.4 * torch.stack(waves, -1))[None]


def noisy(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """(N,H,W,3) uint8."""
    return torch.randint(0, 256, (n, height, width, 3), generator=rng(seed), dtype=torch.uint8)


def test_similarity_finds_the_map_that_made_the_points() -> None:
    maps = torch.cat([turn(30, 2.5, 100, -40), turn(-170, 0.1, 0, 7), turn(0, 1, 0, 0)])
    points = torch.randn(3, 5, 2, generator=rng())
    torch.testing.assert_close(
        fit_similarity(points, apply(maps, points)), maps, atol=1e-4, rtol=1e-5
    )


def test_similarity_is_the_least_squares_one() -> None:
    """The normal equations of [x' = a x - b y + c, y' = b x + a y + d], solved by another road."""
    source, target = (
        torch.randn(1, 5, 2, generator=rng(1)).double(),
        torch.randn(1, 5, 2, generator=rng(2)).double(),
    )
    x, y = source[0].unbind(-1)
    one, zero = torch.ones(5).double(), torch.zeros(5).double()
    rows = torch.cat([torch.stack([x, -y, one, zero], 1), torch.stack([y, x, zero, one], 1)])
    a, b, c, d = torch.linalg.lstsq(rows, target[0].T.reshape(-1, 1)).solution[:, 0].tolist()
    wanted = torch.tensor([[[a, -b, c], [b, a, d]]], dtype=torch.float64)
    torch.testing.assert_close(fit_similarity(source, target), wanted, atol=1e-9, rtol=0)


def test_similarity_of_a_single_place_is_finite() -> None:
    assert bool(
        fit_similarity(torch.zeros(1, 5, 2), torch.randn(1, 5, 2, generator=rng())).isfinite().all()
    )


def test_maps_invert_compose_and_apply() -> None:
    one, two = turn(20, 3, 5, -8), turn(-75, 0.4, -2, 30)
    points = torch.randn(1, 9, 2, generator=rng()) * 50
    torch.testing.assert_close(apply(invert(one), apply(one, points)), points, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        apply(compose(one, two), points), apply(one, apply(two, points)), atol=1e-3, rtol=1e-5
    )
    torch.testing.assert_close(compose(one, invert(one)), turn(0, 1, 0, 0), atol=1e-5, rtol=0)
    assert torch.equal(
        apply(translation(torch.tensor([[3.0, -1.0]])), points), points + torch.tensor([3.0, -1.0])
    )
    torch.testing.assert_close(scale_of(torch.cat([one, two])), torch.tensor([3.0, 0.4]))


def test_the_aligned_framing_brings_the_points_home() -> None:
    template = torch.tensor([ALIGNED])
    points = apply(turn(25, 180, 300, 200), template)
    maps = crop_to_frame(torch.zeros(1, 4), points, Framing(), 96)
    torch.testing.assert_close(apply(maps, template * 96), points, atol=1e-3, rtol=0)


def test_the_box_framing_grows_by_its_pads() -> None:
    boxes = torch.tensor([[20.0, 30.0, 116.0, 158.0]])
    maps = crop_to_frame(boxes, torch.zeros(1, 5, 2), Framing("box", pads=(1, 10, 2, 3)), 96)
    corners = apply(maps, torch.tensor([[[0.0, 0.0], [96.0, 96.0]]]))
    torch.testing.assert_close(corners, torch.tensor([[[18.0, 29.0], [119.0, 168.0]]]))


@pytest.mark.parametrize("box", [(20, 30, 116, 126), (11, 7, 91, 135), (40, 40, 80, 90)])
def test_a_box_crop_is_a_plain_bilinear_resize(box: tuple[int, int, int, int]) -> None:
    """What the public code does with cv2.resize; at the border of the box it repeats pixels, we
    read the neighbours."""
    x0, y0, x1, y1 = box
    frames = noisy(1, 160, 144)
    maps = crop_to_frame(torch.tensor([box]).float(), torch.zeros(1, 5, 2), Framing("box"), 96)
    got = crop_pictures(frames, maps, 96, antialias=False)
    part = frames[:, y0:y1, x0:x1].permute(0, 3, 1, 2) / 255
    wanted = F.interpolate(part, size=(96, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got[:, :, 2:-2, 2:-2], wanted[:, :, 2:-2, 2:-2], atol=2e-4, rtol=0)


def test_whole_shifts_copy_pixels() -> None:
    pixels = torch.rand(1, 3, 20, 30, generator=rng())
    got = warp(pixels, turn(0, 1, 4, -3), (20, 30), padding="zeros")
    torch.testing.assert_close(got[:, :, :17, 4:], pixels[:, :, 3:, :26], atol=1e-5, rtol=0)
    assert float(got[:, :, :, :4].abs().max()) < 1e-4 and float(got[:, :, 17:].abs().max()) < 1e-4


@pytest.mark.parametrize("degrees", [0, 17, -40])
@pytest.mark.parametrize("scale", [0.9, 1.0, 1.3])
def test_cropped_and_put_back_is_the_picture(degrees: float, scale: float) -> None:
    """A picture without fine detail survives the round trip within one level of 255."""
    frames = smooth(200, 200, period=48)
    maps = compose(
        translation(torch.tensor([[100.0, 100.0]])),
        compose(turn(degrees, scale, 0, 0), turn(0, 1, -48, -48)),
    )
    back = warp(crop_pictures(frames, maps, 96), maps, (200, 200))
    crop = warp(
        torch.ones(1, 1, 90, 90), compose(maps, turn(0, 1, 3, 3)), (200, 200), padding="zeros"
    )
    off = (back - frames.permute(0, 3, 1, 2)).abs() * (crop > 0.999)
    assert float((crop > 0.999).float().mean()) > 0.1
    assert float(off.max()) <= 1 / 255


def warp(
    pixels: Tensor, source_to_target: Tensor, size: tuple[int, int], *, padding="border"
) -> Tensor:
    """(N,C,h,w) through maps between pixels."""
    n, _, h, w = pixels.shape
    squares = unit_maps(invert(source_to_target), [(w, h)] * n, [(size[1], size[0])] * n)
    return sample_affine(pixels, squares, size, padding=padding)


def faces_of_other_scales() -> Tensor:
    """(4,2,3) crops of 96 px with 0.5, 1.1, 2.3 and 4.2 frame pixels to a crop pixel, two of them
    over the border."""
    maps = [
        turn(5, 0.5, 40, 30),
        turn(-8, 1.1, 150, 60),
        turn(12, 2.3, -20, 40),
        turn(0, 4.2, 10, -60),
    ]
    return torch.cat(maps)


@pytest.mark.parametrize("antialias", [True, False])
def test_a_crop_does_not_depend_on_its_neighbours(antialias: bool) -> None:
    frames, maps = noisy(4, 300, 400), faces_of_other_scales()
    together = crop_pictures(frames, maps, 96, antialias=antialias)
    for i in range(4):
        alone = crop_pictures(frames[i : i + 1], maps[i : i + 1], 96, antialias=antialias)
        torch.testing.assert_close(together[i : i + 1], alone, atol=2e-4, rtol=0)


def test_antialiasing_averages_what_falls_on_one_pixel() -> None:
    frames = noisy(1, 384, 384)
    got = crop_pictures(frames, turn(0, 4, 0, 0), 96)
    wanted = F.avg_pool2d(frames.permute(0, 3, 1, 2) / 255, 4)
    torch.testing.assert_close(got[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1], atol=2e-4, rtol=0)


def test_bounds_hold_their_part_of_every_crop() -> None:
    maps = faces_of_other_scales()
    boxes = torch.tensor(crop_bounds(maps, (10, 50, 90, 96), margin=3))
    corners = apply(
        maps,
        torch.tensor([[[10.0, 50.0], [90.0, 50.0], [90.0, 96.0], [10.0, 96.0]]]).expand(4, -1, -1),
    )
    assert torch.equal(boxes[:, :2], corners.amin(1).floor().long() - 3)
    assert torch.equal(boxes[:, 2:], corners.amax(1).ceil().long() + 3)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("scale", "tolerance"), [(1.1, 2e-3), (4, 5e-2)])
def test_outside_the_frame_its_border_repeats(
    antialias: bool, scale: float, tolerance: float
) -> None:
    frames = noisy(1, 61, 83)
    # blocks are averaged, and where they begin does not matter in a smooth picture
    if scale > 1.25:
        smooth = F.interpolate(
            frames[:, ::12, ::12].permute(0, 3, 1, 2).float(), (61, 83), mode="bicubic"
        )
        frames = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    wide = torch.nn.functional.pad(frames.permute(0, 3, 1, 2).float(), (300,) * 4, mode="replicate")
    maps = turn(9, scale, 30, 20)  # reaches beyond the right and the lower border
    wanted = crop_pictures(
        wide.permute(0, 2, 3, 1) / 255, compose(turn(0, 1, 300, 300), maps), 96, antialias=antialias
    )
    torch.testing.assert_close(
        crop_pictures(frames, maps, 96, antialias=antialias), wanted, atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("shift", [(-500, 3), (3, 400), (1000, -1000)])
@pytest.mark.parametrize("scale", [1, 5])
def test_a_crop_beyond_the_frame_is_its_border(shift: tuple[int, int], scale: int) -> None:
    frames = torch.full((1, 20, 30, 3), 51, dtype=torch.uint8)
    got = crop_pictures(frames, turn(0, scale, *shift), 16)
    torch.testing.assert_close(got, torch.full((1, 3, 16, 16), 0.2), atol=1e-6, rtol=0)


def test_bytes_and_floats_give_the_same_crop() -> None:
    frames, maps = noisy(4, 300, 400), faces_of_other_scales()
    torch.testing.assert_close(
        crop_pictures(frames, maps, 96), crop_pictures(frames / 255, maps, 96), atol=1e-5, rtol=0
    )


def test_planes_and_interleaved_pixels_give_the_same_crop() -> None:
    frames, maps = noisy(4, 300, 400), faces_of_other_scales()
    planes = frames.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    torch.testing.assert_close(
        crop_pictures(planes, maps, 96), crop_pictures(frames, maps, 96), atol=1e-6, rtol=0
    )


def test_float64_gradients_of_the_warp() -> None:
    pixels = torch.rand(2, 1, 6, 5, generator=rng(), dtype=torch.float64, requires_grad=True)
    maps = torch.cat(
        [turn(10, 1.2, 0.7, -0.4, torch.float64), turn(-20, 0.8, 0.3, 0.6, torch.float64)]
    )
    assert torch.autograd.gradcheck(lambda p: warp(p, maps, (5, 6), padding="zeros"), (pixels,))


@pytest.mark.parametrize("kind", ["aligned", "eyes", "box", "square"])
@pytest.mark.parametrize("aspect", [4 / 3, 64 / 45, 2.0])
def test_crops_show_faces_of_anamorphic_pictures_as_they_look(kind: str, aspect: float) -> None:
    """The crop of a squeezed picture holds what the crop of the picture itself does."""
    points = torch.tensor([ALIGNED]) * 90 + torch.tensor([40.0, 30.0])
    boxes = torch.tensor([[35.0, 25.0, 135.0, 150.0]])
    squeeze = torch.tensor([1 / aspect, 1.0])
    framing = Framing(kind)
    whole = crop_to_frame(boxes, points, framing, 64)
    squeezed = crop_to_frame(
        boxes * squeeze.repeat(2), points * squeeze, framing, 64, aspect=aspect
    )
    torch.testing.assert_close(squeezed, whole * squeeze[:, None])
