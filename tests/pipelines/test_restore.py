"""Restored faces: what the network is given, what comes back, and what stays bit for bit; with
small networks of our own."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_core.image.affine import FFHQ
from lipsync_core.image.yuv import from_rgb
from lipsync_core.options import Blend
from lipsync_core.pipelines.restore import MOUTH, SIZE, Restorer, enlargement, restored
from lipsync_core.types import AnyFrames, ColourTags, FaceTrack, Frames, YuvFrames

HEIGHT, WIDTH = 160, 220


def painting(*rgb: float):
    """A network for which every face is of one colour."""
    return lambda faces: torch.tensor(rgb)[:, None, None].expand_as(faces)


white = painting(1, 1, 1)


def restorer(network, **blend) -> Restorer:
    return Restorer(network, "a toy", "ours", replace(MOUTH, **blend))


@pytest.fixture(scope="module")
def sharpening() -> nn.Module:
    """A network that looks at its neighbours."""
    convolution = nn.Conv2d(3, 3, 9, padding=4, padding_mode="replicate", bias=False)
    noise = torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(3)) / 60
    with torch.no_grad():
        convolution.weight.copy_(noise)
        convolution.weight[:, :, 4, 4] += torch.eye(3)
    return convolution.eval().requires_grad_(False)


def clip(count: int, *, kind: str = "bytes") -> Frames | YuvFrames:
    """Smooth frames, every one another."""
    noise = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(5))
    pixels = F.interpolate(noise, size=(HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    if kind == "yuv":
        colour = ColourTags(matrix=1)
        planes = from_rgb(pixels, colour)
        parts = planes[:, :1].flatten(1), F.avg_pool2d(planes[:, 1:], 2).flatten(1)
        coded = torch.cat(parts, 1).round().clamp(0, 255).to(torch.uint8)
        return YuvFrames(coded.view(count, HEIGHT * 3 // 2, WIDTH), colour)
    pixels = pixels.permute(0, 2, 3, 1).contiguous()
    return Frames(pixels if kind == "float" else (pixels * 255).to(torch.uint8))


def person(
    count: int, x: float = 40, *, side: float = 120, hidden: slice = slice(0, 0), start: int = 0
) -> FaceTrack:
    """A face whose crop is ``side`` px wide and drifts."""
    move = torch.arange(count, dtype=torch.float32)[:, None, None] * torch.tensor([1.5, 0.5])
    points = torch.tensor([FFHQ.points]) * side + torch.tensor([x, 15.0]) + move
    visible = torch.ones(count, dtype=torch.bool)
    visible[hidden] = False
    return FaceTrack(torch.cat([points.amin(1) - 9, points.amax(1) + 9], 1), points, visible, start)


def pieces(frames: AnyFrames, size: int) -> Iterator[AnyFrames]:
    for start in range(0, len(frames.pixels), size):
        yield replace(frames, pixels=frames.pixels[start : start + size], start=start)


def pixels_of(
    frames: AnyFrames, tracks: list[FaceTrack], how: Restorer, *, size: int = 99, shown=()
) -> Tensor:
    return torch.cat(
        [out.pixels for out in restored(pieces(frames, size), tracks, restorer=how, shown=shown)]
    )


@pytest.mark.parametrize("kind", ["bytes", "float", "yuv"])
def test_strength_0_changes_no_bit_and_asks_no_network(kind: str) -> None:
    def refusing(faces: Tensor) -> Tensor:
        raise AssertionError("must not be called")

    frames = clip(2, kind=kind)
    assert torch.equal(
        pixels_of(frames, [person(2)], restorer(refusing, strength=0.0)), frames.pixels
    )
    hidden = [person(2, hidden=slice(None)), person(3, start=7)]
    assert torch.equal(pixels_of(frames, hidden, restorer(refusing)), frames.pixels)
    assert torch.equal(
        pixels_of(frames, [person(2)], restorer(refusing), shown=[torch.zeros(1)]), frames.pixels
    )


@pytest.mark.parametrize("kind", ["bytes", "float", "yuv"])
@pytest.mark.parametrize("mask", ["mouth", "face"])
def test_outside_the_mask_no_bit_changes(kind: str, mask) -> None:
    """Pairs of colours lie on both sides of every plane's value: where all leave the same, nothing
    was mixed in."""
    frames, track = clip(2, kind=kind), person(2)
    colours = [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 1), (0, 0, 1), (1, 1, 0)]
    made = torch.stack(
        [pixels_of(frames, [track], restorer(painting(*rgb), mask=mask)) for rgb in colours]
    )
    free = (made == made[0]).all(0)
    assert 0.5 < float(free.float().mean()) < 1
    assert torch.equal(made[0][free], frames.pixels[free])


def test_by_default_the_mouth_alone_is_restored() -> None:
    frames, track = clip(1), person(1)
    changed = (pixels_of(frames, [track], restorer(white)) != frames.pixels).any(-1)[0]
    eyes, nose, mouth = (
        track.points[0, part].mean(0) for part in (slice(0, 2), slice(2, 3), slice(3, 5))
    )
    rows = changed.nonzero()[:, 0]
    assert changed[int(mouth[1]), int(mouth[0])] and rows.min() > (eyes[1] + nose[1]) / 2
    both = (pixels_of(frames, [track], restorer(white, mask="face")) != frames.pixels).any(-1)[0]
    assert both[int(eyes[1]), int(eyes[0])]


@pytest.mark.parametrize("kind", ["bytes", "yuv"])
def test_the_stream_does_not_depend_on_the_chunks(kind: str, sharpening: nn.Module) -> None:
    frames, tracks = (
        clip(6, kind=kind),
        [person(6, hidden=slice(2, 4)), person(3, 90, side=70, start=2)],
    )
    how, shown = restorer(sharpening, strength=0.9), [torch.linspace(0, 1, 5), None]
    whole = pixels_of(frames, tracks, how, shown=shown)
    assert not torch.equal(whole, frames.pixels)
    for size in (1, 4):
        off = (pixels_of(frames, tracks, how, size=size, shown=shown).int() - whole.int()).abs()
        assert int(off.max()) <= 1 and float((off > 0).float().mean()) < 1e-4


def test_a_batch_is_its_faces_one_by_one(sharpening: nn.Module) -> None:
    faces = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    how = restorer(sharpening)
    torch.testing.assert_close(
        how(faces), torch.cat([how(face[None]) for face in faces]), atol=1e-5, rtol=0
    )


def test_the_network_sees_the_visible_faces_upright_at_the_places_of_ffhq() -> None:
    """Frames that are the crops themselves, once turned by a quarter."""
    seen: list[Tensor] = []

    def looking(faces: Tensor) -> Tensor:
        seen.append(faces)
        return faces

    noise = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    pixels = (
        F.interpolate(noise, size=(SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1).contiguous()
    )
    points = (torch.tensor([FFHQ.points]) * SIZE).repeat(3, 1, 1)
    pixels[2] = pixels[2].rot90(-1)  # clockwise: (x, y) comes to (SIZE - y, x)
    points[2] = torch.stack([SIZE - points[2, :, 1], points[2, :, 0]], 1)
    track = FaceTrack(torch.zeros(3, 4), points, torch.tensor([True, False, True]))
    list(restored([Frames(pixels)], [track], restorer=restorer(looking)))
    (faces,) = seen
    torch.testing.assert_close(faces[0], pixels[0].permute(2, 0, 1), atol=2e-3, rtol=0)
    torch.testing.assert_close(faces[1], pixels[2].rot90(1).permute(2, 0, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["bytes", "yuv"])
@pytest.mark.parametrize("side", [60, 120, 400])
def test_a_network_that_changes_nothing_gives_smooth_pictures_back(kind: str, side: float) -> None:
    frames = clip(2, kind=kind)
    same = pixels_of(
        frames,
        [person(2, -80 if side > 200 else 30, side=side)],
        restorer(lambda faces: faces, mask="face"),
    )
    assert int((same.int() - frames.pixels.int()).abs().max()) < 1.5


def test_strength_and_what_is_shown_mix() -> None:
    frames, track = clip(4, kind="float"), [person(4)]
    full = pixels_of(frames, track, restorer(white)) - frames.pixels
    half = pixels_of(frames, track, restorer(white, strength=0.5)) - frames.pixels
    torch.testing.assert_close(half, full / 2, atol=1e-5, rtol=0)
    shares = torch.tensor([0.0, 0.25, 1.0])  # the last holds on
    faded = pixels_of(frames, track, restorer(white, strength=0.5), shown=[shares]) - frames.pixels
    wanted = half * torch.tensor([0.0, 0.25, 1.0, 1.0])[:, None, None, None]
    torch.testing.assert_close(faded, wanted, atol=1e-5, rtol=0)


def test_other_blends_are_taken() -> None:
    frames, track = clip(1), [person(1)]
    pasted = Restorer(white, "a toy", "ours", Blend(kind="paste", detail=0, grain=0))
    changed = pixels_of(frames, track, pasted) != frames.pixels
    assert pixels_of(frames, track, pasted)[changed].unique().tolist() == [255]


def test_bfloat16_is_near_and_comes_back_as_float32(sharpening: nn.Module) -> None:
    faces = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    seen: list[torch.dtype] = []

    def looking(x: Tensor) -> Tensor:
        seen.append(sharpening(x).dtype)
        return sharpening(x)

    lower = replace(restorer(looking), bfloat16=True)(faces)
    assert seen == [torch.bfloat16] and lower.dtype == torch.float32
    torch.testing.assert_close(lower, restorer(sharpening)(faces), atol=0.02, rtol=0)


def test_a_network_of_another_size_and_too_few_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a toy .*\(1, 3, 256, 256\).*\(1, 3, 512, 512\)"):
        pixels_of(clip(1), [person(1)], restorer(lambda faces: faces[..., ::2, ::2]))
    with pytest.raises(ValueError, match="shown has 1 entries for 2 tracks"):
        pixels_of(clip(1), [person(1), person(1)], restorer(white), shown=[None])


def test_how_much_a_restored_face_is_enlarged() -> None:
    assert enlargement(person(3, side=1024)) == pytest.approx(2, rel=1e-4)
    assert enlargement(person(3, side=256)) == pytest.approx(0.5, rel=1e-4)
    assert enlargement(person(3, hidden=slice(None))) == 0
