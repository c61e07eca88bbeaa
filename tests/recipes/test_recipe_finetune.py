"""train/finetune.py itself: from a video to weights that dub loads, on to the same state, and what
it refuses."""

import io
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import AskedToEnd, saved, thin, torchrun
from helpers.shards import write_noise

from lipsync_core.errors import LipSyncError, TrainingError
from lipsync_core.media import AudioSource, VideoWriter
from lipsync_core.models.baselines.lipgan import LIPGAN_BASIC, LipGAN
from lipsync_core.models.wav2lip import MINI, WAV2LIP, Generator
from lipsync_core.models.weights import load_model, read_header, save_model
from lipsync_core.pipelines.demo import SPEECH
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.settings import read_settings
from lipsync_core.training.shards import ShardWriter
from lipsync_core.types import Frames, VideoInfo
from train import export, finetune

ROOT = Path(__file__).parents[2]
RUN = """
windows = 2
frames = 5
far = 3
held = 0.4
least_seconds = {least_seconds}
precision = "float32"
[plan]
steps = {steps}
save_every = 9
report_every = 1
evaluate_every = 9
tensorboard = false
"""


@pytest.fixture(scope="module")
def talk(talking_head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of the astronaut's head, alone in a folder."""
    folder = tmp_path_factory.mktemp("videos")
    return Path(shutil.copy(talking_head, folder / "talk.mp4"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that runs begin with: of `mini-2`'s shape, but thin."""
    torch.manual_seed(0)
    return saved(Generator(thin(MINI)), tmp_path_factory.mktemp("start") / "thin.safetensors")


@pytest.fixture(scope="module")
def prepared(talk: Path, start: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a run that is refused once they are made: 30 s are wanted."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.raises(TrainingError, match=r"seen for 5 s: too little .* expected 30 s"):
        run = run_file(folder, least_seconds=30)
        finetune.main([run, str(talk.parent), str(folder / "short"), "--start", start])
    return folder / "short" / "shards"


def run_file(folder: Path, *, steps: int = 2, least_seconds: float = 3.0) -> str:
    path = folder / "run.toml"
    path.write_text(RUN.format(steps=steps, least_seconds=least_seconds), encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("thin_networks")
def test_one_command_from_a_video_to_weights_and_on_where_it_was_stopped(
    tmp_path: Path, talk: Path, prepared: Path, start: str, thin_judge: str
) -> None:
    run, options = run_file(tmp_path, steps=3), ["--start", start, "--judge", thin_judge]
    for name in ("anna", "parts"):
        shutil.copytree(prepared, tmp_path / name / "shards")
    with redirect_stdout(io.StringIO()) as told:
        finetune.main([run, str(talk), str(tmp_path / "anna"), *options])
    for words in (
        "person-000, seen for 5 s. 60 frames to learn from, 50 held out",
        "3 l1 ",
        " slope ",
        " sync ",
        "| lower half rebuilt, PSNR in dB | ",
        "The judge taught as well",
        "anna.safetensors: try it with lipsync dub",
    ):
        assert words in told.getvalue()
    parts = tmp_path / "parts"
    with redirect_stdout(AskedToEnd("1 l1")), pytest.raises(SystemExit):
        finetune.main([run, str(talk), str(parts), *options])
    assert torch.load(parts / "last.pt", weights_only=True)["step"] == 2
    finetune.main([run, str(talk), str(parts), *options])
    states = [
        torch.load(tmp_path / name / "last.pt", weights_only=True)["parts"]
        for name in ("anna", "parts")
    ]
    for part in ("model", "average"):
        assert all(
            torch.equal(value, states[1][part][key]) for key, value in states[0][part].items()
        )
    began = load_model(tmp_path / "anna" / "began" / "start.safetensors").state_dict()
    norms = [key for key in began if key.endswith("running_mean")]
    assert norms and all(torch.equal(began[key], states[0]["model"][key]) for key in norms)
    assert not torch.equal(
        began["output_block.1.weight"], states[0]["model"]["output_block.1.weight"]
    )

    model = load_model(tmp_path / "anna" / "anna.safetensors", kind="generator")
    assert (
        model.config == thin(MINI)
        and "fine-tuned" in read_header(tmp_path / "anna" / "anna.safetensors").source
    )
    export.main([str(tmp_path / "anna" / "best.pt"), str(tmp_path / "again.safetensors")])
    assert load_model(tmp_path / "again.safetensors").config == thin(MINI)
    for match, given in {
        r"speech was \(\) and is \('": [*options, "--speech", str(SPEECH)],
        r"start was .*thin.safetensors and is mini-2": options[2:],
        r"expert was None and is judge": [*options, "--expert", "judge"],
    }.items():
        with pytest.raises(TrainingError, match=r"other settings \(" + match):
            finetune.main([run, str(talk), str(tmp_path / "anna"), *given])
    twin = shutil.copy(talk, tmp_path / "twin.mp4")
    with pytest.raises(TrainingError, match=r"other settings \(videos was \('talk.mp4',\) and is "):
        finetune.main([run, str(talk), str(twin), str(tmp_path / "anna"), *options])


def test_another_start_counts_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    """As after a run that was refused, or stopped in its preparation."""
    other = Generator(replace(MINI, size=112))
    save_model(other, tmp_path / "other.safetensors", licence="none", source="a test")
    names = "mini-2", str(tmp_path / "other.safetensors")
    assert [finetune.started(name, tmp_path / "run").config.size for name in names] == [96, 112]
    (tmp_path / "run" / "best.pt").touch()
    assert finetune.started("mini-2", tmp_path / "run").config.size == 112


@pytest.mark.slow
def test_torchrun_runs_the_same_script(tmp_path: Path, talk: Path, start: str) -> None:
    run, out = run_file(tmp_path, steps=1), str(tmp_path / "anna")
    told = torchrun("finetune", run, str(talk), out, "--start-from", start)
    assert " sync " in next(row for row in told.splitlines() if row.startswith("1 l1"))
    assert (
        told.count("anna.safetensors: try it") == 1
        and (tmp_path / "anna" / "anna.safetensors").exists()
    )


def test_what_shows_no_face_and_other_networks_are_refused(tmp_path: Path, talk: Path) -> None:
    run = run_file(tmp_path, least_seconds=30)
    with pytest.raises(LipSyncError, match=r"gone\.mp4 does not exist"):
        finetune.main([run, str(tmp_path / "gone.mp4"), str(tmp_path / "no")])
    with pytest.raises(LipSyncError, match=r"no clip is left of 1 sources: no face \(1\)"):
        finetune.main(
            [run, str(faceless(talk, tmp_path / "faceless.mp4")), str(tmp_path / "faceless")]
        )
    layers = {
        name: tuple(
            replace(stage, channels=stage.channels // 16) for stage in getattr(LIPGAN_BASIC, name)
        )
        for name in ("face", "audio", "decoder")
    }
    with pytest.raises(TrainingError, match=r"mini is a LipWarp, .* draws none.* name `mini-2`"):
        finetune.main([run, str(talk), str(tmp_path / "lips"), "--start", "mini"])
    other, boxes = (
        LipGAN(replace(LIPGAN_BASIC, **layers)),
        Generator(replace(MINI, framing=WAV2LIP.framing)),
    )
    for name, model, match in (
        ("lipgan", other, "is a LipGAN"),
        ("boxes", boxes, "judge wants crops cut as aligned, not box; name --expert and --judge"),
    ):
        save_model(model, tmp_path / f"{name}.safetensors", licence="none", source="a test")
        with pytest.raises(TrainingError, match=match):
            start = ["--start", str(tmp_path / f"{name}.safetensors")]
            finetune.main([run, str(talk), str(tmp_path / name), *start])


def faceless(talk: Path, out: Path) -> Path:
    with VideoWriter(
        out, VideoInfo(64, 64, Fraction(25), None), AudioSource(talk), preset="ultrafast"
    ) as writer:
        writer.write(Frames(torch.full((40, 64, 64, 3), 90, dtype=torch.uint8)))
    return out


def test_the_one_seen_longest_is_taken_in_the_order_of_time(tmp_path: Path) -> None:
    """Ann is seen twice in b.mp4, once with her mirror image, and once in a.mp4, which was named
    second; Bob less."""
    rows = [
        ("x1", "ann", "b.mp4", 60, 30),
        ("x2", "ann", "b.mp4", 0, 60),
        ("x3", "ann", "b.mp4", 40, 30),
        ("x4", "ann", "a.mp4", 0, 25),
        ("x5", "bob", "a.mp4", 0, 70),
    ]
    with ShardWriter(tmp_path) as writer:
        for name, who, source, begin, count in rows:
            facts = {"first": 0, "source": source, "start": begin, "frames": count}
            arrays = {
                "faces": np.zeros((count, 8, 8, 3), np.uint8),
                "mel": np.zeros((200, 80), np.float32),
            }
            writer.add(name, speaker=who, facts=facts, arrays=arrays)
    clips, told = finetune.person(tmp_path, ["b.mp4", "a.mp4"])
    assert [clip.name for clip in clips] == ["x2", "x1", "x4"]
    assert told == "ann, seen for 6 s; left out: bob (3 s)"


def numbered(folder: Path, lengths: list[int]) -> list[Clip]:
    """Clips whose frames bear their number in time."""
    at = 0
    with ShardWriter(folder) as writer:
        for i, count in enumerate(lengths):
            faces = np.broadcast_to(
                np.arange(at, at + count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3)
            )
            mel = np.repeat(np.arange(count * 16 // 5 + 20, dtype=np.float32)[:, None], 80, 1)
            writer.add(
                f"c{i}", speaker="a", facts={"first": 0}, arrays={"faces": faces, "mel": mel}
            )
            at += count
    return load_clips(folder, least=1)


def test_the_last_frames_are_held_out_and_none_is_in_both(tmp_path: Path) -> None:
    taught, kept = finetune.parted(numbered(tmp_path, [100, 30, 90, 30]), 0.4, 15)
    first, last = (
        [i for clip in clips for i in clip.faces[:][:, 0, 0, 0].tolist()]
        for clips in (taught, kept)
    )
    assert first == list(range(135)) and last == list(range(150, 250))
    assert [len(clip.faces) for clip in kept] == [70, 30]
    # sound goes with its frames: frame 20 of the third clip, the first that is held out, has column
    # 64
    assert float(kept[0].mels([0])[0, 0, 0, 0]) == 64
    taught, kept = finetune.parted(numbered(tmp_path / "more", [200]), 0.8, 15)
    assert [len(clip.faces) for clip in taught + kept] == [25, 53, 54, 53]


def test_recordings_are_voices(tmp_path: Path) -> None:
    speech = finetune.voice(SPEECH)
    assert len(speech.faces) == 205 and speech.mels(range(205)).shape == (205, 1, 80, 16)
    (shard,) = load_clips(write_noise(tmp_path, train="a") / "train")
    assert speech.sound is not None and speech.sound.dtype == shard.sound[:].dtype  # pyright: ignore


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("finetune*.toml")), ids=lambda path: path.stem
)
def test_every_named_run_is_read(path: Path) -> None:
    settings = read_settings(path, finetune.Settings)
    assert settings.plan.steps % settings.plan.evaluate_every == 0
