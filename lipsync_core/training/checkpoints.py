"""What a run leaves on disk to go on from, without knowledge of any model."""

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
    """Anything with a state: modules, optimisers, loaders."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: ``step`` steps done.

    ``best``: the highest score of an evaluation so far, None before the first.

    Nothing else needs keeping beside the parts: the rate and all randomness of a step are functions
    of its number.
    """

    step: int = 0
    best: float | None = None


def save_state(path: Path, progress: Progress, parts: Mapping[str, Stateful]) -> None:
    """Write a checkpoint, whole or not at all.

    TrainingError where the disk refuses; what was there before stays.
    """
    state = dataclasses.asdict(progress) | {
        "parts": {name: part.state_dict() for name, part in parts.items()}
    }
    _write(state, path)


def load_state(path: Path, parts: Mapping[str, Stateful]) -> Progress:
    """Fill ``parts`` from a checkpoint and return how far it is.

    TrainingError for a file that is missing, damaged or of other parts: what was not trained must
    not pass for what was.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return Progress(state["step"], state["best"])
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path} does not exist; wanted last.pt or best.pt in a run's folder"
        ) from error
    except (
        Exception
    ) as error:  # whatever torch's reader and a part make of a file that is not theirs
        raise TrainingError(
            f"{path} is damaged or of another run ({str(error)[:200]}); take another folder, or "
            "delete it to begin anew"
        ) from error


def resume(path: Path, parts: Mapping[str, Stateful]) -> Progress:
    """``load_state`` where there is a checkpoint, else ``Progress()``: the run begins."""
    return load_state(path, parts) if path.exists() else Progress()


def save_batch(path: Path, step: int, batch: Any) -> None:
    """Write a batch that broke a step, so that ``torch.load(path, weights_only=True)`` gives {step,
    batch}."""
    _write({"step": step, "batch": plain(batch)}, path)


def plain(value: Any) -> Any:
    """``value`` with its tensors on the CPU and its dataclasses and named tuples as dicts: what may
    be read back without running code. ValueError for anything but these, lists, tuples, dicts,
    numbers, strings and None."""
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
        f"a batch holds a {type(value).__name__}; wanted tensors, numbers, strings and nests of "
        "them"
    )


def _write(state: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        raise TrainingError(
            f"{path} could not be written ({error}); what was there before is whole: make room and "
            "start again"
        ) from error
