"""Choose the number format that a network computes in."""

import torch
from torch import Tensor

from ..options import Precision

# 3x3, forward, least of several runs beside other work: one thread of a Xeon with AVX-512 alone,
# torch 2.13. Two measurements gave 5 and 9 times.
SLOW_BFLOAT16 = (
    "this CPU has no units for bfloat16, which torch then imitates: a convolution (64 channels, "
    "48x48 px) was measured to take 5 to 9 times as long as in float32, a transposed one 24 times; "
    'precision = "auto" takes float32 here'
)


def choose_dtype(weight: Tensor, precision: Precision = "auto") -> torch.dtype:
    """Choose the number format in which a network runs fastest without harm.

    Args:
        weight: One of its weights.
        precision: ``auto`` takes bfloat16 for float32 networks if the CPU has matrix units for it
            (Intel AMX): twice as fast there, and 0.02 levels of 255 away on average (`mini` on
            eight faces, at most 2.6 in one pixel). Otherwise a network runs as its weights are.

    Returns:
        The dtype.

    Raises:
        ValueError: For another precision, or bfloat16 if the weights are not float32.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}; expected auto, float32 or bfloat16")
    if weight.dtype != torch.float32:
        if precision == "bfloat16" and weight.dtype != torch.bfloat16:
            raise ValueError(
                f"the weights are {weight.dtype}; bfloat16 needs float32 ones: load them so, or "
                "choose auto"
            )
        return weight.dtype
    if precision == "auto":
        known = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch cannot tell
        precision = (
            "bfloat16"
            if weight.device.type == "cpu" and known().get("amx_bf16", False)
            else "float32"
        )
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast_inference(weight: Tensor, precision: Precision = "auto") -> torch.autocast:
    """Return a context in which convolutions run in ``choose_dtype``; the weights stay as they are.

    Args:
        weight: One of the network's weights.
        precision: See ``choose_dtype``.
    """
    lower = weight.dtype == torch.float32 and choose_dtype(weight, precision) == torch.bfloat16
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=lower)


def has_bfloat16_units(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 itself; torch imitates the type elsewhere."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return device.type == "cpu" and bool(
        known.get("amx_bf16", False) or known.get("avx512_bf16", False)
    )


def choose_training_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """Choose the number format of networks that are trained or validated; weights stay float32.

    ``choose_dtype``, for shipped networks, takes bfloat16 only on CPUs with matrix units, where it
    was shown to do no harm to the pictures.

    Args:
        device: Of the network.
        precision: ``auto``: bfloat16 if the device has units for it, else float32.

    Returns:
        The dtype of the convolutions.
    """
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16_units(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast_training(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """Return a context in which networks run in ``choose_training_dtype`` on a device.

    Args:
        device: Of the networks.
        precision: See ``choose_training_dtype``.
    """
    lower = choose_training_dtype(device, precision) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)
