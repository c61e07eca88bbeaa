"""In which arithmetic a network runs."""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def casting(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """The context in which a float32 network runs on ``device``.

    ``auto`` takes bfloat16 for the convolutions where a CPU has matrix units for it (Intel AMX): twice as fast there, and
    0.03 levels of 255 away on average (`mini` on eight faces, at most 26 in one pixel at an edge). Elsewhere float32.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}; wanted auto, float32 or bfloat16")
    if precision == "auto":
        matrix_units = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
        precision = "bfloat16" if matrix_units else "float32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
