"""Talking clips with the shapes of their lips, which teach `train.speech_lips`.

A clip of DATA/FOLDER/NAME goes with LABELS/FOLDER_NAME.npz of label_landmarks.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lipsync_core.audio.features import (
    MelFeatures,
    log_mel,
    mean_spectrum,
    subtract_spectrum,
    window_start,
)
from lipsync_core.image.landmarks import MEDIAPIPE_VERTICES, lip_shapes
from lipsync_core.media import read_audio

FPS = Fraction(25)
TEACHING = ("train/grid_s1", "train/grid_s4", "train/grid_other", "train/crema_1001", "train/other")
HELD_OUT = ("val/grid_s1", "val/other", "val/elospheres")
# frames: within which a correlation is the best, and a clip's own offset is sought
LAGS, OFFSETS = 2, 6
_SURE = 0.35  # least correlation of a clip whose best lag counts
# Folders of several people, whose names begin the names of their files.
_SEVERAL = ("other", "grid_other", "elospheres", "test")
# GRID and CREMA-D: lips and sound are known to agree.
_IN_SYNC = {"grid_s1", "grid_s4", "crema_1001", "mA", "mB", "mC", "wA", "wB", "wD"}

Predict = Callable[[Tensor], Tensor]  # from mel windows (N,1,80,T) to lip shapes (N,3)


@dataclass(frozen=True, slots=True, eq=False)
class Talk:
    """One clip of N frames.

    Attributes:
        name: its file name.
        person: who speaks.
        mel: (80,M) log-mel columns.
        starts: (N,) the first column of each frame's window.
        spectrum: (80,) mean spectrum of the sound.
        shape: (N,3) lip shapes in distances of the outer eye corners.
        target: (N,3) the same as the network predicts them.
        offset: frames by which the lips are late.
    """

    name: str
    person: str
    mel: Tensor
    starts: Tensor
    spectrum: Tensor
    shape: Tensor
    target: Tensor
    offset: int = 0

    def windows(self, frames: Tensor, features: MelFeatures) -> Tensor:
        """Return the mel windows (K,80,steps) at ``frames`` (K,), no spectrum subtracted."""
        index = self.starts[frames][:, None] + torch.arange(features.steps)
        return self.mel[:, index].permute(1, 0, 2)


def read_talk(source: Path, labels: Path, person: str, features: MelFeatures) -> Talk | None:
    """Read a clip.

    Args:
        source: the video.
        labels: its labels.
        person: who speaks.
        features: of the network.

    Returns:
        The clip; None if the face is seen in less than 80 % of it, or it is shorter than a second.
    """
    with np.load(labels) as file:
        times, points = torch.from_numpy(file["times"]), torch.from_numpy(file["points"])
    points = points[:, list(MEDIAPIPE_VERTICES)]
    seen = ~points[:, 0, 0].isnan()
    if len(times) < 25 or seen.float().mean() < 0.8:
        return None
    shape = lip_shapes(points[seen]).numpy()
    audio = read_audio(source, rate=features.rate)
    grid = np.arange(0, min(float(times[-1]), audio.samples.shape[1] / audio.rate), float(1 / FPS))
    known = times[seen].numpy()
    rows = torch.from_numpy(
        np.stack([np.interp(grid, known, shape[:, i]) for i in range(3)], 1)
    ).float()
    first = window_start(0, FPS, features)
    starts = torch.tensor([window_start(i, FPS, features) - first for i in range(len(grid))])
    mel = log_mel(audio, first=first, count=int(starts[-1]) + features.steps, features=features)
    spectrum = mean_spectrum(audio, features).float()
    return Talk(source.name, person, mel.float(), starts, spectrum, rows, rows)


def read_talks(
    data: Path, labels: Path, folders: Sequence[str], features: MelFeatures
) -> list[Talk]:
    """Read the labeled clips of folders of ``data``; clips without labels are left out."""
    talks = []
    for folder in folders:
        short = folder.split("/")[-1]
        for source in sorted((data / folder).iterdir()):
            path = labels / f"{source.parent.name}_{source.name}.npz"
            person = source.stem.split("_")[0] if short in _SEVERAL else short
            talk = read_talk(source, path, person, features) if path.exists() else None
            if talk is not None:
                talks.append(talk)
    return talks


def normalize(talks: Sequence[Talk]) -> list[Talk]:
    """Express shapes relative to the person's closed mouth, in the person's standard deviations."""
    scales = {person: _measure_range(own) for person, own in group_by_person(talks).items()}
    return [
        replace(talk, target=(talk.shape - neutral) / spread)
        for talk in talks
        for neutral, spread in [scales[talk.person]]
    ]


def group_by_person(talks: Sequence[Talk]) -> dict[str, list[Talk]]:
    """Return the clips of each person."""
    people: dict[str, list[Talk]] = {}
    for talk in talks:
        people.setdefault(talk.person, []).append(talk)
    return people


def _measure_range(talks: Sequence[Talk]) -> tuple[Tensor, Tensor]:
    """The closed mouth (3,) of a person, and the standard deviations (3,) of the shapes."""
    every = torch.cat([talk.shape for talk in talks])
    closed = every[:, 0] <= every[:, 0].quantile(0.1)
    neutral = torch.cat([every[:, :1].quantile(0.05, 0), every[closed][:, 1:].mean(0)])
    return neutral, every.std(0).clamp_min(1e-4)


@torch.inference_mode()
def predict(net: Predict, talk: Talk, features: MelFeatures) -> Tensor:
    """Return the shapes (N,3) that a network predicts for a clip."""
    windows = talk.windows(torch.arange(len(talk.starts)), features)
    return net(subtract_spectrum(windows, talk.spectrum, features)[:, None])


def correlate(found: Tensor, talk: Talk, lags: int) -> list[tuple[float, int]]:
    """Return how well shapes are predicted.

    Args:
        found: (N,3) predicted shapes.
        talk: the clip.
        lags: frames around the clip's offset in which the best correlation is taken.

    Returns:
        Correlation and lag of opening, width and jaw.
    """
    best = []
    for column in range(3):
        rows = []
        for lag in range(talk.offset - lags, talk.offset + lags + 1):
            a, b = found[:, column].numpy(), talk.shape[:, column].numpy()
            a, b = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag])
            rows.append((float(np.corrcoef(a, b)[0, 1]), lag))
        best.append(max(rows))
    return best


def measure_offsets(net: Predict, talks: Sequence[Talk], features: MelFeatures) -> list[Talk]:
    """Set the offset of each person's clips, where a network is sure of it; others have none.

    GRID and CREMA-D are known to agree.
    """
    offsets = {}
    for person, own in group_by_person(talks).items():
        found = [correlate(predict(net, talk, features), talk, OFFSETS)[0] for talk in own]
        lags = sorted(lag for value, lag in found if value > _SURE)
        offsets[person] = lags[len(lags) // 2] if lags and person not in _IN_SYNC else 0
    return [replace(talk, offset=offsets[talk.person]) for talk in talks]


def score_people(
    net: Predict, talks: Sequence[Talk], features: MelFeatures
) -> dict[str, list[float]]:
    """Return each person's mean correlations of opening, width and jaw."""
    return {
        person: np.mean(
            [[r for r, _ in correlate(predict(net, t, features), t, LAGS)] for t in own], 0
        ).tolist()
        for person, own in group_by_person(talks).items()
    }
