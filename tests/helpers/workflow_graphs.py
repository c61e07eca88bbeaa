"""Graphs as the host keeps them: what a node takes and gives, UI JSON into API JSON, and what is
wrong with a graph.

The converter knows what our templates use (links, widgets, notes, one subgraph); tests/host
compares it with the page's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
BYPASSED = 4  # the mode of a node that the page leaves out; ours have nothing to pass through
VIRTUAL = {"MarkdownNote", "Note"}
WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True)
class Input:
    """types: what may be linked, empty for anything. options: what a combo may say. low, high: a
    number's range."""

    types: frozenset[str]
    optional: bool = False
    options: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    same: str = ""  # the name of a match: all inputs and outputs of that name carry one type


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of node. outputs: a type each, or the name of a match."""

    inputs: dict[str, Input]
    outputs: tuple[str, ...]
    names: tuple[str, ...] = ()


def of_schema(schema: Any) -> Kind:
    """A node of ours, from the schema that the fake host was given."""
    outputs = tuple(
        out.given["template"].template_id if "template" in out.given else out.io_type
        for out in schema.outputs
    )
    names = tuple(out.given.get("display_name") or out.id for out in schema.outputs)
    return Kind({given.id: _input(given) for given in schema.inputs}, outputs, names)


def _input(socket: Any) -> Input:
    given = socket.given
    match = given.get("template")
    several = given.get("types") or (match.allowed_types if match else None)
    types = frozenset(kind.io_type for kind in several) if several else frozenset([socket.io_type])
    return Input(
        types,
        socket.optional,
        tuple(given.get("options", ())),
        given.get("min", float("-inf")),
        given.get("max", float("inf")),
        match.template_id if match else "",
    )


def of_core(path: Path, version: str) -> dict[str, Kind]:
    """The host's own nodes that templates use, as /object_info of that version states them."""
    facts = json.loads(path.read_text(encoding="utf-8"))[version]
    return {
        name: Kind(_core_inputs(node["inputs"]), tuple(node["outputs"]))
        for name, node in facts.items()
    }


def _core_inputs(inputs: Mapping[str, Json]) -> dict[str, Input]:
    found: dict[str, Input] = {}
    for name, given in inputs.items():
        kind = "COMBO" if given["type"] == "COMFY_DYNAMICCOMBO_V3" else given["type"]
        bounds = (given.get("min", float("-inf")), given.get("max", float("inf")))
        types = frozenset() if kind == "*" else frozenset([kind])
        found[name] = Input(
            types, given.get("optional", False), tuple(given.get("options", ())), *bounds
        )
    return found


def to_api(graph: Json) -> Json:
    """UI JSON as API JSON without titles: what the page's own graphToPrompt makes of it."""
    if graph.get("definitions", {}).get("subgraphs"):
        raise ValueError("a graph with subgraphs; give one of them")
    nodes = [node for node in graph["nodes"] if node["type"] not in VIRTUAL]
    bypassed = {node["id"] for node in nodes if node.get("mode", 0) == BYPASSED}
    ends = {link[0]: [str(link[1]), link[2]] for link in graph["links"] if link[1] not in bypassed}
    return {str(node["id"]): _api_node(node, ends) for node in nodes if node["id"] not in bypassed}


def _api_node(node: Json, ends: Mapping[int, list[Any]]) -> Json:
    slots = node.get("inputs", [])
    widgets = [slot["name"] for slot in slots if "widget" in slot]
    inputs = dict(zip(widgets, node.get("widgets_values", []), strict=False))
    buttons = {slot["name"] for slot in slots if slot["type"] == "IMAGEUPLOAD"}
    inputs = {name: value for name, value in inputs.items() if name not in buttons}
    inputs |= {slot["name"]: ends[slot["link"]] for slot in slots if slot["link"] in ends}
    return {"class_type": node["type"], "inputs": inputs}


def faults(api: Json, kinds: Mapping[str, Kind]) -> list[str]:
    """Everything that the host would refuse, one sentence each."""
    found: list[str] = []
    for key, node in api.items():
        kind = kinds.get(node["class_type"])
        where = f"{key} {node['class_type']}"
        if kind is None:
            found.append(f"{where}: no such node")
            continue
        found += [
            f"{where}: no input {name}" for name in node["inputs"].keys() - kind.inputs.keys()
        ]
        for name, wanted in kind.inputs.items():
            if name not in node["inputs"]:
                found += [] if wanted.optional else [f"{where}: {name} is missing"]
            elif isinstance(node["inputs"][name], list):
                given = output_type(api, kinds, node["inputs"][name])
                fits = not wanted.types or given in wanted.types
                found += (
                    [] if fits else [f"{where}: {name} wants {sorted(wanted.types)}, gets {given}"]
                )
            elif why := _refused(node["inputs"][name], wanted):
                found.append(f"{where}: {name} is {node['inputs'][name]!r}; {why}")
    return found


def output_type(api: Json, kinds: Mapping[str, Kind], link: list[Any]) -> str:
    """The type at ``link`` [node, output]; that of a match is the type which goes in."""
    node = api[link[0]]
    kind = kinds[node["class_type"]]
    given = kind.outputs[link[1]]
    source = next(
        (name for name, wanted in kind.inputs.items() if wanted.same and wanted.same == given), None
    )
    return output_type(api, kinds, node["inputs"][source]) if source else given


def _refused(value: Any, wanted: Input) -> str:
    """Why a widget cannot hold ``value``, or nothing."""
    if wanted.options:
        return "" if value in wanted.options else f"it offers {wanted.options}"
    (kind,) = wanted.types or {"*"}
    if kind not in WIDGETS:
        return "it wants a link"
    right = isinstance(value, WIDGETS[kind]) and isinstance(value, bool) == (kind == "BOOLEAN")
    if not right:
        return f"it wants {kind}"
    inside = kind not in ("INT", "FLOAT") or wanted.low <= value <= wanted.high
    return "" if inside else f"it wants {wanted.low} to {wanted.high}"
