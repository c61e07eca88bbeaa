"""Which face looks like the one in a picture."""

import pytest
import skimage.data
import torch
from torch import Tensor

from lipsync_core.errors import NoFaceError
from lipsync_core.faces.selection import select_like
from lipsync_core.faces.similarity import (
    PORTRAIT_SIZE,
    make_portrait,
    pick_portrait_frames,
    portrait_similarity,
)
from lipsync_core.types import FaceTrack

# by eye
ASTRONAUT = torch.tensor(
    [[203.5, 101.5], [246.2, 103.0], [223.7, 126.2], [204.2, 140.5], [243.5, 141.2]]
)
BOX = torch.tensor([180.0, 60.0, 267.0, 170.0])


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut())


def person(apart: list[float], *, start: int = 0, scene: int = 0) -> FaceTrack:
    """Visible where the distance of the eyes, one number a frame, is above 0."""
    distance = torch.tensor(apart)
    points = torch.zeros(len(apart), 5, 2)
    points[:, 1, 0] = distance
    return FaceTrack(
        torch.tensor([0.0, 0, 9, 9]).repeat(len(apart), 1), points, distance > 0, start, scene
    )


def test_portraits_are_spread_out_and_taken_where_the_face_is_nearest() -> None:
    track = person([3, 5, 4, 0, 0, 9, 2, 2, 8, 1], start=100)
    assert pick_portrait_frames(track, most=2) == [105, 108]
    assert pick_portrait_frames(track, most=3) == [101, 105, 108]
    # every visible frame, no other
    assert pick_portrait_frames(track, most=50) == [100, 101, 102, 105, 106, 107, 108, 109]
    assert pick_portrait_frames(person([0, 0])) == []
    with pytest.raises(ValueError, match="most is 0; expected 1"):
        pick_portrait_frames(track, most=0)


def test_a_portrait_is_upright_and_of_one_size(astronaut: Tensor) -> None:
    plain = make_portrait(astronaut, BOX, ASTRONAUT)
    assert (
        plain.shape == (3, PORTRAIT_SIZE, PORTRAIT_SIZE) and plain.min() >= 0 and plain.max() <= 1
    )
    turned = torch.stack([512 - ASTRONAUT[:, 1], ASTRONAUT[:, 0]], 1)  # a quarter turn clockwise
    torch.testing.assert_close(
        make_portrait(astronaut.rot90(-1), BOX, turned), plain, atol=2e-3, rtol=0
    )
    torch.testing.assert_close(
        make_portrait(astronaut / 255, BOX, ASTRONAUT), plain, atol=1e-5, rtol=0
    )


def test_a_dim_blurred_mirrored_face_is_more_like_itself_than_like_others(
    astronaut: Tensor,
) -> None:
    reference = make_portrait(astronaut, BOX, ASTRONAUT)
    changed = (torch.nn.functional.avg_pool2d(reference, 5, 1, 2).flip(2) * 0.5 + 0.1)[None]
    shapes = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    others = torch.nn.functional.interpolate(
        shapes, size=(PORTRAIT_SIZE, PORTRAIT_SIZE), mode="bicubic"
    ).clamp(0, 1)
    assert portrait_similarity(reference[None], reference) == pytest.approx(1)
    assert portrait_similarity(changed, reference) > portrait_similarity(others, reference) + 0.1
    best = portrait_similarity(torch.cat([others, changed]), reference)
    assert best == pytest.approx(portrait_similarity(changed, reference), abs=1e-6)


def test_wrong_shapes_are_refused(astronaut: Tensor) -> None:
    face = torch.zeros(3, PORTRAIT_SIZE, PORTRAIT_SIZE)
    for portraits, reference in (
        (face, face),
        (face[None][:0], face),
        (face[None], face[None]),
        (face[None], face[1:]),
    ):
        with pytest.raises(ValueError, match=r"expected \(P,3,96,96\), P >= 1, and \(3,96,96\)"):
            portrait_similarity(portraits, reference)
    with pytest.raises(ValueError, match=r"expected \(H,W,3\), \(4,\) and \(5,2\)"):
        make_portrait(astronaut[None], BOX, ASTRONAUT)


def test_everywhere_the_one_most_like_the_reference_is_chosen(astronaut: Tensor) -> None:
    """Two scenes; the face stands on the left in one and on the right in the other."""
    reference = make_portrait(astronaut, BOX, ASTRONAUT)
    noise = torch.rand(2, *reference.shape, generator=torch.Generator().manual_seed(0))
    own = (reference + 0.1 * (noise - 0.5)).clamp(0, 1)
    tracks = [
        person([3] * 4),
        person([4] * 4),
        person([0, 0]),
        person([5] * 3, start=4, scene=4),
        person([6] * 3, start=4, scene=4),
    ]
    chosen = select_like(tracks, [own, noise, noise[:0], noise, own], reference)
    assert (chosen.start, chosen.scene) == (0, 0)
    assert chosen.points[:, 1, 0].tolist() == [3.0] * 4 + [6.0] * 3


def test_nobody_and_missing_portraits_are_errors() -> None:
    face = torch.zeros(3, PORTRAIT_SIZE, PORTRAIT_SIZE)
    with pytest.raises(NoFaceError, match="no face was found"):
        select_like([person([0])], [face[None][:0]], face)
    with pytest.raises(ValueError, match="portraits of 1 people for 2 tracks"):
        select_like([person([1]), person([1])], [face[None]], face)
    with pytest.raises(ValueError, match="P >= 1"):
        select_like([person([1])], [face[None][:0]], face)
