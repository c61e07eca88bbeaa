"""In which arithmetic a network runs."""

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]

# 3x3, forward, least of several runs beside other work: one thread of a Xeon with AVX-512 alone,
# torch 2.13. Two measurements gave 5 and 9 times.
SLOW_BFLOAT16 = (
    "this CPU has no units for bfloat16, which torch then imitates: a convolution (64 channels, 48x48 px) was measured to "
    'take 5 to 9 times as long as in float32, a transposed one 24 times; precision = "auto" takes float32 here'
)


def arithmetic(weight: Tensor, precision: Precision = "auto") -> torch.dtype:
    """The number format in which a network with such weights runs fastest without harm.

    ``auto`` takes bfloat16 for float32 networks where a CPU has matrix units for it (Intel AMX):
    twice as fast there, and 0.02 levels of 255 away on average (`mini` on eight faces, at most 2.6
    in one pixel). Elsewhere a network runs as its weights are. ValueError for bfloat16 where the
    weights are not float32.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}; wanted auto, float32 or bfloat16")
    if weight.dtype != torch.float32:
        if precision == "bfloat16" and weight.dtype != torch.bfloat16:
            raise ValueError(
                f"the weights are {weight.dtype}; bfloat16 arithmetic wants float32 ones: load them so, or take auto"
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


def casting(weight: Tensor, precision: Precision = "auto") -> torch.autocast:
    """The context in which the convolutions of a network with such weights run in ``arithmetic``,
    its weights staying as they are."""
    lower = weight.dtype == torch.float32 and arithmetic(weight, precision) == torch.bfloat16
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=lower)


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether ``device`` computes in bfloat16 itself. That torch accepts the type says nothing: it
    imitates it elsewhere."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return device.type == "cpu" and bool(
        known.get("amx_bf16", False) or known.get("avx512_bf16", False)
    )


def choose_training_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """The number format of the convolutions of networks that are trained or judged on ``device``,
    whose weights are float32 in any case. ``auto``: bfloat16 where there are units for it, or else
    float32.

    Other than ``arithmetic``, which runs shipped networks and takes bfloat16 on CPUs with matrix
    units alone, where it was shown to do no harm to what is drawn.
    """
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16_units(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast_training(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """The context in which networks that are trained or judged on ``device`` run in
    ``choose_training_dtype``."""
    lower = choose_training_dtype(device, precision) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)
