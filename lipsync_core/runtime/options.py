"""Describe the options of a dub once, beside the fields that hold them.

A field of an option dataclass (``Blend``, ``Cut``, ``Finding``, ``Encoding``, ``Restore``) carries
an ``Option``: ``field: Annotated[float, Option("Width of the soft edge.", minimum=0)] = 0.08``. The
command line, the inputs of the ComfyUI nodes, their help pages and the page of options in the
documentation are made from it. A field without an ``Option`` can be set from Python only.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Option:
    """What users read about a field, and how they spell it.

    Attributes:
        help: One or two short sentences, shown everywhere.
        more: Further sentences for node tooltips and help pages, where there is more space.
        minimum: Smallest value, inclusive.
        maximum: Largest value, inclusive.
        step: Step of a node's slider.
        panel: Panel of `lipsync dub --help`; "" for the options shown first.
        name: Name of the command line's parameter and of the column of `lipsync batch`, if it is
            not the field's.
        flags: Spellings on the command line, if they are not made from ``name``.
        metavar: Placeholder for the value in the help of the command line.
        parse: Makes the value from text; raises ValueError.
        pixels: For a width: the field that takes it if it is written with ``px``.
        hidden: Accepted by the command line but not shown.
        node_name: Name of the node input, if it is not the field's.
        advanced: Whether the node input is shown among the advanced ones.
    """

    help: str
    more: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    panel: str = ""
    name: str = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    pixels: str = ""
    hidden: bool = False
    node_name: str = ""
    advanced: bool = False

    @property
    def tooltip(self) -> str:
        """All sentences about the option."""
        return f"{self.help} {self.more}".rstrip()


@dataclass(frozen=True, slots=True)
class OptionField:
    """A field of an option dataclass.

    Attributes:
        field: Name of the field.
        kind: Its type, without None.
        choices: Its values if it is a ``Literal``, else empty.
        nullable: Whether it may be None.
        default: Its default; ``dataclasses.MISSING`` without one.
        option: What users read about it.
    """

    field: str
    kind: Any
    choices: tuple[str, ...]
    nullable: bool
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """Name of the command line's parameter."""
        return self.option.name or self.field

    @property
    def node_name(self) -> str:
        """Name of the node input."""
        return self.option.node_name or self.field


def option_fields(cls: type, only: tuple[str, ...] = ()) -> list[OptionField]:
    """List the fields of an option dataclass that carry an ``Option``.

    Args:
        cls: The dataclass.
        only: Names of the fields to list, in this order; empty for all.

    Returns:
        The fields, in the dataclass's order unless ``only`` gives another.
    """
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, OptionField] = {}
    for field in fields(cls):
        for extra in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(extra, Option):
                kind, nullable = without_none(get_args(hints[field.name])[0])
                choices = get_args(kind) if get_origin(kind) is Literal else ()
                found[field.name] = OptionField(
                    field.name, kind, choices, nullable, field.default, extra
                )
    return [found[name] for name in only or found]


def has_default(field: OptionField) -> bool:
    """Whether the field may be left out."""
    return field.default is not MISSING


def without_none(kind: Any) -> tuple[Any, bool]:
    """Split ``X | None`` into (X, True); any other type is returned with False."""
    if get_origin(kind) in (Union, UnionType):
        rest = [part for part in get_args(kind) if part is not NoneType]
        if len(rest) < len(get_args(kind)):
            return (rest[0] if len(rest) == 1 else Union[tuple(rest)]), True  # noqa: UP007
    return kind, False
