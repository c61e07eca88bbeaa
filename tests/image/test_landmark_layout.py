"""What landmarks say of a mouth."""

import pytest
import torch
from torch import Tensor

from lipsync_core.image.landmarks import (
    LIP_LAYOUTS,
    MEDIAPIPE_VERTICES,
    jaw_drop,
    mouth_opening,
    mouth_width,
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
