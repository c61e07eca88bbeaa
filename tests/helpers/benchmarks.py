"""A folder of clips that speak."""

from fractions import Fraction
from pathlib import Path

import skimage.data
import torch

from lipsync_core.media import AudioSource, VideoWriter
from lipsync_core.types import Audio, Frames, VideoInfo


def speaking(path: Path, frames: int, seed: int) -> None:
    """A face that nods a little, under noise that comes and goes."""
    photo = torch.from_numpy(skimage.data.astronaut()[:256, 96:352].copy())
    pixels = torch.stack([photo.roll(i % 3, 0) for i in range(frames)])
    time = torch.arange(16000 * frames // 25) / 16000
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    sound = Audio((0.2 * noise * (torch.sin(9 * time) > 0))[None], 16000)
    with VideoWriter(
        path, VideoInfo(256, 256, Fraction(25), frames), AudioSource(sound), preset="ultrafast"
    ) as out:
        out.write(Frames(pixels))
