"""Faces: detectors (one file each), tracking over time, and the choice of a person."""

from typing import Protocol

from torch import Tensor

from ..types import Detections


class Detector(Protocol):
    """What finds faces. ``pixels`` (N,H,W,3) uint8 in [0,255] or float in [0,1], RGB; one
    ``Detections`` per image, best face first, in pixels of that image."""

    def detect(self, pixels: Tensor) -> list[Detections]: ...
