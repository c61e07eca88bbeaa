"""LMD: how far lips are from where the true ones are, by dense landmarks."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from ..types import FaceTrack, Frames
from .aggregate import FrameValues, mean


class LipFinder(Protocol):
    """What finds lips: ``LandmarkModel``, or ``faces.landmarks.LandmarkFinder``."""

    def lips(self, frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor]]:
        """(clip index, lips (L,2) in frame px) of each frame in which the face of ``track`` is
        visible."""
        ...


class LandmarkDistance(FrameValues):
    """LMD (Chen et al. 2018): the mean distance between corresponding lip points of the true and
    the generated face, after their centres are laid upon each other. ``model`` None measures
    nothing.

    Here in hundredths of the distance between the eyes, so that large and small faces compare;
    papers give px of their own crops.
    """

    def __init__(self, model: LipFinder | None) -> None:
        super().__init__()
        self.model = model

    def update(self, real: Frames, generated: Frames, track: FaceTrack) -> None:
        """The same frames, true and generated, and one track for both; those without the face do
        not count."""
        if real.pixels.shape != generated.pixels.shape or real.start != generated.start:
            got = f"{tuple(real.pixels.shape)} from {real.start}, {tuple(generated.pixels.shape)} from {generated.start}"
            raise ValueError(f"frames are {got}; wanted the same frames twice")
        if self.model is None:
            return
        pairs = zip(self.model.lips(real, track), self.model.lips(generated, track), strict=True)
        for (index, wanted), (_, got) in pairs:
            right, left = track.points[index - track.start, :2].float().cpu()
            apart = ((got - got.mean(0)) - (wanted - wanted.mean(0))).norm(dim=1).mean()
            self.values.append(100 * float(apart / (left - right).norm().clamp_min(1e-6)))

    def compute(self) -> float | None:
        """The mean over frames; None without a model or without a face."""
        return mean(self.values)
