"""Pictures without faces, from scikit-image."""

from collections.abc import Collection
from pathlib import Path

import skimage.data
import skimage.io
import torch
from torch import Tensor

NAMES = (
    "brick.png",
    "chelsea.png",
    "cell.png",
    "chessboard_GRAY.png",
    "chessboard_RGB.png",
    "clock_motion.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "ihc.png",
    "logo.png",
    "microaneurysms.png",
    "moon.png",
    "retina.jpg",
    "text.png",
    "coffee.png",
)


def read_empty_pictures(*, most_px: int, leave_out: Collection[str]) -> list[Tensor]:
    """Read the pictures without faces.

    Args:
        most_px: height and width of the corner that is kept, at most.
        leave_out: names of pictures that are not read.

    Returns:
        (3,H,W) uint8 each.
    """
    folder, pictures = Path(skimage.data.__file__).parent, []
    for name in NAMES:
        if name in leave_out:
            continue
        pixels = torch.from_numpy(skimage.io.imread(folder / name))
        pixels = pixels[..., None].expand(*pixels.shape, 3) if pixels.ndim == 2 else pixels[..., :3]
        pixels = pixels * 255 if pixels.dtype == torch.bool else pixels
        pixels = pixels.permute(2, 0, 1)[:, :most_px, :most_px]
        pictures.append(pixels.to(torch.uint8).contiguous())
    return pictures
