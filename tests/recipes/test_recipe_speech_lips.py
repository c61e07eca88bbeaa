"""train/speech_lips.py: a resumed run, its export, and offsets of clips whose lips are late."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.media import write_sound
from helpers.recipes import AskedToEnd

from lipsync_core.errors import TrainingError
from lipsync_core.models.speech_lips import SpeechLips, SpeechLipsConfig
from lipsync_core.models.weights import load_model
from train import export, speech_lips
from train.talks import measure_offsets, read_talks, score_people

FEATURES = SpeechLipsConfig().features
LATE = 3  # frames
RUN = """
folders = ["train/one", "train/two"]
held_out = ["val/three"]
width = 8
relative = 0.9
[plan]
steps = 3
save_every = 9
evaluate_every = 3
report_every = 1
tensorboard = false
"""


def write_talk(data: Path, labels: Path, folder: str, seed: int, *, late: int = 0) -> None:
    """Two seconds of noise whose loudness opens a mouth, as sound and as labels."""
    rng = np.random.default_rng(seed)
    frames = 50
    loud = np.convolve(rng.random(frames + 8), np.ones(4) / 4, "same")[:frames]
    samples = rng.standard_normal(frames * 640) * np.interp(
        np.arange(frames * 640) / 640, np.arange(frames) + 0.5, 0.3 * loud
    )
    (data / folder).mkdir(parents=True, exist_ok=True)
    write_sound(data / folder / f"{seed}.wav", samples[None].astype(np.float32), rate=FEATURES.rate)
    points = np.zeros((frames, 478, 2), np.float32)
    points[:, 263, 0] = 100  # the outer corners of the eyes
    shown = np.roll(loud, late)
    points[:, 291, 0], points[:, 61, 0] = 80 - 5 * shown, 20
    points[:, 152, 1] = 100 + 10 * shown
    for lower in (87, 14, 317):
        points[:, lower, 1] = 30 * shown
    np.savez(
        labels / f"{Path(folder).name}_{seed}.wav.npz",
        times=np.arange(frames, dtype=np.float32) / 25,
        points=points,
    )


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three clips of two people, and one of a third: data and labels."""
    root = tmp_path_factory.mktemp("talks")
    (root / "labels").mkdir()
    for seed, folder in enumerate(("train/one", "train/one", "train/two", "val/three")):
        write_talk(root, root / "labels", folder, seed, late=LATE if folder == "train/two" else 0)
    return [str(root), str(root / "labels")]


def write_run(folder: Path) -> str:
    (folder / "run.toml").write_text(RUN, encoding="utf-8")
    return str(folder / "run.toml")


def test_a_resumed_run_equals_a_whole_one_and_its_export_opens(
    tmp_path: Path, footage: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_lips, "CLIPS", 2)
    run, whole, parts = write_run(tmp_path), tmp_path / "whole", tmp_path / "parts"
    with redirect_stdout(io.StringIO()) as told:
        speech_lips.main([run, *footage, str(whole)])
    assert "3 clips, 1 held out" in told.getvalue()
    with redirect_stdout(AskedToEnd("1 loss")), pytest.raises(SystemExit):
        speech_lips.main([run, *footage, str(parts)])
    speech_lips.main([run, *footage, str(parts)])
    average, other = (
        torch.load(out / "last.pt", weights_only=True)["parts"]["average"] for out in (whole, parts)
    )
    assert all(torch.equal(average[key], other[key]) for key in average)
    row = json.loads((whole / "evaluations.jsonl").read_text(encoding="utf-8"))
    assert {"three opening", "three width", "three jaw"} <= set(row)
    export.main([str(whole / "best.pt"), str(tmp_path / "voice.safetensors")])
    network = load_model(tmp_path / "voice.safetensors", kind="speech_lips")
    assert isinstance(network, SpeechLips) and network.config.features.relative == 0.9


def test_lips_that_are_late_are_measured_by_a_network_that_follows_the_sound(
    footage: list[str],
) -> None:
    talks = read_talks(
        Path(footage[0]), Path(footage[1]), ("train/one", "train/two", "val/three"), FEATURES
    )

    def loudness(windows: torch.Tensor) -> torch.Tensor:
        middle = windows.shape[-1] // 2
        return windows[:, 0, :, middle + 2 : middle + 5].mean((1, 2))[:, None].expand(-1, 3)

    found = measure_offsets(loudness, talks, FEATURES)
    assert [talk.offset for talk in found] == [0, 0, LATE, 0]
    assert min(values[0] for values in score_people(loudness, found, FEATURES).values()) > 0.7


def test_a_folder_without_labels_is_an_error(tmp_path: Path, footage: list[str]) -> None:
    with pytest.raises(TrainingError, match="label some"):
        speech_lips.main([write_run(tmp_path), footage[0], str(tmp_path), str(tmp_path / "out")])
