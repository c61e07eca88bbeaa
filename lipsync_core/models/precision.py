"""In which arithmetic a network runs."""

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]


def arithmetic(weight: Tensor, precision: Precision = "auto") -> torch.dtype:
    """The number format in which a network with such weights runs fastest without harm.

    ``auto`` takes bfloat16 for float32 networks where a CPU has matrix units for it (Intel AMX): twice
    as fast there, and 0.02 levels of 255 away on average (`mini` on eight faces, at most 2.6 in one pixel).
    Elsewhere a network runs as its weights are. ValueError for bfloat16 where the weights are not float32.
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
        precision = "bfloat16" if weight.device.type == "cpu" and known().get("amx_bf16", False) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def casting(weight: Tensor, precision: Precision = "auto") -> torch.autocast:
    """The context in which the convolutions of a network with such weights run in ``arithmetic``, its weights staying as
    they are."""
    lower = weight.dtype == torch.float32 and arithmetic(weight, precision) == torch.bfloat16
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=lower)
