"""PSNR and SSIM against true pictures, such as those of a clip dubbed with its own speech."""

import math

import torch
from torch import Tensor

from .aggregate import FrameValues, mean

_SSIM_SIGMA_PX = 1.5  # Wang et al. 2004: Gaussian windows of 11 px, sigma 1.5
SSIM_WINDOW_PX = 11


class PSNR(FrameValues):
    """Peak signal-to-noise ratio; higher is better.

    -10 log10 of the mean squared error over all pixels of all frames, values in [0, 1] (encoders
    print it as global PSNR). In dB, infinite for equal pictures. Own code, because it is one line
    and sums exactly over frames that are merged from several workers.
    """

    def update(self, real: Tensor, generated: Tensor) -> None:
        """Compare two stacks of pictures.

        Args:
            real: (N,H,W,3), uint8 in [0,255] or float in [0,1].
            generated: The same shape; its type may differ.

        Raises:
            ValueError: For shapes that differ.
        """
        for a, b in zip(*_check_pairs(real, generated), strict=True):
            self.values.append(float((_to_unit_range(a) - _to_unit_range(b)).square().mean()))

    def compute(self) -> float | None:
        """Return dB, infinite for equal pictures, None without any."""
        error = mean(self.values)
        if error is None:
            return None
        return -10 * math.log10(error) if error > 0 else math.inf


class SSIM(FrameValues):
    """Structural similarity; in [-1, 1], higher is better, 1 for equal pictures.

    The mean over frames and channels, as Wang et al. (2004) define it and scikit-image computes it
    (Gaussian windows of 11 px with sigma 1.5, population covariance).
    """

    def update(self, real: Tensor, generated: Tensor) -> None:
        """Compare two stacks of pictures.

        Args:
            real: (N,H,W,3), uint8 in [0,255] or float in [0,1], at least 11 px high and wide.
            generated: The same shape; its type may differ.

        Raises:
            ValueError: For smaller pictures, and for shapes that differ.
        """
        from skimage.metrics import structural_similarity  # slow to import, and only this needs it

        reals, fakes = _check_pairs(real, generated)
        if min(real.shape[1:3]) < SSIM_WINDOW_PX:
            raise ValueError(
                f"pictures of {tuple(real.shape[1:3])} px; SSIM's window needs at least "
                f"{SSIM_WINDOW_PX}"
            )
        for a, b in zip(reals, fakes, strict=True):
            value = structural_similarity(
                _to_unit_range(a).numpy(),
                _to_unit_range(b).numpy(),
                channel_axis=2,
                data_range=1.0,
                gaussian_weights=True,
                sigma=_SSIM_SIGMA_PX,
                use_sample_covariance=False,
            )
            self.values.append(float(value))  # pyright: ignore[reportArgumentType]

    def compute(self) -> float | None:
        """Return the mean in [-1, 1], None without pictures."""
        return mean(self.values)


def mean_psnr(error: Tensor) -> float:
    """Compute the mean PSNR of pictures, each at most 100 dB.

    Args:
        error: (N,3,H,W) differences of pictures in [0,1], on any device.

    Returns:
        dB; other than `PSNR`, which is that of the mean error.
    """
    return float(-10 * error.square().mean((1, 2, 3)).clamp_min(1e-10).log10().mean())


def _check_pairs(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    if real.shape != generated.shape or real.ndim != 4 or real.shape[-1] != 3:
        got = f"{tuple(real.shape)} and {tuple(generated.shape)}"
        raise ValueError(
            f"pictures are {got}; expected two (N,H,W,3) of one shape: cut or resize them "
            "alike first"
        )
    return real.cpu(), generated.cpu()


def _to_unit_range(picture: Tensor) -> Tensor:
    """One picture as float64 in [0,1]."""
    return picture.double() / 255 if picture.dtype == torch.uint8 else picture.double()
