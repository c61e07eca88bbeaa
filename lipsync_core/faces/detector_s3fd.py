"""The ``s3fd`` detector of Wav2Lip, and that of syncnet_python.

It is slow (0.8 s for a 640x360 image on two cores), but Wav2Lip's weights were trained with its
boxes. The reference scores need ``syncnet_detector``, the one of syncnet_python.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..image.boxes import suppress
from ..image.crop import resize_bytes
from ..models.s3fd import S3FD, STRIDES
from ..types import Detections

_VARIANCES = (0.1, 0.2)  # S3FD learned its offsets divided by these: position, log size

# S3FD finds boxes only. Its five points are the average places in a face box: the mean over 396
# frontal portraits (members of the US Congress) of the points that YuNet found, relative to YuNet's
# box, made symmetric. YuNet and S3FD both learned the boxes of WIDER FACE. Standard deviation over
# the portraits: 0.05 across (nose 0.08), 0.02 down.
_CANONICAL_POINTS = ((0.265, 0.386), (0.735, 0.386), (0.5, 0.586), (0.297, 0.731), (0.703, 0.731))


@dataclass(frozen=True, slots=True, eq=False)
class S3FDDetector:
    """Face detector on S3FD; the defaults are Wav2Lip's.

    Wav2Lip's candidates begin at a score of 0.05, but one below ``min_score`` cannot suppress any
    above it, so those are left out from the start: same faces, less work.

    Attributes:
        model: The network, in eval mode, on any device.
        min_score: Lowest softmax score of a face, in [0,1].
        max_overlap: Highest intersection over union of two faces, in [0,1].
        scale: Size at which images are searched, relative to theirs; they shrink as in OpenCV.
        then_overlap: Faces left after suppression at ``max_overlap`` are suppressed again at this
            overlap; 1 for no second pass.
        extra_px: Px added to the sides of boxes when overlaps are computed.
    """

    model: S3FD
    min_score: float = 0.5
    max_overlap: float = 0.3
    scale: float = 1.0
    then_overlap: float = 1.0
    extra_px: float = 1.0

    @torch.inference_mode()
    def detect(self, pixels: Tensor) -> list[Detections]:
        """Detect the faces of each image.

        Args:
            pixels: (N,H,W,3) RGB, uint8 in [0,255] or float in [0,1].

        Returns:
            One ``Detections`` per image, best face first, on the CPU. Boxes may reach beyond the
            image, as the network predicts them. ``points`` are average places in the box,
            independent of the pose.

        Raises:
            ValueError: If a side, once scaled, is below 32 px (28 for syncnet_python's network).
        """
        _, height, width, _ = pixels.shape
        seen = pixels if self.scale == 1 else self._shrunk(pixels)
        _, seen_height, seen_width, _ = seen.shape
        if min(seen_height, seen_width) < self.model.config.minimum_size:
            least = self.model.config.minimum_size / self.scale
            raise ValueError(
                f"images are {width}x{height} px; S3FD wants {least:.0f} px or more each way"
            )
        weight = next(self.model.parameters())
        scaled = seen.to(weight.device, weight.dtype)
        scaled = scaled / 255 if seen.dtype == torch.uint8 else scaled
        boxes, scores = decode(self.model(scaled.permute(0, 3, 1, 2)))
        boxes = boxes * boxes.new_tensor([width / seen_width, height / seen_height]).repeat(2)
        return [
            self._faces(b, s)
            for b, s in zip(boxes.float().cpu(), scores.float().cpu(), strict=True)
        ]

    def _shrunk(self, pixels: Tensor) -> Tensor:
        _, height, width, _ = pixels.shape
        size = round(height * self.scale), round(width * self.scale)
        return resize_bytes(pixels, size, step=(1 / self.scale, 1 / self.scale))

    def _faces(self, boxes: Tensor, scores: Tensor) -> Detections:
        likely = (scores > self.min_score).nonzero()[:, 0]
        likely = likely[scores[likely].argsort(descending=True, stable=True)]
        kept = likely[suppress(boxes[likely], self.max_overlap, extra_px=self.extra_px)]
        if self.then_overlap < 1:
            kept = kept[suppress(boxes[kept], self.then_overlap, extra_px=self.extra_px)]
        return Detections(boxes[kept], canonical_points(boxes[kept]), scores[kept])


def syncnet_detector(model: S3FD) -> S3FDDetector:
    """Make the detector of syncnet_python: scores above 0.9 in images of a quarter of the side.

    Args:
        model: Its network (``SYNCNET_S3FD``, weights ``sfd_face``).

    Returns:
        A detector that suppresses overlaps at 0.3 and again at 0.1.
    """
    return S3FDDetector(
        model, min_score=0.9, max_overlap=0.3, scale=0.25, then_overlap=0.1, extra_px=0.0
    )


def decode(maps: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Decode the maps of ``S3FD`` into boxes and scores.

    Args:
        maps: Per level, logits (N,2,h,w) and offsets (N,4,h,w).

    Returns:
        Boxes (N,K,4) xyxy in image px and face scores (N,K) in [0,1], for all K cells of the maps.
    """
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for stride, (logits, offsets) in zip(STRIDES, maps, strict=True):
        _, _, height, width = logits.shape
        y = torch.arange(height, device=logits.device, dtype=logits.dtype)
        x = torch.arange(width, device=logits.device, dtype=logits.dtype)
        cells = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # (2,h,w)
        anchor = 4.0 * stride  # one square anchor a cell
        centre = stride * (cells + 0.5) + offsets[:, :2] * _VARIANCES[0] * anchor
        half = anchor / 2 * torch.exp(offsets[:, 2:] * _VARIANCES[1])
        boxes.append(torch.cat((centre - half, centre + half), 1).flatten(2))
        scores.append(logits.softmax(1)[:, 1].flatten(1))
    return torch.cat(boxes, 2).transpose(1, 2), torch.cat(scores, 1)


def canonical_points(boxes: Tensor) -> Tensor:
    """Place eyes, nose and mouth corners (F,5,2) at their average places in face boxes (F,4)."""
    places = torch.tensor(_CANONICAL_POINTS, device=boxes.device, dtype=boxes.dtype)
    return boxes[:, None, :2] + places * (boxes[:, 2:] - boxes[:, :2])[:, None]
