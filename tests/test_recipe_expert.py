"""train/expert.py itself: two steps, and on to the same state; every named run builds its network."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from noise_shards import write_noise

from lipsync_core.errors import LipSyncError, TrainingError
from lipsync_core.models.sync_expert import SyncExpert, resized
from lipsync_core.training.settings import read_settings
from train import expert

ROOT = Path(__file__).parents[1]
RUN = """
network = "teacher"
projection = {projection}
window = {window}
contrastive_steps = {contrastive}
apart = 3
clips = 2
windows = {windows}
stretch = {stretch}
precision = "float32"
[plan]
steps = {steps}
save_every = 9
evaluate_every = 9
report_every = 1
tensorboard = {tensorboard}
"""


def run_file(folder: Path, name: str = "run.toml", **changes: object) -> str:
    values = {"window": 1, "contrastive": 1, "windows": 3, "stretch": 6, "steps": 3}
    values |= {"projection": "false", "tensorboard": "false"} | changes
    path = folder / name
    path.write_text(RUN.format(**values), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips to learn from, one to be judged on."""
    return write_noise(tmp_path_factory.mktemp("shards"), train="abc", val="d")


def state(out: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    parts = torch.load(out / name, weights_only=True)["parts"]
    moments = parts["optimiser"]["state"]
    found = {**parts["model"], "position": torch.tensor(parts["loader"]["step"])}
    found |= {f"average.{key}": value for key, value in parts["average"].items()}
    return found | {f"{i}.{key}": value for i, values in moments.items() for key, value in values.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


class AskedToEnd(io.StringIO):
    """A terminal from which SIGTERM comes as soon as the first step is reported."""

    def write(self, text: str) -> int:
        if text.startswith("1 loss"):
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


def test_two_steps_and_the_same_state_when_resumed(tmp_path: Path, shards: Path) -> None:
    """One step contrastive, two of the paper's loss; the second run is asked to end and goes on with its third step."""
    whole, parts, run = tmp_path / "whole", tmp_path / "parts", run_file(tmp_path)
    with redirect_stdout(io.StringIO()) as told:
        expert.main([run, str(shards), str(whole)])
    for words in ("3 clips, 1 held out, 1 processes on cpu", "step_seconds", "data_wait", "3 held out: within_one"):
        assert words in told.getvalue()
    with redirect_stdout(AskedToEnd()) as told, pytest.raises(SystemExit) as end:
        expert.main([run, str(shards), str(parts)])
    assert end.value.code == 1 and "asked to end after step 2: saved" in told.getvalue()
    assert not same(state(whole), state(parts))
    expert.main([run, str(shards), str(parts)])
    assert same(state(whole), state(parts)) and same(state(whole, "best.pt"), state(parts, "best.pt"))
    (line,) = (json.loads(row) for row in (whole / "evaluations.jsonl").read_text(encoding="utf-8").splitlines())
    assert set(line) == {"step", "score", "best", "within_one", "confidence", "off_sync", "bce"}
    assert (whole / "evaluations.jsonl").read_bytes() == (parts / "evaluations.jsonl").read_bytes()
    wanted = torch.load(parts / "best.pt", weights_only=True)["parts"]["average"]
    assert same(wanted, expert.trained(parts / "best.pt").state_dict())
    with pytest.raises(TrainingError, match=r"settings.json tells no run of this kind"):
        expert.trained(tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="other settings"):
        expert.main([run_file(tmp_path, steps=4), str(shards), str(parts)])


def test_torchrun_runs_the_same_script(tmp_path: Path, shards: Path) -> None:
    """Two processes as torchrun starts them; five frames, windows that share frames, pictures for TensorBoard."""
    run = run_file(tmp_path, window=5, windows=4, steps=1, contrastive=1, projection="true", tensorboard="true")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "train.expert", run, str(shards), str(tmp_path / "out"), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes on cpu") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(".lock", "best.pt", "evaluations.jsonl", "last.pt", "settings.json", "tensorboard")
    }


def test_nothing_to_learn_from_is_said(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(LipSyncError, match=r"train has 3 clips, none of which gives 62 frames"):
        expert.main([run_file(tmp_path, stretch=60), str(shards), str(tmp_path / "out")])


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "configs").glob("expert*.toml")), ids=lambda path: path.stem)
def test_every_named_run_builds_its_network(path: Path) -> None:
    settings = read_settings(path, expert.Settings)
    config = expert.expert_config(settings)
    assert (config.window, config.size) == (settings.window, settings.size)
    with torch.device("meta"):
        audio, video = SyncExpert(config).eval()(
            torch.zeros(2, 1, 80, 16), torch.zeros(2, settings.window, 3, settings.size, settings.size)
        )
    assert audio.shape == video.shape and audio.ndim == 2


def test_experts_of_every_side_end_in_one_vector() -> None:
    for network in expert.NETWORKS.values():
        assert resized(network, 96) == network
        for size in range(96, 385, 32):
            with torch.device("meta"):
                model = SyncExpert(resized(network, size)).eval()
                out = model.face_encoder(torch.zeros(1, 15, size // 2, size))
            assert out.shape[2:] == (1, 1)
        with pytest.raises(ValueError, match="faces of 64 px; wanted 96 to 384"):
            resized(network, 64)


def test_the_sound_lies_around_what_is_seen() -> None:
    """200 ms of sound: 5 frames fill them; of 3 and 1 frames (120, 40 ms) 40 and 80 ms are before."""
    settings = read_settings(ROOT / "train" / "configs" / "expert.toml", expert.Settings)
    leads = [expert.expert_config(replace(settings, window=w)).features.lead_ms for w in (1, 3, 5)]
    assert leads == [80, 40, 0]


def test_the_paper_s_loss_wants_cosines_that_are_not_negative() -> None:
    settings = read_settings(ROOT / "train" / "configs" / "expert-teacher.toml", expert.Settings)
    with pytest.raises(ValueError, match="with a projection the cosine may be negative"):
        replace(settings, contrastive_steps=100)
    for changes, told in (({"apart": 31}, "apart is 31"), ({"windows": 1}, "windows is 1")):
        with pytest.raises(ValueError, match=told):
            replace(settings, **changes)
