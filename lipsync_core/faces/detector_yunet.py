"""The ``yunet`` detector: OpenCV's own small network (Wu, Peng and Yu 2023); it needs OpenCV."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from ..types import Detections

_KEPT_BEFORE_SUPPRESSION = 5000  # OpenCV's default


class YuNetDetector:
    """Face detector on ``cv2.FaceDetectorYN`` (OpenCV 4.5.4 and later, 5 included).

    Args:
        weights: The ONNX file face_detection_yunet_2023mar.onnx.
        min_score: Lowest score of a face, in [0,1].
        max_overlap: Highest intersection over union of two faces, in [0,1].

    Raises:
        WeightsError: If the file is missing or OpenCV cannot read it.
        ImportError: If OpenCV is not installed.
    """

    def __init__(self, weights: Path, *, min_score: float = 0.7, max_overlap: float = 0.3) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ImportError(
                "the yunet detector needs OpenCV: pip install opencv-python-headless"
            ) from error
        if not weights.is_file():
            raise WeightsError(
                f"no file {weights}; expected YuNet's ONNX file: run `lipsync models pull yunet`"
            )
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(weights), "", (320, 320), min_score, max_overlap, _KEPT_BEFORE_SUPPRESSION
            )
        except cv2.error as error:
            raise WeightsError(f"OpenCV cannot read {weights} as YuNet: {error}") from error

    def detect(self, pixels: Tensor) -> list[Detections]:
        """Detect the faces of each image.

        YuNet processes images at their own size; its authors trained it on faces of 10 to 300 px.

        Args:
            pixels: (N,H,W,3) RGB, uint8 in [0,255] or float in [0,1].

        Returns:
            One ``Detections`` per image, best face first, on the CPU.
        """
        _, height, width, _ = pixels.shape
        if pixels.is_floating_point():
            pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
        self._net.setInputSize((width, height))
        bgr = np.ascontiguousarray(pixels.cpu().numpy()[..., ::-1])
        return [_detections(self._net.detect(image)[1]) for image in bgr]


def _detections(rows: np.ndarray | None) -> Detections:
    """Convert YuNet's rows (F,15): x, y, width, height, five points (in our order), score."""
    table = torch.zeros(0, 15) if rows is None else torch.from_numpy(rows).float()
    table = table[table[:, 14].argsort(descending=True, stable=True)]
    boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], 1)
    return Detections(boxes, table[:, 4:14].unflatten(1, (5, 2)), table[:, 14])
