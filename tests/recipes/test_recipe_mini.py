"""train/mini.py itself: two steps, and on to the same state; with photographs and without."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import AskedToEnd, saved, torchrun
from helpers.shards import write_noise

from lipsync_core.errors import TrainingError
from lipsync_core.models.quality_discriminator import PATCH_CRITIC, QualityDiscriminator
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import MINI, Generator
from lipsync_core.models.weights import load_model
from lipsync_core.training.clips import load_clips, speaker_weights
from lipsync_core.training.distributed import World
from lipsync_core.training.settings import read_settings
from train import expert, export, mini
from train.expert_weights import read_expert
from train.harness import init_audio_encoder_from_expert

ROOT = Path(__file__).parents[2]
RUN = """
talking = {talking}
foreign = {foreign}
frames = 5
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
    """Two clips to learn from, two to be judged on, three photographs."""
    folder = write_noise(tmp_path_factory.mktemp("shards"), frames=28, train="ab", val="de")
    photographs = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    np.save(folder / "portraits.npy", photographs)
    return folder


def run_file(folder: Path, *lines: str, talking: int = 1, foreign: int = 1, steps: int = 2) -> str:
    path = folder / "run.toml"
    path.write_text(
        RUN.format(lines="\n".join(lines), talking=talking, foreign=foreign, steps=steps),
        encoding="utf-8",
    )
    return str(path)


def state(path: Path) -> dict[str, torch.Tensor]:
    parts = torch.load(path, weights_only=True)["parts"]
    found = {
        f"{part}.{key}": parts[part][key]
        for part in ("model", "average", "critic")
        for key in parts[part]
    }
    for part in ("optimiser", "critic_optimiser"):
        moments = parts[part]["state"]
        found |= {
            f"{part}.{i}.{key}": value
            for i, values in moments.items()
            for key, value in values.items()
        }
    return found | {"position": torch.tensor(parts["loader"]["step"])}


@pytest.mark.usefixtures("thin_networks")
def test_a_resumed_run_is_the_whole_one_and_its_network_loads_as_weights(
    tmp_path: Path, shards: Path, thin_judge: str
) -> None:
    command = [run_file(tmp_path, foreign=2, steps=3), str(shards)]
    experts = ["--teacher", thin_judge, "--judge", thin_judge]
    with redirect_stdout(io.StringIO()) as told:
        mini.main([*command, str(tmp_path / "whole"), *experts])
    for words in (
        f"the audio encoder of {thin_judge} is of another shape: mini's begins at random",
        "2 clips, 3 photographs, 2 held out, 1 processes on cpu",
        *(
            "l1 ",
            "slopes ",
            "sync ",
            "bend ",
            "foreign_l1 ",
            "foreign_slopes ",
            "foreign_sync ",
            "photograph ",
        ),
        *("critic_real ", "critic_fake ", "loss ", "data_wait ", "3 held out: psnr "),
    ):
        assert words in told.getvalue()
    with redirect_stdout(AskedToEnd("1 l1")), pytest.raises(SystemExit):
        mini.main([*command, str(tmp_path / "parts"), *experts])
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["step"] == 2
    mini.main([*command, str(tmp_path / "parts"), *experts])
    whole, parts = (state(tmp_path / out / "last.pt") for out in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(
        torch.equal(value, parts[key]) for key, value in whole.items()
    )

    with pytest.raises(TrainingError, match=r"other settings \(teacher was .* and is mine\)"):
        mini.main([*command, str(tmp_path / "whole"), "--teacher", "mine", *experts[2:]])

    export.main([str(tmp_path / "whole" / "best.pt"), str(tmp_path / "mini.safetensors")])
    model = load_model(tmp_path / "mini.safetensors", kind="generator")
    assert model.config == mini.MINI
    wanted = mini.RECIPE.load_trained(tmp_path / "whole" / "best.pt").state_dict()
    assert all(
        torch.allclose(value, wanted[key], atol=1e-2, rtol=1e-2)
        for key, value in model.state_dict().items()
    )


@pytest.mark.usefixtures("thin_networks")
def test_it_begins_from_given_weights_and_does_without_photographs(
    tmp_path: Path, thin_judge: str
) -> None:
    start = saved(Generator(mini.MINI), tmp_path / "start.safetensors")
    shards = write_noise(tmp_path / "shards", frames=28, train="a", val="de")
    command = [
        run_file(tmp_path, "rate = 1e-9", "decay = 0.0", steps=1),
        str(shards),
        str(tmp_path / "run"),
    ]
    with redirect_stdout(io.StringIO()) as told:
        mini.main([*command, "--teacher", thin_judge, "--judge", thin_judge, "--start", start])
    assert "1 clips, no photographs, 2 held out" in told.getvalue()
    started = dict(load_model(start, kind="generator").named_parameters())
    for key, value in mini.RECIPE.load_trained(tmp_path / "run" / "last.pt").named_parameters():
        torch.testing.assert_close(value, started[key], atol=1e-6, rtol=0)
    (line,) = (tmp_path / "run" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"score", "psnr", "copied", "confidence", "within_one", "flicker"} <= set(
        json.loads(line)
    )


def footage(shards: Path, **changes: int) -> mini.Footage:
    settings = replace(
        read_settings(ROOT / "train" / "configs" / "mini.toml", mini.Settings), **changes
    )
    clips = load_clips(shards / "train")
    heard = [
        torch.randn(len(clip.faces) + 30, 4, generator=torch.Generator().manual_seed(0))
        for clip in clips
    ]
    photographs = np.load(shards / "portraits.npy")
    return mini.Footage(clips, speaker_weights(clips), heard.__getitem__, 5, photographs, settings)


def test_a_batch_is_shared_among_ranks_and_photographs_wander(shards: Path) -> None:
    """Each rank draws its part of the same clips: talking ones first, with another frame of theirs
    as the reference; of the foreign ones every other is a photograph, one picture whose mouth
    moves."""
    of = footage(shards, talking=2, foreign=4)
    whole = mini.draw(of, 3, World())
    parts = [mini.draw(of, 3, World(rank, 2)) for rank in range(2)]
    assert whole.talking == 2 and [part.talking for part in parts] == [1, 1]
    heard = [
        torch.cat([part.heard[:1] for part in parts]),
        torch.cat([part.heard[1:] for part in parts]),
    ]
    assert whole.heard.shape == (6, 3 + 30, 4) and torch.equal(whole.heard, torch.cat(heard))
    target, reference = (x.unflatten(0, (6, 7)) for x in (whole.target, whole.reference))
    assert target.shape == (6, 7, 3, 96, 96) and whole.mels.shape == (42, 1, 80, 16)
    assert [torch.equal(a, b) for a, b in zip(target, reference, strict=True)] == [False] * 2 + [
        True
    ] * 4
    change = (target[:, 1:] - target[:, :-1]).abs().mean((1, 2))  # (6,96,96)
    # the noise of clips is new in every frame, that of a film less
    still = change[:, :20].mean((1, 2)) < 0.06
    assert still.tolist() == [False] * 3 + [True, False, True]
    assert all(float(change[i, 50:80, 30:66].mean()) > 0 for i in (3, 5))
    assert torch.equal(whole.target, mini.draw(of, 3, World()).target)
    assert not torch.equal(whole.heard, mini.draw(of, 4, World()).heard)


def test_the_teacher_pulls_at_paint_over_the_mouth_alone() -> None:
    torch.manual_seed(0)
    teacher = read_expert("judge")
    critic = QualityDiscriminator(PATCH_CRITIC).requires_grad_(False)
    faces, heard = (
        torch.rand(10, 3, 96, 96),
        torch.nn.functional.normalize(torch.randn(2, 31, 160), dim=2),
    )
    batch = mini.Batch(faces, faces.flip(0), torch.zeros(10, 1, 80, 16), heard, 1)
    planes = torch.randn(10, 6, 48, 96, requires_grad=True)
    terms, made = mini.losses(
        planes, batch, teacher, critic, torch.Generator().manual_seed(0), apart=3
    )
    (gradient,) = torch.autograd.grad(terms["sync"] + terms["foreign_sync"], planes)
    assert torch.equal(gradient.any(0)[0], (mini.mouth(96)[0, 0] > 0) & gradient.any(0)[0])
    outside = (mini.mouth(96) == 0).expand(10, 1, -1, -1)
    assert (
        not gradient[:, :3][outside.expand(-1, 3, -1, -1)].any()
        and not gradient[:, 5:][outside].any()
    )
    assert gradient[:, 3:5][outside.expand(-1, 2, -1, -1)].any()  # the flow may follow it anywhere
    assert set(terms) == set(mini.Weights.__dataclass_fields__) and made.shape == faces.shape
    torch.testing.assert_close(terms["l1"], (made[:5] - faces[:5])[:, :, 48:].abs().mean())


def test_a_new_generator_copies_its_reference_and_hears_as_its_teacher() -> None:
    torch.manual_seed(0)
    model, teacher = Generator(MINI), SyncExpert(expert.TEACHER)
    mini.init_as_copy(model)
    assert init_audio_encoder_from_expert(teacher, model)
    torch.testing.assert_close(
        model.audio_encoder[0].conv_block[0].weight, teacher.audio_encoder[0].conv_block[0].weight
    )
    target, reference = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        made = model.eval()(torch.zeros(2, 1, 80, 16), target, reference)
    share = torch.tensor(2.0).sigmoid()  # the rest is grey paint
    wanted = torch.cat([target[:, :, :48], share * reference[:, :, 48:] + (1 - share) * 0.5], 2)
    torch.testing.assert_close(made, wanted)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not init_audio_encoder_from_expert(SyncExpert(expert.JUDGE), model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_torchrun_runs_the_same_script(tmp_path: Path, shards: Path) -> None:
    run = run_file(tmp_path, talking=2, foreign=2, steps=1)
    torchrun("mini", run, str(shards), str(tmp_path / "out"), "--teacher", "judge")
    assert (tmp_path / "out" / "best.pt").exists()


def test_wrong_teachers_photographs_and_settings_are_refused(tmp_path: Path, shards: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(
        TrainingError, match=r"judge looks at 5 aligned crops; expected at most 3 aligned ones"
    ):
        run = run_file(tmp_path)
        Path(run).write_text(
            Path(run).read_text(encoding="utf-8").replace("frames = 5", "frames = 3"),
            encoding="utf-8",
        )
        mini.main([run, str(shards), out, "--teacher", "judge"])
    np.save(tmp_path / "small.npy", np.zeros((2, 96, 96, 3), np.uint8))
    run = run_file(tmp_path)
    with pytest.raises(
        TrainingError,
        match=r"small.npy holds uint8 \(2, 96, 96, 3\); expected uint8 \(N, 112, 112, 3\)",
    ):
        mini.main(
            [
                run,
                str(shards),
                out + "2",
                "--teacher",
                "judge",
                "--portraits",
                str(tmp_path / "small.npy"),
            ]
        )
    for line, told in (
        ("apart = 16", "apart is 16; expected 1 to 15"),
        ("far = 0", "far is 0; expected 1 or more"),
    ):
        with pytest.raises(TrainingError, match=told):
            mini.main([run_file(tmp_path, line), str(shards), out, "--teacher", "judge"])
    with pytest.raises(TrainingError, match=r"settings.json holds no run of this kind"):
        mini.RECIPE.load_trained(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("mini*.toml")), ids=lambda path: path.stem
)
def test_every_named_run_is_read(path: Path) -> None:
    assert read_settings(path, mini.Settings).plan.steps >= 1000
