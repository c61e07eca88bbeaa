"""The loop of every recipe: draw, learn, tell, judge, keep. It knows no model.

State is a value: all that a run is after n steps is ``Progress(n, best)`` and the states of its
parts. The randomness of a step is a function of (seed, step, rank), so an evaluation more or less,
an interruption, or another machine changes nothing that is learnt.
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
    """Where batches come from, without end.

    Its state is its position: after ``load_state_dict`` it goes on behind the last batch that was
    taken, not the last that was prepared. Ranks walk in step, so one state, that of the first,
    serves them all; which samples are whose is the loader's affair.
    """

    def __iter__(self) -> Iterator[B_co]: ...

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class Draws(Generic[B]):
    """`Batches` that are functions of the step's number, ``draw(step)``, which brings its own
    generators: a thread calls it up to ``depth`` steps ahead."""

    def __init__(self, draw: Callable[[int], B], *, depth: int = 2) -> None:
        self._draw, self._depth, self._step = draw, depth, 0

    def __iter__(self) -> Generator[B]:
        for batch in prefetch(map(self._draw, itertools.count(self._step)), depth=self._depth):
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._step = state_dict["step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a run is and how often it tells, judges and saves, in steps.

    ``seed`` decides every draw of it.
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
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 1 or more")


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
    """Take ``plan.steps`` steps, going on from ``out``/last.pt where there is one, and return how
    far it came: less than that only where the process was asked to end (`stopping`), which saves
    first.

    ``learn(batch, step)`` descends and returns named terms () for the report; ``evaluate(steps
    done)`` judges, on the first rank. ``parts`` and the loader are what a checkpoint holds; they
    are the same on every rank. ``out`` gets last.pt, best.pt, evaluations.jsonl and tensorboard/;
    ``say`` one line per report, with the seconds of a step and the share of them that passed
    waiting for data. NotFiniteError, with the batch saved beside the checkpoints, where a step
    gives no finite number; LipSyncError where ``out`` cannot be read or written, or another process
    is at work in it.
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
    """Four numbers of 32 bits that are a function of ``key``, such as (seed, step, rank), and
    unlike those of other keys."""
    return np.random.SeedSequence(key).generate_state(4).tolist()


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of ``key``; other kinds of devices draw other numbers."""
    low, high, *_ = seeds(*key)
    return torch.Generator(device).manual_seed(high << 32 | low)


def seed_step(*key: int) -> None:
    """Set every generator that is nobody's own, of torch on all devices, numpy and Python, to
    ``key``; and take the kernels of cuDNN that give equal results for equal input. On GPUs runs are
    equal but for rounding all the same: the gradients of sampling and of antialiased scaling are
    summed there in any order."""
    low, high, third, fourth = seeds(*key)
    torch.manual_seed(high << 32 | low)
    np.random.seed(third)
    random.seed(fourth)
    torch.backends.cudnn.deterministic = True


@contextmanager
def _begun(
    out: Path, parts: Mapping[str, Stateful], plan: Plan, world: World
) -> Generator[tuple[Progress, TrainingLogger | None]]:
    """How far the run is, and the journal of the first rank, which has ``out`` for itself until the
    end."""
    with exclusive_dir(out) if world.is_main else nullcontext():
        progress = resume(out / "last.pt", parts)
        if not world.all_equal(progress.step):
            raise TrainingError(
                f"{out / 'last.pt'} is of step {progress.step} here and of another for other "
                "processes; wanted a folder "
                "that all machines share"
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
            "lower the rate "
            "or clip_norm, or mend the data, and start again"
        ) from error


def _better(progress: Progress, evaluation: Evaluation) -> tuple[Progress, bool]:
    score = evaluation.score
    best = math.isfinite(score) and (progress.best is None or score > progress.best)
    return (replace(progress, best=score) if best else progress), best


def format_terms(figures: Mapping[str, float]) -> str:
    """Named figures in one line."""
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
