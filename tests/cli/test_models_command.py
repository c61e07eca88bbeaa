"""`lipsync models`: what the commands print, and what they leave alone."""

import hashlib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lipsync_core.cli.models import app
from lipsync_core.errors import WeightsError
from lipsync_core.models import hub, weights
from lipsync_core.models.layers import Stage
from lipsync_core.models.quality_discriminator import (
    QualityDiscriminator,
    QualityDiscriminatorConfig,
)
from lipsync_core.models.registry import MODELS
from lipsync_core.models.weight_files import BUNDLED

CONTENT = b"weights"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own weights folder, and a public file `toy` that can be placed in it."""
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    places = (("owner/toys", "deep/toy.pth", "main"),)
    entry = hub.HubFile(
        "toy", "a toy", places, "for play only", hashlib.sha256(CONTENT).hexdigest()
    )
    monkeypatch.setitem(hub.HUB, "toy", entry)
    return tmp_path


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_everything_and_says_what_is_here(folder: Path) -> None:
    rows = {line.split()[0]: line for line in run("list").splitlines()}
    assert set(rows) == {*BUNDLED, *hub.HUB}
    assert "not pulled" in rows["toy"] and "for play only" in rows["toy"]
    assert (
        "unverified" in rows["expert"]
        and "unverified" not in rows["wav2lip"]
        and "never commercial" in rows["wav2lip"]
    )
    (folder / "toy.pth").write_bytes(CONTENT)
    assert "not pulled" not in run("list").split("toy ")[1]


def test_info_of_a_public_name_tells_where_it_comes_from(folder: Path) -> None:
    text = run("info", "wav2lip-gan")
    assert (
        "camenduru/Wav2Lip/checkpoints/wav2lip_gan.pth, else Nekochu/Wav2Lip/wav2lip_gan.pth"
        in text
    )
    assert "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8" in text
    assert "lipsync models pull wav2lip-gan" in text and "unverified" in run("info", "expert")


def test_info_of_a_file_tells_its_header(folder: Path) -> None:
    config = QualityDiscriminatorConfig(blocks=((Stage(4),),), size=16)
    weights.save_model(
        QualityDiscriminator(config),
        folder / "x.safetensors",
        licence="Apache-2.0",
        source="a test",
    )
    text = run("info", folder / "x.safetensors")
    assert (
        "quality_discriminator" in text
        and "Apache-2.0" in text
        and "a test" in text
        and "size=16" in text
    )
    with pytest.raises(WeightsError, match="does not exist"):
        run("info", folder / "y.safetensors")


def test_pull_prints_the_path(folder: Path) -> None:
    (folder / "toy.pth").write_bytes(CONTENT)
    assert run("pull", "toy").split() == [str(folder / "toy.pth")]
    with pytest.raises(WeightsError, match="no public weights are called 'mini'"):
        run("pull", "mini")


def test_convert_writes_and_does_not_overwrite(folder: Path) -> None:
    source, target = folder / "public.pth", folder / "ours.safetensors"
    model = MODELS["quality_discriminator"][1](weights.PUBLIC["quality_discriminator"])
    torch.save({"state_dict": model.state_dict()}, source)
    assert "quality_discriminator" in run("convert", source, target)
    written = target.read_bytes()
    result = CliRunner().invoke(app, ["convert", str(source), str(target)])
    assert (
        result.exit_code == 2 and "--overwrite" in result.output and target.read_bytes() == written
    )
    run("convert", source, target, "--overwrite")
    source.unlink()
    target.unlink()  # pytest keeps the folder, and these are large


def test_convert_of_a_wrong_file_writes_nothing(folder: Path) -> None:
    (folder / "page.pth").write_text("<!doctype html>")
    with pytest.raises(WeightsError, match="is a web page"):
        run("convert", folder / "page.pth", folder / "ours.safetensors")
    assert not (folder / "ours.safetensors").exists()
