"""Demo media, sound, models and folders of videos."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_host import Cancelled, Host, VideoFromFile
from helpers.media import write_sound
from loading import Pack

from lipsync_core.models.baselines.speech2vid import Speech2Vid, Speech2VidConfig
from lipsync_core.models.weight_files import BUNDLED
from lipsync_core.models.weights import save_model


@pytest.fixture
def short_speech(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: dict[str, Any]
) -> Path:
    """1.2 seconds in the demo's place, of which it makes clips."""
    path = tmp_path / "speech.wav"
    rate = speech["sample_rate"]
    write_sound(path, speech["waveform"][0, :, : rate * 6 // 5].numpy(), rate)
    monkeypatch.setattr(pack.part("lipsync_core.pipelines.demo"), "SPEECH", path)
    return path


@pytest.mark.parametrize("name", ["portrait", "two people"])
def test_demo_media_is_made_once(pack: Pack, host: Host, short_speech: Path, name: str) -> None:
    image, video, audio = pack.run("DemoMedia", clip=name)
    assert image.shape == (1, 214, 348 if name == "two people" else 174, 3)
    path = Path(video.get_stream_source())
    assert path.is_relative_to(host.base / "temp")
    info = pack.part("lipsync_core.media").probe(path)
    seconds = audio["waveform"].shape[2] / audio["sample_rate"]
    assert (info.frames or 0) / info.fps == pytest.approx(seconds, abs=0.05)
    made = path.stat().st_mtime_ns
    assert pack.run("DemoMedia", clip=name)[1].get_stream_source() == str(path)
    assert path.stat().st_mtime_ns == made


def test_demo_media_can_be_cancelled(pack: Pack, host: Host, short_speech: Path) -> None:
    host.cancel_at = 3
    with pytest.raises(Cancelled):
        pack.run("DemoMedia", clip="talking")
    left = [path.name for path in (host.base / "temp").rglob("*") if path.is_file()]
    assert left == ["portrait.mp4"]  # whole, and wanted again


def test_sound_of_a_file(pack: Pack, host: Host, clip: Callable[..., Path]) -> None:
    clip("comfy/input/a.mp4")
    audio, duration = pack.run("LoadAudio", file="a.mp4")
    assert duration == pytest.approx(1, abs=0.03) and audio["sample_rate"] == 16000
    part, duration = pack.run("LoadAudio", file="a.mp4", start=0.25, end=0.75)
    assert duration == 0.5
    assert torch.equal(part["waveform"], audio["waveform"][..., 4000:12000])


def test_sound_of_a_video(pack: Pack, host: Host, clip: Callable[..., Path]) -> None:
    video = VideoFromFile(str(clip()), start_time=0.5)
    # what the widget says does not count
    _, duration = pack.run("LoadAudio", file="gone.wav", video=video)
    assert duration == pytest.approx(0.5, abs=0.03)
    assert pack.run("LoadAudio", video=video)[1] == duration  # nor an empty input folder


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "upload one, or connect a video"),
        ({"file": "gone.wav"}, "upload it again"),
        ({"file": "../secret.wav"}, "does not lie"),
        ({"file": "a.mp4", "start": 0.5, "end": 0.5}, "not after"),
        ({"file": "a.mp4", "start": 9.0}, "no sound from 9 s on"),
        ({"file": "silent.mp4"}, "holds no sound"),
        ({"file": "text.wav"}, "text.wav"),
    ],
)
def test_sound_that_cannot_be_had_says_why(
    pack: Pack, host: Host, clip: Callable[..., Path], inputs: dict[str, Any], says: str
) -> None:
    if inputs:
        clip("comfy/input/a.mp4")
        clip("comfy/input/silent.mp4", sound=False)
        (host.base / "input" / "text.wav").write_text("no sound")
    with pytest.raises((ValueError, pack.part("lipsync_core.errors").MediaError), match=says):
        pack.run("LoadAudio", **inputs)


def test_an_input_runs_again_when_its_file_changes(pack: Pack, host: Host) -> None:
    node, file = pack.nodes["LoadAudio"], host.base / "input" / "a.wav"
    gone = node.fingerprint_inputs(file="a.wav", start=0.0, end=0.0)
    file.write_bytes(b"one")
    first = node.fingerprint_inputs(file="a.wav", start=0.0, end=0.0)
    assert first == node.fingerprint_inputs(file="a.wav", start=1.0, end=0.0, video=None)
    file.write_bytes(b"three")
    assert len({gone, first, node.fingerprint_inputs(file="a.wav")}) == 3
    assert node.fingerprint_inputs(file="../../etc/passwd") == "missing"


def test_the_bundled_model_loads_once(pack: Pack) -> None:
    (voice,) = pack.run("LoadLipSyncModel")
    (again,) = pack.run("LoadLipSyncModel", precision="float32")
    assert voice.patcher is again.patcher and (voice.precision, again.precision) == (
        "auto",
        "float32",
    )
    assert type(voice.patcher.model).__name__ == "LipWarp"
    (before,) = pack.run("LoadLipSyncModel", model="mini-2 (bundled)")
    assert type(before.patcher.model).__name__ == "Generator" and before.name == "mini-2"
    assert pack.run("LoadLipSyncModel")[0].patcher is voice.patcher  # both stay loaded


def test_a_model_file_of_the_users_loads(pack: Pack, host: Host) -> None:
    folder = host.base / "models" / "lipsync"
    (folder / "mine.safetensors").write_bytes(BUNDLED["mini-2"].read_bytes())
    (folder / "notes.txt").write_text("no model")
    assert pack.part("lipsync_nodes.host").model_names()[4:] == ["mine.safetensors"]
    (voice,) = pack.run("LoadLipSyncModel", model="mine.safetensors")
    assert voice.name == "mine.safetensors" and type(voice.patcher.model).__name__ == "Generator"


def test_a_baseline_speaks_too(
    pack: Pack, host: Host, short_speech: Path, speech: dict[str, Any]
) -> None:
    config = Speech2VidConfig((8,) * 5, (8,) * 5, 32, 16, decoder=(8,) * 5)
    path = host.base / "models" / "lipsync" / "speech2vid.safetensors"
    save_model(Speech2Vid(config), path, licence="Apache-2.0", source="a test")
    (voice,) = pack.run("LoadLipSyncModel", model=path.name)
    image, _, _ = pack.run("DemoMedia", clip="portrait")
    words = {"waveform": speech["waveform"][..., :6400], "sample_rate": speech["sample_rate"]}
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=image, audio=words, model=voice)
    assert len(images) > 5 and float((images - image).abs().amax(3)[mask > 0.9].mean()) > 0.01


def test_a_file_that_is_no_generator_says_what_it_is(pack: Pack, host: Host) -> None:
    (host.base / "models" / "lipsync" / "judge.safetensors").write_bytes(
        BUNDLED["judge"].read_bytes()
    )
    with pytest.raises(pack.part("lipsync_core.errors").WeightsError, match="expected"):
        pack.run("LoadLipSyncModel", model="judge.safetensors")


def test_a_hub_model_is_pulled_with_a_bar_that_stops(
    pack: Pack, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing but the names of our table can be asked for."""
    asked: list[str] = []

    def pull(name: str, *, on_progress: Callable[[int, int | None], None]) -> Path:
        asked.append(name)
        on_progress(50, 100)
        host.cancel_at = host.questions + 1
        on_progress(60, 100)
        raise AssertionError("the bar does not stop")

    monkeypatch.setattr(pack.part("lipsync_core.models.hub"), "pull", pull)
    with pytest.raises(Cancelled):
        pack.run("LoadLipSyncModel", model="wav2lip-gan (Hub)")
    assert asked == ["wav2lip-gan"] and [value for value, _, _ in host.bar] == [500]
    with pytest.raises(ValueError, match="not in list"):
        pack.run("LoadLipSyncModel", model="evil/repository (Hub)")


def test_videos_of_a_folder_come_as_lists(
    pack: Pack, host: Host, clip: Callable[..., Path]
) -> None:
    for name in ("b.mp4", "a.mp4", "c.mkv"):
        clip(f"comfy/input/takes/{name}", frames=3)
    (host.base / "input" / "takes" / "notes.txt").write_text("no video")
    assert "takes" in pack.part("lipsync_nodes.host").video_folders()
    videos, names, _ = pack.run("LoadVideos", folder="takes")
    assert names == ["a.mp4", "b.mp4", "c.mkv"]
    assert [Path(video.get_stream_source()).name for video in videos] == names
    assert pack.run("LoadVideos", folder="takes", limit=2)[1] == names[:2]
    node = pack.nodes["LoadVideos"]
    before = node.fingerprint_inputs(folder="takes", limit=0)
    (host.base / "input" / "takes" / "b.mp4").unlink()
    assert node.fingerprint_inputs(folder="takes", limit=0) != before


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("gone", "not a folder"),
        ("../output", "does not lie"),
        ("empty", "no video"),
        ("(input folder)", "no video"),
    ],
)
def test_a_folder_without_videos_says_so(pack: Pack, host: Host, folder: str, says: str) -> None:
    (host.base / "input" / "empty").mkdir()
    with pytest.raises(ValueError, match=says):
        pack.run("LoadVideos", folder=folder)
