"""train/expert.py itself: two steps and a resumed run; every named run builds its network."""

import io
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import AskedToEnd, started, torchrun
from helpers.shards import write_noise

from lipsync_core.errors import LipSyncError, TrainingError, WeightsError
from lipsync_core.models.sync_expert import SyncExpert, config_for_size
from lipsync_core.models.weights import save_model
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.settings import read_settings, save_settings
from lipsync_core.training.shards import read_index
from train import expert, export

ROOT = Path(__file__).parents[2]
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
save_every = {save_every}
evaluate_every = 9
report_every = 1
tensorboard = {tensorboard}
"""


def run_file(folder: Path, name: str = "run.toml", **changes: object) -> str:
    values = {
        "window": 1,
        "contrastive": 1,
        "windows": 3,
        "stretch": 6,
        "steps": 3,
        "save_every": 9,
    }
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
    return found | {
        f"{i}.{key}": value for i, values in moments.items() for key, value in values.items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) for key, value in one.items()
    )


@pytest.mark.usefixtures("thin_networks")
def test_two_steps_and_the_same_state_when_resumed(tmp_path: Path, shards: Path) -> None:
    """One step contrastive, two of the paper's loss; the second run is asked to end and goes on
    with its third step."""
    whole, parts, run = tmp_path / "whole", tmp_path / "parts", run_file(tmp_path)
    with redirect_stdout(io.StringIO()) as told:
        expert.main([run, str(shards), str(whole)])
    for words in (
        "3 clips, 1 held out, 1 processes on cpu",
        "step_seconds",
        "data_wait",
        "3 held out: within_one",
    ):
        assert words in told.getvalue()
    with redirect_stdout(AskedToEnd("1 loss")) as told, pytest.raises(SystemExit) as end:
        expert.main([run, str(shards), str(parts)])
    assert end.value.code == 1 and "asked to end after step 2: saved" in told.getvalue()
    assert not same(state(whole), state(parts))
    expert.main([run, str(shards), str(parts)])
    assert same(state(whole), state(parts)) and same(
        state(whole, "best.pt"), state(parts, "best.pt")
    )
    (line,) = (
        json.loads(row)
        for row in (whole / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert set(line) == {"step", "score", "best", "within_one", "confidence", "off_sync", "bce"}
    assert (whole / "evaluations.jsonl").read_bytes() == (parts / "evaluations.jsonl").read_bytes()
    wanted = torch.load(parts / "best.pt", weights_only=True)["parts"]["average"]
    assert same(wanted, expert.RECIPE.load_trained(parts / "best.pt").state_dict())
    with pytest.raises(TrainingError, match=r"settings.json holds no run of this kind"):
        expert.RECIPE.load_trained(tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="other settings"):
        expert.main([run_file(tmp_path, steps=4), str(shards), str(parts)])


@pytest.mark.slow
def test_torchrun_runs_the_same_script_and_goes_on_where_it_was_asked_to_end(
    tmp_path: Path, shards: Path
) -> None:
    """Two processes as torchrun starts them, which passes SIGTERM on; five frames, windows that
    share frames, pictures for TensorBoard. The run that was asked to end, or on Windows killed,
    comes to the state of the one that was not."""
    run = run_file(
        tmp_path,
        window=5,
        windows=4,
        steps=4,
        contrastive=2,
        save_every=1,
        projection="false",
        tensorboard="true",
    )
    torchrun("expert", run, str(shards), str(tmp_path / "whole"))
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        *(".lock", "best.pt", "evaluations.jsonl", "last.pt", "settings.json", "tensorboard")
    }
    parts = started("expert", run, str(shards), str(tmp_path / "parts"))
    assert parts.stdout is not None
    for line in parts.stdout:
        if line.startswith("1 loss"):
            parts.terminate()
            break
    told, errors = parts.communicate(timeout=600)
    assert parts.returncode != 0
    if sys.platform != "win32":
        assert "asked to end after step 2: saved" in told, errors
        assert load_state(tmp_path / "parts" / "last.pt", {}).step == 2
    torchrun("expert", run, str(shards), str(tmp_path / "parts"))
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))


def test_nothing_to_learn_from_is_said(tmp_path: Path, shards: Path) -> None:
    for before, after, match in (
        ("stretch = 6", "stretch = 6\nsize = 64", "no expert of this shape sees faces of 64 px"),
        ("clips = ", "clips = 0 #", "clips is 0; expected 1 or more"),
    ):
        run = Path(run_file(tmp_path))
        run.write_text(run.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        with pytest.raises(TrainingError, match=match):
            expert.main([str(run), str(shards), str(tmp_path / "out")])
    with pytest.raises(LipSyncError, match=r"train has 3 clips, none of which gives 62 frames"):
        expert.main([run_file(tmp_path, stretch=60), str(shards), str(tmp_path / "out")])
    alone = write_noise(tmp_path / "alone", train="a")
    with pytest.raises(
        LipSyncError,
        match=r"val holds no prepared clips.*prepare two people or more, or .*--splits time",
    ):
        expert.main([run_file(tmp_path), str(alone), str(tmp_path / "out")])


@pytest.mark.usefixtures("thin_networks")
def test_shards_are_read_from_a_url(tmp_path: Path, shards: Path) -> None:
    run = run_file(tmp_path, steps=1)
    expert.main([run, str(shards), str(tmp_path / "path")])
    expert.main([run, shards.as_uri(), str(tmp_path / "url")])
    assert same(state(tmp_path / "path"), state(tmp_path / "url"))


@pytest.mark.usefixtures("thin_networks")
def test_data_that_is_no_number_is_named(tmp_path: Path) -> None:
    """Held out, it names the clip; among those that are learnt from, the batch is saved."""
    for split, told in (
        ("val", "held-out clip d gives no finite"),
        ("train", "not_finite_step00000000_rank0.pt"),
    ):
        shards = write_noise(tmp_path / split, train="abc", val="d")
        for entry in read_index(shards / split):
            at = entry.arrays["mel"]
            held = np.memmap(shards / split / entry.shard, np.uint8, "r+")
            held[at.offset : at.stop].view(at.dtype)[:] = np.nan
        with pytest.raises(TrainingError, match=told):
            expert.main([run_file(tmp_path, steps=1), str(shards), str(tmp_path / f"{split}-out")])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_this_machine_has_not_is_told(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        TrainingError, match=r"no GPU can be used here by torch .*give --device cpu"
    ):
        expert.main([run_file(tmp_path), str(shards), str(tmp_path), "--device", "cuda"])
    with pytest.raises(SystemExit):
        expert.main([run_file(tmp_path), str(shards), str(tmp_path), "--threads", "0"])
    assert "expected a number of at least 1" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_not_exported(tmp_path: Path) -> None:
    """Otherwise the network would be untrained."""
    save_settings(tmp_path, read_settings(run_file(tmp_path), expert.Settings))
    with pytest.raises(TrainingError, match=r"best.pt does not exist"):
        export.main([str(tmp_path / "best.pt"), str(tmp_path / "judge.safetensors")])
    with pytest.raises(WeightsError, match=r"cannot be written .*give a folder that is there"):
        save_model(
            SyncExpert(expert.TEACHER), tmp_path / "no" / "judge.safetensors", licence="", source=""
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("expert*.toml")), ids=lambda path: path.stem
)
def test_every_named_run_builds_its_network(path: Path) -> None:
    settings = read_settings(path, expert.Settings)
    config = expert.expert_config(settings)
    assert (config.window, config.size) == (settings.window, settings.size)
    with torch.device("meta"):
        audio, video = SyncExpert(config).eval()(
            torch.zeros(2, 1, 80, 16),
            torch.zeros(2, settings.window, 3, settings.size, settings.size),
        )
    assert audio.shape == video.shape and audio.ndim == 2


def test_experts_of_every_side_end_in_one_vector() -> None:
    for network in expert.NETWORKS.values():
        assert config_for_size(network, 96) == network
        for size in range(96, 385, 32):
            with torch.device("meta"):
                model = SyncExpert(config_for_size(network, size)).eval()
                out = model.face_encoder(torch.zeros(1, 15, size // 2, size))
            assert out.shape[2:] == (1, 1)
        with pytest.raises(ValueError, match="faces of 64 px; expected 96 to 384"):
            config_for_size(network, 64)


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
