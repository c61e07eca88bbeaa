"""Weights and inputs that anybody can make again, from names and seeds: what the arrays in
reference/ were made with."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REFERENCE = Path(__file__).parents[1] / "reference"


def recipe(key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor called ``key``: normal numbers seeded by the CRC of the name, scaled by what the
    name says it is."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        r = 1 + 0.1 * np.abs(r)
    elif key.endswith(("running_mean", "bias")):
        r = 0.1 * r
    elif len(shape) <= 1:
        r = 1 + 0.1 * r
    else:
        r = r * np.sqrt(1.3 / np.prod(shape[1:]))
    return torch.from_numpy(r.astype(np.float32))


def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names and shapes of ``state``."""
    return {key: recipe(key, tuple(like.shape)) for key, like in state.items()}


def build(network: type[nn.Module], config: Any) -> nn.Module:
    """``network(config)`` with recipe weights, in eval mode."""
    model = network(config)
    model.load_state_dict(weights(model.state_dict()), strict=True)
    return model.eval()


def uniform(seed: int, shape: tuple[int, ...], low: float = 0, high: float = 1) -> Tensor:
    """float32 numbers of numpy's RandomState(seed).uniform."""
    return torch.from_numpy(
        np.random.RandomState(seed).uniform(low, high, shape).astype(np.float32)
    )


def integers(seed: int, shape: tuple[int, ...]) -> Tensor:
    """uint8 numbers of numpy's RandomState(seed).randint(0, 256)."""
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8))
