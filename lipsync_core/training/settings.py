"""A named run is a small TOML file, read strictly into a frozen config.

A run's folder remembers it.
"""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from ..errors import TrainingError
from ..runtime.atomic import atomic_write
from ..runtime.config import from_dict

S = TypeVar("S")
_RECIPE = "recipe"  # key of settings.json


def read_settings(path: str | Path, kind: type[S]) -> S:
    """The frozen dataclass ``kind`` as the TOML file ``path`` fills it.

    Fields that are left out take their defaults.

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


def load_settings(out: Path, kind: type[S]) -> S:
    """Read the settings of a run.

    Args:
        out: folder of the run.
        kind: the frozen dataclass of its recipe; fields added since the run began take their
            defaults.

    Returns:
        The settings, as ``save_settings`` wrote them.

    Raises:
        TrainingError: If the folder holds no run of this kind.
    """
    path = out / "settings.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            kept.pop(_RECIPE, None)
        return from_dict(kind, kept, "the run", defaults=True)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} holds no run of this kind ({error}); expected a folder with last.pt, best.pt "
            "and the settings beside them"
        ) from error


def read_recipe(out: Path) -> str | None:
    """Return the name of the recipe of the run in ``out``, None for older runs."""
    try:
        return json.loads((out / "settings.json").read_text(encoding="utf-8")).get(_RECIPE)
    except (OSError, ValueError, AttributeError):
        return None


def has_checkpoint(out: Path) -> bool:
    """Whether the run in ``out`` has a checkpoint to go on from."""
    return any((out / name).exists() for name in ("last.pt", "best.pt"))


def save_settings(
    out: Path, settings: Any, *, recipe: str | None = None, run: Path | None = None
) -> None:
    """Write the settings of a run, or check that they are those with which it began.

    A field that is "auto" now differs from nothing: it leaves the choice to the machine, so that a
    run of an earlier version, whose default of ``precision`` was bfloat16, goes on. The values with
    which it began stay in the file.

    Args:
        out: folder for settings.json.
        settings: a dataclass.
        recipe: name of the recipe, stored beside the settings.
        run: folder of the run, if ``out`` lies within it.

    Raises:
        TrainingError: If the run has checkpoints made with other settings (half a run with one rate
            and half with another is neither), or the folder cannot be written.
    """
    path, run = out / "settings.json", run or out
    if path.exists() and has_checkpoint(run):
        then, now = (_fields(each) for each in (load_settings(out, type(settings)), settings))
        changed = [
            key
            for key in sorted(then | now)
            if then.get(key) != now.get(key) and now.get(key) != "auto"
        ]
        if changed:
            differences = "; ".join(
                f"{key} was {then.get(key)} and is {now.get(key)}" for key in changed
            )
            raise TrainingError(
                f"{run} holds a run with other settings ({differences}); take another folder, or "
                f"delete {path.relative_to(run).as_posix()} to go on with the new ones all the same"
            )
        return
    fields = dataclasses.asdict(settings) | ({} if recipe is None else {_RECIPE: recipe})
    text = json.dumps(fields, indent=1) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
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
