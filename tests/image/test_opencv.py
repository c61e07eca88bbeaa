"""OpenCV and torch warp alike."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from lipsync_core.image import opencv
from lipsync_core.image.crop import average_blocks, sample, sample_affine, sample_places

needs_opencv = pytest.mark.skipif(
    opencv.load_opencv() is None, reason="needs opencv-python-headless 5 or newer"
)


def both(monkeypatch: pytest.MonkeyPatch, warp: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """The result of OpenCV, and that of torch."""
    first = warp()
    monkeypatch.setattr(opencv, "takes", lambda *_: False)
    return first, warp()


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255


@needs_opencv
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("warp", [sample, sample_places])
def test_opencv_and_torch_agree_within_a_hundredth_of_a_level(
    monkeypatch: pytest.MonkeyPatch,
    mode: Literal["bilinear", "bicubic"],
    padding: Literal["border", "zeros"],
    warp: Callable[..., Tensor],
) -> None:
    pictures = noise(2, 3, 40, 30)
    # up to a sixth of the picture beyond its border
    unit = noise(2, 2, 50, 60) / 255 * 2.6 - 1.3
    places = unit if warp is sample else (unit + 1) * torch.tensor([15.0, 20.0])[:, None, None]
    fast, exact = both(monkeypatch, lambda: warp(pictures, places, mode=mode, padding=padding))
    assert fast.shape == exact.shape == (2, 3, 50, 60)
    assert (fast - exact).abs().max() < 0.02 and exact.std() > 20


@needs_opencv
@pytest.mark.parametrize("channels", range(1, 10))
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_affine_warps_agree_for_any_number_of_planes(
    monkeypatch: pytest.MonkeyPatch, channels: int, padding: Literal["border", "zeros"]
) -> None:
    pictures = noise(2, channels, 40, 30)
    maps = torch.tensor([[[0.9, 0.1, 0.2], [-0.1, 1.1, 0.1]], [[0.3, 0, 0], [0, 0.4, -0.1]]])
    fast, exact = both(
        monkeypatch, lambda: sample_affine(pictures, maps, (25, 33), padding=padding)
    )
    assert fast.shape == exact.shape == (2, channels, 25, 33)
    assert (fast - exact).abs().max() < 0.02


@needs_opencv
@pytest.mark.parametrize("shape", [(2, 3, 24, 36), (1, 1, 25, 37)])
def test_blocks_have_the_same_means(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    fast, exact = both(monkeypatch, lambda: average_blocks(noise(*shape), 3))
    assert fast.shape == exact.shape and (fast - exact).abs().max() < 1e-3


def test_gradients_flow_through_torch() -> None:
    pictures = noise(1, 1, 8, 8).requires_grad_()
    sample_places(pictures, torch.full((1, 2, 2, 2), 4.0)).sum().backward()
    assert pictures.grad is not None and float(pictures.grad.sum()) == pytest.approx(4)


def test_without_opencv_torch_warps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "load_opencv", lambda: None)
    assert not opencv.takes(noise(1, 1, 8, 8), noise(1, 2, 8, 8))
    assert opencv.describe_warp().startswith("torch")
    assert sample_places(noise(1, 1, 8, 8), noise(1, 2, 3, 3)).shape == (1, 1, 3, 3)


@pytest.mark.parametrize("version", ["4.14.0", "4.5.4"])
def test_versions_that_round_places_are_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    cv2 = pytest.importorskip("cv2")
    opencv.load_opencv.cache_clear()
    monkeypatch.setattr(cv2, "__version__", version)
    try:
        assert opencv.load_opencv() is None
    finally:
        opencv.load_opencv.cache_clear()
