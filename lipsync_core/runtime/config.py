"""Convert values from JSON and TOML to the exact types of annotations and frozen dataclasses."""

import dataclasses
import json
import math
import types
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

# metadata of a field that files of an earlier version lack: they mean its default
ADDED_LATER = {"added later": True}


def from_dict(kind: Any, value: Any, name: str, *, defaults: bool = False) -> Any:
    """Convert ``value`` to the annotated type ``kind``, strictly.

    Args:
        kind: int, str, bool, float, Literal, X | None, tuple or a dataclass.
        value: what JSON or TOML gave.
        name: what error messages call the value.
        defaults: whether fields of a dataclass may be left out, and then take their defaults.

    Returns:
        The value of that type.

    Raises:
        ValueError: If a field is unknown, missing or of another type, or a number is not finite.
    """
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _config(cast(type[Any], kind), value, name, defaults)
    if origin is tuple and isinstance(value, list):
        each = args[:1] * len(value) if args[1:] == (...,) else args
        if len(each) == len(value):
            pairs = enumerate(zip(each, value, strict=True))
            return tuple(from_dict(k, v, f"{name}[{i}]", defaults=defaults) for i, (k, v) in pairs)
    if origin is Literal and any(value == arg and type(value) is type(arg) for arg in args):
        return value
    if origin in (Union, types.UnionType) and type(None) in args and len(args) == 2:  # X | None
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else from_dict(inner, value, name, defaults=defaults)
    if (
        kind is float
        and isinstance(value, (int, float))
        and type(value) is not bool
        and math.isfinite(value)
    ):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{name} is {_shown(value)}; expected {kind}")


def _config(kind: type[Any], value: Any, name: str, defaults: bool) -> Any:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    known = {field.name for field in fields}
    needed = {
        field.name
        for field in fields
        if not (_has_default(field) and (defaults or field.metadata.get("added later")))
    }
    if not isinstance(value, dict) or not needed <= set(value) <= known:
        got = sorted(cast(dict[str, Any], value)) if isinstance(value, dict) else _shown(value)
        raise ValueError(f"{name} has {got}; expected {sorted(known)}")
    return kind(
        **{
            key: from_dict(hints[key], value[key], f"{name}.{key}", defaults=defaults)
            for key in value
        }
    )


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]
