"""In which arithmetic networks are trained and judged, on machines with and without units for
bfloat16."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lipsync_core.errors import TrainingError
from lipsync_core.models import precision
from lipsync_core.models.precision import (
    autocast_training,
    choose_training_dtype,
    has_bfloat16_units,
)
from lipsync_core.training.distributed import World
from lipsync_core.training.settings import load_settings, read_settings, save_settings
from train import distil, expert, finetune, harness, mini, wav2lip
from train.baselines import lipgan, speech2vid

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "train" / "configs"


def with_units(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: dict.fromkeys(("avx512_f", *names), True)
    )


@pytest.mark.parametrize("unit", ["amx_bf16", "avx512_bf16"])
def test_auto_takes_bfloat16_where_a_cpu_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    with_units(monkeypatch, unit)
    assert has_bfloat16_units(CPU) and choose_training_dtype(CPU) == torch.bfloat16
    assert choose_training_dtype(CPU, "float32") == torch.float32


def test_auto_takes_float32_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with_units(monkeypatch)
    assert not has_bfloat16_units(CPU) and choose_training_dtype(CPU) == torch.float32
    assert choose_training_dtype(CPU, "bfloat16") == torch.bfloat16
    assert choose_training_dtype(torch.device("mps")) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # older versions of torch
    assert choose_training_dtype(CPU) == torch.float32


def test_what_this_torch_tells_of_a_cpu_has_the_names_that_are_looked_for() -> None:
    known = torch.cpu.get_capabilities()
    assert known["architecture"] != "x86_64" or {"amx_bf16", "avx512_bf16"} <= known.keys()


@pytest.mark.parametrize("units", [True, False])
def test_a_gpu_that_imitates_bfloat16_takes_float32(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or units

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    wanted = torch.bfloat16 if units else torch.float32
    assert choose_training_dtype(torch.device("cuda")) == wanted


def test_networks_run_in_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(3, 8, 3), torch.rand(1, 3, 8, 8)
    with_units(monkeypatch)
    with autocast_training(CPU):
        exact = layer(x)
    with_units(monkeypatch, "amx_bf16")
    with autocast_training(CPU):
        rough = layer(x)
    assert (exact.dtype, rough.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rough.float(), exact, atol=0.02, rtol=0.02)


def test_a_run_says_what_it_computes_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_units(monkeypatch)
    assert not harness.choose_precision("auto", World())
    assert capsys.readouterr().out == "precision: float32 (auto)\n"
    assert harness.choose_precision("bfloat16", World())
    assert capsys.readouterr().out == f"precision: bfloat16\nwarning: {precision.SLOW_BFLOAT16}\n"
    with_units(monkeypatch, "avx512_bf16")
    assert harness.choose_precision("auto", World()) and harness.choose_precision(
        "bfloat16", World()
    )
    assert capsys.readouterr().out == "precision: bfloat16 (auto)\nprecision: bfloat16\n"


def test_processes_on_unlike_machines_take_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with_units(monkeypatch, "amx_bf16")
    asked: list[bool] = []

    def any_rank(world: World, flag: bool) -> bool:
        asked.append(flag)
        return True  # another process has no units

    monkeypatch.setattr(World, "any", any_rank)
    assert not harness.choose_precision("auto", World(1, 2)) and asked == [False]


KINDS = {
    "distil": distil.Settings,
    "expert": expert.Settings,
    "finetune": finetune.Settings,
    "lipgan": lipgan.Settings,
    "mini": mini.Settings,
    "speech2vid": speech2vid.Settings,
    "wav2lip": wav2lip.Settings,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path, name: str) -> None:
    """Then every recipe's default was bfloat16, and stood in settings.json."""
    settings = read_settings(CONFIGS / f"{name}.toml", KINDS[name])
    assert settings.precision == "auto"
    save_settings(tmp_path, settings)
    (tmp_path / "last.pt").touch()
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": "bfloat16"}))
    assert load_settings(tmp_path, KINDS[name]).precision == "bfloat16"
    save_settings(tmp_path, settings)
    assert json.loads(path.read_text())["precision"] == "bfloat16"


def test_a_run_refuses_another_precision_that_is_asked_for(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("[plan]\nsteps = 7")
    other.write_text('precision = "float32"\n[plan]\nsteps = 7')
    save_settings(tmp_path, read_settings(one, mini.Settings))
    (tmp_path / "last.pt").touch()
    with pytest.raises(
        TrainingError, match=r"other settings \(precision was auto and is float32\)"
    ):
        save_settings(tmp_path, read_settings(other, mini.Settings))
