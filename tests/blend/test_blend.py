"""Masks, colour match and composite: untouched means untouched, bit for bit."""

from fractions import Fraction
from typing import get_args

import pytest
import torch
from helpers.blends import SIZE, frames, generated, placed, points, rng, whole
from torch import Tensor

from lipsync_core.blend.blender import Blender, FaceCrops
from lipsync_core.blend.composite import Patch, PixelSource, composite
from lipsync_core.blend.masks import face_mask
from lipsync_core.blend.seamless import Seamless, compute_seam_correction
from lipsync_core.blend.texture import Texture
from lipsync_core.image.affine import ALIGNED, compose
from lipsync_core.image.crop import crop_pictures
from lipsync_core.options import Blend, MaskKind
from lipsync_core.types import Frames

KINDS = get_args(MaskKind)
FLIPPED = [1, 0, 2, 4, 3]  # the points of a mirrored face


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", ["paste", "feather"])
def test_mask_0_leaves_the_frames_alone(floating: bool, kind) -> None:
    before = frames(3, floating=floating)
    mask = torch.zeros(3, 1, SIZE, SIZE)
    after = composite(before, Patch(generated(3), mask, placed(3)), edge=kind)
    assert torch.equal(after.pixels, before.pixels) and after.start == before.start
    # one face speaks; the region of the others is written, with what was there
    mask[0, 0, 20, 20] = 1
    after = composite(before, Patch(generated(3), mask, placed(3)), edge=kind)
    assert torch.equal(after.pixels[1:], before.pixels[1:])
    assert not torch.equal(after.pixels[0], before.pixels[0])


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", ["paste", "feather"])
def test_mask_1_shows_the_generated_face(floating: bool, kind) -> None:
    made = generated(1)
    after = composite(
        frames(1, floating=floating),
        Patch(made, torch.ones(1, 1, SIZE, SIZE), whole(10, 5)),
        edge=kind,
    )
    got = after.pixels[0, 5 : 5 + SIZE, 10 : 10 + SIZE].permute(2, 0, 1)
    wanted = made[0] if floating else (made[0] * 255).round()
    torch.testing.assert_close(got.float(), wanted, atol=1e-4 if floating else 1, rtol=0)


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_mask_no_bit_changes(floating: bool, kind) -> None:
    before, maps = frames(3, floating=floating), placed(3)
    mask = face_mask(kind, points(3), SIZE)
    black = composite(before, Patch(torch.zeros(3, 3, SIZE, SIZE), mask, maps)).pixels
    white = composite(before, Patch(torch.ones(3, 3, SIZE, SIZE), mask, maps)).pixels
    # where black and white faces leave the same pixel, the mask is 0; there nothing may have
    # happened
    free = (black == white).all(-1)
    assert 0.3 < float(free.float().mean()) < 1
    assert torch.equal(black[free], before.pixels[free])
    y, x = torch.meshgrid(torch.arange(90) + 0.5, torch.arange(110) + 0.5, indexing="ij")
    for i, matrix in enumerate(maps):
        inverse = torch.linalg.inv(matrix[:, :2])
        crop = (torch.stack([x, y], -1) - matrix[:, 2]) @ inverse.T
        # further than the half pixel of interpolation
        beyond = ((crop < -0.51) | (crop > SIZE + 0.51)).any(-1)
        assert torch.equal(black[i][beyond], before.pixels[i][beyond])


def test_paste_takes_sides_and_feather_mixes() -> None:
    black = Frames(torch.zeros(1, 90, 110, 3))
    mask = face_mask("mouth", points(), SIZE)
    paste, feather = (
        composite(black, Patch(torch.ones(1, 3, SIZE, SIZE), mask, whole(20, 30)), edge=kind).pixels
        for kind in ("paste", "feather")
    )
    assert sorted(paste.unique().tolist()) == [0, 1]
    assert ((feather > 0.01) & (feather < 0.99)).any()
    torch.testing.assert_close(
        feather[0, 30 : 30 + SIZE, 20 : 20 + SIZE, 0], mask[0, 0], atol=1e-4, rtol=0
    )
    clear = (feather - 0.5).abs() > 1e-3
    assert torch.equal((feather > 0.5)[clear], paste.bool()[clear])


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_face_has_the_mirrored_mask(kind) -> None:
    p = points(2)
    mirrored = p[:, FLIPPED] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIZE), 0.0])
    torch.testing.assert_close(
        face_mask(kind, mirrored, SIZE), face_mask(kind, p, SIZE).flip(3), atol=1e-5, rtol=0
    )


def test_a_mirrored_scene_has_the_mirrored_composite() -> None:
    before, made, maps = frames(2, floating=True), generated(2), placed(2)
    mask = face_mask("face", points(2), SIZE)
    after = composite(before, Patch(made, mask, maps)).pixels
    flip_crop = torch.tensor([[[-1.0, 0, SIZE], [0, 1, 0]]]).expand(2, -1, -1)
    flip_frame = torch.tensor([[[-1.0, 0, 110], [0, 1, 0]]]).expand(2, -1, -1)
    mirrored = composite(
        Frames(before.pixels.flip(2)),
        Patch(made.flip(3), mask.flip(3), compose(flip_frame, compose(maps, flip_crop))),
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
        # x² (3 - 2x) over an edge of feather * size px is never steeper than 1.5 / width; twice
        # that at most where the distance to an ellipse is only approximate
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
    with pytest.raises(ValueError, match="mask is 'lips'"):
        face_mask("lips", points(), SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mouth", "box"])
def test_a_batch_is_its_single_frames(kind) -> None:
    before, made, maps = frames(4), generated(4), placed(4)
    mask = face_mask(kind, points(4), SIZE)
    together = composite(before, Patch(made, mask, maps)).pixels
    for i in range(4):
        one = slice(i, i + 1)
        alone = composite(Frames(before.pixels[one]), Patch(made[one], mask[one], maps[one])).pixels
        off = (together[one].int() - alone.int()).abs()
        # the region is as large as the batch's largest face, so positions round differently in
        # float32
        assert int(off.max()) <= 1 and float((off > 0).float().mean()) < 1e-3


@pytest.mark.parametrize("at", [(-20, 10), (80, 60), (-30, -30), (10, -40)])
def test_a_face_partly_outside_the_frame(at: tuple[int, int]) -> None:
    before, made = frames(1), generated(1)
    after = composite(before, Patch(made, torch.ones(1, 1, SIZE, SIZE), whole(*at))).pixels[0]
    x, y = at
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + SIZE, 110), min(y + SIZE, 90)
    inside = (made[0, :, y0 - y : y1 - y, x0 - x : x1 - x] * 255).round().permute(1, 2, 0)
    assert int((after[y0:y1, x0:x1].int() - inside.int()).abs().max()) <= 1
    kept = torch.ones(90, 110, dtype=torch.bool)
    kept[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
    assert torch.equal(after[kept], before.pixels[0][kept])


def test_a_face_wholly_outside_the_frame_changes_nothing() -> None:
    before = frames(1)
    after = composite(before, Patch(generated(1), torch.ones(1, 1, SIZE, SIZE), whole(500, -300)))
    assert torch.equal(after.pixels, before.pixels)


def test_numbers_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="2, 1, 1, 1"):
        composite(frames(2), Patch(generated(1), torch.ones(1, 1, SIZE, SIZE), whole(0, 0)))


def test_float64_gradients_of_the_composite() -> None:
    picture = torch.rand(1, 9, 8, 3, generator=rng(), dtype=torch.float64)
    made = torch.rand(1, 3, 5, 5, generator=rng(1), dtype=torch.float64, requires_grad=True)
    mask = (
        0.1 + 0.8 * torch.rand(1, 1, 5, 5, generator=rng(2), dtype=torch.float64)
    ).requires_grad_(True)
    maps = torch.tensor([[[1.1, -0.2, 1.3], [0.2, 1.1, 1.7]]], dtype=torch.float64)

    def mixed(made: Tensor, mask: Tensor) -> Tensor:
        return composite(Frames(picture), Patch(made, mask, maps)).pixels

    assert torch.autograd.gradcheck(mixed, (made, mask), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_mask_0_keeps_every_bit_of_other_floats(dtype: torch.dtype) -> None:
    before = Frames(torch.rand(1, 90, 110, 3, generator=rng(4), dtype=torch.float64).to(dtype), 0)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 5], mask[..., -5] = 1, 1  # what lies between them is written with what was there
    after = composite(before, Patch(generated(1), mask, whole(10, 5)))
    assert torch.equal(after.pixels[:, :, 20:50], before.pixels[:, :, 20:50])
    assert not torch.equal(after.pixels, before.pixels)


def test_a_strength_for_each_frame() -> None:
    before, made, maps = frames(3), generated(3), placed(3)
    mask = face_mask("mouth", points(3), SIZE)
    shares = torch.tensor([0.0, 0.4, 1.0])
    got = composite(before, Patch(made, mask, maps), strength=shares).pixels
    for i, share in enumerate(shares.tolist()):
        one = Frames(before.pixels[i : i + 1])
        alone = composite(
            one, Patch(made[i : i + 1], mask[i : i + 1], maps[i : i + 1]), strength=share
        ).pixels
        assert torch.equal(got[i], alone[0])
    assert torch.equal(got[0], before.pixels[0])
    with pytest.raises(ValueError, match="strength is"):
        composite(before, Patch(made, mask, maps), strength=torch.tensor([0.0, 1.5, 1.0]))


SEAMLESS = get_args(Seamless)


def smooth_faces(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    noise = torch.rand(n, 3, 6, 6, generator=rng(seed), dtype=dtype)
    return torch.nn.functional.interpolate(noise, (SIZE, SIZE), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("kind", SEAMLESS)
def test_a_wrong_light_leaves_no_step_at_the_border(kind) -> None:
    source = smooth_faces(2, 3)
    drawn = source + torch.tensor([0.12, -0.06, 0.03])[:, None, None]
    mask = face_mask("mouth", points(2), SIZE, feather=0.12)
    left = (drawn - compute_seam_correction(kind, drawn - source, mask) - source).abs() * mask
    before = (drawn - source).abs() * mask
    border = ((mask > 0.05) & (mask < 0.5)).expand_as(left)
    assert float(left[border].mean()) < 0.35 * float(before[border].mean())
    if kind != "pyramid":  # which keeps what is far from the border as it was drawn
        assert float(left.max()) < 0.02


@pytest.mark.parametrize("kind", SEAMLESS)
def test_what_fits_is_left_alone(kind) -> None:
    mask = face_mask("mouth", points(2), SIZE, feather=0.12)
    assert not compute_seam_correction(kind, torch.zeros(2, 3, SIZE, SIZE), mask).any()


@pytest.mark.parametrize("kind", SEAMLESS)
def test_a_residue_is_mirrored_with_its_face_and_knows_no_neighbours(kind) -> None:
    difference = smooth_faces(3, 4) - 0.5
    mask = face_mask("mouth", points(3), SIZE, feather=0.12)
    field = compute_seam_correction(kind, difference, mask)
    torch.testing.assert_close(
        compute_seam_correction(kind, difference.flip(3), mask.flip(3)).flip(3),
        field,
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(
        compute_seam_correction(kind, difference[1:2], mask[1:2]), field[1:2], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("kind", SEAMLESS)
def test_a_residue_has_its_gradient(kind) -> None:
    difference = (
        (smooth_faces(1, 6, torch.float64) * 0.2)[..., ::4, ::4].contiguous().requires_grad_()
    )
    mask = face_mask("mouth", points()[:1].double() / 4, SIZE // 4, feather=0.2)
    assert torch.autograd.gradcheck(
        lambda x: compute_seam_correction(kind, x, mask), (difference,), fast_mode=True
    )


def test_a_residue_is_taken_off_what_was_drawn_and_what_was_moved_alike() -> None:
    before, maps, mask = frames(2, floating=True), placed(2), face_mask("mouth", points(2), SIZE)
    drawn, less = smooth_faces(2, 7) * 0.5 + 0.3, (smooth_faces(2, 8) - 0.5) * 0.1
    # no share of the frame's own pixels
    still = PixelSource(torch.zeros(2, 2, SIZE, SIZE), torch.zeros(2, 1, SIZE, SIZE))
    a = composite(before, Patch(drawn, mask, maps, seam=less)).pixels
    b = composite(before, Patch(drawn, mask, maps, (still,), seam=less)).pixels
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    plain = composite(before, Patch(drawn, mask, maps)).pixels
    assert float((a - plain).abs().max()) > 0.01


def grainy(n: int) -> Frames:
    """Smooth pictures with grain."""
    picture = torch.nn.functional.interpolate(
        torch.rand(n, 3, 9, 11, generator=rng(11)), (90, 110), mode="bicubic"
    )
    noise = torch.randn(n, 1, 90, 110, generator=rng(12)) * 0.03
    return Frames((picture * 0.4 + 0.3 + noise).clamp(0, 1).permute(0, 2, 3, 1).contiguous())


def laplacian(pixels: Tensor) -> Tensor:
    return (
        4 * pixels[:, 1:-1, 1:-1]
        - pixels[:, 2:, 1:-1]
        - pixels[:, :-2, 1:-1]
        - pixels[:, 1:-1, 2:]
        - pixels[:, 1:-1, :-2]
    )


def test_a_blurred_copy_gets_the_frames_detail_back() -> None:
    before, maps = grainy(2), placed(2) * torch.tensor([1.4, 1.4, 1.0])
    small = torch.nn.functional.interpolate(
        crop_pictures(before.pixels, maps, SIZE), (SIZE // 3, SIZE // 3), mode="area"
    )
    blurred = torch.nn.functional.interpolate(small, (SIZE, SIZE), mode="bilinear")
    mask = face_mask("mouth", points(2), SIZE)
    texture = Texture(1, 1, (0, 1))
    plain, fine = (
        composite(before, Patch(blurred, mask, maps), texture=given).pixels
        for given in (None, texture)
    )
    inside = (plain != before.pixels).all(-1)[:, 1:-1, 1:-1]
    kept = [
        float(laplacian(x)[inside].std() / laplacian(before.pixels)[inside].std())
        for x in (plain, fine)
    ]
    assert kept[0] < 0.6 and kept[1] > 0.9
    assert float((fine - before.pixels).abs().mean()) < float((plain - before.pixels).abs().mean())


def test_another_mouth_gets_grain_but_not_the_old_lips() -> None:
    before, mask = grainy(1), face_mask("mouth", points(), SIZE)
    dark = torch.full((1, 3, SIZE, SIZE), 0.02)  # nothing like the frame: no detail of it fits
    clean, grained = (
        composite(before, Patch(dark, mask, whole(20, 20)), texture=Texture(1, grain, (5,))).pixels
        for grain in (0, 1)
    )
    inside = torch.zeros(90, 110, dtype=torch.bool)
    inside[20 : 20 + SIZE, 20 : 20 + SIZE] = mask[0, 0] > 0.999
    assert float(clean[0][inside].std()) < 1e-3
    assert 0.005 < float(grained[0][inside].std()) < 0.04
    again = composite(before, Patch(dark, mask, whole(20, 20)), texture=Texture(1, 1, (5,))).pixels
    later = composite(before, Patch(dark, mask, whole(20, 20)), texture=Texture(1, 1, (6,))).pixels
    assert torch.equal(grained, again) and not torch.equal(grained, later)


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_a_perfect_generator_gives_the_source_back(scale: float) -> None:
    """Crops at least as large as the face, band-limited pictures: through both warps within a
    level."""
    noise = torch.rand(2, 3, 5, 6, generator=rng(14))
    picture = torch.nn.functional.interpolate(
        noise, (90, 110), mode="bicubic", align_corners=True
    ).clamp(0, 1)
    before = Frames((picture * 255).round().byte().permute(0, 2, 3, 1).contiguous())
    maps = placed(2) * torch.tensor([scale, scale, 1.0])
    crops, mask = crop_pictures(before.pixels, maps, SIZE), face_mask("mouth", points(2), SIZE)
    for kind in SEAMLESS:
        less = compute_seam_correction(kind, torch.zeros_like(crops), mask)
        after = composite(
            before, Patch(crops, mask, maps, seam=less), texture=Texture(1, 0, (0, 1))
        ).pixels
        assert int((after.int() - before.pixels.int()).abs().max()) <= 1


def test_an_edge_in_px_of_the_frame() -> None:
    faces = FaceCrops(placed(2) * torch.tensor([3.0, 3.0, 1.0]), points(2))
    # a tenth of the first crop's side, which is 2.7 times as large there
    wide = Blend(feather_px=3 * 0.9 * 0.1 * SIZE)
    got, expected = (
        blender.make_mask(faces, torch.arange(2), blender.start(Fraction(25))).shape[0]
        for blender in (Blender(wide, SIZE), Blender(Blend(feather=0.1), SIZE))
    )
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


def test_an_edge_for_each_face() -> None:
    widths = torch.tensor([0.05, 0.2])
    both = face_mask("mouth", points(2), SIZE, feather=widths)
    for i, width in enumerate(widths.tolist()):
        torch.testing.assert_close(both[i], face_mask("mouth", points(2), SIZE, feather=width)[i])
