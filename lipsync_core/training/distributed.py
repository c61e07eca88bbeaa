"""The processes of a run: one, or as many as torchrun started on one or more machines.

Recipes are written for both alike.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import TrainingError

_PATIENCE = timedelta(hours=1)  # the first rank evaluates while the others wait


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among the processes of a run; the first one reports and writes.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true on some rank, the same answer on all of them."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def all_equal(self, number: int) -> bool:
        """Return whether ``number`` is the same on all ranks."""
        if self.size == 1:
            return True
        ends = torch.tensor([number, -number])
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends.sum() == 0)

    def gather(self, x: Tensor) -> Tensor:
        """Concatenate the tensors of all ranks, with gradient.

        For losses over the embeddings of all ranks: every rank computes the whole loss, and the
        mean of the gradients over ranks, which `wrap` takes, is then the gradient of that loss.

        Args:
            x: (N,...), of one shape on all ranks.

        Returns:
            (size*N,...), in the order of ranks.
        """
        return x if self.size == 1 else _Gathered.apply(x, self.rank, self.size)  # pyright: ignore

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients that are means over the ranks.

        Batch norms take their statistics over all GPUs; on CPUs each process takes its own, and
        those of the first are kept.

        Args:
            model: the model to keep and to save.

        Returns:
            The module to call in training steps; the model itself if there is one process.
        """
        if self.size == 1:
            return model
        if self.device.type != "cuda":
            return nn.parallel.DistributedDataParallel(model)
        synced = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(synced, device_ids=[self.device])


@contextmanager
def join_processes(device: str = "auto") -> Generator[World]:
    """Join the processes that torchrun started, or run alone.

    Args:
        device: cpu, cuda, or auto for a GPU if there is one; each process of a machine takes
            its own GPU.

    Yields:
        This process's `World`.

    Raises:
        TrainingError: there is no GPU to take.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            f"no GPU can be used here by torch {torch.__version__}; give --device cpu, or install "
            "its CUDA build"
        )
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=torch.device(kind))
        return
    here = (
        torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if kind == "cuda"
        else torch.device(kind)
    )
    if kind == "cuda":
        if here.index >= torch.cuda.device_count():
            raise TrainingError(
                f"process {here.index + 1} of this machine has no GPU of its own; there are "
                f"{torch.cuda.device_count()}: start so many processes"
            )
        torch.cuda.set_device(here)
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    yield World(dist.get_rank(), size, here)
    # not after an error: the others may be waiting in the middle of a step
    dist.destroy_process_group()


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.count = rank, x.shape[0]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)  # every rank's loss pulls at every embedding
        return total[ctx.rank * ctx.count :][: ctx.count], None, None
