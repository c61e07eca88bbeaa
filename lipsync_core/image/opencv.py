"""Warp planes with OpenCV on the CPU, two to four times as fast as torch.

OpenCV from version 5 on interpolates at the exact place; before, places were rounded to 1/32 px,
which costs up to two levels of 255 at sharp edges. Older versions are therefore not used.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

_LEAST_VERSION = 5
_MOST_SIDE = 32766  # px; OpenCV counts in 16 bits


@functools.cache
def load_opencv() -> Any | None:
    """Import OpenCV; None if it is not installed, cannot be imported or is older than 5."""
    try:
        import cv2
    except ImportError:  # of a system library as well
        return None
    return cv2 if int(cv2.__version__.split(".")[0]) >= _LEAST_VERSION else None


def describe_warp() -> str:
    """Say which library warps pictures on the CPU, with its version."""
    cv2 = load_opencv()
    return f"torch {torch.__version__}" if cv2 is None else f"opencv {cv2.__version__}"


def takes(pixels: Tensor, places: Tensor) -> bool:
    """Whether these pictures can be warped by OpenCV: float32 on the CPU, without gradients."""
    tensors = (pixels, places)
    return (
        all(x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() for x in tensors)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
        and max(*pixels.shape[2:], *places.shape[2:]) <= _MOST_SIDE
        and load_opencv() is not None
    )


def remap(
    pixels: Tensor,
    places: Tensor,
    mode: Literal["bilinear", "bicubic"],
    padding: Literal["zeros", "border"],
) -> Tensor:
    """Sample pictures at places; see ``crop.sample_places``.

    Args:
        pixels: (N,C,H,W) float32.
        places: (N,2,h,w) x and y in px, the first pixel's center at 0.
        mode: Interpolation between pixels.
        padding: Values outside the picture.

    Returns:
        (N,C,h,w) values.
    """
    cv2: Any = load_opencv()
    flags = cv2.INTER_CUBIC if mode == "bicubic" else cv2.INTER_LINEAR
    border = cv2.BORDER_CONSTANT if padding == "zeros" else cv2.BORDER_REPLICATE
    pixels, places = pixels.detach().contiguous(), places.detach()
    if places.stride(3) != 1:  # rows may lie apart
        places = places.contiguous()
    out = pixels.new_empty(*pixels.shape[:2], *places.shape[2:])
    for planes, (x, y), results in zip(pixels.numpy(), places.numpy(), out.numpy(), strict=True):
        for plane, result in zip(planes, results, strict=True):
            cv2.remap(plane, x, y, flags, dst=result, borderMode=border, borderValue=0)
    return out


def warp_affine(
    pixels: Tensor,
    maps: Tensor,
    size: tuple[int, int],
    padding: Literal["zeros", "border"],
) -> Tensor:
    """Sample pictures bilinearly along affine maps.

    Args:
        pixels: (N,C,H,W) float32.
        maps: (N,2,3) from the result's unit square to the picture's (see ``unit_maps``).
        size: Height and width of the result.
        padding: Values outside the picture.

    Returns:
        (N,C,*size) values.
    """
    cv2: Any = load_opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT if padding == "zeros" else cv2.BORDER_REPLICATE
    pixels = pixels.detach().contiguous()
    out = pixels.new_empty(*pixels.shape[:2], *size)
    matrices = _pixel_matrices(maps, pixels.shape[3:1:-1], size[::-1])
    for planes, matrix, results in zip(pixels.numpy(), matrices, out.numpy(), strict=True):
        done = 0
        while len(planes) - done > 2:  # four planes together take the time of two or three
            four = cv2.merge([planes[min(done + i, len(planes) - 1)] for i in range(4)])
            warped = cv2.warpAffine(four, matrix, size[::-1], None, flags, border, 0)
            spare = [np.empty_like(results[0])] * (done + 4 - len(planes))
            cv2.split(warped, [*results[done : done + 4], *spare])
            done += 4
        for plane, result in zip(planes[done:], results[done:], strict=True):
            cv2.warpAffine(plane, matrix, size[::-1], result, flags, border, 0)
    return out


def _pixel_matrices(
    squares: Tensor, source: Sequence[int], target: Sequence[int]
) -> "list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]":
    """Turn maps between unit squares into maps between px, first pixels' centers at 0.

    In Python's own numbers: for single matrices, calls of torch and numpy cost ten times as much.

    Args:
        squares: (N,2,3) maps from the result's unit square to the picture's.
        source: Width and height of the picture.
        target: Width and height of the result.

    Returns:
        N maps (2,3) from px of the result to px of the picture.
    """
    width, height = target
    matrices: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
    for rows in squares.tolist():
        matrix: list[list[float]] = []
        for (a, b, c), side in zip(rows, source, strict=True):
            shift = c + a * (1 / width - 1) + b * (1 / height - 1)
            matrix.append([a * side / width, b * side / height, (shift + 1) * side / 2 - 0.5])
        matrices.append(np.array(matrix))
    return matrices


def enlarge(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge (C,h,w) float32 bilinearly to (C,*size)."""
    cv2: Any = load_opencv()
    planes = planes.detach().contiguous()
    out = planes.new_empty(len(planes), *size)
    for plane, result in zip(planes.numpy(), out.numpy(), strict=True):
        cv2.resize(plane, size[::-1], result, interpolation=cv2.INTER_LINEAR)
    return out


def average_blocks(pixels: Tensor, step: int) -> Tensor:
    """Average whole blocks of ``step`` x ``step`` px of (N,C,H,W) float32; sizes are multiples."""
    cv2: Any = load_opencv()
    pixels = pixels.detach()
    size = (pixels.shape[2] // step, pixels.shape[3] // step)
    out = pixels.new_empty(*pixels.shape[:2], *size)
    halves = (step & -step).bit_length() - 1
    for planes, results in zip(pixels.numpy(), out.numpy(), strict=True):
        for plane, result in zip(planes, results, strict=True):
            # blocks of 2 px are averaged three times as fast as larger ones
            for _ in range(halves - (step & (step - 1) == 0)):
                half = (plane.shape[1] // 2, plane.shape[0] // 2)
                plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
            cv2.resize(plane, size[::-1], result, interpolation=cv2.INTER_AREA)
    return out
