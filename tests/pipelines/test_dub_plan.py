"""What a plan says of the faces before anything is drawn."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lipsync_core.media import AudioSource
from lipsync_core.media.clip import ImageClip
from lipsync_core.pipelines.dub_plan import DubPlan, small_mouth_warning
from lipsync_core.pipelines.roles import FaceDub
from lipsync_core.types import Audio, FaceTrack


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


def test_frames_without_a_new_mouth_are_counted_by_their_reason() -> None:
    """Away, unclear, silent, speaking: one frame each."""
    track = replace(
        with_mouth(40),
        visible=torch.tensor([False, True, True, True]),
        boxes=torch.zeros(4, 4),
        points=torch.zeros(4, 5, 2),
        dense_scores=torch.tensor([0.0, 0.1, 0.9, 0.9]),
    )
    sound = Audio(torch.zeros(1, 1), 16000)
    face = FaceDub(sound, track, opacity=torch.tensor([1.0, 0, 0, 1]))
    clip = ImageClip(torch.zeros(4, 8, 8, 3), Fraction(25))
    plan = DubPlan(clip, torch.arange(4), (face,), AudioSource(sound), 1)
    assert plan.count_reasons() == {
        "no face found": 1,
        "face turned away, covered, cut off or drawn": 1,
        "speaker silent": 1,
    }
