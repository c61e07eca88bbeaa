"""What landmarks say of a mouth."""

import pytest
import torch
from torch import Tensor

from lipsync_core.image.landmarks import (
    INNER_LIPS,
    JAW,
    LEFT_EYE,
    LIP_LAYOUTS,
    MEDIAPIPE_VERTICES,
    NOSE_BASE,
    OUTER_LIPS,
    POINTS,
    RIGHT_EYE,
    jaw_drop,
    mouth_opening,
    mouth_width,
    to_own_points,
)


def face(count: int) -> Tensor:
    """(1,K,2): eyes 100 px apart, inner lips 20, 30 and 25 px, mouth 60 px wide, chin 70 px under
    the nose."""
    layout, points = LIP_LAYOUTS[count], torch.full((1, count, 2), 50.0)
    places = {
        layout.eyes: ((0, 0), (100, 0)),
        layout.corners: ((20, 80), (80, 80)),
        layout.jaw: ((50, 50), (50, 120)),
    }
    for k, (pair, apart) in enumerate(zip(layout.gaps, (20, 30, 25), strict=True)):
        places[pair] = ((40 + 10 * k, 70), (40 + 10 * k, 70 + apart))
    for pair, at in places.items():
        points[0, list(pair)] = torch.tensor(at, dtype=torch.float32)
    return points


@pytest.mark.parametrize("count", sorted(LIP_LAYOUTS))
def test_a_mouth_is_measured_in_eye_distances(count: int) -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    points = torch.cat([face(count), face(count) * 3 + 7, face(count) @ turn])
    torch.testing.assert_close(mouth_opening(points), torch.full((3,), 0.25))
    torch.testing.assert_close(mouth_width(points), torch.full((3,), 0.6))
    torch.testing.assert_close(jaw_drop(points), torch.full((3,), 0.7))


def test_the_places_are_twelve_different_points() -> None:
    for layout in LIP_LAYOUTS.values():
        pairs = (*layout.gaps, layout.corners, layout.eyes, layout.jaw)
        assert len({point for pair in pairs for point in pair}) == 12


def test_our_points_measure_what_the_mesh_does() -> None:
    mesh = torch.rand(4, 478, 2, generator=torch.Generator().manual_seed(0))
    ours = mesh[:, list(MEDIAPIPE_VERTICES)]
    for measure in (mouth_opening, mouth_width, jaw_drop):
        torch.testing.assert_close(measure(ours), measure(mesh), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 5, 2), (68, 2), (1, 68, 3)])
def test_unknown_layouts_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"\(N,68,2\), \(N,102,2\), \(N,106,2\), \(N,468,2\), \(N,478,2\)"
    ):
        mouth_opening(torch.zeros(shape))


def test_points_of_other_layouts_become_ours() -> None:
    ibug = face(68) + torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(1))
    own = to_own_points(ibug)
    assert own is not None and own.shape == (1, POINTS, 2)
    same = {
        OUTER_LIPS.start: 48,
        OUTER_LIPS.start + 5: 57,
        OUTER_LIPS.start + 10: 54,
        OUTER_LIPS.start + 15: 51,
        INNER_LIPS.start: 60,
        INNER_LIPS.start + 10: 64,
        JAW.start: 0,
        JAW.start + 10: 8,
        LEFT_EYE.start: 36,
        RIGHT_EYE.start + 4: 45,
        NOSE_BASE.start + 2: 33,
    }
    torch.testing.assert_close(own[:, list(same)], ibug[:, list(same.values())])
    torch.testing.assert_close(mouth_width(own), mouth_width(ibug))
    mesh = face(478)
    for count in (468, 478):
        converted = to_own_points(mesh[:, :count])
        assert converted is not None
        torch.testing.assert_close(mouth_opening(converted), mouth_opening(mesh))


def test_insightfaces_points_become_ours() -> None:
    small = face(106)
    own = to_own_points(small)
    assert own is not None
    for measure in (mouth_width, jaw_drop):
        torch.testing.assert_close(measure(own), measure(small))


@pytest.mark.parametrize("points", [torch.rand(2, 98, 2), torch.ones(2, 68, 2), face(468) * 0])
def test_points_that_show_no_mouth_are_not_converted(points: Tensor) -> None:
    assert to_own_points(points) is None
