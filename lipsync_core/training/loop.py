"""The training loop of every recipe: draw, learn, report, evaluate, save. It knows no model.

State is a value: all that a run is after n steps is ``Progress(n, best)`` and the states of
its parts. The randomness of a step is a function of (seed, step, rank), so one evaluation
more or less, an interruption, or another machine changes nothing in what is learned.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainingError
from ..runtime.atomic import exclusive_dir
from ..runtime.prefetch import prefetch
from .checkpoints import Progress, Stateful, resume, save_batch, save_state
from .distributed import World
from .logger import Evaluation, RunningMeans, TrainingLogger
from .optim import NotFiniteError
from .signals import stopping

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class Batches(Protocol[B_co]):
    """An endless source of batches.

    Its state is its position: after ``load_state_dict`` it continues behind the last batch that
    was taken, not the last that was prepared. Ranks advance together, so one state, that of the
    first, serves them all; the loader decides which samples belong to which rank.
    """

    def __iter__(self) -> Iterator[B_co]: ...

    def state_dict(self) -> Any:
        """Return the position."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Continue from a position that ``state_dict`` returned."""
        ...


class Draws(Generic[B]):
    """`Batches` that are functions of the step's number.

    Args:
        draw: returns the batch of a step and brings its own generators.
        depth: batches that a thread draws ahead.
    """

    def __init__(self, draw: Callable[[int], B], *, depth: int = 2) -> None:
        self._draw, self._depth, self._step = draw, depth, 0

    def __iter__(self) -> Generator[B]:
        for batch in prefetch(map(self._draw, itertools.count(self._step)), depth=self._depth):
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches taken."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self._step = state_dict["step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a run is and how often it reports, evaluates and saves.

    Attributes:
        steps: number of steps.
        seed: decides every draw.
        report_every: steps between reports.
        evaluate_every: steps between evaluations.
        save_every: steps between checkpoints.
        tensorboard: whether to write for TensorBoard.
    """

    steps: int
    seed: int = 0
    report_every: int = 10
    evaluate_every: int = 100
    save_every: int = 100
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "report_every", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")


def train(
    learn: Callable[[B, int], Mapping[str, Tensor]],
    loader: Batches[B],
    *,
    plan: Plan,
    parts: Mapping[str, Stateful],
    evaluate: Callable[[int], Evaluation],
    out: Path,
    world: World = World(),
    say: Callable[[str], None],
) -> Progress:
    """Take ``plan.steps`` steps, resuming from ``out``/last.pt if it exists.

    Args:
        learn: takes (batch, step), makes one step of the optimizers and returns named terms ()
            for the report.
        loader: the batches; its state is part of a checkpoint.
        plan: length and intervals of the run.
        parts: models and optimizers that a checkpoint holds, the same on every rank.
        evaluate: takes the number of steps done and returns an evaluation; called on the first
            rank.
        out: gets last.pt, best.pt, evaluations.jsonl and tensorboard/.
        world: this process among those of the run.
        say: gets one line per report, with the seconds per step and the share of them spent
            waiting for data.

    Returns:
        The progress, below ``plan.steps`` only if the process got a signal to end (`stopping`);
        it saves first.

    Raises:
        NotFiniteError: a step gave a number that is not finite; the batch is saved beside the
            checkpoints.
        LipSyncError: ``out`` cannot be read or written, or another process is using it.
    """
    parts = {**parts, "loader": loader}
    tally, stop = RunningMeans(), False
    with stopping() as asked, _begun(out, parts, plan, world) as (progress, journal):
        batches = iter(loader)
        while progress.step < plan.steps and not stop:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            seed_step(plan.seed, progress.step, world.rank)
            terms = _learn(learn, batch, progress.step, out, world)
            tally = tally.plus(terms, seconds=time.perf_counter() - began, waited=waited)
            progress = replace(progress, step=progress.step + 1)
            stop = world.any(asked())
            if journal is None:
                continue
            ends = stop or progress.step == plan.steps
            if ends or progress.step % plan.report_every == 0:
                means, tally = tally.means(), RunningMeans()
                say(f"{progress.step} {format_terms(means)}")
                journal.report(progress.step, means)
            if progress.step == plan.steps or progress.step % plan.evaluate_every == 0:
                evaluation = evaluate(progress.step)
                say(f"{progress.step} held out: {format_terms(evaluation.figures)}")
                progress, best = _better(progress, evaluation)
                if best:
                    save_state(out / "best.pt", progress, parts)
                journal.evaluated(progress.step, evaluation, best=best)
            if ends or progress.step % plan.save_every == 0:
                save_state(out / "last.pt", progress, parts)
    if stop and world.is_main:
        say(f"asked to end after step {progress.step}: saved; the same command goes on from there")
    return progress


def seeds(*key: int) -> list[int]:
    """Return four 32-bit numbers that are a function of ``key`` and unlike those of other keys.

    Args:
        key: integers, such as (seed, step, rank).

    Returns:
        Four integers in [0, 2^32).
    """
    return np.random.SeedSequence(key).generate_state(4).tolist()


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the random generator of a key; other kinds of devices draw other numbers.

    Args:
        key: integers, see `seeds`.
        device: the device of the generator.

    Returns:
        A new generator.
    """
    low, high, *_ = seeds(*key)
    return torch.Generator(device).manual_seed(high << 32 | low)


def seed_step(*key: int) -> None:
    """Seed the global generators of torch (all devices), numpy and Python with ``key``.

    It also chooses the kernels of cuDNN that give equal results for equal input. Runs on GPUs
    are still equal only up to rounding: the gradients of sampling and of antialiased scaling
    are summed there in any order.

    Args:
        key: integers, see `seeds`.
    """
    low, high, third, fourth = seeds(*key)
    torch.manual_seed(high << 32 | low)
    np.random.seed(third)
    random.seed(fourth)
    torch.backends.cudnn.deterministic = True


@contextmanager
def _begun(
    out: Path, parts: Mapping[str, Stateful], plan: Plan, world: World
) -> Generator[tuple[Progress, TrainingLogger | None]]:
    """Load the progress of the run and, on the first rank, lock ``out`` and open the log."""
    with exclusive_dir(out) if world.is_main else nullcontext():
        progress = resume(out / "last.pt", parts)
        if not world.all_equal(progress.step):
            raise TrainingError(
                f"{out / 'last.pt'} is of step {progress.step} here and of another for other "
                "processes; expected a folder that all machines share"
            )
        if not world.is_main:
            yield progress, None
            return
        with TrainingLogger(out, step=progress.step, tensorboard=plan.tensorboard) as journal:
            yield progress, journal


def _learn(
    learn: Callable[[B, int], Mapping[str, Tensor]], batch: B, step: int, out: Path, world: World
) -> Mapping[str, Tensor]:
    try:
        return learn(batch, step)
    except NotFiniteError as error:
        path = out / f"not_finite_step{step:08d}_rank{world.rank}.pt"
        save_batch(path, step, batch)
        raise NotFiniteError(
            f"step {step}: {error}. The batch is in {path.name}; what was saved before is sound: "
            "lower the rate or clip_norm, or repair the data, and start again"
        ) from error


def _better(progress: Progress, evaluation: Evaluation) -> tuple[Progress, bool]:
    score = evaluation.score
    best = math.isfinite(score) and (progress.best is None or score > progress.best)
    return (replace(progress, best=score) if best else progress), best


def format_terms(figures: Mapping[str, float]) -> str:
    """Format named figures as one line."""
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
