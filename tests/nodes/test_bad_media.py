"""What other packs and folders bring that cannot be used: the message says what to connect, and the
other clips of a folder go on."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_host import ExecutionBlocker, Host, VideoFromFile
from loading import Pack


class LazySound(Mapping[str, Any]):
    """A sound that is read on first access, as a popular pack for video makes it."""

    def __init__(self, parts: dict[str, Any] | None) -> None:
        self.parts = parts

    def __getitem__(self, key: str) -> Any:
        if self.parts is None:
            raise RuntimeError("no audio stream")
        return self.parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


def tone(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.manual_seed(0)) - 0.5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "connect an audio"),
        (LazySound(None), "no audio stream.*connect an audio"),
        ({"waveform": torch.zeros(1, 2, 0), "sample_rate": 8000}, "connect an audio"),
        ({"waveform": torch.zeros(0, 2, 9), "sample_rate": 8000}, "connect an audio"),
        (
            {"waveform": torch.zeros(1, 2, 9, dtype=torch.int16), "sample_rate": 8000},
            "int16.*32768",
        ),
        ({"waveform": tone(3, 1, 9), "sample_rate": 8000}, "batch of 3.*index"),
        ({"samples": tone(1, 4, 8, 8)}, "no 'waveform'"),
        ([1, 2], "a list"),
    ],
)
def test_a_sound_that_cannot_be_used_says_what_to_connect(
    pack: Pack, value: Any, says: str
) -> None:
    errors = (ValueError, pack.part("lipsync_core.errors").MediaError)
    with pytest.raises(errors, match=says):
        pack.part("lipsync_nodes.convert").audio(value)


def test_a_sound_that_is_read_on_first_access_is_taken(pack: Pack) -> None:
    lazy = LazySound({"waveform": tone(1, 1, 800), "sample_rate": 8000})
    (moved,) = pack.run("ShiftAudio", audio=lazy, amount=50.0, unit="ms")
    assert moved["waveform"].shape == (1, 1, 800)


@pytest.mark.parametrize("node", ["Wav2LipGenerate", "DetectFaces", "SyncScore", "PreviewMask"])
@pytest.mark.parametrize(
    ("media", "says"),
    [
        ({"waveform": tone(1, 1, 9), "sample_rate": 8000}, "an AUDIO; expected a VIDEO"),
        ({"samples": tone(1, 4, 8, 8)}, "a LATENT; expected a VIDEO"),
        (["a.mp4"], "a list; expected a VIDEO"),
    ],
)
def test_media_of_another_type_are_named(pack: Pack, node: str, media: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pack.run(node, media=media)


def test_one_sound_of_a_batch_is_chosen_by_its_index(pack: Pack) -> None:
    batch = {"waveform": tone(3, 1, 8000), "sample_rate": 8000}
    one, seconds = pack.run("LoadAudio", audio=batch, index=1, start=0.5)
    assert torch.equal(one["waveform"], batch["waveform"][1:2, :, 4000:]) and seconds == 0.5
    with pytest.raises(ValueError, match="no sound 3"):
        pack.run("LoadAudio", audio=batch, index=3)


def test_the_folder_for_models_is_there_after_the_start(host: Host, pack: Pack) -> None:
    folder = host.base / "models/lipsync"
    folder.rmdir()
    pack.part("lipsync_nodes.host").register_model_folders()
    assert folder.is_dir()


def test_a_result_goes_when_its_video_and_the_copies_of_it_do(
    pack: Pack, host: Host, clip: Callable[..., Path]
) -> None:
    audio = {"waveform": tone(1, 1, 16000), "sample_rate": 16000}
    (video,) = pack.run("SetAudio", video=VideoFromFile(str(clip("my take.mp4"))), audio=audio)
    (name,) = host.temporary()
    assert name.startswith("my take-lipsync-")
    part = video.as_trimmed(0.2, 0.4)
    del video
    gc.collect()
    assert host.temporary() == [name]
    del part
    gc.collect()
    assert host.temporary() == []


@pytest.fixture
def folder(host: Host, clip: Callable[..., Path], talking: Path) -> Path:
    """A talking face, a wall, a silent wall and a text, in this order."""
    (host.base / "input/takes").mkdir()
    for name, sound in (("b wall.mp4", True), ("c silent.mp4", False)):
        clip(f"comfy/input/takes/{name}", sound=sound)
    folder = host.base / "input/takes"
    (folder / "a face.mp4").write_bytes(talking.read_bytes())
    (folder / "d text.mp4").write_text("This is no video.", encoding="utf-8")
    return folder


def test_a_folder_with_bad_clips_is_scored_to_its_end(
    pack: Pack, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos, names, stems = pack.run("LoadVideos", folder="takes")
    assert stems == ["a face", "b wall", "c silent", "d text"]
    results = [pack.run("SyncScore", media=video) for video in videos]
    verdicts = [result[5] for result in results]
    assert verdicts[0] == "in sync"
    assert verdicts[1].startswith("no face in b wall.mp4: ")
    assert verdicts[2].startswith("no sound in c silent.mp4: ")
    assert verdicts[3].startswith("no picture in d text.mp4: ")
    assert results[1][:2] == (0.0, 0.0) and math.isnan(results[1][2]) and results[1][3] == 0.0
    assert all(0.5 < float(result[4].mean()) < 1 for result in results)  # words on white
    assert all(name in caplog.text for name in names[1:])


def test_a_folder_with_bad_clips_is_dubbed_to_its_end(
    pack: Pack, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    videos, names, _ = pack.run("LoadVideos", folder="takes")
    results = [pack.run("Wav2LipGenerate", media=video) for video in videos]
    (made, _, _, fps, report), wall, silent, text = results
    assert Path(made.get_stream_source()).name.startswith("a face-lipsync-")
    assert fps == 25 and report.startswith("50 of 50 frames dubbed, 25 frames per second")
    assert wall[0] is videos[1] and wall[1]["waveform"].shape[2] > 0 and wall[3] == 25
    assert wall[4].startswith("not dubbed: no face in b wall.mp4")
    assert silent[0] is videos[2] and isinstance(silent[1], ExecutionBlocker)
    assert silent[4].startswith("not dubbed: no sound in c silent.mp4")
    assert all(isinstance(output, ExecutionBlocker) for output in text[:4])
    assert text[4].startswith("left out: no picture in d text.mp4")
    assert all(name in caplog.text for name in names[1:])


def test_a_single_bad_clip_is_an_error(pack: Pack, clip: Callable[..., Path]) -> None:
    """It is no member of a folder: nothing else waits for it."""
    video = VideoFromFile(str(clip()))
    with pytest.raises(pack.part("lipsync_core.errors").NoFaceError):
        pack.run("Wav2LipGenerate", media=video)


def test_own_media_take_the_place_of_the_demo(
    pack: Pack, host: Host, clip: Callable[..., Path]
) -> None:
    video = VideoFromFile(str(clip()))
    image, same, audio = pack.run("DemoMedia", video=video)
    assert same is video and image.shape == (1, 32, 48, 3)
    assert audio["waveform"].shape[2] / audio["sample_rate"] == pytest.approx(1, abs=0.03)
    mine = {"waveform": tone(1, 1, 800), "sample_rate": 8000}
    picture = torch.zeros(1, 8, 8, 3)
    image, nothing, audio = pack.run("DemoMedia", image=picture, audio=mine)
    assert image is picture and audio is mine
    assert isinstance(nothing, ExecutionBlocker) and "connect a video" in str(nothing.message)
    silent = VideoFromFile(str(clip("silent.mp4", sound=False)))
    assert isinstance(pack.run("DemoMedia", video=silent)[2], ExecutionBlocker)
    assert host.temporary() == []  # no demo was made
