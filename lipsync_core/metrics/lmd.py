"""LMD, the distance between true and generated lips by dense landmarks."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from ..types import FaceTrack, Frames
from .aggregate import FrameValues, mean


class LipFinder(Protocol):
    """Interface of lip finders: ``LandmarkModel`` and ``faces.landmarks.LandmarkFinder``."""

    def lips(self, frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor]]:
        """Yield the clip index and lips (L,2) in frame px of each frame that shows the face."""
        ...


class LandmarkDistance(FrameValues):
    """Landmark distance (LMD, Chen et al. 2018); 0 or more, lower is better.

    The mean distance between corresponding lip points of the true and the generated face, after
    their centers are aligned. In hundredths of the distance between the eyes, so that large and
    small faces compare; papers give px of their own crops.

    Args:
        model: Finds the lips; None measures nothing.
    """

    def __init__(self, model: LipFinder | None) -> None:
        super().__init__()
        self.model = model

    def update(self, real: Frames, generated: Frames, track: FaceTrack) -> None:
        """Compare frames; those without the face do not count.

        Args:
            real: True frames.
            generated: The same frames, generated.
            track: The face, one track for both.

        Raises:
            ValueError: For frames of another size or start.
        """
        if real.pixels.shape != generated.pixels.shape or real.start != generated.start:
            got = (
                f"{tuple(real.pixels.shape)} from {real.start}, {tuple(generated.pixels.shape)} "
                f"from {generated.start}"
            )
            raise ValueError(f"frames are {got}; expected the same frames twice")
        if self.model is None:
            return
        pairs = zip(self.model.lips(real, track), self.model.lips(generated, track), strict=True)
        for (index, wanted), (_, got) in pairs:
            right, left = track.points[index - track.start, :2].float().cpu()
            apart = ((got - got.mean(0)) - (wanted - wanted.mean(0))).norm(dim=1).mean()
            self.values.append(100 * float(apart / (left - right).norm().clamp_min(1e-6)))

    def compute(self) -> float | None:
        """Return the mean over frames, None without a model or without a face."""
        return mean(self.values)
