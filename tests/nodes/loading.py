"""The pack, loaded as ComfyUI loads it, from a folder whose name is no Python name."""

import asyncio
import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_host

ROOT = Path(__file__).parents[2]


class Pack:
    """``module``: its root; ``extension``: what its entrypoint gives; ``nodes``: by id without the
    prefix."""

    def __init__(self, module: ModuleType, extension: Any, nodes: list[Any]) -> None:
        self.module, self.extension = module, extension
        self.nodes = {node.GET_SCHEMA().node_id.removeprefix("LipSync_"): node for node in nodes}

    def part(self, name: str) -> ModuleType:
        """A module of the pack's, such as ``lipsync_nodes.host``."""
        return importlib.import_module(f"{self.module.__name__}.{name}")

    def run(self, node: str, **inputs: Any) -> tuple[Any, ...]:
        return fake_host.run(self.nodes[node], **inputs)


def copy(folder: Path) -> Path:
    """The pack's files, without what else lies in the repository."""
    for name in ("lipsync_nodes", "lipsync_core"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", folder)
    return folder


def load(folder: Path) -> Pack:
    """As ComfyUI's nodes.py does: the module is named for its path, dots replaced."""
    fake_host.install()
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    async def enter() -> Pack:
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return Pack(module, extension, await extension.get_node_list())

    return asyncio.run(enter())
