"""Saving and resuming, without knowledge of any model."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    """Anything with a state: modules, optimisers, schedules."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def save_state(
    path: Path, step: int, parts: Mapping[str, Stateful], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write a checkpoint under a temporary name, then rename it."""
    state = {
        "step": step,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "tensors": {name: tensor.detach() for name, tensor in (tensors or {}).items()},
    }
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def load_state(path: Path, parts: Mapping[str, Stateful], tensors: Mapping[str, Tensor] | None = None) -> int:
    """Fill ``parts`` and ``tensors`` from a checkpoint and return its step; 0 where there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    for name, tensor in (tensors or {}).items():
        tensor.data.copy_(state["tensors"][name])
    return int(state["step"])


def warmup_cosine(total: int, *, warmup: int = 100, least: float = 0.02) -> Callable[[int], float]:
    """Factor of the learning rate: up over ``warmup`` steps, then down a cosine to ``least`` at ``total``."""

    def factor(step: int) -> float:
        fall = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
        return min(1.0, (step + 1) / warmup) * fall

    return factor
