"""The pack in a fake host, and small media."""

import asyncio
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import loading
import numpy as np
import pytest
import torch
from fake_host import HOST, Host
from loading import Pack

from lipsync_core.media import AudioSource, VideoWriter, read_audio
from lipsync_core.pipelines.demo import SPEECH
from lipsync_core.types import Frames, VideoInfo


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loading.copy(tmp_path_factory.mktemp("custom_nodes") / "My-Pack.v2 (1)")


@pytest.fixture(scope="session")
def loaded_pack(pack_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    HOST.reset(tmp_path_factory.mktemp("loading"))
    return loading.load(pack_folder)


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
def talking(talking_head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a face that speaks."""
    folder = tmp_path_factory.mktemp("talking")
    from lipsync_core.media.clip import open_clip
    from lipsync_core.options import Cut

    footage = open_clip(talking_head, Cut(Fraction(0), Fraction(2)))
    path = folder / "short.mp4"
    with VideoWriter(path, footage.info, AudioSource(talking_head, stop=Fraction(2))) as out:
        for chunk in footage.coded(chunk=8):
            out.write(chunk)
    return path


@pytest.fixture(scope="session")
def speech() -> dict[str, Any]:
    """The bundled speech as an AUDIO."""
    sound = read_audio(SPEECH, rate=None, mono=False)
    return {"waveform": sound.samples[None], "sample_rate": sound.rate}


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of grey frames, 25 a second, frame i of level 10 + 4 i, with or without a rising
    tone."""

    def make(
        name: str = "clip.mp4",
        frames: int = 25,
        sound: bool = True,
        size: tuple[int, int] = (48, 32),
    ) -> Path:
        width, height = size
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = (10 + 4 * torch.arange(frames) % 240).to(torch.uint8)
        pixels = grey[:, None, None, None].expand(frames, height, width, 3).contiguous()
        source = None
        if sound:
            from lipsync_core.types import Audio

            ramp = torch.from_numpy(
                np.sin(np.linspace(0, 400, 16000 * frames // 25)).astype("float32")
            )
            source = AudioSource(Audio(ramp[None] * 0.5, 16000))
        with VideoWriter(
            path, VideoInfo(width, height, Fraction(25), frames), source, crf=1
        ) as out:
            out.write(Frames(pixels))
        return path

    return make


@pytest.fixture
def drawn(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many mouths each call of a model drew for frames; what is heard to choose their pictures
    does not count."""
    batches, choosing, sync = (
        list[int](),
        [False],
        pack.part("lipsync_core.pipelines.lipsync").LipSync,
    )

    def count(kind: Any) -> None:
        draw = kind.draw

        def counted(self: Any, mel: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
            if not choosing[0]:
                batches.append(len(mel))
            return draw(self, mel, skips)

        monkeypatch.setattr(kind, "draw", counted)

    def chosen(*args: Any, shapes: Any = sync.lip_shapes, **options: Any) -> torch.Tensor:
        choosing[0] = True
        found = shapes(*args, **options)
        choosing[0] = False
        return found

    count(pack.part("lipsync_core.models.wav2lip").Generator)
    count(pack.part("lipsync_core.models.lip_warp").LipWarp)
    monkeypatch.setattr(sync, "lip_shapes", chosen)
    return batches
