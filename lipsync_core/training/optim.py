"""One step downhill: the learning rate as a function of the step, clipping, and the moving average
of a model."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TrainingError


class NotFiniteError(TrainingError):
    """A loss or a gradient is not a finite number; nothing was changed by it."""


def warmup_cosine(total: int, *, warmup: int = 100, least: float = 0.02) -> Callable[[int], float]:
    """Factor of the learning rate: up over ``warmup`` steps, then down a cosine to ``least`` at
    ``total``."""

    def factor(step: int) -> float:
        fall = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
        return min(1.0, (step + 1) / max(warmup, 1)) * fall

    return factor


def constant(*, warmup: int = 0) -> Callable[[int], float]:
    """Factor of the learning rate: up over ``warmup`` steps, then 1, as the paper and the public
    code have it."""
    return lambda step: min(1.0, (step + 1) / max(warmup, 1))


def make_schedule(
    kind: Literal["cosine", "constant"], total: int, *, warmup: int
) -> Callable[[int], float]:
    """The factor that a run's settings name."""
    return warmup_cosine(total, warmup=warmup) if kind == "cosine" else constant(warmup=warmup)


def step_optimizer(
    loss: Tensor, optimiser: Optimizer, *, rate: float, clip_norm: float = math.inf
) -> Tensor:
    """One step of ``optimiser`` down ``loss`` () at the learning rate ``rate``, with gradients
    whose norm over all of its parameters is at most ``clip_norm``. Returns the norm before
    clipping, ().

    NotFiniteError before anything is changed where the loss or the norm is no finite number. The
    norm is the same on every rank, so all of them stop.
    """
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
        raise NotFiniteError(f"the loss is {loss.item():g} and the gradient's norm {norm.item():g}")
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return norm


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, step: int, *, decay: float) -> None:
    """Move ``average``, a copy of ``model``, towards it in place: average <- keep * average + (1 -
    keep) * model, with keep = min(decay, (1 + step) / (10 + step)), so that the beginning is
    forgotten soon. Buffers likewise."""
    keep = min(decay, (1 + step) / (10 + step))
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        old.lerp_(new, 1 - keep) if old.is_floating_point() else old.copy_(new)
