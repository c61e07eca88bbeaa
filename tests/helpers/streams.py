"""A moving clip, a person in it, a voice, and the frames that a stream makes of them."""

from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

from helpers.golden import build
from lipsync_core.image.affine import ALIGNED
from lipsync_core.models.wav2lip import MINI, Generator
from lipsync_core.pipelines.roles import RenderedChunk
from lipsync_core.types import Audio, FaceTrack, Frames

FPS = Fraction(25)
COUNT, HEIGHT, WIDTH = 37, 120, 200


def mini() -> Generator:
    """Untrained; the recipe's weights let the sound through to the picture, which PyTorch's own
    small ones do not."""
    model = build(Generator, MINI)
    assert isinstance(model, Generator)
    return model


def moving_clip() -> Tensor:
    """(N,H,W,3) uint8, every frame different and smooth, as faces are."""
    noise = torch.rand(
        COUNT, 3, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(5)
    )
    pixels = torch.nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bicubic").clamp(
        0, 1
    )
    return (pixels.permute(0, 2, 3, 1) * 255).to(torch.uint8).contiguous()


def voice(seed: int) -> Audio:
    """1.6 s of syllables: noise that comes and goes."""
    t = torch.arange(25600) / 16000
    noise = torch.randn(1, len(t), generator=torch.Generator().manual_seed(seed)) * 0.3
    return Audio(noise * (torch.sin(2 * torch.pi * (3 + seed) * t + 2 * seed) > 0), 16000)


def person(
    x: float,
    *,
    count: int = COUNT,
    scale: float = 70.0,
    hidden: slice = slice(0, 0),
    start: int = 0,
) -> FaceTrack:
    """A person who drifts right and nods a little, in frames ``start`` .. ``start+count-1``."""
    t = torch.arange(count, dtype=torch.float32)[:, None, None]
    drift = torch.cat([0.4 * t, (t / 5).sin() * 2], -1)
    points = torch.tensor([ALIGNED]) * scale * (1 + 0.003 * t) + torch.tensor([x, 20.0]) + drift
    boxes = torch.cat([points.amin(1) - 10, points.amax(1) + 10], 1)
    visible = torch.ones(count, dtype=torch.bool)
    visible[hidden] = False
    return FaceTrack(boxes, points, visible, start)


def pieces(pixels: Tensor, size: int) -> Iterator[Frames]:
    for start in range(0, len(pixels), size):
        yield Frames(pixels[start : start + size], start)


def whole(stream: Iterator[Frames | RenderedChunk]) -> Tensor:
    """(N,H,W,3) all pixels of a stream whose chunks follow one another from frame 0."""
    out, at = [], 0
    for chunk in stream:
        frames = chunk.frames if isinstance(chunk, RenderedChunk) else chunk
        assert frames.start == at
        at += len(frames.pixels)
        out.append(frames.pixels)
    return torch.cat(out)


def opacities(stream: Iterator[RenderedChunk]) -> Tensor:
    """(N,H,W) the opacity of the new mouths in all frames of a stream."""
    return torch.cat([chunk.opacity for chunk in stream if chunk.opacity is not None])


def close(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding: convolutions sum in another order at another batch size, which moves
    a value that lies on the boundary of two levels by one."""
    off = (a.int() - b.int()).abs()
    assert int(off.max()) <= 1 and float((off > 0).float().mean()) < 1e-4
