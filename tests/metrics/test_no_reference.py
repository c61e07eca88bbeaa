"""Blur, jitter and leaking lips, on a drawn face: each metric answers to its own artefact, however
frames are batched."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_core.blend.composite import Patch, composite
from lipsync_core.blend.masks import face_mask
from lipsync_core.image.affine import ALIGNED, Framing, apply, crop_to_frame, invert
from lipsync_core.metrics.no_reference import BorderJitter, MouthMotion, Sharpness
from lipsync_core.types import FaceTrack, Frames

COUNT, SIDE, FPS = 16, 160, Fraction(25)
CROP = 120
QUIET = torch.ones(COUNT, dtype=torch.bool)


def skin() -> Tensor:
    """(1,3,SIDE,SIDE) smooth noise, the same everywhere: neither mouth nor cheek is sharper."""
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    return F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="replicate"), 3, 1)


def track(shift: Tensor | None = None) -> FaceTrack:
    points = (torch.tensor([ALIGNED]) * CROP + 20).repeat(COUNT, 1, 1)
    if shift is not None:
        points = points + shift[:, None]
    return FaceTrack(torch.zeros(COUNT, 4), points, QUIET.clone())


def frames(pictures: Tensor) -> Frames:
    return Frames((pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1))


def still() -> Frames:
    return frames(skin().repeat(COUNT, 1, 1, 1))


def dubbed(clip: Frames, made: Tensor, face: FaceTrack, *, shake: float = 0) -> Frames:
    """Paste ``made`` (N,3,CROP,CROP) under a mouth mask that trembles by ``shake`` crop px."""
    matrices = crop_to_frame(face.boxes, face.points, Framing(), CROP)
    noise = torch.randn(COUNT, 1, 2, generator=torch.Generator().manual_seed(4))
    points = apply(invert(matrices), face.points) + shake * noise
    return composite(clip, Patch(made, face_mask("mouth", points, CROP), matrices))


def blurred(x: Tensor, sigma: float) -> Tensor:
    axis = torch.arange(-12, 13).float()
    kernel = torch.exp(-axis.square() / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.conv2d(F.pad(x, (12, 12, 12, 12), mode="replicate"), kernel, groups=3)
    return F.conv2d(x, kernel.mT, groups=3)


def measured(metric, clip: Frames, face: FaceTrack, chunk: int = COUNT) -> float | None:
    for start in range(0, clip.pixels.shape[0], chunk):
        metric.update(Frames(clip.pixels[start : start + chunk], start), face)
    return metric.compute()


def cropped() -> Tensor:
    return skin()[:, :, 20 : 20 + CROP, 20 : 20 + CROP].repeat(COUNT, 1, 1, 1)


def test_sharpness_falls_with_every_blur_of_the_mouth() -> None:
    sharp = measured(Sharpness(), still(), track())
    assert sharp == pytest.approx(1, abs=0.05)
    values = [
        measured(Sharpness(), dubbed(still(), blurred(cropped(), s), track()), track())
        for s in (0.5, 1, 2, 4)
    ]
    assert all(
        a is not None and b is not None and b < 0.8 * a for a, b in pairwise([sharp, *values])
    )
    everywhere = frames(blurred(skin(), 1).repeat(COUNT, 1, 1, 1))
    assert measured(Sharpness(), everywhere, track()) == pytest.approx(
        1, abs=0.15
    )  # an unsharp lens is no unsharp mouth


def test_border_jitter_rises_with_the_shaking_of_the_mask() -> None:
    made = cropped() * 0.8
    values = [
        measured(BorderJitter(), dubbed(still(), made, track(), shake=s), track())
        for s in (0, 0.5, 1, 2, 4)
    ]
    assert values[0] == 0
    assert all(b is not None and a is not None and b > 1.4 * a for a, b in pairwise(values[1:]))
    assert values[1] is not None and values[1] > 0.1


def test_motion_is_nil_for_a_still_mouth_and_high_for_moving_lips() -> None:
    lips = cropped()
    lips[1::2] = lips[1::2].flip(3)
    assert measured(MouthMotion(QUIET, FPS), still(), track()) == 0
    moving = measured(MouthMotion(QUIET, FPS), dubbed(still(), lips, track()), track())
    assert moving is not None and moving > 10
    twice = measured(MouthMotion(QUIET, 2 * FPS), dubbed(still(), lips, track()), track())
    assert twice == pytest.approx(2 * moving)


def moving_head() -> tuple[Frames, FaceTrack]:
    """Sub-pixel motion of the whole picture that the track follows with an error, as detectors do,
    in changing light."""
    t = torch.arange(COUNT).float()
    shift = torch.stack([0.4 * t, 0.8 * torch.sin(t / 3)], 1)
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y], -1) - shift[:, None, None] * 2 / SIDE
    soft = blurred(skin(), 2)
    soft = 0.5 + (soft - soft.mean()) * 3
    moved = F.grid_sample(
        soft.expand(COUNT, -1, -1, -1), grid, align_corners=False, padding_mode="border"
    )
    error = 0.15 * torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(5))
    return frames((moved * (1 + 0.02 * torch.sin(t)[:, None, None, None])).clamp(0, 1)), track(
        shift + error
    )


def test_motion_of_the_head_and_of_the_light_are_none_of_the_mouth() -> None:
    clip, face = moving_head()
    head = measured(MouthMotion(QUIET, FPS), clip, face)
    raw = (clip.pixels[1:].float() - clip.pixels[:-1]).square().mean().sqrt()
    assert head is not None and head < 0.15 * float(raw)


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("kind", [Sharpness, BorderJitter, lambda: MouthMotion(QUIET, FPS)])
def test_batches_change_no_bit(kind, chunk: int) -> None:
    clip, face = moving_head()
    clip = dubbed(clip, cropped(), face, shake=1)
    assert measured(kind(), clip, face, chunk) == measured(kind(), clip, face) is not None


def test_hidden_faces_break_the_neighbourhood() -> None:
    clip, face = moving_head()
    face.visible[5] = False
    jitter, motion, sharp = BorderJitter(), MouthMotion(QUIET, FPS), Sharpness()
    for metric in (jitter, motion, sharp):
        measured(metric, clip, face, 3)
    assert (len(jitter.values), len(motion.values), len(sharp.values)) == (
        COUNT - 2 - 3,
        COUNT - 1 - 2,
        COUNT - 1,
    )
    late = FaceTrack(face.boxes[3:], face.points[3:], face.visible[3:], start=3)
    from_three = MouthMotion(QUIET, FPS)
    measured(from_three, clip, late)
    assert from_three.values == motion.values[3:]


def test_only_silent_pairs_count_and_none_gives_none() -> None:
    clip, face = moving_head()
    some = QUIET.clone()
    some[4:9] = False
    whole, part, none = MouthMotion(QUIET, FPS), MouthMotion(some, FPS), MouthMotion(~QUIET, FPS)
    for metric in (whole, part, none):
        measured(metric, clip, face)
    assert part.values == whole.values[:3] + whole.values[9:]
    assert (
        none.compute() is None
        and BorderJitter().compute() is None
        and Sharpness().compute() is None
    )


def test_clips_merge() -> None:
    clip, face = moving_head()
    one, two = BorderJitter(), BorderJitter()
    measured(one, clip, face)
    measured(two, still(), track())
    both = [*one.values, *two.values]
    one.merge(two)
    assert one.values == both and one.compute() == torch.tensor(both).double().quantile(0.5)
