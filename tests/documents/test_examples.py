"""The programs of ``examples/`` run on small inputs and write what they promise."""

import importlib
import shutil
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from helpers.shards import write_noise

from lipsync_core.media import VideoWriter, probe, probe_sound, read_frames
from lipsync_core.models.weights import load_model
from lipsync_core.types import Frames, VideoInfo

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """face.mp4 (one person, 8 frames), faces.mp4 (two people), speech.wav (0.3 s)."""
    folder = tmp_path_factory.mktemp("inputs")
    time = np.arange(4800) / 16000
    buzz = (8000 * np.sign(np.sin(2 * np.pi * 140 * time))).astype("<i2")
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(buzz.tobytes())
    shutil.copy(folder / "speech.wav", folder / "other.wav")
    photo = torch.from_numpy(skimage.data.astronaut()[:300, 60:360])
    for name, picture in (("face", photo), ("faces", torch.cat([photo, photo], 1))):
        height, width = picture.shape[:2]
        with VideoWriter(
            folder / f"{name}.mp4", VideoInfo(width, height, Fraction(25), 8)
        ) as writer:
            writer.write(Frames(picture[None].expand(8, -1, -1, -1).contiguous()))
    return folder


def run(name: str, *arguments: Path | str) -> None:
    importlib.import_module(f"examples.{name}").main(*map(str, arguments))


def largest_difference(a: Path, b: Path) -> int:
    first, second = (next(read_frames(path)).pixels.int() for path in (a, b))
    count = min(len(first), len(second))
    return int((first[:count] - second[:count]).abs().max())


def test_every_example_is_listed_and_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    listed, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert names and all(f"({name}.py)" in listed and f'"{name}"' in tests for name in names)


@pytest.mark.parametrize("name", ["dub_file", "dub_tensors"])
def test_dubbing_changes_the_face_and_adds_the_sound(
    name: str, inputs: Path, tmp_path: Path
) -> None:
    run(name, inputs / "face.mp4", inputs / "speech.wav", tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").width == 300
    assert probe_sound(tmp_path / "out.mp4").channels == 1
    assert largest_difference(inputs / "face.mp4", tmp_path / "out.mp4") > 20


def test_two_speakers_are_dubbed(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    run("two_speakers", inputs / "faces.mp4", inputs / "speech.wav", inputs / "other.wav", out)
    assert "2 faces found, 8 frames dubbed" in capsys.readouterr().out and out.exists()


def test_own_tracks_need_no_detector(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lipsync_core.faces.detector_mini import MiniDetector

    def refuse(*_: object) -> None:
        raise AssertionError("the detector ran")

    monkeypatch.setattr(MiniDetector, "detect", refuse)
    box = ["110", "50", "220", "200"]
    run("own_tracks", inputs / "face.mp4", inputs / "speech.wav", tmp_path / "out.mp4", *box)
    assert largest_difference(inputs / "face.mp4", tmp_path / "out.mp4") > 20


def test_a_score_is_printed(talking_head: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("score", talking_head)
    assert "face 0: sound 0 ms" in capsys.readouterr().out


def test_training_ends_in_a_weight_file(tmp_path: Path) -> None:
    shards = write_noise(tmp_path / "shards", train="abc", val="d", frames=41)
    run("train_tiny", shards, tmp_path / "out")
    model = load_model(tmp_path / "out" / "tiny.safetensors")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
