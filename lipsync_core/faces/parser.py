"""Run a face parser on crops, at the picture size and framing that it was trained on."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import ALIGNED, Framing, compose, crop_to_frame, invert, unit_maps
from ..image.crop import crop_frames, sample_affine
from ..models.face_parsing import FaceParsing
from ..models.layers import prepare_for_inference
from ..models.precision import Precision, choose_dtype
from ..types import Frames, YuvFrames

# Karras et al. 2018 ("Progressive growing of GANs", appendix C) cut the portraits of CelebA-HQ like
# this: 4 distances between the eyes wide, a tenth of the way from the eyes to the mouth in the
# middle. Our aligned crops are 2.4 of them wide.
_ZOOM = 2.4 / 4
_EYES, _MOUTH = ALIGNED[0][1], ALIGNED[3][1]
_ORIGIN = _EYES + 0.1 * (_MOUTH - _EYES)
PORTRAIT = Framing(
    points=tuple((0.5 + _ZOOM * (x - 0.5), 0.5 + _ZOOM * (y - _ORIGIN)) for x, y in ALIGNED)
)
"""Framing of the pictures that public face parsers were trained on, with hair and neck."""

_AT_ONCE = 8  # faces: at 512 px the widest features of one are 16 MB


class FaceParser:
    """A face parser prepared for inference.

    Args:
        model: The network; it is folded in place (batch norms into convolutions) and must not be
            trained further.
        side: Side of the square that the network sees, in px, at least 32; None for the side that
            it was trained on. Half of that takes a quarter of the time.
        precision: See ``choose_dtype``.

    Raises:
        ValueError: If ``side`` is below 32.
    """

    def __init__(
        self, model: FaceParsing, *, side: int | None = None, precision: Precision = "auto"
    ) -> None:
        self.side = model.config.side if side is None else side
        if self.side < 32:
            raise ValueError(
                f"side is {self.side} px; expected at least 32: the network halves it five times"
            )
        self.model = prepare_for_inference(model)
        weight = next(self.model.parameters())
        dtype = choose_dtype(weight, precision)
        if dtype != weight.dtype:  # a copy, to keep the caller's weights
            self.model = copy.deepcopy(self.model).to(dtype)

    @torch.inference_mode()
    def crops(self, pixels: Tensor, *, size: int | None = None) -> Tensor:
        """Compute label probabilities for crops of any framing.

        Args:
            pixels: (N,3,S,S) RGB in [0,1].
            size: Side of the result in px; None for S.

        Returns:
            (N,19,size,size) probability of each of ``parser_masks.LABELS``, on the pixels' device.
        """
        looked = F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        whole = torch.eye(2, 3, device=pixels.device, dtype=pixels.dtype)
        return self._probabilities(looked, whole.expand(len(pixels), 2, 3), size or pixels.shape[3])

    @torch.inference_mode()
    def faces(
        self, frames: Frames | YuvFrames, points: Tensor, placed: Tensor, size: int
    ) -> Tensor:
        """Compute label probabilities for crops of faces in frames.

        The network sees each face framed as in its training (``PORTRAIT``), with its surroundings,
        which a crop of the mouth lacks.

        Args:
            frames: The frames.
            points: (N,5,2) points of the faces in frame px.
            placed: (N,2,3) ``crop_to_frame`` maps of the crops.
            size: Side of the crops in px.

        Returns:
            (N,19,size,size) probability of each of ``blend.parser_masks.LABELS``.
        """
        device = frames.pixels.device
        points, placed = points.to(device, torch.float32), placed.to(device, torch.float32)
        portrait = crop_to_frame(points.new_zeros(len(points), 4), points, PORTRAIT, self.side)
        looked = crop_frames(frames, portrait, self.side)
        inner = compose(invert(portrait), placed)
        count = len(points)
        squares = unit_maps(inner, [(self.side, self.side)] * count, [(size, size)] * count)
        return self._probabilities(looked, squares, size)

    def _probabilities(self, looked: Tensor, squares: Tensor, size: int) -> Tensor:
        """Compute probabilities (N,19,size,size) of pictures (N,3,side,side).

        ``squares`` (N,2,3), made by ``unit_maps``, map the size x size px of the result to the
        pictures.
        """
        weight = next(self.model.parameters())
        parts: list[Tensor] = []
        for pixels, square in zip(looked.split(_AT_ONCE), squares.split(_AT_ONCE), strict=True):
            pixels = pixels.to(weight.device, weight.dtype, memory_format=torch.channels_last)
            cells = self.model.cells(pixels).to(looked.device, looked.dtype)
            # the corner cells lie on the corner pixels' middles (align_corners), a little further
            # apart than squares
            fitted = square * ((1 - 1 / cells.shape[3]) / (1 - 1 / self.side))
            parts.append(sample_affine(cells, fitted, (size, size)).softmax(1))
        return torch.cat(parts)
