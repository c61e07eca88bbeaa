"""The log of a run: a JSON line per evaluation, curves and pictures for TensorBoard."""

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from ..errors import TrainingError
from ..runtime.atomic import atomic_write


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of evaluating a model on held-out data.

    Attributes:
        score: higher is better; it chooses the best checkpoint.
        figures: numbers for the JSON line and the curves.
        pictures: (3,H,W) uint8, for TensorBoard.
    """

    score: float
    figures: Mapping[str, float]
    pictures: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, slots=True, eq=False)
class RunningMeans:
    """Sums since the last report.

    Attributes:
        steps: number of steps.
        seconds: duration of these steps.
        waited: the part of ``seconds`` that was spent waiting for data.
        terms: sums of the loss terms, () each.
    """

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    terms: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def plus(self, terms: Mapping[str, Tensor], *, seconds: float, waited: float) -> "RunningMeans":
        """Return the sums with one more step and its seconds in total and waiting for data."""
        sums = {
            k: v.detach() + self.terms[k] if k in self.terms else v.detach()
            for k, v in terms.items()
        }
        return RunningMeans(self.steps + 1, self.seconds + seconds, self.waited + waited, sums)

    def means(self) -> dict[str, float]:
        """Return the means of the terms, the seconds per step and the share spent waiting."""
        terms = {name: value.item() / self.steps for name, value in self.terms.items()}
        return terms | {
            "step_seconds": self.seconds / self.steps,
            "data_wait": self.waited / self.seconds,
        }


class TrainingLogger:
    """Writes ``out``/evaluations.jsonl and, if asked, ``out``/tensorboard.

    Entries of an earlier attempt after ``step``, from which the run resumes, are dropped: those
    steps are done again.

    Args:
        out: the run's folder.
        step: number of steps done.
        tensorboard: whether to write for TensorBoard.
    """

    def __init__(self, out: Path, *, step: int, tensorboard: bool) -> None:
        self._lines = out / "evaluations.jsonl"
        kept = [line for line in _lines(self._lines) if line["step"] <= step]
        with _writing(self._lines), atomic_write(self._lines) as part:
            part.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._curves = out / "tensorboard"
        with _writing(self._curves):
            self._board = _board(self._curves, step) if tensorboard else None

    def __enter__(self) -> "TrainingLogger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._board is not None:
            # the first error counts
            with suppress(TrainingError) if error else nullcontext(), _writing(self._curves):
                self._board.close()

    def report(self, step: int, figures: Mapping[str, float], *, part: str = "train") -> None:
        """Write the figures of a step as curves of TensorBoard, under the name ``part``."""
        if self._board is not None:
            with _writing(self._curves):
                for name, value in figures.items():
                    self._board.add_scalar(f"{part}/{name}", value, step)

    def evaluated(self, step: int, evaluation: Evaluation, *, best: bool) -> None:
        """Write an evaluation; ``best`` says whether it is the best so far."""
        figures = {"score": evaluation.score, **evaluation.figures}
        line = (
            {"step": step}
            | {k: v if math.isfinite(v) else None for k, v in figures.items()}
            | {"best": best}
        )
        with _writing(self._lines), self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.report(step, {"score": evaluation.score, **evaluation.figures}, part="held out")
        if self._board is not None:
            with _writing(self._curves):
                for name, picture in evaluation.pictures.items():
                    self._board.add_image(name, picture, step)
                self._board.flush()


@contextmanager
def _writing(path: Path) -> Generator[None]:
    """Raise TrainingError if the disk refuses a write."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} could not be written ({error}); free disk space and start again: the run "
            "goes on from last.pt"
        ) from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log; the last line of a process that was killed may be broken."""
    found: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError, TypeError, KeyError):
            line = json.loads(text)
            int(line["step"])
            found.append(line)
    return found


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, and an extra of ours
    except ImportError as error:
        raise TrainingError(
            f"TensorBoard cannot be imported ({error}); pip install 'lipsync-core[train]', or set "
            "tensorboard = false in the run's [plan]"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
