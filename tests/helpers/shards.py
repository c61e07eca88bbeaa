"""Shards of noise in the shape of faces, for the tests of recipes."""

from pathlib import Path

import numpy as np
import torch

from lipsync_core.audio.features import log_mel
from lipsync_core.training.shards import ShardWriter
from lipsync_core.types import Audio


def write_noise(folder: Path, *, frames: int = 41, side: int = 112, **splits: str) -> Path:
    """``folder`` with a clip of each letter of each split, each of its own speaker: ``train="abc",
    val="d"``."""
    rng = np.random.default_rng(0)
    for split, names in splits.items():
        with ShardWriter(folder / split) as writer:
            for name in names:
                sound = torch.from_numpy(
                    rng.normal(0, 0.1, (1, 16000 * frames // 25)).astype(np.float32)
                )
                faces = rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
                mel = log_mel(Audio(sound, 16000)).T.contiguous().numpy()
                wave = (sound[0] * 32767).short().numpy()
                writer.add(
                    name,
                    speaker=name,
                    facts={"first": 0},
                    arrays={"faces": faces, "mel": mel, "sound": wave},
                )
    return folder
