"""The pack, loaded as ComfyUI loads it, from a folder whose name is no Python name; and small media."""

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_host
import numpy as np
import pytest
import torch
from fake_host import HOST, Host

from lipsync_core.demo import SPEECH, demo_clip
from lipsync_core.media import AudioSource, VideoWriter, read_audio
from lipsync_core.types import Frames, VideoInfo

ROOT = Path(__file__).parents[2]


class Pack:
    """``module``: its root; ``extension``: what its entrypoint gives; ``nodes``: by id without the prefix."""

    def __init__(self, module: ModuleType, extension: Any, nodes: list[Any]) -> None:
        self.module, self.extension = module, extension
        self.nodes = {node.GET_SCHEMA().node_id.removeprefix("LipSync_"): node for node in nodes}

    def part(self, name: str) -> ModuleType:
        """A module of the pack's, such as ``lipsync_nodes.host``."""
        return importlib.import_module(f"{self.module.__name__}.{name}")

    def run(self, node: str, **inputs: Any) -> tuple[Any, ...]:
        return fake_host.run(self.nodes[node], **inputs)


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("custom_nodes") / "My-Pack.v2 (1)"
    for name in ("lipsync_nodes", "lipsync_core"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", folder)
    return folder


@pytest.fixture(scope="session")
def loaded_pack(pack_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    HOST.reset(tmp_path_factory.mktemp("loading"))
    fake_host.install()
    name = str(pack_folder).replace(".", "_x_")  # as ComfyUI's nodes.py names it
    spec = importlib.util.spec_from_file_location(name, pack_folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    async def load() -> Pack:
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return Pack(module, extension, await extension.get_node_list())

    return asyncio.run(load())


@pytest.fixture
def host(tmp_path: Path, loaded_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A fresh host on which the pack is loaded."""
    HOST.reset(tmp_path / "comfy")
    monkeypatch.setattr(sys.modules["folder_paths"], "models_dir", HOST.folder("models"))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    asyncio.run(loaded_pack.extension.on_load())
    return HOST


@pytest.fixture
def pack(host: Host, loaded_pack: Pack) -> Pack:
    return loaded_pack


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a face that speaks."""
    folder = tmp_path_factory.mktemp("talking")
    whole = demo_clip(folder, "talking").video
    from lipsync_core.footage import Cut, opened

    footage = opened(whole, Cut(Fraction(0), Fraction(2)))
    path = folder / "short.mp4"
    with VideoWriter(path, footage.info, AudioSource(whole, stop=Fraction(2))) as out:
        for chunk in footage.frames(50, 50, longer="trim"):
            out.write(chunk)
    return path


@pytest.fixture(scope="session")
def speech() -> dict[str, Any]:
    """The bundled speech as an AUDIO."""
    sound = read_audio(SPEECH, rate=None, mono=False)
    return {"waveform": sound.samples[None], "sample_rate": sound.rate}


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of grey frames, 25 a second, frame i of level 10 + 4 i, with or without a rising tone."""

    def make(name: str = "clip.mp4", frames: int = 25, sound: bool = True, size: tuple[int, int] = (48, 32)) -> Path:
        width, height = size
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = (10 + 4 * torch.arange(frames) % 240).to(torch.uint8)
        pixels = grey[:, None, None, None].expand(frames, height, width, 3).contiguous()
        source = None
        if sound:
            from lipsync_core.types import Audio

            ramp = torch.from_numpy(np.sin(np.linspace(0, 400, 16000 * frames // 25)).astype("float32"))
            source = AudioSource(Audio(ramp[None] * 0.5, 16000))
        with VideoWriter(path, VideoInfo(width, height, Fraction(25), frames), source, crf=1) as out:
            out.write(Frames(pixels))
        return path

    return make
