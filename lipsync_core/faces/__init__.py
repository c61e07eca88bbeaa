"""Faces: detectors (one file each), tracking over time, and the choice of a person."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..types import Detections


class Detector(Protocol):
    """A face detector."""

    def detect(self, pixels: "Tensor") -> "list[Detections]":
        """Detect the faces of each image.

        Args:
            pixels: (N,H,W,3) RGB, uint8 in [0,255] or float in [0,1].

        Returns:
            One ``Detections`` per image, best face first, in px of that image.
        """
        ...
