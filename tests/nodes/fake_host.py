"""As much of ComfyUI as the pack touches, so that its nodes run without a server. It is strict
where the host is: unknown keywords of a schema, values outside a widget's range or list, missing
inputs, and outputs of another type raise.

Keywords are those of ComfyUI 0.14.1's comfy_api/latest/_io.py, the oldest host that the pack
supports. tests/host runs the same nodes in the real thing.
"""

import mimetypes
import sys
import types
from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lipsync_core.media import probe

_INPUT = {"display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced"}
_WIDGET = _INPUT | {"default", "socketless", "force_input"}
_NUMBER = _WIDGET | {"min", "max", "step", "display_mode"}
_OUTPUT = {"display_name", "tooltip", "is_output_list"}
_KEYWORDS = {
    "INT": _NUMBER | {"control_after_generate"},
    "FLOAT": _NUMBER | {"round"},
    "BOOLEAN": _WIDGET | {"label_on", "label_off"},
    "STRING": _WIDGET | {"multiline", "placeholder", "dynamic_prompts"},
    "COMBO": (_WIDGET - {"force_input"})
    | {"options", "control_after_generate", "upload", "image_folder", "remote"},
    "COMFY_MULTITYPED_V3": _INPUT | {"types"},
    "COMFY_MATCHTYPE_V3": _INPUT | {"template"},
}
_SCHEMA = {
    *(
        "node_id",
        "display_name",
        "category",
        "inputs",
        "outputs",
        "hidden",
        "description",
        "search_aliases",
    ),
    *(
        "is_input_list",
        "is_output_node",
        "is_deprecated",
        "is_experimental",
        "is_dev_only",
        "is_api_node",
    ),
    *("price_badge", "not_idempotent", "enable_expand", "accept_all_inputs"),
}


class Cancelled(Exception):
    """InterruptProcessingException."""


class OutOfMemory(Exception):
    """OOM_EXCEPTION."""


# ---- io


def _take(what: str, given: dict[str, Any], allowed: set[str]) -> None:
    if unknown := set(given) - allowed:
        raise TypeError(f"{what} got unexpected keyword arguments {sorted(unknown)}")


def _placed(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    if len(values) > len(names):
        raise TypeError(f"too many positional arguments: {values}")
    return dict(zip(names, values, strict=False))


def _socket(io_type: str, **positions: Any) -> type:
    """A type with Input and Output, as ``io.Image``. positions: the further positional arguments of
    the two."""

    class Input:
        def __init__(self, id: str, *more: Any, **given: Any) -> None:
            given |= _placed(positions.get("inputs", ()), more)
            _take(f"{io_type}.Input", given, _KEYWORDS.get(io_type, _INPUT))
            self.id, self.given, self.io_type = id, given, io_type
            self.optional = bool(given.get("optional"))

    class Output:
        def __init__(self, *more: Any, **given: Any) -> None:
            given |= _placed(positions.get("outputs", ("id",)), more)
            _take(f"{io_type}.Output", given, _OUTPUT | {"id", "template"})
            self.id, self.given, self.io_type = given.get("id"), given, io_type

    return type(io_type, (), {"Input": Input, "Output": Output, "io_type": io_type})


class UploadType(Enum):
    image, audio, video, model = "image_upload", "audio_upload", "video_upload", "file_upload"


class Schema:
    def __init__(self, **given: Any) -> None:
        _take("Schema", given, _SCHEMA)
        self.__dict__.update(
            {"description": "", "search_aliases": [], "inputs": [], "outputs": [], **given}
        )
        for ends in (self.inputs, self.outputs):
            ids = [end.id for end in ends]
            if len(set(ids)) != len(ids):
                raise ValueError(f"ids must be unique: {ids}")


class NodeOutput:
    def __init__(
        self, *args: Any, ui: Any = None, expand: Any = None, block_execution: str | None = None
    ) -> None:
        self.args = args


class PreviewImage:
    """What a node shows on itself."""

    def __init__(self, image: Tensor, animated: bool = False, cls: Any = None) -> None:
        HOST.shown.append(image)


class _Locked(type):
    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(f"Cannot set attribute {name!r} on immutable class {cls.__name__!r}")


class ComfyNode(metaclass=_Locked):
    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        return cls.define_schema()  # type: ignore[attr-defined]


class NodeReplace:
    def __init__(
        self, new_node_id, old_node_id, old_widget_ids=None, input_mapping=None, output_mapping=None
    ) -> None:
        self.new_node_id, self.old_node_id, self.old_widget_ids = (
            new_node_id,
            old_node_id,
            old_widget_ids,
        )
        self.input_mapping, self.output_mapping = input_mapping, output_mapping


class _Template:
    def __init__(self, template_id: str, allowed_types: list[type]) -> None:
        self.template_id, self.allowed_types = template_id, allowed_types


def _io() -> types.SimpleNamespace:
    names = {
        "Image": "IMAGE",
        "Mask": "MASK",
        "Audio": "AUDIO",
        "Video": "VIDEO",
        "Int": "INT",
        "Float": "FLOAT",
    }
    names |= {"String": "STRING", "Boolean": "BOOLEAN", "Combo": "COMBO"}
    sockets = {name: _socket(io_type) for name, io_type in names.items()}
    match = _socket("COMFY_MATCHTYPE_V3", inputs=("template",), outputs=("template", "id"))
    match.Template = _Template
    multi = _socket("COMFY_MULTITYPED_V3", inputs=("types",))
    rest = {
        "Schema": Schema,
        "NodeOutput": NodeOutput,
        "ComfyNode": ComfyNode,
        "NodeReplace": NodeReplace,
    }
    return types.SimpleNamespace(
        **sockets, **rest, Custom=_socket, MatchType=match, MultiType=multi, UploadType=UploadType
    )


# ---- VIDEO


class VideoInput:
    pass


class VideoFromFile(VideoInput):
    """As in 0.14.1, whose trim window is private."""

    def __init__(self, file: str | BytesIO, *, start_time: float = 0, duration: float = 0) -> None:
        self.__file, self.__start_time, self.__duration = file, start_time, duration

    def get_stream_source(self) -> str | BytesIO:
        return self.__file

    def _get_raw_duration(self) -> float:
        info = probe(str(self.__file))
        return float((info.frames or 0) / info.fps)

    def as_trimmed(self, start_time: float = 0, duration: float = 0) -> "VideoFromFile":
        return VideoFromFile(
            self.__file, start_time=start_time + self.__start_time, duration=duration
        )


class VideoFromNewFile(VideoFromFile):
    """As since 0.22, with a public trim window."""

    def get_active_trim_window(self) -> tuple[float, float]:
        start = self._VideoFromFile__start_time
        return (
            max(self._get_raw_duration() + start, 0.0) if start < 0 else start
        ), self._VideoFromFile__duration


class VideoComponents:
    def __init__(self, images: Tensor, frame_rate: Fraction, audio: Any = None) -> None:
        self.images, self.frame_rate, self.audio = images, frame_rate, audio


class VideoFromComponents(VideoInput):
    def __init__(self, components: VideoComponents) -> None:
        self._components = components

    def get_components(self) -> VideoComponents:
        return self._components

    def get_stream_source(self) -> BytesIO:
        raise AssertionError("the host would encode it, with loss")


# ---- the rest of the host


class ExecutionBlocker:
    def __init__(self, message: str | None) -> None:
        self.message = message


class Host:
    """What the tests turn and see: its folders, whether Cancel was pressed, what the progress bar
    was told."""

    def __init__(self) -> None:
        self.base = Path()
        self.cancel_at: int | None = None  # the question at which Cancel is found pressed
        self.questions = 0
        self.bar: list[tuple[int, int, Any]] = []
        self.free_bytes = 8 << 30
        self.shown: list[Tensor] = []  # pictures that nodes show on themselves
        self.replacements: list[NodeReplace] = []

    def reset(self, base: Path) -> None:
        self.__init__()
        self.base = base
        for name in ("input", "output", "temp", "models/lipsync", "models/facerestore_models"):
            (base / name).mkdir(parents=True)
        folder_names.clear()

    def ask(self) -> None:
        self.questions += 1
        if self.cancel_at is not None and self.questions >= self.cancel_at:
            raise Cancelled

    def temporary(self) -> list[str]:
        """What lies in the folder for temporary files."""
        return sorted(path.name for path in (self.base / "temp").iterdir())

    def folder(self, name: str) -> str:
        return str(self.base / name)


HOST = Host()
folder_names: dict[str, tuple[list[str], set[str]]] = {}


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        assert value <= self.total
        HOST.bar.append((value, total or self.total, preview))


class ModelPatcher:
    def __init__(
        self, model: nn.Module, load_device: torch.device, offload_device: torch.device
    ) -> None:
        self.model, self.load_device = model, load_device


def _load_models_gpu(
    models: list[ModelPatcher], memory_required: int = 0, force_full_load: bool = False
) -> None:
    for patcher in models:
        patcher.model.to(patcher.load_device)


def _folder_paths() -> dict[str, Any]:
    def add(name: str, path: str, is_default: bool = False) -> None:
        folder_names[name][0].insert(0 if is_default else len(folder_names[name][0]), path)

    def listed(name: str) -> list[str]:
        folders, suffixes = folder_names[name]
        found = (p for folder in folders for p in Path(folder).rglob("*") if p.suffix in suffixes)
        return sorted(str(p.relative_to(folders[0])) for p in found)

    def annotated(name: str) -> tuple[str, str | None]:
        for kind in ("output", "input", "temp"):
            if name.endswith(f"[{kind}]"):
                return name.removesuffix(f"[{kind}]"), HOST.folder(kind)
        return name, None

    def of_kinds(files: list[str], kinds: list[str]) -> list[str]:
        return [f for f in files if (mimetypes.guess_type(f)[0] or "").split("/")[0] in kinds]

    return {
        "folder_names_and_paths": folder_names,
        "models_dir": "",
        "get_input_directory": lambda: HOST.folder("input"),
        "get_temp_directory": lambda: HOST.folder("temp"),
        "add_model_folder_path": add,
        "get_filename_list": listed,
        "get_full_path_or_raise": lambda name, file: str(Path(folder_names[name][0][0]) / file),
        "annotated_filepath": annotated,
        "filter_files_content_types": of_kinds,
    }


async def _register(replacement: NodeReplace) -> None:
    HOST.replacements.append(replacement)


def install() -> None:
    """Puts the modules that the pack imports where Python looks for them."""
    cpu = torch.device("cpu")
    management = {
        "throw_exception_if_processing_interrupted": HOST.ask,
        "get_torch_device": lambda: cpu,
        "unet_offload_device": lambda: cpu,
        "intermediate_device": lambda: cpu,
        "get_free_memory": lambda device=None: HOST.free_bytes,
        "free_memory": lambda *_: None,
        "load_models_gpu": _load_models_gpu,
        "soft_empty_cache": lambda: None,
        "OOM_EXCEPTION": OutOfMemory,
    }
    api = types.SimpleNamespace(node_replacement=types.SimpleNamespace(register=_register))
    latest = {
        "io": _io(),
        "ui": types.SimpleNamespace(PreviewImage=PreviewImage),
        "ComfyExtension": type("ComfyExtension", (), {}),
        "ComfyAPI": lambda: api,
        "InputImpl": types.SimpleNamespace(
            VideoFromFile=VideoFromFile, VideoFromComponents=VideoFromComponents
        ),
    }
    modules = {
        "comfy": {},
        "comfy.model_management": management,
        "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_api": {},
        "comfy_api.latest": latest,
        "comfy_execution": {},
        "comfy_execution.graph_utils": {"ExecutionBlocker": ExecutionBlocker},
        "folder_paths": _folder_paths(),
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


# ---- running a node as the host does


def run(node: Any, **given: Any) -> tuple[Any, ...]:
    """What ``node`` makes of these inputs; widgets that are not given have their defaults."""
    schema = node.GET_SCHEMA()
    inputs = {end.id: end for end in schema.inputs}
    if unknown := set(given) - set(inputs):
        raise TypeError(f"{schema.node_id} has no inputs {sorted(unknown)}")
    values = dict(given)
    for name, end in inputs.items():
        if name not in values and not end.optional:
            options = end.given.get("options", [None])
            values[name] = end.given.get("default", options[0] if options else None)
            if values[name] is None:
                raise ValueError(f"{schema.node_id}: Required input is missing: {name}")
    validate = getattr(node, "validate_inputs", None)
    code = validate.__func__.__code__ if validate else None
    own = code.co_varnames[: code.co_argcount] if code else ()
    for name in values:
        _check_widget(inputs[name], values[name], name not in own)
    if validate:
        links = ("IMAGE", "AUDIO", "VIDEO")
        verdict = validate(
            **{
                n: None if inputs[n].io_type in links else values[n]
                for n in values
                if n in own and n != "cls"
            }
        )
        if verdict is not True:
            raise ValueError(f"Custom validation failed for node: {verdict}")
    made = node.execute(**values)
    assert isinstance(made, NodeOutput) and len(made.args) == len(schema.outputs), schema.node_id
    for end, value in zip(schema.outputs, made.args, strict=True):
        several = end.given.get("is_output_list")
        assert not several or isinstance(value, list), end.id
        for one in value if several else [value]:
            assert isinstance(one, ExecutionBlocker) or _CHECKS.get(end.io_type, lambda _: True)(
                one
            ), (end.id, one)
    return made.args


def _check_widget(end: Any, value: Any, listed: bool) -> None:
    if end.io_type == "COMBO" and listed and value not in end.given["options"]:
        raise ValueError(f"Value not in list: {end.id}: {value!r} not in {end.given['options']}")
    if end.io_type in ("INT", "FLOAT"):
        if value < end.given.get("min", value):
            raise ValueError(f"Value {value} smaller than min of {end.given['min']}")
        if value > end.given.get("max", value):
            raise ValueError(f"Value {value} bigger than max of {end.given['max']}")


def _is_picture(value: Any, *, channels: bool) -> bool:
    shaped = (
        isinstance(value, Tensor) and value.ndim == 3 + channels and value.dtype == torch.float32
    )
    return shaped and bool((value >= 0).all() and (value <= 1).all())


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "IMAGE": lambda value: _is_picture(value, channels=True) and value.shape[3] == 3,
    "MASK": lambda value: _is_picture(value, channels=False),
    "AUDIO": lambda value: value["waveform"].ndim == 3 and type(value["sample_rate"]) is int,
    "VIDEO": lambda value: isinstance(value, VideoInput),
    "FLOAT": lambda value: type(value) is float,
    "INT": lambda value: type(value) is int,
    "STRING": lambda value: type(value) is str,
}
