"""The ``mini`` detector: our own bundled network, the default."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..image.affine import apply
from ..image.boxes import box_iou, suppress
from ..image.crop import crop_pictures
from ..models.face_detector import Cells, FaceDetector
from ..models.precision import choose_dtype
from ..types import Detections

# A cell must be this likely, as a share of `min_score`, to help to place a face that another cell
# found.
_HELPER_SCORE = 0.5
# Cells whose boxes overlap the best one by this much speak of the same face, and their answers are
# averaged as in BlazeFace (Bazarevsky et al. 2019, "tie resolution"): that steadies the points from
# frame to frame.
_SAME_FACE = 0.6
# The second look: an upright crop this much wider than the face, and its side in px, both chosen on
# the val rows. It brings the points from 6.3-7.7 % of the distance of the eyes to 3.3-3.5 there,
# and from 8.8-13.0 to 8.3-8.7 on the test rows (train/evaluate_detector.py). One face costs 3 ms on
# top of the 8.5 of a 640x360 picture (bfloat16, one thread).
_LOOK, _LOOK_SIDE = 2.4, 128
_LOOK_LEVELS = 2  # a face of 128 / 2.4 px lies between those of strides 8 and 16
_GREY = 127.5  # the middle of a byte
_MIRRORED = [1, 0, 2, 4, 3]  # the points of a mirrored face


class MiniDetector:
    """Find faces with the bundled network.

    Args:
        model: the network; it runs on the device on which it is now.
        min_score: least score of a face, in [0,1].
        max_overlap: largest intersection over union of two faces.
        long_side: px to which larger images are reduced; it sets both the cost and the smallest
            face that is found (24 px of the reduced image; at 640, 48 px of a 1280x720 frame).
    """

    def __init__(
        self,
        model: FaceDetector,
        *,
        min_score: float = 0.7,
        max_overlap: float = 0.3,
        long_side: int = 640,
    ) -> None:
        if long_side < 1 or not 0 < min_score < 1:
            raise ValueError(
                f"got min_score {min_score} and long_side {long_side}; expected 0 < min_score < 1, "
                "long_side >= 1"
            )
        # channels_last: a third faster on CPUs than planar memory
        dtype = choose_dtype(next(model.parameters()))
        self._model = model.folded(_GREY).to(dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._min_score = min_score
        self._max_overlap = max_overlap
        self._long_side = long_side

    @torch.inference_mode()
    def detect(self, pixels: Tensor) -> list[Detections]:
        """Find the faces of each image.

        Args:
            pixels: (N,H,W,3) RGB, uint8 in [0,255] or float in [0,1].

        Returns:
            Faces per image, best first, on the CPU. Boxes and points may reach beyond the image, as
            the face does.
        """
        _, height, width, _ = pixels.shape
        weight = next(self._model.parameters())
        images = _reduce(pixels.permute(0, 3, 1, 2).to(weight.device), self._long_side)  # (N,3,h,w)
        ratio = torch.tensor([width / images.shape[3], height / images.shape[2]])
        cells = self._model.look(images.to(weight.dtype).sub_(_GREY))
        each = zip(*(part.float().cpu() for part in cells), strict=True)
        faces = [self._faces(Cells(*one), ratio) for one in each]
        return self._second_look(pixels, faces)

    def _faces(self, cells: Cells, ratio: Tensor) -> Detections:
        scores = cells.logits.sigmoid()  # (A,)
        likely = (scores >= self._min_score * _HELPER_SCORE).nonzero()[:, 0]
        likely = likely[scores[likely].argsort(descending=True, stable=True)]
        scores, boxes, points = scores[likely], cells.boxes[likely], cells.points[likely]
        overlap = box_iou(boxes, boxes)
        kept = suppress(boxes[: int((scores >= self._min_score).sum())], self._max_overlap)
        shares = (overlap[kept] >= _SAME_FACE) * scores  # (F,L)
        shares = shares / shares.sum(1, keepdim=True)
        points = (shares @ points.flatten(1)).unflatten(1, (5, 2)) * ratio
        return Detections(shares @ boxes * ratio.repeat(2), points, scores[kept])

    def _second_look(self, pixels: Tensor, faces: list[Detections]) -> list[Detections]:
        """Refine the points of ``faces`` by a closer look at each and at its mirror image.

        A network this small errs to one side, and the mirror's error is on the other.
        """
        counts = [len(found.scores) for found in faces]
        if not any(counts):
            return faces
        boxes = torch.cat([found.boxes for found in faces])
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        side = size.amax(1) * _LOOK
        maps = torch.eye(2, 3).repeat(len(boxes), 1, 1) * (side / _LOOK_SIDE)[:, None, None]
        maps[:, :, 2] = centre - side[:, None] / 2
        weight = next(self._model.parameters())
        each = zip(pixels, maps.to(pixels.device).split(counts), strict=True)
        crops = torch.cat(
            [
                crop_pictures(picture.expand(len(own), -1, -1, -1), own, _LOOK_SIDE)
                for picture, own in each
            ]
        )
        crops = crops.mul_(2 * _GREY).sub_(_GREY).to(weight.device, weight.dtype)
        cells = self._model.look(torch.cat([crops, crops.flip(3)]), levels=_LOOK_LEVELS)
        points, sure = self._looked(Cells(*(part.float().cpu() for part in cells)))
        straight, mirrored = points.chunk(2)
        mirrored = torch.stack([_LOOK_SIDE - mirrored[..., 0], mirrored[..., 1]], -1)[:, _MIRRORED]
        closer = apply(maps, (straight + mirrored) / 2)
        both = (sure[: len(boxes)] & sure[len(boxes) :])[:, None, None]
        settled = torch.where(both, closer, torch.cat([found.points for found in faces]))
        return [
            Detections(found.boxes, own, found.scores)
            for found, own in zip(faces, settled.split(counts), strict=True)
        ]

    def _looked(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """Find points (F,5,2) of each crop's middle face, and whether there is one (F,)."""
        off = ((cells.boxes[..., :2] + cells.boxes[..., 2:]) / 2 - _LOOK_SIDE / 2).abs().amax(-1)
        # a neighbour's face may be in the crop as well
        shares = cells.logits.sigmoid() * (off < _LOOK_SIDE / 6)
        shares = shares * (shares >= shares.amax(1, keepdim=True) * _HELPER_SCORE)
        sure = shares.amax(1) >= self._min_score * _HELPER_SCORE
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-6)
        return torch.einsum("fa,fapc->fpc", shares, cells.points), sure


def _reduce(images: Tensor, long_side: int) -> Tensor:
    """Reduce images to at most ``long_side`` px without aliasing, as 0..255 of either kind."""
    height, width = images.shape[-2:]
    whole = images.dtype == torch.uint8
    images = images if whole else images * 255
    if max(height, width) > long_side:
        scale = long_side / max(height, width)
        size = max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))
        # bytes are resized on CPUs only, and there several times faster
        if whole and images.device.type != "cpu":
            images = images.float()
        images = interpolate(images, size=size, mode="bilinear", antialias=True)
    return images
