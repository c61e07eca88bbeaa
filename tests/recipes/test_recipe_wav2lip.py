"""train/wav2lip.py itself: two steps of every kind, and on to the same state; every named run
builds its network."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from helpers.recipes import AskedToEnd, torchrun
from helpers.shards import write_noise

from lipsync_core.errors import TrainingError
from lipsync_core.models.quality_discriminator import (
    WAV2LIP_DISCRIMINATOR,
    QualityDiscriminator,
    config_for_size,
)
from lipsync_core.models.wav2lip import Generator
from lipsync_core.models.weights import load_model
from lipsync_core.training.settings import read_settings
from train import expert, export, wav2lip
from train.expert_weights import read_expert

ROOT = Path(__file__).parents[2]
EXPERT = """
network = "teacher"
projection = false
window = {window}
contrastive_steps = 1
clips = 2
windows = 2
stretch = 6
[plan]
steps = 1
tensorboard = false
"""
RUN = """
network = "mini"
windows = {windows}
precision = "float32"
{lines}
[plan]
steps = {steps}
save_every = 9
report_every = 1
evaluate_every = {evaluate_every}
tensorboard = false
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("shards"), train="abc", val="de", frames=21)


@pytest.fixture(scope="module")
def long_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What experts are judged on must be longer; the more frames, the longer a generator's judge
    takes."""
    return write_noise(tmp_path_factory.mktemp("long"), train="abc", val="d", frames=41)


@pytest.fixture
def experts(thin_networks: None, thin_expert: str, thin_judge: str) -> list[str]:
    """Options of a run, whose networks are thin."""
    return ["--expert", thin_expert, "--judge", thin_judge]


def run_file(
    folder: Path, *lines: str, windows: int = 2, steps: int = 2, evaluate_every: int = 9
) -> str:
    path = folder / "run.toml"
    path.write_text(
        RUN.format(
            lines="\n".join(lines), windows=windows, steps=steps, evaluate_every=evaluate_every
        ),
        encoding="utf-8",
    )
    return str(path)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    parts = torch.load(path, weights_only=True)["parts"]
    return {
        f"{part}.{key}": parts[part][key]
        for part in ("model", "average", "critic")
        for key in parts[part]
    }


def test_a_resumed_run_is_the_whole_one_and_its_network_loads_as_weights(
    tmp_path: Path, shards: Path, experts: list[str]
) -> None:
    run = run_file(tmp_path, "quality_weight = 0.07", steps=3)
    command = [run, str(shards), *experts]
    with redirect_stdout(io.StringIO()) as told:
        wav2lip.main([*command[:2], str(tmp_path / "whole"), *command[2:]])
    for words in (
        "3 clips, 2 held out",
        "l1 ",
        "sync ",
        "quality ",
        "critic_fake ",
        "3 held out: psnr",
    ):
        assert words in told.getvalue()
    with redirect_stdout(AskedToEnd("1 l1")), pytest.raises(SystemExit):
        wav2lip.main([*command[:2], str(tmp_path / "parts"), *command[2:]])
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["step"] == 2
    wav2lip.main([*command[:2], str(tmp_path / "parts"), *command[2:]])
    whole, parts = (tensors(tmp_path / out / "last.pt") for out in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(
        torch.equal(value, parts[key]) for key, value in whole.items()
    )

    for match, given in {
        "judge was .* and is judge": [*experts, "--judge", "judge"],
        "expert was .* and is judge": ["--expert", "judge"],
        "start was None and is mini-2": [*command[2:], "--start", "mini-2"],
    }.items():
        with pytest.raises(
            TrainingError, match=rf"other settings \({match}.* delete began/settings\.json"
        ):
            wav2lip.main([*command[:2], str(tmp_path / "whole"), *given])

    (line,) = (tmp_path / "whole" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert {
        "score",
        "psnr",
        "copied",
        "l1",
        "confidence",
        "distance",
        "within_one",
        "real",
        "flicker",
        "sync",
    } <= set(json.loads(line))
    export.main([str(tmp_path / "whole" / "best.pt"), str(tmp_path / "mini.safetensors")])
    model = load_model(tmp_path / "mini.safetensors", kind="generator")
    assert model.config == wav2lip.RECIPE.load_trained(tmp_path / "whole" / "best.pt").config
    with redirect_stdout(io.StringIO()):  # and teaches or begins another run
        started = [run_file(tmp_path, steps=1), str(shards), str(tmp_path / "third"), *command[2:]]
        wav2lip.main([*started, "--start", str(tmp_path / "mini.safetensors")])
    assert (tmp_path / "third" / "best.pt").exists()


def test_the_expert_may_wait_run_on_batch_statistics_or_learn(
    tmp_path: Path, shards: Path, experts: list[str]
) -> None:
    """E_sync of an untaught expert is near 0.69, so it waits below 0.1 and counts from the first
    evaluation on below 5."""
    before = read_expert(experts[1]).state_dict()
    for name, lines in {
        "waits": ["sync_below = 0.1", 'expert_statistics = "batch"', "augmented = false"],
        "counts": ["sync_below = 5.0", 'expert_statistics = "batch"'],
        "learns": ["expert_learns = true"],
    }.items():
        with redirect_stdout(io.StringIO()) as told:
            run = run_file(tmp_path, *lines, evaluate_every=1)
            wav2lip.main([run, str(shards), str(tmp_path / name), *experts])
        rows = [
            row for row in told.getvalue().splitlines() if " l1 " in row and "held out" not in row
        ]
        assert [" sync " in row for row in rows] == {
            "waits": [False, False],
            "counts": [False, True],
            "learns": [True, True],
        }[name]
        assert all((" expert " in row) == (name == "learns") for row in rows)
        parts = torch.load(tmp_path / name / "last.pt", weights_only=True)["parts"]
        assert parts["switch"]["on"] == (name != "waits") and ("expert" in parts) == (
            name == "learns"
        )
        if name == "learns":
            assert not torch.equal(parts["expert"]["face_encoder.0.conv_block.0.weight"],
                                   before["face_encoder.0.conv_block.0.weight"])  # fmt: skip


def test_an_expert_that_learns_and_a_term_that_waits_go_on_as_they_were(
    tmp_path: Path, shards: Path, experts: list[str]
) -> None:
    """E_sync counts from step 1 on; what is resumed evaluates only at the end, so it must have been
    kept that it does."""
    run = run_file(tmp_path, "expert_learns = true", "sync_below = 5.0", steps=3, evaluate_every=1)
    out = {name: [run, str(shards), str(tmp_path / name), *experts] for name in ("whole", "parts")}
    with redirect_stdout(io.StringIO()):
        wav2lip.main(out["whole"])
    with redirect_stdout(AskedToEnd("1 l1")), pytest.raises(SystemExit):
        wav2lip.main(out["parts"])
    half = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)
    assert half["step"] == 2 and half["parts"]["switch"] == {"on": True}
    with redirect_stdout(io.StringIO()) as told:
        wav2lip.main(out["parts"])
    assert " sync " in next(row for row in told.getvalue().splitlines() if row.startswith("3 l1"))
    whole, parts = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["parts"] for name in out
    )
    assert {"expert", "expert_optimiser", "switch"} <= whole.keys()
    assert not torch.equal(half["parts"]["expert"]["face_encoder.0.conv_block.0.weight"],
                           whole["expert"]["face_encoder.0.conv_block.0.weight"])  # fmt: skip
    assert same(whole, parts)


def same(one: object, other: object) -> bool:
    """Whether two nests of tensors are equal."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_torchrun_runs_the_same_script(
    tmp_path: Path, shards: Path, thin_expert: str, thin_judge: str
) -> None:
    """Two processes, with everything that can learn."""
    lines = "quality_weight = 0.07", "expert_learns = true", "sync_below = 5.0"
    run = run_file(tmp_path, *lines, windows=4, evaluate_every=1)
    told = torchrun(
        "wav2lip",
        run,
        str(shards),
        str(tmp_path / "out"),
        "--expert",
        thin_expert,
        "--judge",
        thin_judge,
    )
    assert "2 held out" in told
    assert "sync " in next(row for row in told.splitlines() if row.startswith("2 l1"))


def test_wrong_experts_shards_and_settings_are_refused(
    tmp_path: Path, shards: Path, long_shards: Path, experts: list[str]
) -> None:
    run = run_file(tmp_path)
    with pytest.raises(
        TrainingError, match="its cosine may be negative, where E_sync has no gradient"
    ):
        wav2lip.main([run, str(shards), str(tmp_path / "a"), "--expert", "judge"])
    boxes = run_file(tmp_path, 'framing = "box"')
    with pytest.raises(TrainingError, match="holds aligned crops; this run wants box ones"):
        wav2lip.main([boxes, str(shards), str(tmp_path / "b"), *experts])
    (tmp_path / "five").mkdir()
    (tmp_path / "five" / "run.toml").write_text(EXPERT.format(window=5), encoding="utf-8")
    expert.main([str(tmp_path / "five" / "run.toml"), str(long_shards), str(tmp_path / "five")])
    for line, match in {
        "frames = 3": (
            "the expert looks at 5 frames; expected at most the 3 that are drawn: raise frames"
        ),
        "far = 0": "windows 2, frames 5, far 0; expected 1 or more",
    }.items():
        with pytest.raises(TrainingError, match=match):
            few = run_file(tmp_path, line)
            wav2lip.main(
                [
                    few,
                    str(shards),
                    str(tmp_path / "f"),
                    "--expert",
                    str(tmp_path / "five" / "best.pt"),
                ]
            )
    with pytest.raises(TrainingError, match="less than 1 together"):
        wav2lip.main(
            [
                run_file(tmp_path, "sync_weight = 1.0"),
                str(shards),
                str(tmp_path / "c"),
                *experts,
            ]
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("wav2lip*.toml")), ids=lambda path: path.stem
)
def test_every_named_run_builds_its_networks(path: Path) -> None:
    settings = read_settings(path, wav2lip.Settings)
    config = wav2lip.generator_config(settings)
    with torch.device("meta"):
        face = torch.zeros(2, 3, settings.size, settings.size)
        assert Generator(config).eval()(torch.zeros(2, 1, 80, 16), face, face).shape == face.shape
        critic = QualityDiscriminator(config_for_size(WAV2LIP_DISCRIMINATOR, settings.size))
        assert critic(face).shape == (2, 1)


def test_discriminators_of_every_side_give_one_verdict() -> None:
    assert config_for_size(WAV2LIP_DISCRIMINATOR, 96) == WAV2LIP_DISCRIMINATOR
    for size in range(96, 385, 32):
        with torch.device("meta"):
            assert QualityDiscriminator(config_for_size(WAV2LIP_DISCRIMINATOR, size))(
                torch.zeros(1, 3, size, size)
            ).shape == (
                1,
                1,
            )
    with pytest.raises(ValueError, match="faces of 64 px; expected 96 to 384"):
        config_for_size(WAV2LIP_DISCRIMINATOR, 64)
