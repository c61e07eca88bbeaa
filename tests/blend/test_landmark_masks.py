"""Masks from dense landmarks: they follow the face, in every layout alike."""

import math
from typing import get_args

import pytest
import torch
from helpers.faces import face
from torch import Tensor

from lipsync_core.blend.landmark_masks import (
    LAYOUTS,
    OutlineKind,
    outline_distance,
    outline_mask,
    polygon_distance,
)

SIZE = 64
KINDS = get_args(OutlineKind)


@pytest.mark.parametrize("count", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_lie_between_0_and_1_and_end_inside_the_crop(count: int, kind: OutlineKind) -> None:
    for feather in (0.08, 0.3):
        mask = outline_mask(kind, face(count, 3) * 1.1, SIZE, feather=feather, inset=-0.05)
        assert (
            mask.shape == (3, 1, SIZE, SIZE) and float(mask.min()) >= 0 and float(mask.max()) <= 1
        )
        assert not torch.cat(
            [mask[..., 0], mask[..., -1], mask[..., 0, :], mask[..., -1, :]], -1
        ).any()
        assert bool(mask.flatten(1).any(1).all())
    assert set(outline_mask(kind, face(count), SIZE, feather=0).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("count", LAYOUTS)
def test_each_kind_holds_what_it_says(count: int) -> None:
    mouth, lower, whole = (
        outline_mask(kind, face(count), SIZE, feather=0)[0, 0].bool() for kind in KINDS
    )
    lips, chin, nose, cheek, eye, neck = (32, 44), (32, 57), (32, 28), (14, 36), (22, 22), (32, 63)

    def held(mask: Tensor) -> list[bool]:
        return [bool(mask[y, x]) for x, y in (lips, chin, nose, cheek, eye, neck)]

    assert held(mouth) == [True, True, False, False, False, False]
    assert held(lower) == [True, True, False, True, False, False]
    assert held(whole) == [True, True, True, True, True, False]
    assert not (mouth & ~lower).any()
    soft = outline_mask("mouth", face(count), SIZE)[0, 0]
    assert not soft[~mouth].gt(0.01).any()  # the soft edge lies inside
    grown = outline_mask("mouth", face(count), SIZE, feather=0, inset=-0.05)[0, 0].bool()
    assert not (mouth & ~grown).any() and int(grown.sum()) > int(mouth.sum())


@pytest.mark.parametrize("count", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_face_has_the_mirrored_mask(count: int, kind: OutlineKind) -> None:
    points, layout = face(count, 2), LAYOUTS[count]
    swapped = torch.arange(count)
    for row in (layout.jaw, layout.brows, layout.nose):
        swapped[list(row)] = torch.tensor(row[::-1])
    mirrored = points[:, swapped] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIZE), 0.0])
    for size in (SIZE, 63):
        straight = outline_mask(kind, points * size / SIZE, size).flip(3)
        torch.testing.assert_close(
            outline_mask(kind, mirrored * size / SIZE, size), straight, atol=1e-4, rtol=0
        )


def test_a_batch_is_its_faces_one_by_one() -> None:
    points = face(68, 5)
    singles = torch.cat([outline_mask("mouth", one[None], SIZE) for one in points])
    torch.testing.assert_close(outline_mask("mouth", points, SIZE), singles, atol=1e-6, rtol=0)
    assert outline_mask("mouth", points[:0], SIZE).shape == (0, 1, SIZE, SIZE)


def test_the_distance_is_one() -> None:
    square = torch.tensor([[[10.0, 20], [50, 20], [50, 60], [10, 60]]])
    for corners in (square, square.flip(1)):  # either way round
        distance = polygon_distance(corners, SIZE)[0]
        got = [float(distance[y, x]) for x, y in ((11, 40), (30, 30), (9, 40), (7, 17), (30, 63))]
        assert got == pytest.approx([1.5, 10.5, -0.5, -math.hypot(2.5, 2.5), -3.5], abs=1e-4)
    dent = torch.tensor([[[10.0, 10], [50, 10], [30, 30], [50, 50], [10, 50]]])
    assert polygon_distance(dent, SIZE)[0, 29, 45] < 0 < polygon_distance(dent, SIZE)[0, 29, 20]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_computed_coarsely_is_nearly_the_distance(kind: OutlineKind) -> None:
    points, layout = face(68) * 4, LAYOUTS[68]
    skipped = {"mouth": 3, "lower": 1, "face": 0}[kind]
    above = layout.brows if kind == "face" else layout.nose
    exact = polygon_distance(points[:, [*layout.jaw[skipped : 17 - skipped], *above[::-1]]], 256)
    off = (outline_distance(kind, points, 256) - exact)[..., 4:-4, 4:-4].abs()
    assert float(off.max()) < 2.5 and float(off.mean()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: OutlineKind) -> None:
    points = (face(68) / 4).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: outline_mask(kind, p, 16, feather=0.2), points, fast_mode=True
    )


def test_other_points_and_kinds_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"points are \(1, 5, 2\); expected one of \(N,68,2\), \(N,102,2\), \(N,106,2\)",
    ):
        outline_mask("mouth", torch.zeros(1, 5, 2), SIZE)
    with pytest.raises(ValueError, match="outline is 'box'"):
        outline_mask("box", face(68), SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", LAYOUTS)
def test_layouts_name_every_point_once(count: int) -> None:
    layout = LAYOUTS[count]
    named = [*layout.jaw, *layout.brows, *layout.nose]
    assert len(set(named)) == len(named) and max(named) < count and len(layout.jaw) % 2 == 1
