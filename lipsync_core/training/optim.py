"""Learning-rate schedules, one clipped optimizer step and the moving average of a model."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TrainingError


class NotFiniteError(TrainingError):
    """A loss or a gradient is not a finite number; the step changed nothing."""


def warmup_cosine(total: int, *, warmup: int = 100, least: float = 0.02) -> Callable[[int], float]:
    """Return a schedule that rises linearly and then falls along a cosine.

    Args:
        total: the step at which the factor reaches ``least``.
        warmup: steps of the rise.
        least: the last factor.

    Returns:
        A function from the step to the factor of the learning rate, in (0,1].
    """

    def factor(step: int) -> float:
        fall = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
        return min(1.0, (step + 1) / max(warmup, 1)) * fall

    return factor


def constant(*, warmup: int = 0) -> Callable[[int], float]:
    """Return a schedule that rises linearly and stays at 1, as in the paper and public code.

    Args:
        warmup: steps of the rise.

    Returns:
        A function from the step to the factor of the learning rate, in (0,1].
    """
    return lambda step: min(1.0, (step + 1) / max(warmup, 1))


def make_schedule(
    kind: Literal["cosine", "constant"], total: int, *, warmup: int
) -> Callable[[int], float]:
    """Return the schedule that a run's settings name.

    Args:
        kind: ``cosine`` (`warmup_cosine`) or ``constant``.
        total: steps of the run.
        warmup: steps of the rise.

    Returns:
        A function from the step to the factor of the learning rate, in (0,1].
    """
    return warmup_cosine(total, warmup=warmup) if kind == "cosine" else constant(warmup=warmup)


def step_optimizer(
    loss: Tensor, optimizer: Optimizer, *, rate: float, clip_norm: float = math.inf
) -> Tensor:
    """Take one optimizer step down a loss, with clipped gradients.

    Args:
        loss: the loss, ().
        optimizer: the optimizer.
        rate: the learning rate of this step.
        clip_norm: largest norm of the gradient over all parameters of the optimizer.

    Returns:
        The norm before clipping, ().

    Raises:
        NotFiniteError: the loss or the norm is not finite; raised before anything is changed.
            The norm is the same on every rank, so all of them stop.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
        raise NotFiniteError(f"the loss is {loss.item():g} and the gradient's norm {norm.item():g}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return norm


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, step: int, *, decay: float) -> None:
    """Move the average of a model towards the model, in place, buffers included.

    average <- keep * average + (1 - keep) * model, with keep = min(decay, (1 + step) / (10 +
    step)), so that the beginning is soon forgotten.

    Args:
        average: a copy of the model.
        model: the model.
        step: number of the step.
        decay: largest value of keep, in [0,1).
    """
    keep = min(decay, (1 + step) / (10 + step))
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        old.lerp_(new, 1 - keep) if old.is_floating_point() else old.copy_(new)
