"""Shards of prepared clips (train/prepare.py) and how windows are drawn from them."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..audio import MelFeatures, log_mel, window_start
from ..types import Audio

FPS = Fraction(25)  # the shards' frame rate: the one the paper's networks live at


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One stretch of one person speaking: ``faces`` (N,C,C,3) uint8 on disk; ``mel`` (80,T) of the whole sound; ``first`` is
    the sound's video frame that goes with ``faces[0]``."""

    name: str
    speaker: str
    faces: npt.NDArray[np.uint8]
    mel: Tensor
    first: int = 0

    def mels(self, frames: list[int], *, lead_ms: int = 0, steps: int = 16) -> Tensor:
        """The mel windows that begin ``lead_ms`` before the given frames of ``faces``: (len, 1, 80, steps)."""
        features = MelFeatures(lead_ms=lead_ms)
        starts = [window_start(self.first + f, FPS, features) for f in frames]
        index = torch.tensor(starts)[:, None] + torch.arange(steps)
        windows = self.mel[:, index.clamp(0, self.mel.shape[1] - 1)]
        windows = torch.where((index < 0) | (index >= self.mel.shape[1]), -4.0, windows)
        return windows.permute(1, 0, 2)[:, None]

    def frames(self, begin: int, count: int) -> Tensor:
        """(count,3,C,C) uint8, planar."""
        return torch.from_numpy(np.array(self.faces[begin : begin + count])).permute(0, 3, 1, 2)


def load_clips(folder: Path, *, half: int | None = None, least: int = 10) -> list[Clip]:
    """The clips of a prepared split. ``half`` 0 or 1 gives one of two disjoint halves of every speaker: every other clip,
    or half of the frames of a speaker who has only one. Clips with fewer than ``least`` frames are left out."""
    rows = json.loads((folder / "index.json").read_text())
    by_speaker: dict[str, list[Clip]] = {}
    for row in sorted(rows, key=lambda r: r["name"]):
        faces = np.load(folder / f"{row['name']}.npy", mmap_mode="r")
        sound = torch.from_numpy(np.load(folder / f"{row['name']}.wav.npy"))
        offset = int(row.get("offset", 0))
        clip = Clip(row["name"], row["speaker"], faces, log_mel(Audio(sound[None], 16000)), -offset)
        by_speaker.setdefault(row["speaker"], []).append(clip)
    chosen = [c for clips in by_speaker.values() for c in (clips if half is None else _half(clips, half))]
    return [c for c in chosen if len(c.faces) >= least]


def _half(clips: list[Clip], half: int) -> list[Clip]:
    if len(clips) > 1:
        return clips[half::2]
    clip, middle = clips[0], len(clips[0].faces) // 2
    faces = clip.faces[middle:] if half else clip.faces[:middle]
    return [Clip(clip.name, clip.speaker, faces, clip.mel, clip.first + half * middle)]


def speaker_weights(clips: list[Clip], power: float = 0.35) -> npt.NDArray[np.float64]:
    """Probability of each clip: speakers weigh (their frames)^power, so that one with hours does not drown the others;
    within a speaker clips weigh by length."""
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.speaker] = frames.get(clip.speaker, 0) + len(clip.faces)
    weights = np.array([frames[c.speaker] ** (power - 1) * len(c.faces) for c in clips])
    return weights / weights.sum()
