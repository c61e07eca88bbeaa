"""Build the options of commands from the fields of option dataclasses.

A command takes option dataclasses as parameters, ``def command(blend: Blend, cut: Cut)``, and
``expand_options`` makes a function of it with one parameter for each field that carries an
``Option``, as typer expects it.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from ..runtime.options import Option, OptionField, has_default, option_fields, without_none

T = TypeVar("T")
OFF = "off"
"""The value that stands for None among the choices of an option."""


class Only:
    """Limits the option dataclass of a parameter to some fields: ``Annotated[Cut, Only("end")]``.

    Args:
        names: The fields that become options; the others keep their defaults.
    """

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, slots=True)
class _Pixels:
    """A width in px of the frame."""

    value: float


FaceFile = Annotated[Path, typer.Argument(help="Video or photo (PNG, JPEG, WebP) with the face.")]
Which = Annotated[
    str,
    typer.Option("--face", help="The face to use.", metavar="largest|left|right|INDEX|X,Y"),
]
Model = Annotated[str, typer.Option(help="A name (see `lipsync models list`) or a weight file.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where networks run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give typer one parameter for each field of the option dataclasses that a command takes.

    Args:
        command: A function. Parameters annotated with a dataclass whose fields carry ``Option`` or
            typer's own annotations are expanded, the others stay as they are.

    Returns:
        A function for ``app.command()`` that builds the dataclasses and calls ``command``.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += _expand(name, hints[name], parameter.default)

    @functools.wraps(command)
    def call(**values: Any) -> None:
        command(**{name: _build(name, hints[name], values) for name in signature.parameters})

    del call.__wrapped__  # else inspect.signature looks at ``command``
    call.__dict__["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def build_options(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build an option dataclass from parsed values of the command line, by parameter name."""
    return _build("", cls, values)


def _expand(name: str, hint: Any, default: Any) -> list[inspect.Parameter]:
    """The parameters of the command line for a parameter or field of ``default`` or empty."""
    cls = _options_class(hint)
    if cls is None:
        return [_keyword(name, hint, default)]
    described = {field.field: field for field in option_fields(cls)}
    optional = _is_optional(hint)
    parameters: list[inspect.Parameter] = []
    for field, kind in _shown(cls, hint).items():
        if field in described:
            parameters.append(_parameter(described[field], optional))
        else:
            parameters += _expand(field, kind, _default_of(cls, field))
    return parameters


def _build(name: str, hint: Any, values: Mapping[str, Any]) -> Any:
    cls = _options_class(hint)
    if cls is None:
        return values[name]
    described = {field.field: field for field in option_fields(cls)}
    arguments: dict[str, Any] = {}
    for field, kind in _shown(cls, hint).items():
        if field not in described:
            arguments[field] = _build(field, kind, values)
            continue
        option = described[field]
        value = values[option.name]
        if isinstance(value, _Pixels):
            arguments[option.option.pixels] = value.value
        elif option.nullable and value == OFF and option.choices:
            arguments[field] = None
        elif field not in arguments or value is not None:
            arguments[field] = value
    if _is_optional(hint) and any(
        arguments[field.field] is None for field in described.values() if not has_default(field)
    ):
        return None
    return cls(**arguments)


def _parameter(field: OptionField, optional: bool) -> inspect.Parameter:
    """The parameter of a field; without a default it is None if its whole class is ``optional``."""
    option, kind, default = field.option, field.kind, field.default
    if field.choices and field.nullable:
        kind, default = Literal[(OFF, *field.choices)], OFF  # pyright: ignore
    elif not has_default(field):
        kind, default = str | None if optional else str, None if optional else ...
    elif field.nullable:
        kind = kind | None
    parse = _parser(option)
    if parse is not None:
        kind, default = Any, None if default is None else str(default)
    number = parse is None and field.kind in (int, float)
    info = typer.Option(
        *option.flags,
        help=option.help,
        metavar=option.metavar or ("NUMBER|Npx" if option.pixels else None),
        min=option.minimum if number else None,
        max=option.maximum if number else None,
        parser=parse,
        hidden=option.hidden,
        rich_help_panel=option.panel or None,
    )
    return _keyword(field.name, Annotated[kind, info], default)


def _parser(option: Option) -> Callable[[str], Any] | None:
    """Typer's ``parser`` for an option that has one: it shows the message of a ValueError."""
    parse = option.parse or (functools.partial(_parse_width, option) if option.pixels else None)
    if parse is None:
        return None

    def parse_or_explain(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse_or_explain


def _parse_width(option: Option, text: str) -> float | _Pixels:
    """``0.08`` -> 0.08, ``12px`` -> _Pixels(12)."""
    number = text.removesuffix("px")
    low, high = option.minimum or 0, math.inf if number != text else option.maximum or math.inf
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high or math.isinf(value):
        raise ValueError(
            f"{text!r} is not a width; expected a number from {low:g} to {option.maximum:g}, or "
            "pixels such as 12px"
        )
    return value if number == text else _Pixels(value)


def _options_class(hint: Any) -> type | None:
    # Blend, Annotated[Cut, Only("end")] or Restore | None -> the dataclass, if it has options
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    kind = without_none(kind)[0]
    return kind if isinstance(kind, type) and is_dataclass(kind) and _shown(kind, hint) else None


def _shown(cls: type, hint: Any) -> dict[str, Any]:
    """Name -> hint of the fields of ``cls`` that become options."""
    hints = get_type_hints(cls, include_extras=True)
    limits = [extra.names for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Only)]
    names = limits[0] if limits else tuple(field.name for field in fields(cls))
    described = (Option, ParameterInfo)
    return {
        name: hints[name]
        for name in names
        if any(isinstance(extra, described) for extra in getattr(hints[name], "__metadata__", ()))
        or _options_class(hints[name]) is not None
    }


def _is_optional(hint: Any) -> bool:
    return without_none(get_args(hint)[0] if get_origin(hint) is Annotated else hint)[1]


def _default_of(cls: type, name: str) -> Any:
    default = next(field.default for field in fields(cls) if field.name == name)
    return inspect.Parameter.empty if default is MISSING else default


def _keyword(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
