"""Prompts in the API format, written short: widgets that are not named take the defaults that the
host states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NodeInfo = Mapping[str, Any]  # one entry of /object_info


@dataclass(frozen=True, slots=True)
class Node:
    id: str

    def __getitem__(self, output: int) -> list[Any]:
        """A link to that output."""
        return [self.id, output]


class Graph(dict[str, dict[str, Any]]):
    """A prompt that grows node by node."""

    def __init__(self, known: Mapping[str, NodeInfo]) -> None:
        super().__init__()
        self._known = known

    def add(self, kind: str, **inputs: Any) -> Node:
        node = Node(str(len(self) + 1))
        self[node.id] = {
            "class_type": kind,
            "inputs": {**defaults(self._known[kind]["input"]["required"]), **inputs},
        }
        return node


def defaults(inputs: Mapping[str, list[Any]], prefix: str = "") -> dict[str, Any]:
    """Widget name -> its default; links have none. A combo that opens further widgets names them
    ``its.name``."""
    found: dict[str, Any] = {}
    for name, (kind, *rest) in inputs.items():
        options = rest[0] if rest else {}
        choices = kind if isinstance(kind, list) else options.get("options", [])
        if kind == "COMFY_DYNAMICCOMBO_V3":
            first = choices[0]
            found[prefix + name] = first["key"]
            found |= defaults(first["inputs"].get("required", {}), f"{prefix}{name}.")
        elif "default" in options:
            found[prefix + name] = options["default"]
        elif choices:
            found[prefix + name] = choices[0]
    return found
