"""train/distil.py itself: steps with teachers of every shape, on to the same state, and what it
refuses."""

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.recipes import AskedToEnd, saved, thin, torchrun
from helpers.shards import write_noise
from torch import nn

from lipsync_core.errors import TrainingError
from lipsync_core.models.baselines.lipgan import LIPGAN_BASIC, LipGAN
from lipsync_core.models.baselines.speech2vid import Speech2Vid, Speech2VidConfig
from lipsync_core.models.wav2lip import LARGER, MINI, WAV2LIP, Generator
from lipsync_core.models.weights import load_model
from lipsync_core.training.losses import feature_loss
from lipsync_core.training.settings import read_settings
from train import distil, eval_dubs, export

ROOT = Path(__file__).parents[2]
RUN = """
windows = 2
frames = 5
far = 3
judged_clips = 2
precision = "float32"
{lines}
[plan]
steps = {steps}
save_every = 9
report_every = 1
evaluate_every = 9
tensorboard = false
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("shards"), train="abc", val="de", frames=21)


@pytest.fixture
def experts(thin_networks: None, thin_expert: str, thin_judge: str) -> list[str]:
    """Options of a run, whose networks are thin."""
    return ["--expert", thin_expert, "--judge", thin_judge]


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A generator of the shape of the thin `mini-2`."""
    return saved(Generator(thin(MINI)), tmp_path_factory.mktemp("teacher") / "thin.safetensors")


def run_file(folder: Path, *lines: str, steps: int = 2) -> str:
    path = folder / "run.toml"
    path.write_text(RUN.format(lines="\n".join(lines), steps=steps), encoding="utf-8")
    return str(path)


def test_a_resumed_run_is_the_whole_one_and_its_student_teaches_on(
    tmp_path: Path, shards: Path, experts: list[str], teacher: str
) -> None:
    run = run_file(tmp_path, steps=3)
    options = ["--teacher", teacher, *experts]
    with redirect_stdout(io.StringIO()) as told:
        distil.main([run, str(shards), str(tmp_path / "whole"), *options])
    for words in (
        "7 features are compared; the teacher, held out: psnr",
        "3 output ",
        " truth ",
        " sync ",
        " feature ",
    ):
        assert words in told.getvalue()
    with redirect_stdout(AskedToEnd("1 output")), pytest.raises(SystemExit):
        distil.main([run, str(shards), str(tmp_path / "parts"), *options])
    distil.main([run, str(shards), str(tmp_path / "parts"), *options])
    whole, parts = (
        torch.load(tmp_path / out / "last.pt", weights_only=True)["parts"]
        for out in ("whole", "parts")
    )
    for part in ("model", "average"):
        assert all(torch.equal(value, parts[part][key]) for key, value in whole[part].items())
    assert any(key.startswith("adapters.6.") for key in whole["model"])

    with pytest.raises(TrainingError, match=r"other settings \(start was None and is mini-2\)"):
        distil.main([run, str(shards), str(tmp_path / "whole"), *options, "--start", "mini-2"])

    export.main([str(tmp_path / "whole" / "best.pt"), str(tmp_path / "mini.safetensors")])
    assert load_model(tmp_path / "mini.safetensors", kind="generator").config == distil.MINI
    # a run teaches, a file is begun with, the judge's kin is the expert
    with redirect_stdout(io.StringIO()) as told:
        options = [
            "--teacher",
            str(tmp_path / "whole" / "best.pt"),
            "--start",
            str(tmp_path / "mini.safetensors"),
            *experts[2:],
        ]
        run = run_file(tmp_path, "feature_weight = 0.0", steps=1)
        distil.main([run, str(shards), str(tmp_path / "next"), *options, "--expert", "judge"])
    assert " sync " in told.getvalue() and " feature " not in told.getvalue()


@pytest.mark.slow
def test_torchrun_runs_the_same_script(
    tmp_path: Path, shards: Path, experts: list[str], teacher: str
) -> None:
    out = tmp_path / "out"
    told = torchrun(
        "distil",
        run_file(tmp_path, steps=1),
        str(shards),
        str(out),
        "--teacher",
        teacher,
        *experts,
    )
    assert " feature " in next(row for row in told.splitlines() if row.startswith("1 output"))


def test_teachers_of_another_size_sound_and_number_of_pictures(
    tmp_path: Path, shards: Path, experts: list[str]
) -> None:
    """What is drawn at 192 px from log-mel, and at 96 and 112 px from cepstra, teaches faces of 96
    px."""
    lipgan = replace(
        LIPGAN_BASIC,
        **{
            name: tuple(
                replace(stage, channels=stage.channels // 16)
                for stage in getattr(LIPGAN_BASIC, name)
            )
            for name in ("face", "audio", "decoder")
        },
    )
    speech2vid = Speech2VidConfig((8,) * 5, (8,) * 5, 16, 8, decoder=(8,) * 5, references=2)
    teachers = {
        "large": (Generator(thin(LARGER[192])), 7),
        "lipgan": (LipGAN(lipgan), 7),
        "speech2vid": (Speech2Vid(speech2vid), 4),
    }
    for name, (teacher, compared) in teachers.items():
        path = saved(teacher, tmp_path / f"{name}.safetensors")
        with redirect_stdout(io.StringIO()) as told:
            out = tmp_path / name
            distil.main(
                [
                    run_file(tmp_path, steps=1),
                    str(shards),
                    str(out),
                    "--teacher",
                    path,
                    *experts,
                ]
            )
        assert f"{compared} features are compared" in told.getvalue() and (out / "best.pt").exists()


def test_partners_are_as_fine_and_less_than_twice_as_fine() -> None:
    """Of 96 px: sides 96, 48, 24, 12, 6, 3 and 1; of 192 px 192 besides, which has no partner, as
    has no side of 96 in one that begins at 48."""
    mini, large = Generator(MINI).eval(), Generator(thin(LARGER[192])).eval()
    assert [(pair.mine, pair.other) for pair in distil.partners(mini, large)] == [
        (i, i + 1) for i in range(7)
    ]
    assert [(pair.mine, pair.other) for pair in distil.partners(large, mini)] == [
        (i + 1, i) for i in range(7)
    ]
    assert distil.partners(mini, large)[0].channels == (16, large.config.face[1].channels)
    wanted = [torch.rand(2, 3, 8, 8), torch.rand(2, 5, 1, 1)]
    pooled = nn.functional.avg_pool2d(wanted[0], 2)
    assert float(feature_loss([pooled, wanted[1]], wanted)) == 0
    assert float(feature_loss([0 * pooled, wanted[1]], wanted)) == 0.5


def test_what_is_cut_otherwise_or_of_another_shape_is_refused(
    tmp_path: Path, shards: Path, thin_expert: str
) -> None:
    run, expert = run_file(tmp_path), thin_expert
    boxes = saved(Generator(thin(WAV2LIP)), tmp_path / "boxes.safetensors")

    def refused(match: str, *options: str) -> None:
        with pytest.raises(TrainingError, match=match):
            distil.main([run, str(shards), str(tmp_path / "no"), *options])
        assert not (tmp_path / "no").exists()

    refused("wants crops cut as box, not aligned; prepare such ones .python -m train.prepare",
            "--teacher", boxes, "--expert", expert)  # fmt: skip
    refused("mini is a LipWarp, .*name `mini-2`", "--teacher", "mini", "--expert", expert)
    refused(
        "mini is a LipWarp, .*name `mini-2`",
        "--teacher",
        "mini-2",
        "--expert",
        expert,
        "--start",
        "mini",
    )
    refused(
        "is no `mini-2` for aligned crops",
        "--teacher",
        "mini-2",
        "--expert",
        expert,
        "--start",
        saved(Generator(thin(MINI)), tmp_path / "thin.safetensors"),
    )
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    (tmp_path / "best.pt").touch()
    refused(
        "is the folder of no run of distil, expert",
        "--teacher",
        str(tmp_path / "best.pt"),
        "--expert",
        expert,
    )
    for line, match in {
        "output_weight = 0.0": "more than 0 of the teacher",
        "foreign = 1.0": "less than 1",
    }.items():
        with pytest.raises(TrainingError, match=match):
            distil.main(
                [
                    run_file(tmp_path, line),
                    str(shards),
                    str(tmp_path / "no"),
                    "--teacher",
                    "mini-2",
                    "--expert",
                    "judge",
                ]
            )


def test_dubs_have_no_truth_at_the_mouth_and_experts_pull_there_alone() -> None:
    lips = eval_dubs.lips(96, torch.device("cpu"))
    assert (
        lips.shape == (1, 1, 96, 96)
        and float(lips[0, 0, 67, 48]) == 1
        and float(lips[..., :48, :].max()) == 0
    )
    made, target = torch.zeros(2, 3, 3, 96, 96, requires_grad=True), torch.ones(2, 3, 3, 96, 96)
    talking = torch.tensor([[True], [False]])
    got = float(eval_dubs.deviation(made.detach(), target, talking, lips).abs().mean())
    assert got == pytest.approx((1 + 1 - 0.9 * float(lips[..., 48:, :].mean())) / 2)
    eval_dubs.only_at(made, lips).sum().backward()
    assert made.grad is not None and torch.equal(made.grad, lips.expand_as(made))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("distil*.toml")), ids=lambda path: path.stem
)
def test_every_named_run_is_read(path: Path) -> None:
    assert distil.student_config(read_settings(path, distil.Settings)) == MINI
