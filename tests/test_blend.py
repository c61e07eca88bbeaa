"""Masks, colour match and composite: untouched means untouched, bit for bit."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from lipsync_core.blend.colour import match_colour
from lipsync_core.blend.composite import Movement, composite
from lipsync_core.blend.masks import MaskKind, face_mask
from lipsync_core.geometry import ALIGNED, compose, translation
from lipsync_core.types import Frames

SIZE = 48
KINDS = get_args(MaskKind)
FLIPPED = [1, 0, 2, 4, 3]  # the points of a mirrored face


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 1) -> Tensor:
    """(N,5,2) the points of an aligned face, in crop pixels, each face a little different."""
    return torch.tensor([ALIGNED]) * SIZE + torch.randn(n, 5, 2, generator=rng(9))


def frames(n: int, *, floating: bool = False, height: int = 90, width: int = 110) -> Frames:
    pixels = torch.randint(0, 256, (n, height, width, 3), generator=rng(1), dtype=torch.uint8)
    return Frames(pixels / 255 if floating else pixels, 7)


def generated(n: int) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=rng(2))


def placed(n: int) -> Tensor:
    """(N,2,3) crops that lie inside the frame, turned and scaled differently."""
    maps = []
    for i in range(n):
        a, s = math.radians(7 * i - 5), 0.9 + 0.15 * i
        c, d = s * math.cos(a), s * math.sin(a)
        maps.append([[c, -d, 25.3 + 3 * i], [d, c, 18.6 - i]])
    return torch.tensor(maps)


def whole(x: float, y: float) -> Tensor:
    """(1,2,3) a crop at its own size, on whole pixels."""
    return translation(torch.tensor([[float(x), float(y)]]))


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", ["paste", "feather"])
def test_mask_0_leaves_the_frames_alone(floating: bool, kind) -> None:
    before = frames(3, floating=floating)
    mask = torch.zeros(3, 1, SIZE, SIZE)
    after = composite(before, generated(3), crop_to_frame=placed(3), mask=mask, blend=kind)
    assert torch.equal(after.pixels, before.pixels) and after.start == before.start
    mask[0, 0, 20, 20] = 1  # one face speaks; the region of the others is written, with what was there
    after = composite(before, generated(3), crop_to_frame=placed(3), mask=mask, blend=kind)
    assert torch.equal(after.pixels[1:], before.pixels[1:])
    assert not torch.equal(after.pixels[0], before.pixels[0])


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", ["paste", "feather"])
def test_mask_1_shows_the_generated_face(floating: bool, kind) -> None:
    made = generated(1)
    after = composite(
        frames(1, floating=floating), made, crop_to_frame=whole(10, 5), mask=torch.ones(1, 1, SIZE, SIZE), blend=kind
    )
    got = after.pixels[0, 5 : 5 + SIZE, 10 : 10 + SIZE].permute(2, 0, 1)
    wanted = made[0] if floating else (made[0] * 255).round()
    torch.testing.assert_close(got.float(), wanted, atol=1e-4 if floating else 1, rtol=0)


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_mask_no_bit_changes(floating: bool, kind) -> None:
    before, maps = frames(3, floating=floating), placed(3)
    mask = face_mask(kind, points(3), SIZE)
    black = composite(before, torch.zeros(3, 3, SIZE, SIZE), crop_to_frame=maps, mask=mask).pixels
    white = composite(before, torch.ones(3, 3, SIZE, SIZE), crop_to_frame=maps, mask=mask).pixels
    # where black and white faces leave the same pixel, the mask is 0; there nothing may have happened
    free = (black == white).all(-1)
    assert 0.3 < float(free.float().mean()) < 1
    assert torch.equal(black[free], before.pixels[free])
    y, x = torch.meshgrid(torch.arange(90) + 0.5, torch.arange(110) + 0.5, indexing="ij")
    for i, matrix in enumerate(maps):
        inverse = torch.linalg.inv(matrix[:, :2])
        crop = (torch.stack([x, y], -1) - matrix[:, 2]) @ inverse.T
        beyond = ((crop < -0.51) | (crop > SIZE + 0.51)).any(-1)  # further than the half pixel of interpolation
        assert torch.equal(black[i][beyond], before.pixels[i][beyond])


def test_paste_takes_sides_and_feather_mixes() -> None:
    black = Frames(torch.zeros(1, 90, 110, 3))
    mask = face_mask("mouth", points(), SIZE)
    paste, feather = (
        composite(black, torch.ones(1, 3, SIZE, SIZE), crop_to_frame=whole(20, 30), mask=mask, blend=kind).pixels
        for kind in ("paste", "feather")
    )
    assert sorted(paste.unique().tolist()) == [0, 1]
    assert ((feather > 0.01) & (feather < 0.99)).any()
    torch.testing.assert_close(feather[0, 30 : 30 + SIZE, 20 : 20 + SIZE, 0], mask[0, 0], atol=1e-4, rtol=0)
    clear = (feather - 0.5).abs() > 1e-3
    assert torch.equal((feather > 0.5)[clear], paste.bool()[clear])


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_face_has_the_mirrored_mask(kind) -> None:
    p = points(2)
    mirrored = p[:, FLIPPED] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIZE), 0.0])
    torch.testing.assert_close(face_mask(kind, mirrored, SIZE), face_mask(kind, p, SIZE).flip(3), atol=1e-5, rtol=0)


def test_a_mirrored_scene_has_the_mirrored_composite() -> None:
    before, made, maps = frames(2, floating=True), generated(2), placed(2)
    mask = face_mask("face", points(2), SIZE)
    after = composite(before, made, crop_to_frame=maps, mask=mask).pixels
    flip_crop = torch.tensor([[[-1.0, 0, SIZE], [0, 1, 0]]]).expand(2, -1, -1)
    flip_frame = torch.tensor([[[-1.0, 0, 110], [0, 1, 0]]]).expand(2, -1, -1)
    mirrored = composite(
        Frames(before.pixels.flip(2)),
        made.flip(3),
        crop_to_frame=compose(flip_frame, compose(maps, flip_crop)),
        mask=mask.flip(3),
    )
    torch.testing.assert_close(mirrored.pixels.flip(2), after, atol=2e-4, rtol=0)


@pytest.mark.parametrize("feather", [0.0, 0.08, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_lie_between_0_and_1_and_end_inside_the_crop(kind, feather: float) -> None:
    mask = face_mask(kind, points(3), SIZE, feather=feather)
    assert mask.shape == (3, 1, SIZE, SIZE) and mask.dtype == torch.float32
    assert float(mask.min()) >= 0 and float(mask.max()) <= 1
    if feather:
        border = torch.cat([mask[..., 0], mask[..., -1], mask[..., 0, :], mask[..., -1, :]], -1)
        assert not border.any()
        steps = torch.cat([mask.diff(dim=2).flatten(), mask.diff(dim=3).flatten()]).abs()
        # x² (3 - 2x) over an edge of feather * size px is never steeper than 1.5 / width; twice that at most where the
        # distance to an ellipse is only approximate
        assert float(steps.max()) <= 3 / (feather * SIZE)
    else:
        assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_each_mask_covers_what_its_name_says() -> None:
    p = torch.tensor([ALIGNED]) * SIZE
    masks = {kind: face_mask(kind, p, SIZE, feather=0)[0, 0] for kind in KINDS}
    nose, mouth = p[0, 2].int().tolist(), p[0, 3:].mean(0).int().tolist()
    assert all(mask[mouth[1], mouth[0]] == 1 for mask in masks.values())
    assert all(masks["mouth"][int(y), int(x)] == 1 for x, y in p[0, 3:])
    assert not masks["mouth"][: SIZE // 3].any() and masks["face"][nose[1], nose[0]] == 1
    assert not masks["lower"][: SIZE // 2].any() and masks["lower"][SIZE // 2 :].all()
    assert masks["box"].all()
    areas = {kind: float(mask.mean()) for kind, mask in masks.items()}
    assert areas["mouth"] < areas["lower"] < areas["face"] < areas["box"]


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="mask is 'lips'; wanted mouth, lower, face or box"):
        face_mask("lips", points(), SIZE)  # type: ignore[arg-type]


def skin(seed: int, mean: float, spread: float) -> Tensor:
    return (mean + spread * torch.randn(2, 3, SIZE, SIZE, generator=rng(seed))).clamp(0, 1)


def test_a_tinted_face_gets_its_colours_back() -> None:
    source = skin(3, 0.5, 0.05)
    tint = torch.tensor([0.1, -0.05, 0.02]).view(3, 1, 1)
    weight = face_mask("face", points(2), SIZE)
    back = match_colour((source - 0.5) * 0.9 + 0.5 + tint, source, weight)
    torch.testing.assert_close(back, source, atol=1e-4, rtol=0)


def test_the_colour_match_looks_at_the_weight_alone_and_keeps_its_limits() -> None:
    source, made = skin(4, 0.5, 0.05), skin(5, 0.5, 0.05)
    weight = torch.zeros(2, 1, SIZE, SIZE)
    weight[:, :, :10] = 1
    other = made.clone()
    other[:, :, 10:] *= 0.3  # a dark mouth outside the weight
    torch.testing.assert_close(
        match_colour(other, source, weight)[:, :, :10], match_colour(made, source, weight)[:, :, :10]
    )
    far = match_colour(skin(6, 0.1, 0.01), skin(7, 0.9, 0.1), torch.ones(2, 1, SIZE, SIZE), limit=0.2)
    assert float(far.mean()) == pytest.approx(0.3, abs=0.01)  # shifted by 0.2 and no more
    assert float(far.std()) == pytest.approx(0.012, rel=0.1)  # spread by 1.2 and no more
    nothing = match_colour(made, source, torch.zeros(2, 1, SIZE, SIZE))
    assert bool(nothing.isfinite().all())


@pytest.mark.parametrize("kind", ["mouth", "box"])
def test_a_batch_is_its_single_frames(kind) -> None:
    before, made, maps = frames(4), generated(4), placed(4)
    mask = face_mask(kind, points(4), SIZE)
    together = composite(before, made, crop_to_frame=maps, mask=mask).pixels
    for i in range(4):
        one = slice(i, i + 1)
        alone = composite(Frames(before.pixels[one]), made[one], crop_to_frame=maps[one], mask=mask[one]).pixels
        off = (together[one].int() - alone.int()).abs()
        # the region is as large as the batch's largest face, so positions round differently in float32
        assert int(off.max()) <= 1 and float((off > 0).float().mean()) < 1e-3


@pytest.mark.parametrize("at", [(-20, 10), (80, 60), (-30, -30), (10, -40)])
def test_a_face_partly_outside_the_frame(at: tuple[int, int]) -> None:
    before, made = frames(1), generated(1)
    after = composite(before, made, crop_to_frame=whole(*at), mask=torch.ones(1, 1, SIZE, SIZE)).pixels[0]
    x, y = at
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + SIZE, 110), min(y + SIZE, 90)
    inside = (made[0, :, y0 - y : y1 - y, x0 - x : x1 - x] * 255).round().permute(1, 2, 0)
    assert int((after[y0:y1, x0:x1].int() - inside.int()).abs().max()) <= 1
    kept = torch.ones(90, 110, dtype=torch.bool)
    kept[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
    assert torch.equal(after[kept], before.pixels[0][kept])


def test_a_face_wholly_outside_the_frame_changes_nothing() -> None:
    before = frames(1)
    after = composite(before, generated(1), crop_to_frame=whole(500, -300), mask=torch.ones(1, 1, SIZE, SIZE))
    assert torch.equal(after.pixels, before.pixels)


def test_numbers_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="frames, faces, masks, maps number 2, 1, 1, 1; wanted as many of each"):
        composite(frames(2), generated(1), crop_to_frame=whole(0, 0), mask=torch.ones(1, 1, SIZE, SIZE))


def test_float64_gradients_of_the_composite() -> None:
    picture = torch.rand(1, 9, 8, 3, generator=rng(), dtype=torch.float64)
    made = torch.rand(1, 3, 5, 5, generator=rng(1), dtype=torch.float64, requires_grad=True)
    mask = (0.1 + 0.8 * torch.rand(1, 1, 5, 5, generator=rng(2), dtype=torch.float64)).requires_grad_(True)
    maps = torch.tensor([[[1.1, -0.2, 1.3], [0.2, 1.1, 1.7]]], dtype=torch.float64)

    def mixed(made: Tensor, mask: Tensor) -> Tensor:
        return composite(Frames(picture), made, crop_to_frame=maps, mask=mask).pixels

    assert torch.autograd.gradcheck(mixed, (made, mask))


def test_float64_gradients_of_the_colour_match() -> None:
    made = (0.3 + 0.4 * torch.rand(1, 3, 4, 4, generator=rng(), dtype=torch.float64)).requires_grad_(True)
    source = 0.3 + 0.4 * torch.rand(1, 3, 4, 4, generator=rng(1), dtype=torch.float64)
    weight = torch.rand(1, 1, 4, 4, generator=rng(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda g: match_colour(g, source, weight, limit=0.9), (made,))


def still(n: int) -> Movement:
    return Movement(torch.zeros(n, 2, SIZE, SIZE), torch.ones(n, 1, SIZE, SIZE))


@pytest.mark.parametrize("floating", [False, True])
def test_pixels_that_do_not_move_stay(floating: bool) -> None:
    """At the frame's own resolution: noise would not survive a crop and its enlargement."""
    before, mask = frames(3, floating=floating), torch.ones(3, 1, SIZE, SIZE)
    after = composite(before, generated(3), crop_to_frame=placed(3), mask=mask, movement=still(3))
    off = (after.pixels.float() - before.pixels.float()).abs() * (1 if floating else 1 / 255)
    assert off.max() <= (1e-4 if floating else 1.01 / 255)


def test_pixels_are_moved_by_the_crops_scale() -> None:
    before, maps = frames(1), compose(whole(20, 10), torch.tensor([[[1.5, 0.0, 0.0], [0.0, 1.5, 0.0]]]))
    movement = Movement(torch.tensor([2.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE), still(1).share)
    mask = torch.ones(1, 1, SIZE, SIZE)
    after = composite(before, generated(1), crop_to_frame=maps, mask=mask, movement=movement).pixels
    # 2 and -4 px of the crop are 3 and -6 px of the frame
    assert torch.equal(after[:, 20:60, 30:70], before.pixels[:, 14:54, 33:73])
    assert torch.equal(after[:, :9], before.pixels[:, :9])


def test_where_nothing_is_moved_the_paint_shows() -> None:
    before, made, mask = frames(2), generated(2), torch.ones(2, 1, SIZE, SIZE)
    painted = Movement(torch.randn(2, 2, SIZE, SIZE, generator=rng(5)), torch.zeros(2, 1, SIZE, SIZE))
    wanted = composite(before, made, crop_to_frame=placed(2), mask=mask)
    assert torch.equal(
        composite(before, made, crop_to_frame=placed(2), mask=mask, movement=painted).pixels, wanted.pixels
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_mask_0_keeps_every_bit_of_other_floats(dtype: torch.dtype) -> None:
    before = Frames(torch.rand(1, 90, 110, 3, generator=rng(4), dtype=torch.float64).to(dtype), 0)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 5], mask[..., -5] = 1, 1  # what lies between them is written with what was there
    after = composite(before, generated(1), crop_to_frame=whole(10, 5), mask=mask)
    assert torch.equal(after.pixels[:, :, 20:50], before.pixels[:, :, 20:50])
    assert not torch.equal(after.pixels, before.pixels)


def test_a_strength_for_each_frame() -> None:
    before, made, maps = frames(3), generated(3), placed(3)
    mask = face_mask("mouth", points(3), SIZE)
    shares = torch.tensor([0.0, 0.4, 1.0])
    got = composite(before, made, crop_to_frame=maps, mask=mask, strength=shares).pixels
    for i, share in enumerate(shares.tolist()):
        one = Frames(before.pixels[i : i + 1])
        alone = composite(
            one, made[i : i + 1], crop_to_frame=maps[i : i + 1], mask=mask[i : i + 1], strength=share
        ).pixels
        assert torch.equal(got[i], alone[0])
    assert torch.equal(got[0], before.pixels[0])
    with pytest.raises(ValueError, match="strength is"):
        composite(before, made, crop_to_frame=maps, mask=mask, strength=torch.tensor([0.0, 1.5, 1.0]))
