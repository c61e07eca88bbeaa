"""PSNR and SSIM: values by hand and by definition, batching, merging."""

import math

import pytest
import torch
from torch import Tensor

from lipsync_core.metrics.psnr_ssim import PSNR, SSIM


def pictures(seed: int, count: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 16, 20, 3), generator=generator, dtype=torch.uint8)


def test_psnr_by_hand() -> None:
    metric = PSNR()
    metric.update(torch.zeros(2, 4, 4, 3), torch.full((2, 4, 4, 3), 0.1))
    assert metric.compute() == pytest.approx(20, abs=1e-5)
    metric.update(torch.zeros(2, 4, 4, 3), torch.zeros(2, 4, 4, 3))
    # half the mean squared error
    assert metric.compute() == pytest.approx(20 + 10 * math.log10(2), abs=1e-5)


def test_equal_pictures() -> None:
    psnr, ssim = PSNR(), SSIM()
    assert psnr.compute() is None and ssim.compute() is None
    for metric in (psnr, ssim):
        metric.update(pictures(1), pictures(1))
    assert psnr.compute() == math.inf and ssim.compute() == pytest.approx(1)


def test_ssim_of_a_shift_in_brightness_by_hand() -> None:
    """Flat pictures of 0.5 and 0.6: no contrast, so what is left is (2ab + C1) / (a2 + b2 + C1), C1
    = 0.01 squared."""
    metric = SSIM()
    metric.update(torch.full((1, 16, 16, 3), 0.5), torch.full((1, 16, 16, 3), 0.6))
    assert metric.compute() == pytest.approx((0.6 + 1e-4) / (0.61 + 1e-4), abs=1e-6)


@pytest.mark.parametrize("kind", [PSNR, SSIM])
@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_neither_batches_nor_merging_change_a_bit(kind: type[PSNR], chunk: int) -> None:
    a, b = pictures(1), pictures(2)
    whole, pieces, other = kind(), kind(), kind()
    whole.update(a, b)
    for i, (x, y) in enumerate(zip(a.split(chunk), b.split(chunk), strict=True)):
        (pieces if i % 2 else other).update(x, y)
    pieces.merge(other)
    assert pieces.compute() == whole.compute() is not None


def test_float_pictures_are_the_same_pictures() -> None:
    for kind in (PSNR, SSIM):
        whole, again = kind(), kind()
        whole.update(pictures(1), pictures(2))
        again.update(pictures(1).double() / 255, pictures(2).double() / 255)
        assert again.compute() == whole.compute()


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 16, 20, 3\) and \(3, 16, 20, 3\); expected two"):
        PSNR().update(pictures(1, 2), pictures(1, 3))
    with pytest.raises(ValueError, match=r"\(10, 20\) px; SSIM's window needs at least 11"):
        SSIM().update(pictures(1)[:, :10], pictures(1)[:, :10])
    with pytest.raises(ValueError, match="cannot merge SSIM into PSNR"):
        PSNR().merge(SSIM())  # pyright: ignore[reportArgumentType]
