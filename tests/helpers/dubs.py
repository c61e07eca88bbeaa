"""Small files to dub: a photograph, a clip of it, a buzz."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
import torch
from av.audio.frame import AudioFrame

from lipsync_core import Finding
from lipsync_core.media import VideoWriter, read_frames
from lipsync_core.types import Frames, VideoInfo

ASTRONAUT = Path(skimage.data.__file__).parent / "astronaut.png"
FRESH = Finding(cache=False)


def tone(path: Path, seconds: float = 0.6, rate: int = 22050) -> Path:
    """A wav with a voice-like buzz."""
    t = np.arange(int(seconds * rate)) / rate
    samples = (0.3 * np.sign(np.sin(2 * np.pi * 140 * t)) * np.sin(2 * np.pi * 3 * t)).astype(
        np.float32
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = AudioFrame.from_ndarray(
            (samples[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        frame.rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def portrait() -> torch.Tensor:
    """(256,256,3) uint8: a face of about 75 px."""
    return torch.from_numpy(skimage.data.astronaut()[:256, 96:352].copy())


def clip(path: Path, frames: torch.Tensor, fps: Fraction = Fraction(25)) -> Path:
    n, height, width, _ = frames.shape
    with VideoWriter(path, VideoInfo(width, height, fps, n), crf=10, preset="ultrafast") as out:
        out.write(Frames(frames))
    return path


def pixels(path: Path) -> torch.Tensor:
    return torch.cat([piece.pixels for piece in read_frames(path)])
