"""A named run is a small TOML file, read strictly into a frozen config; a run's folder remembers
it."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from ..errors import TrainingError
from ..runtime.atomic import atomic_write
from ..runtime.config import from_dict

S = TypeVar("S")


def read_settings(path: str | Path, kind: type[S]) -> S:
    """The frozen dataclass ``kind`` as the TOML file ``path`` fills it; fields that are left out
    take their defaults.

    TrainingError for a file that is missing or no TOML and for unknown, missing, ill-typed or
    impossible values.
    """
    try:
        return from_dict(
            kind,
            tomllib.loads(Path(path).read_text(encoding="utf-8-sig")),
            "the run",
            defaults=True,
        )
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise TrainingError(f"{path}: {error}") from error


def kept_settings(out: Path, kind: type[S]) -> S:
    """The ``kind`` of the run in the folder ``out``, as `keep_settings` wrote it; fields that were
    added since take their defaults. TrainingError where there is none."""
    path = out / "settings.json"
    try:
        return from_dict(
            kind, json.loads(path.read_text(encoding="utf-8")), "the run", defaults=True
        )
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} tells no run of this kind ({error}); wanted a folder with last.pt, best.pt and the settings beside them"
        ) from error


def begun(out: Path) -> bool:
    """Whether the run in ``out`` has a checkpoint to go on from."""
    return any((out / name).exists() for name in ("last.pt", "best.pt"))


def keep_settings(out: Path, settings: Any, *, run: Path | None = None) -> None:
    """Write ``settings`` (a dataclass) to ``out``/settings.json; where the run, in ``out`` or in
    the folder ``run`` above it, has checkpoints of others, TrainingError names what differs: half a
    run with one rate and half with another is neither.

    A field that is "auto" now differs from nothing: it leaves the choice to the machine, so a run
    of an earlier version, whose default of ``precision`` was bfloat16, goes on. What it was begun
    with stays in the file."""
    path, run = out / "settings.json", run or out
    if path.exists() and begun(run):
        then, now = (_fields(each) for each in (kept_settings(out, type(settings)), settings))
        changed = [
            key
            for key in sorted(then | now)
            if then.get(key) != now.get(key) and now.get(key) != "auto"
        ]
        if changed:
            told = "; ".join(f"{key} was {then.get(key)} and is {now.get(key)}" for key in changed)
            raise TrainingError(
                f"{run} holds a run with other settings ({told}); take another folder, or delete "
                f"{path.relative_to(run).as_posix()} to go on with the new ones all the same"
            )
        return
    told = json.dumps(dataclasses.asdict(settings), indent=1) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(told, encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error}); make room, or give a folder that can"
        ) from error


def _fields(settings: Any, within: str = "") -> dict[str, Any]:
    """What a dataclass holds, that of dataclasses in it by names with points: plan.steps."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        name, value = within + field.name, getattr(settings, field.name)
        inner = dataclasses.is_dataclass(value) and not isinstance(value, type)
        found |= _fields(value, f"{name}.") if inner else {name: value}
    return found
