"""Build node inputs from the fields of the option dataclasses of ``lipsync_core``."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..lipsync_core.runtime.options import OptionField, option_fields


def option_inputs(cls: type, *names: str) -> list[Any]:
    """Make the inputs of the named fields of an option dataclass."""
    return [option_input(field) for field in option_fields(cls, names)]


def option_input(field: OptionField, **changes: Any) -> Any:
    """Make the node input of a field.

    Args:
        field: The field and what users read about it.
        changes: Arguments of the input that differ, such as ``optional`` or the order of
            ``options``.

    Returns:
        A combo box, switch or number. Numbers that may be None are None at 0.
    """
    option = field.option
    values: dict[str, Any] = {"tooltip": option.tooltip, "default": field.default}
    if option.advanced:
        values["advanced"] = True
    if field.choices:
        return io.Combo.Input(
            field.node_name, **{"options": list(field.choices), **values, **changes}
        )
    if field.kind is bool:
        return io.Boolean.Input(field.node_name, **{**values, **changes})
    if field.nullable:
        values.update(default=0, tooltip=f"{option.tooltip} 0: not used.")
    values.update(min=option.minimum, max=option.maximum, step=option.step)
    values.update(changes)
    number = {key: float(values[key]) for key in ("default", "min", "max", "step")}
    return io.Float.Input(field.node_name, **{**values, **number})


def option_values(cls: type, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an option dataclass for the values of a node's inputs.

    Args:
        cls: The dataclass.
        inputs: Value of each input by its name; fields without one keep their defaults.

    Returns:
        Value of each field by its name.
    """
    return {
        field.field: inputs[field.node_name] or None if field.nullable else inputs[field.node_name]
        for field in option_fields(cls)
        if field.node_name in inputs
    }
