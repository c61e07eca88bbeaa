"""Files of face restoration networks. A stand-in for spandrel, with the names of its public API,
says what it was asked; the real one, with its real architectures, is tried in
tests/host/test_host_restoring.py."""

import re
import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.dubs import ASTRONAUT, FRESH, pixels, tone
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from lipsync_core import dub
from lipsync_core.cli.main import app
from lipsync_core.errors import WeightsError
from lipsync_core.models import hub
from lipsync_core.options import Blend, Restore
from lipsync_core.pipelines.restore import MOUTH, SIZE, Restorer, load_restorer, restorer_for


class Unsupported(Exception):
    pass


class Net(nn.Module):
    """Adds its only number to what it is given, and remembers how it was asked."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift.float())
        self.options: dict[str, Any] = {}
        self.seen = torch.empty(0)

    def forward(self, x: Tensor, **options: Any) -> tuple[Tensor, None]:
        self.options, self.seen = options, x
        return x + self.shift, None


class Registry:
    """Takes a file's tensor ``shift.ARCHITECTURE`` for a network of that architecture."""

    def __init__(self, *supports: SimpleNamespace) -> None:
        self.supports = supports

    def copy(self) -> "Registry":
        return Registry(*self.supports)

    def add(self, *supports: SimpleNamespace) -> None:
        assert not any(support.architecture.id in self for support in supports)
        self.supports += supports

    def __iter__(self):
        return iter(self.supports)

    def __contains__(self, name: str) -> bool:
        return any(support.architecture.id == name for support in self.supports)

    def load(self, tensors: dict[str, Tensor]) -> Any:
        for support in self.supports:
            if f"shift.{support.architecture.id}" in tensors:
                return described(support, tensors[f"shift.{support.architecture.id}"])
        raise Unsupported


def support(name: str, purpose: str = "FaceSR", **facts: Any) -> SimpleNamespace:
    return SimpleNamespace(
        architecture=SimpleNamespace(id=name, name=name), facts={"purpose": purpose, **facts}
    )


def described(support: SimpleNamespace, shift: Tensor) -> Any:
    """A descriptor, which is called with pictures as spandrel's are."""

    class Descriptor(SimpleNamespace):
        def __call__(self, faces: Tensor) -> Tensor:
            return self.model(faces)[0]

    if shift.numel() != 1:
        raise RuntimeError("Error(s) in loading state_dict for Net:\n\tsize mismatch")
    facts = {"input_channels": 3, "output_channels": 3, "scale": 1, "supports_bfloat16": True}
    return Descriptor(architecture=support.architecture, model=Net(shift), **facts | support.facts)


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("spandrel")
    known = [
        support("GFPGAN"),
        support("RestoreFormer"),
        support("Future", supports_bfloat16=False),
    ]
    known += [
        support("ESRGAN", "SR", scale=4),
        support("SCUNet", "Restoration"),
        support("Grey", input_channels=1),
    ]
    vars(module).update(MAIN_REGISTRY=Registry(*known), UnsupportedModelError=Unsupported)
    monkeypatch.setitem(sys.modules, "spandrel", module)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    return module


@pytest.fixture
def extra(spandrel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("spandrel_extra_arches")
    vars(module).update(EXTRA_REGISTRY=Registry(support("CodeFormer"), support("GFPGAN")))
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", module)


def saved(path: Path, name: str, shift: list[float] | None = None) -> Path:
    tensors = {f"shift.{name}": torch.tensor([0.5] if shift is None else shift)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:  # as BasicSR saves: the last weights, and their average, which is what is wanted
        torch.save(
            {"params": {key: tensor * 0 for key, tensor in tensors.items()}, "params_ema": tensors},
            path,
        )
    return path


def net_of(restorer: Restorer) -> Net:
    (net,) = (
        cell.cell_contents
        for cell in restorer.network.__closure__
        if isinstance(cell.cell_contents, Net)
    )
    return net


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_three_known_ones_get_faces_from_minus_1_to_1(
    spandrel: ModuleType, extra: None, tmp_path: Path, suffix
) -> None:
    faces = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for name in ("GFPGAN", "RestoreFormer", "CodeFormer"):
        how = load_restorer(
            Restore(saved(tmp_path / f"{name}{suffix}", name), 0.3, "face"), precision="float32"
        )
        torch.testing.assert_close(how(faces), faces + 0.25)
        net = net_of(how)
        torch.testing.assert_close(net.seen, faces * 2 - 1)
        assert net.options.get("randomize_noise", False) is False and (
            "randomize_noise" in net.options
        ) == (name == "GFPGAN")
        assert how.name == name and how.blend == replace(MOUTH, strength=0.3, mask="face")
        assert (
            how.licence
            == f"not stated by the file; of the public weights: {hub.HUB[name.lower()].licence}"
        )
        assert not net.training and not net.shift.requires_grad
    assert len(spandrel.MAIN_REGISTRY.supports) == 6  # the host's own list stays as it is


def test_others_are_called_as_spandrel_calls_them(spandrel: ModuleType, tmp_path: Path) -> None:
    how = load_restorer(Restore(saved(tmp_path / "a.pth", "Future")), precision="bfloat16")
    faces = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(how(faces), faces + 0.5)
    assert how.licence.startswith("not stated by the file") and not how.bfloat16
    assert load_restorer(
        Restore(saved(tmp_path / "b.pth", "GFPGAN")), precision="bfloat16"
    ).bfloat16


def test_a_public_name_is_the_pulled_file_with_its_licence(
    spandrel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="run `lipsync models pull gfpgan`"):
        load_restorer(Restore("gfpgan"))
    path = saved(tmp_path / hub.HUB["gfpgan"].filename, "GFPGAN")
    with pytest.raises(WeightsError, match="has sha256"):
        load_restorer(Restore("gfpgan"))
    monkeypatch.setitem(hub.HUB, "gfpgan", replace(hub.HUB["gfpgan"], sha256=hub.file_sha256(path)))
    assert load_restorer(Restore("gfpgan")).licence == hub.HUB["gfpgan"].licence


def test_codeformer_without_its_package_is_named_with_its_licence(
    spandrel: ModuleType, tmp_path: Path
) -> None:
    tensors = {
        key: torch.zeros(1)
        for key in ("position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight")
    }
    save_file(tensors, tmp_path / "codeformer.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"pip install spandrel_extra_arches\. .*S-Lab License 1\.0: non-commercial",
    ):
        load_restorer(Restore(tmp_path / "codeformer.safetensors"))


@pytest.mark.parametrize(
    ("name", "shift", "match"),
    [
        (
            "ESRGAN",
            None,
            "holds ESRGAN, which enlarges pictures; expected one that restores faces: GFPGAN",
        ),
        ("SCUNet", None, "holds SCUNet, which restores pictures of any kind; expected"),
        (
            "Grey",
            None,
            "holds Grey with 1 channels in, 3 out, 1 times the size; expected RGB in and out",
        ),
        (
            "Unknown",
            None,
            r"holds no network that spandrel knows \(tensors shift\.Unknown \.\.\.\); expected",
        ),
        ("GFPGAN", [1.0, 2.0], r"does not fit the network that spandrel takes it for \(Error"),
        ("GFPGAN", [float("nan")], "shift holds numbers that are not finite"),
    ],
)
def test_what_restores_no_faces_is_refused(
    spandrel: ModuleType, tmp_path: Path, name: str, shift, match: str
) -> None:
    with pytest.raises(WeightsError, match=match):
        load_restorer(Restore(saved(tmp_path / "a.pth", name, shift)))


def test_what_holds_no_weights_is_refused_before_spandrel_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (tmp_path / "page.pth").write_text("<!doctype html>", encoding="utf-8")
    for path, match in (
        (tmp_path / "page.pth", "a web page"),
        (tmp_path / "gone.pth", "does not exist"),
    ):
        with pytest.raises(WeightsError, match=match):
            load_restorer(Restore(path))
    with pytest.raises(
        WeightsError, match=r"no weights are called 'gfpgam'.*gfpgan, restoreformer, codeformer"
    ):
        load_restorer(Restore("gfpgam"))


def test_a_missing_and_a_broken_spandrel_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.pth", "GFPGAN")
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])  # no other way to a package than the path
    with pytest.raises(ImportError, match=r'needs spandrel: pip install "lipsync-core\[restore\]"'):
        load_restorer(Restore(path))
    code = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (tmp_path / "spandrel.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(
        ImportError,
        match=r"does not import here \(operator torchvision::nms does not exist\); it needs a",
    ):
        load_restorer(Restore(path))


def test_strength_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"strength is 1\.5; expected 0"):
        Restore("gfpgan", 1.5)


def test_a_dub_is_restored_told_of_and_timed(tmp_path: Path) -> None:
    """Everything under the face's mask comes out white; the report names the network and its
    licence."""
    seen: list[int] = []

    def whitening(faces: Tensor) -> Tensor:
        seen.append(len(faces))
        return torch.ones_like(faces)

    how = Restorer(
        whitening,
        "Toy",
        "for play",
        Blend(mask="face", kind="feather", feather=0, detail=0, grain=0),
    )
    report = dub(
        ASTRONAUT,
        tone(tmp_path / "a.wav", 0.3),
        tmp_path / "out.mp4",
        finding=FRESH,
        restore=how,
        batch=3,
    )
    assert report.frames == sum(seen) == 8 and max(seen) == 3
    assert (
        report.restorer == "Toy; licence: for play"
        and "restore" in report.seconds
        and not report.warnings
    )
    assert '"restorer": "Toy; licence: for play"' in report.to_json()
    assert float(pixels(report.out)[:, 100:160, 205:240].float().mean()) > 245
    plain = dub(ASTRONAUT, tmp_path / "a.wav", tmp_path / "plain.mp4", finding=FRESH)
    assert plain.restorer is None and "restore" not in plain.seconds


def test_a_face_larger_than_the_network_draws_is_warned_of(tmp_path: Path) -> None:
    with Image.open(ASTRONAUT) as photo:
        photo.crop((96, 0, 352, 256)).resize((1536, 1536)).save(tmp_path / "large.png")
    same = Restorer(lambda faces: faces, "Toy", "for play")
    speech, finding = tone(tmp_path / "a.wav", 0.06), FRESH
    report = dub(
        tmp_path / "large.png", speech, tmp_path / "out.mp4", finding=finding, restore=same
    )
    (warning,) = report.warnings
    assert re.match(r"a face is 1\.\d times as large as Toy draws it", warning)


def test_the_command_line_restores(spandrel: ModuleType, tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", "GFPGAN", [2.0])
    command = [
        "dub",
        str(ASTRONAUT),
        str(tone(tmp_path / "a.wav", 0.2)),
        "--out",
        str(tmp_path / "o.mp4"),
        "--no-cache",
    ]
    restore = ["--restore", str(path), "--restore-strength", "1", "--restore-mask", "face"]
    done = CliRunner().invoke(app, [*command, *restore])
    assert done.exit_code == 0, done.output
    assert "restored by" in done.output and "GFPGAN" in done.output and "Apache-2.0" in done.output
    assert float(pixels(tmp_path / "o.mp4")[:, 110:150, 210:235].float().mean()) > 245
    done = CliRunner().invoke(app, [*command, "--overwrite", "--restore", "gfpgam"])
    assert done.exit_code != 0


def test_a_dub_that_spares_what_lies_before_a_face_has_its_restorer_spare_it() -> None:
    own = Restorer(lambda faces: faces, "a toy", "ours")
    assert restorer_for(None, Blend(occlusion="compare")) is None
    assert restorer_for(own, Blend()) is own and own.blend.occlusion == "ignore"
    sparing = restorer_for(own, Blend(occlusion="compare", mask="box"))
    assert sparing is not None and sparing.blend == replace(MOUTH, occlusion="compare")
