"""train/baselines/lipgan.py and train/baselines/speech2vid.py themselves: a few steps, on to the
same state, and a file to dub with."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.dubs import ASTRONAUT, FRESH, tone
from helpers.recipes import AskedToEnd
from helpers.shards import write_noise

from lipsync_core import dub
from lipsync_core.errors import TrainingError
from lipsync_core.models.baselines.lipgan import LIPGAN, LIPGAN_BASIC, LipGAN
from lipsync_core.models.baselines.lipgan_discriminator import (
    LipGANDiscriminator,
    LipGANDiscriminatorConfig,
)
from lipsync_core.models.baselines.speech2vid import SPEECH2VID, Speech2Vid
from lipsync_core.models.weights import load_talking_face
from lipsync_core.training.settings import read_settings
from train import export
from train.baselines import lipgan, speech2vid

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
RUN = """
thinner = 16
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


def run_file(folder: Path, *lines: str, steps: int = 3) -> str:
    path = folder / "run.toml"
    path.write_text(RUN.format(lines="\n".join(lines), steps=steps), encoding="utf-8")
    return str(path)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, those of optimisers among them."""
    found: dict[str, torch.Tensor] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, part in value.items():
                walk(part, f"{name}.{key}")

    walk(torch.load(path, weights_only=True)["parts"], "")
    return found


@pytest.mark.parametrize(
    ("recipe", "lines", "terms", "parts"),
    [
        (
            lipgan,
            ('network = "lipgan-basic"', "batch = 4"),
            ("l1", "critic", "contrastive"),
            {"critic"},
        ),
        (
            lipgan,
            ('network = "lipgan-basic"', "contrastive_weight = 0.0", "batch = 2"),
            ("l1",),
            set[str](),
        ),
        (speech2vid, ("references = 3", "batch = 6"), ("l1",), set[str]()),
    ],
    ids=["lipgan", "lipgan-pretrain", "speech2vid"],
)
def test_a_resumed_run_is_the_whole_one_and_its_network_dubs(
    recipe: ModuleType,
    lines: tuple[str, ...],
    terms: tuple[str, ...],
    parts: set[str],
    tmp_path: Path,
    shards: Path,
) -> None:
    run = run_file(tmp_path, *lines)
    with redirect_stdout(io.StringIO()) as told:
        recipe.main([run, str(shards), str(tmp_path / "whole")])
    rows = [
        row.split()
        for row in told.getvalue().splitlines()
        if " l1 " in row and "held out" not in row
    ]
    assert len(rows) == 3 and all(set(terms) <= set(row) for row in rows)
    assert all(("critic" in row) == ("critic" in terms) for row in rows)
    assert "3 held out: psnr" in told.getvalue()
    with redirect_stdout(AskedToEnd("1 l1")), pytest.raises(SystemExit):
        recipe.main([run, str(shards), str(tmp_path / "parts")])
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["step"] == 2
    with redirect_stdout(io.StringIO()):
        recipe.main([run, str(shards), str(tmp_path / "parts")])
    whole, resumed = (tensors(tmp_path / out / "last.pt") for out in ("whole", "parts"))
    assert {name.split(".")[1] for name in whole} == {
        *("model", "average", "optimiser"),
        *(f"{part}{kind}" for part in parts for kind in ("", "_optimiser")),
    }
    assert whole.keys() == resumed.keys() and all(
        torch.equal(value, resumed[key]) for key, value in whole.items()
    )

    with pytest.raises(TrainingError, match=r"other settings \(judge was judge and is other\)"):
        recipe.main([run, str(shards), str(tmp_path / "whole"), "--judge", "other"])

    file = tmp_path / "weights.safetensors"
    with redirect_stdout(io.StringIO()):
        export.main([str(tmp_path / "whole" / "best.pt"), str(file)])
    assert (
        load_talking_face(file).config
        == recipe.RECIPE.load_trained(tmp_path / "whole" / "best.pt").config
    )
    report = dub(
        ASTRONAUT, tone(tmp_path / "a.wav", 0.2), tmp_path / "out.mp4", model=file, finding=FRESH
    )
    assert (report.dubbed, report.model) == (5, "weights.safetensors")


def test_the_pretrained_generator_begins_the_other_run(tmp_path: Path, shards: Path) -> None:
    alone = run_file(tmp_path, "contrastive_weight = 0.0", "batch = 2", "rate = 1e-3", steps=1)
    with redirect_stdout(io.StringIO()):
        lipgan.main([alone, str(shards), str(tmp_path / "alone")])
        start = str(tmp_path / "alone" / "best.pt")
        both = run_file(tmp_path, "batch = 2", "rate = 1e-9", "decay = 0.0", steps=1)
        lipgan.main([both, str(shards), str(tmp_path / "both"), "--start", start])
    first, second = (
        lipgan.RECIPE.load_trained(tmp_path / out / "best.pt") for out in ("alone", "both")
    )
    for (name, before), after in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0, msg=name)
    with pytest.raises(TrainingError, match="another network than this run's; set network"):
        basic = run_file(tmp_path, 'network = "lipgan-basic"', "batch = 2")
        lipgan.main([basic, str(shards), str(tmp_path / "basic"), "--start", start])
    with pytest.raises(TrainingError, match=r"none\.pt does not exist"):
        lipgan.main(
            [
                both,
                str(shards),
                str(tmp_path / "other"),
                "--start",
                str(tmp_path / "alone" / "none.pt"),
            ]
        )


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(
        TrainingError,
        match="1 frames a step for 1 processes; expected a multiple, and two for each",
    ):
        lipgan.main([run_file(tmp_path, "batch = 1"), str(shards), str(tmp_path / "a")])
    with pytest.raises(TrainingError, match=r"contrastive_weight is -1\.0; expected 0 or more"):
        lipgan.main(
            [run_file(tmp_path, "contrastive_weight = -1.0"), str(shards), str(tmp_path / "b")]
        )
    with pytest.raises(
        TrainingError,
        match="references 3, batch 4; expected 1 or more, and a batch that is a multiple",
    ):
        speech2vid.main(
            [run_file(tmp_path, "references = 3", "batch = 4"), str(shards), str(tmp_path / "c")]
        )
    for recipe in (lipgan, speech2vid):
        with pytest.raises(TrainingError, match="holds aligned crops; this run wants box ones"):
            recipe.main(
                [
                    run_file(tmp_path, 'framing = "box"'),
                    str(shards),
                    str(tmp_path / recipe.__name__),
                ]
            )


def test_the_named_runs_are_the_published_networks() -> None:
    for name, config in {"lipgan": LIPGAN, "lipgan-pretrain": LIPGAN}.items():
        settings = read_settings(CONFIGS / f"{name}.toml", lipgan.Settings)
        assert lipgan.generator_config(settings) == config
        assert lipgan.critic_config(settings) == LipGANDiscriminatorConfig()
        assert (settings.batch, settings.far) == (96, 6)
        assert (settings.rate, settings.contrastive_weight) == {
            "lipgan": (1e-4, 0.01),
            "lipgan-pretrain": (1e-3, 0),
        }[name]
    settings = read_settings(CONFIGS / "speech2vid.toml", speech2vid.Settings)
    assert speech2vid.generator_config(settings) == SPEECH2VID


@pytest.mark.parametrize("thinner", [2, 4, 8, 16])
def test_thinner_networks_give_what_the_published_ones_do(thinner: int) -> None:
    with torch.device("meta"):
        sound, face = torch.zeros(2, 1, 12, 35), torch.zeros(2, 3, 96, 96)
        for network, whole in (("lipgan", LIPGAN), ("lipgan-basic", LIPGAN_BASIC)):
            settings = lipgan.Settings(network=network, thinner=thinner, plan=lipgan.Plan(steps=1))
            model, published = LipGAN(lipgan.generator_config(settings)), LipGAN(whole)
            assert model(sound, face, face).shape == face.shape
            assert size(model) < 1.2 * size(published) / thinner**2
            audio, video = LipGANDiscriminator(lipgan.critic_config(settings))(sound, face)
            assert audio.shape == video.shape == (2, 512 // thinner)
        small = speech2vid.Settings(thinner=thinner, plan=speech2vid.Plan(steps=1))
        larger = torch.zeros(2, 3, 112, 112)
        assert (
            Speech2Vid(speech2vid.generator_config(small))(sound, larger, larger).shape
            == larger.shape
        )


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
