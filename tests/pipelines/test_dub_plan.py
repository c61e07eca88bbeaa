"""What a plan says of the faces before anything is drawn."""

import pytest
import torch

from lipsync_core.pipelines.dub_plan import small_mouth_warning
from lipsync_core.types import FaceTrack


def with_mouth(width: float) -> FaceTrack:
    """A face that is away in the first of three frames; its mouth is ``width`` px wide."""
    points = torch.zeros(3, 5, 2)
    points[1:, 4, 0] = width
    visible = torch.tensor([False, True, True])
    return FaceTrack(torch.tensor([[0.0, 0, 90, 90]]).repeat(3, 1), points, visible)


@pytest.mark.parametrize(("widths", "said"), [((40, 8), "8 px"), ((40, 12), None), ((), None)])
def test_a_mouth_that_is_too_small_to_be_seen_is_said(
    widths: tuple[float, ...], said: str | None
) -> None:
    warning = small_mouth_warning([with_mouth(width) for width in widths])
    assert warning is None if said is None else said in (warning or "")
