"""Checkpoints: the files from which a training run resumes, whatever its model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..errors import TrainingError
from ..runtime.atomic import atomic_write


class Stateful(Protocol):
    """Anything with a state: modules, optimizers, loaders."""

    def state_dict(self) -> Any:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state that ``state_dict`` returned."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Nothing else needs to be kept beside the parts: the learning rate and all randomness of a
    step are functions of its number.

    Attributes:
        step: number of steps done.
        best: the highest score of an evaluation so far, None before the first.
    """

    step: int = 0
    best: float | None = None


def save_state(path: Path, progress: Progress, parts: Mapping[str, Stateful]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file; an earlier one stays as it is if writing fails.
        progress: how far the run is.
        parts: models, optimizers and loaders by name.

    Raises:
        TrainingError: the file cannot be written.
    """
    state = dataclasses.asdict(progress) | {
        "parts": {name: part.state_dict() for name, part in parts.items()}
    }
    _write(state, path)


def load_state(path: Path, parts: Mapping[str, Stateful]) -> Progress:
    """Fill the parts from a checkpoint and return how far the run is.

    Args:
        path: the file that ``save_state`` wrote.
        parts: models, optimizers and loaders by the names under which they were saved.

    Returns:
        The progress that was saved.

    Raises:
        TrainingError: the file is missing, damaged or of other parts. Weights that were not
            trained must not pass for trained ones.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return Progress(state["step"], state["best"])
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path} does not exist; expected last.pt or best.pt in a run's folder"
        ) from error
    except (
        Exception
    ) as error:  # whatever torch's reader and a part make of a file that is not theirs
        raise TrainingError(
            f"{path} is damaged or of another run ({str(error)[:200]}); take another folder, or "
            "delete it to start again"
        ) from error


def resume(path: Path, parts: Mapping[str, Stateful]) -> Progress:
    """Load a checkpoint if there is one, otherwise return the progress of a run that begins.

    Args:
        path: the checkpoint, which may be missing.
        parts: see `load_state`.

    Returns:
        The progress that was saved, or ``Progress()``.

    Raises:
        TrainingError: the file is damaged or of other parts.
    """
    return load_state(path, parts) if path.exists() else Progress()


def save_batch(path: Path, step: int, batch: Any) -> None:
    """Write a batch that broke a step, for ``torch.load(path, weights_only=True)``.

    Args:
        path: the file, which holds a dict of ``step`` and ``batch``.
        step: number of the step.
        batch: what `plain` accepts.

    Raises:
        TrainingError: the file cannot be written.
    """
    _write({"step": step, "batch": plain(batch)}, path)


def plain(value: Any) -> Any:
    """Convert a value to what can be read back without running code.

    Args:
        value: tensors, dataclasses, named tuples, lists, tuples, dicts, numbers, strings, None,
            nested at will.

    Returns:
        The value with tensors on the CPU, dataclasses and named tuples as dicts, tuples as
        lists.

    Raises:
        ValueError: the value holds anything else.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(cast(Any, value)._asdict())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast(list[Any], value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"a batch holds a {type(value).__name__}; expected tensors, numbers, strings and nests of "
        "them"
    )


def _write(state: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        raise TrainingError(
            f"{path} could not be written ({error}); the earlier file is intact: free disk "
            "space and start again"
        ) from error
