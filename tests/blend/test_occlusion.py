"""Occlusion found by a reference frame, on drawn faces before which drawn things are held."""

from typing import get_args

import pytest
import torch
from helpers.occluders import OccluderKind, occluder, pasted
from torch import Tensor

from lipsync_core.blend.masks import face_mask
from lipsync_core.blend.occlusion import find_occlusion, pick_clearest
from lipsync_core.image.affine import ALIGNED

SIZE = 96
POINTS = torch.tensor([ALIGNED]) * SIZE
FLIPPED = [1, 0, 2, 4, 3]
KINDS = get_args(OccluderKind)
DENSE = {
    68: ((36, 39), (42, 45), (48, 54)),
    106: ((35, 39), (89, 93), (52, 61)),
    478: ((33, 133), (362, 263), (61, 291)),
}


def faces(*, opened: float = 0.0, size: int = SIZE, turned: float = 0.0, n: int = 1) -> Tensor:
    """(n,3,S,S) a face with eyes, brows, nostrils and lips, its mouth ``opened`` by a part of the
    side, before a wall; ``turned``: all but its outline moved by that part."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    picture = torch.tensor([0.2, 0.35, 0.5])[:, None, None].expand(3, size, size).clone()

    def paint(
        colour: tuple[float, float, float], at: tuple[float, float], wide: float, high: float
    ) -> None:
        inside = 1 - ((x - at[0]) / wide).square() - ((y - at[1]) / high).square()
        cover = (inside * min(wide, high) * size / 2 + 0.5).clamp(0, 1)
        shade = 1 - 0.15 * ((x - 0.5) / 0.4).square()
        picture.copy_(picture + cover * (torch.tensor(colour)[:, None, None] * shade - picture))

    paint((0.6, 0.44, 0.36), (0.5, 1.2), 0.33, 0.5)
    paint((0.75, 0.55, 0.45), (0.5, 0.45), 0.43, 0.53 + opened / 4)
    for side in (-1, 1):
        paint((0.3, 0.2, 0.15), (0.5 + turned + 0.21 * side, 0.12), 0.1, 0.025)
        paint((0.25, 0.2, 0.2), (0.5 + turned + 0.21 * side, 0.2), 0.06, 0.025)
        paint((0.35, 0.2, 0.18), (0.5 + turned + 0.05 * side, 0.49), 0.025, 0.015)
    paint((0.7, 0.3, 0.3), (0.5 + turned, 0.655 + opened / 2), 0.16, 0.05 + opened / 2)
    if opened:
        paint((0.15, 0.05, 0.05), (0.5 + turned, 0.655 + opened / 2), 0.12, opened / 2)
    return picture.expand(n, 3, size, size).contiguous()


def held(
    kind: OccluderKind, pixels: Tensor, at: tuple[float, float] = (0.05, 0.05)
) -> tuple[Tensor, Tensor]:
    """``pixels`` with a thing before them, and where it is."""
    points = (POINTS * (pixels.shape[3] / SIZE)).expand(len(pixels), 5, 2)
    colour, cover = occluder(kind, pixels, points, torch.tensor([at]).expand(len(pixels), 2))
    return pasted(pixels, colour, cover), cover


def mean_over(values: Tensor, weights: Tensor) -> float:
    return float((values * weights).sum() / weights.sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [96, 256])
def test_what_is_held_before_the_mouth_is_found(kind: OccluderKind, size: int) -> None:
    pixels, cover = held(kind, faces(size=size, opened=0.04))
    points = POINTS * (size / SIZE)
    found = find_occlusion(pixels, faces(size=size), points, size)
    mouth = face_mask("mouth", points, size)
    assert found.shape == (1, 1, size, size) and 0 <= float(found.min()) <= float(found.max()) <= 1
    assert mean_over(found, mouth * cover) > (0.6 if kind == "hair" else 0.8)
    hard = find_occlusion(pixels, faces(size=size), points, size, feather=0)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert mean_over(cover, mouth * hard) > (0.6 if kind == "hair" else 0.85)


def test_a_face_that_speaks_and_moves_covers_nothing() -> None:
    closed = faces()
    for pixels in (
        closed,
        faces(opened=0.08),
        faces(opened=0.16),
        faces(turned=0.06),
        0.75 * faces(opened=0.05),
        faces() * torch.tensor([1.1, 1.0, 0.9])[:, None, None],
        (
            faces()
            + 0.02 * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        ).clamp(0, 1),
    ):
        assert float(find_occlusion(pixels, closed, POINTS, SIZE).max()) == 0
        assert float(find_occlusion(closed, pixels, POINTS, SIZE).max()) == 0


def test_the_same_thing_in_the_reference_covers_nothing() -> None:
    beard, _ = held("scarf", faces())
    assert float(find_occlusion(beard, beard, POINTS, SIZE).max()) == 0


def test_another_scene_gives_no_verdict() -> None:
    other = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    other = torch.nn.functional.interpolate(other, SIZE, mode="bilinear")
    assert float(find_occlusion(other, faces(), POINTS.expand(4, 5, 2), SIZE).max()) == 0


def test_a_covered_reference_gives_no_verdict_and_is_not_chosen() -> None:
    covered = held("hand", faces())[0]
    assert float(find_occlusion(faces(opened=0.03), covered, POINTS, SIZE).max()) == 0
    pixels = torch.cat(
        [
            held("scarf", faces())[0],
            covered,
            faces(opened=0.05),
            faces(opened=0.02),
            held("hair", faces())[0],
            faces(),
        ]
    )
    assert int(pick_clearest(pixels, POINTS.expand(6, 5, 2))) in (2, 3, 5)


def test_the_soft_edge_lies_outside() -> None:
    pixels, _ = held("microphone", faces())
    hard, narrow, wide = (
        find_occlusion(pixels, faces(), POINTS, SIZE, feather=feather)
        for feather in (0.0, 0.08, 0.16)
    )
    assert float(narrow[hard > 0].min()) == 1
    assert bool((wide >= narrow).all()) and float(wide.mean()) > 1.1 * float(
        narrow.mean()
    ) > 1.2 * float(hard.mean())
    # 0.08 of 96 px, and a cell more
    far = torch.nn.functional.max_pool2d(hard, 2 * 10 + 1, 1, 10) == 0
    assert float(narrow[far].max()) == 0
    both = find_occlusion(
        pixels.expand(2, -1, -1, -1),
        faces(),
        POINTS.expand(2, 5, 2),
        SIZE,
        feather=torch.tensor([0.08, 0.16]),
    )
    torch.testing.assert_close(both, torch.cat([narrow, wide]))


def test_each_face_is_judged_alone() -> None:
    pixels = torch.cat([held(kind, faces(opened=0.03))[0] for kind in KINDS] + [faces(opened=0.1)])
    points = POINTS + torch.arange(len(pixels)).view(-1, 1, 1) * 0.3
    together = find_occlusion(pixels, faces(), points, SIZE)
    for i in range(len(pixels)):
        alone = find_occlusion(pixels[i : i + 1], faces(), points[i : i + 1], SIZE)
        # float32 sums in another order for another batch: up to 5.4e-6 of a mask in [0,1] on
        # AVX-512 without AMX
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(find_occlusion(pixels, faces(n=len(pixels)), points, SIZE), together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [96, 100])
def test_a_mirrored_face_gives_a_mirrored_mask(kind: OccluderKind, size: int) -> None:
    pixels, _ = held(kind, faces(size=size, turned=0.02), (0.12, 0.0))
    points = POINTS * (size / SIZE) + torch.tensor([0.7, -0.4])
    mirrored = points[:, FLIPPED] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(size), 0.0])
    given = find_occlusion(pixels, faces(size=size), points, size)
    assert bool(given.any())
    torch.testing.assert_close(
        find_occlusion(pixels.flip(3), faces(size=size).flip(3), mirrored, size),
        given.flip(3),
        atol=1e-3,
        rtol=0,
    )


@pytest.mark.parametrize("count", DENSE)
def test_dense_points_say_the_same(count: int) -> None:
    dense = torch.full((1, count, 2), torch.nan)
    for corners, middle in zip(
        DENSE[count], (POINTS[:, 0], POINTS[:, 1], POINTS[:, 3:].mean(1)), strict=True
    ):
        for corner, step in zip(corners, (-4, 4), strict=True):
            dense[:, corner] = middle + torch.tensor([step, 0.0])
    pixels, _ = held("microphone", faces())
    torch.testing.assert_close(
        find_occlusion(pixels, faces(), dense, SIZE), find_occlusion(pixels, faces(), POINTS, SIZE)
    )


def test_a_mask_of_another_size() -> None:
    pixels, _ = held("hand", faces())
    large, small = (find_occlusion(pixels, faces(), POINTS, size) for size in (192, SIZE))
    assert large.shape == (1, 1, 192, 192)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 2), small, atol=0.05, rtol=0)


def test_wrong_shapes_are_told() -> None:
    good = faces()
    with pytest.raises(ValueError, match="pixels are"):
        find_occlusion(good[:, :1], good, POINTS, SIZE)
    with pytest.raises(ValueError, match="reference is"):
        find_occlusion(faces(n=3), faces(n=2), POINTS.expand(3, 5, 2), SIZE)
    with pytest.raises(ValueError, match="points are"):
        find_occlusion(good, good, POINTS[:, :4], SIZE)
