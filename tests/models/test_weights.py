"""Our weight files: what goes in comes out, every broken kind is refused in words, public files
become ours."""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import golden
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lipsync_core.errors import WeightsError
from lipsync_core.image.affine import Framing
from lipsync_core.models import hub, weights
from lipsync_core.models.baselines.lipgan import LIPGAN, LIPGAN_BASIC
from lipsync_core.models.layers import Stage
from lipsync_core.models.quality_discriminator import (
    QualityDiscriminator,
    QualityDiscriminatorConfig,
)
from lipsync_core.models.registry import MODELS
from lipsync_core.models.wav2lip import LARGER, MINI, WAV2LIP, Generator
from lipsync_core.models.wav2lip_hd import WAV2LIP_288_PRELU, WAV2LIP_384, WAV2LIP_384_SAM

SMALL = QualityDiscriminatorConfig(
    blocks=((Stage(4, 7, padding=3),), (Stage(4, stride=(1, 2)), Stage(6))), size=16, slope=0.125
)
FACTS: dict[str, Any] = {"licence": "Apache-2.0", "source": "a test"}


def small() -> nn.Module:
    return golden.build(QualityDiscriminator, SMALL)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    weights.save_model(small(), path, **FACTS)
    return path


def test_what_is_saved_is_loaded(ours: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = weights.load_model(ours)
    # loading draws no random numbers of the caller's
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training and model.config == SMALL
    wanted = small().state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
    assert [path.name for path in ours.parent.iterdir()] == [ours.name]  # no temporary file stays


def test_the_header_is_json_of_exactly_these_fields(tmp_path: Path) -> None:
    path = tmp_path / "mini.safetensors"
    weights.save_model(Generator(MINI), path, **FACTS, origin_sha256="ab" * 32, dtype=torch.float16)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    fields = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["lipsync"])
    assert list(fields) == ["kind", "config", "framing", "licence", "source", "sha256"]
    assert fields["kind"] == "generator" and fields["framing"]["kind"] == MINI.framing.kind
    assert "framing" not in fields["config"]
    assert weights.read_header(path) == weights.Header(
        "generator", MINI, "Apache-2.0", "a test", "ab" * 32
    )


def test_half_on_disk_and_any_type_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    weights.save_model(small(), path, **FACTS, dtype=torch.float16)
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    assert {value.dtype for value in weights.load_model(path).state_dict().values()} == {
        torch.float32
    }
    model = weights.load_model(path, dtype=torch.bfloat16)
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_config_survives_its_header(kind: str) -> None:
    presets = {
        "generator": [WAV2LIP, MINI, *LARGER.values()],
        **{key: [config] for key, config in weights.PUBLIC.items() if key != "generator"},
        "lipgan": [LIPGAN, LIPGAN_BASIC],
        "large_generator": [WAV2LIP_288_PRELU, WAV2LIP_384, WAV2LIP_384_SAM],
    }
    for config in presets.get(kind) or [MODELS[kind][0]()]:
        header = weights.Header(kind, config, "x", "y", None)
        assert weights.header_from_json(header.to_json()) == header


def test_a_file_without_a_setting_that_came_later_opens() -> None:
    header = weights.Header("speech_lips", MODELS["speech_lips"][0](), "x", "y", None)
    fields = json.loads(header.to_json())
    assert fields["config"]["features"].pop("relative") == 0
    assert weights.header_from_json(json.dumps(fields)).config.features.relative == 0
    del fields["config"]["features"]["hop"]
    with pytest.raises(ValueError, match="hop"):
        weights.header_from_json(json.dumps(fields))


def test_public_weights_declare_their_framing() -> None:
    # REFERENCE: inference pads of the public code, top bottom left right
    wanted = Framing("box", pads=(0, 10, 0, 0))
    assert weights.PUBLIC["generator"].framing == wanted == weights.PUBLIC["sync_expert"].framing


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the header's JSON: ``change`` alters its fields or returns another text."""
    header = json.loads(weights.Header("quality_discriminator", SMALL, "x", "y", None).to_json())
    changed = change(header)
    save_file(
        load_file(path),
        path,
        {"lipsync": changed if isinstance(changed, str) else json.dumps(header)},
    )


BROKEN_HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no JSON": (lambda _: "{", "does not read"),
    "no object": (lambda _: "[1, 2]", "expected exactly the fields config, framing"),
    "deep": (lambda _: "[" * 100_000, "does not read"),
    "no licence": (lambda h: h.__delitem__("licence"), "expected exactly the fields"),
    "more fields": (lambda h: h.update(epoch=3), "expected exactly the fields"),
    "unknown kind": (
        lambda h: h.update(kind="transformer"),
        "kind 'transformer'; known: generator, sync_expert",
    ),
    "kind of a list": (lambda h: h.update(kind=["generator"]), r"kind is \[.generator.\]"),
    "another kind": (lambda h: h.update(kind="sync_expert"), "config has .*expected"),
    "config of a list": (lambda h: h.update(config=[1]), "expected exactly the fields"),
    "no slope": (
        lambda h: h["config"].__delitem__("slope"),
        "config has .*'size'.*; expected .*'slope'",
    ),
    "more config": (lambda h: h["config"].update(dim=512), "config has .*'dim'"),
    "size of text": (lambda h: h["config"].update(size="16"), r'config\.size is "16"; expected'),
    "size of a float": (lambda h: h["config"].update(size=16.0), r"config\.size is 16\.0"),
    "size of a bool": (lambda h: h["config"].update(size=True), r"config\.size is true"),
    "slope of a bool": (lambda h: h["config"].update(slope=True), r"config\.slope is true"),
    "slope of infinity": (
        lambda h: h["config"].update(slope=float("inf")),
        r"config\.slope is Infinity",
    ),
    "stride of one": (
        lambda h: h["config"]["blocks"][1][0].update(stride=[1]),
        r"config\.blocks\[1\]\[0\]\.stride is",
    ),
    "a stage less": (
        lambda h: h["config"]["blocks"][0][0].pop("kernel"),
        r"config\.blocks\[0\]\[0\] has",
    ),
    "a framing too many": (lambda h: h.update(framing={"kind": "box"}), "a framing, which"),
    "sha256 of a number": (lambda h: h.update(sha256=3), "sha256 is 3"),
    "no layers": (lambda h: h["config"].update(blocks=[]), "does not fit QualityDiscriminator"),
    "negative channels": (
        lambda h: h["config"]["blocks"][0][0].update(channels=-1),
        "builds no QualityDiscriminator",
    ),
    "terabytes": (
        lambda h: h["config"]["blocks"][0][0].update(channels=1 << 34),
        "has shape .*; expected",
    ),
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
def test_a_broken_header_is_refused(ours: Path, name: str) -> None:
    change, message = BROKEN_HEADERS[name]
    with_header(ours, change)
    with pytest.raises(WeightsError, match=message) as caught:
        weights.load_model(ours)
    assert str(ours) in str(caught.value)


FIRST = "face_encoder_blocks.0.0.conv_block.0.weight"
BROKEN_TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda t: t.pop(FIRST),
        rf"does not fit QualityDiscriminator: 1 tensors missing \({FIRST}\), 0 unknown",
    ),
    "extra": (
        lambda t: t.update(more=torch.zeros(1)),
        r"0 tensors missing \(\), 1 unknown \(more\)",
    ),
    "shape": (
        lambda t: t.update({FIRST: t[FIRST][:, :, :5]}),
        r"has shape \(4, 3, 5, 7\); expected \(4, 3, 7, 7\)",
    ),
    "whole numbers": (
        lambda t: t.update({FIRST: t[FIRST].to(torch.int8)}),
        "is torch.int8; expected torch.float32",
    ),
    "NaN": (
        lambda t: t.update({FIRST: t[FIRST] * float("nan")}),
        f"{FIRST} holds numbers that are not finite",
    ),
    "infinite": (
        lambda t: t.update({FIRST: t[FIRST] / 0}),
        f"{FIRST} holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", BROKEN_TENSORS)
def test_broken_tensors_are_refused(ours: Path, name: str) -> None:
    change, message = BROKEN_TENSORS[name]
    tensors = load_file(ours)
    change(tensors)
    header = weights.read_header(ours)
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        ours,
        {"lipsync": header.to_json()},
    )
    with pytest.raises(WeightsError, match=message):
        weights.load_model(ours)


@pytest.mark.parametrize("keep", [0, 4, 8, 50, 2000, -1])
def test_a_truncated_file_is_refused(ours: Path, keep: int) -> None:
    ours.write_bytes(ours.read_bytes()[:keep])
    with pytest.raises(
        WeightsError, match=r"empty|no known kind|truncated|does not read|text beginning"
    ):
        weights.load_model(ours)


def test_a_failed_save_leaves_the_old_file(ours: Path) -> None:
    old = ours.read_bytes()
    model = small()
    model.config = dataclasses.replace(SMALL, slope="steep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"config\.slope"):
        weights.save_model(model, ours, **FACTS)
    with pytest.raises(
        ValueError, match="Linear is not a network of this package; known: generator"
    ):
        weights.save_model(nn.Linear(2, 2), ours, **FACTS)
    assert ours.read_bytes() == old and [path.name for path in ours.parent.iterdir()] == [ours.name]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="run `lipsync models pull wav2lip-gan`"):
        weights.load_model("wav2lip-gan")
    with pytest.raises(
        WeightsError,
        match=(
            r"no weights are called 'medium'.*known names: mini, mini-2, judge, face_detector, "
            r"face_landmarks, wav2lip"
        ),
    ):
        weights.load_model("medium")
    with pytest.raises(WeightsError, match=r"medium\.pth does not exist"):
        weights.load_model(tmp_path / "medium.pth")


def checkpoint(kind: str) -> dict[str, Tensor]:
    """A public training checkpoint's weights, as DataParallel names them."""
    with torch.device("meta"):
        shapes = MODELS[kind][1](weights.PUBLIC[kind]).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        f"module.{key}": torch.zeros((), dtype=like.dtype)
        if like.ndim == 0
        else torch.empty(like.shape).uniform_(0.1, 0.2, generator=generator)
        for key, like in shapes.items()
    }


@pytest.mark.parametrize("kind", list(weights.PUBLIC))
def test_public_checkpoints_load_and_convert(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint(kind)
    path, target = tmp_path / "public.pth", tmp_path / "ours.safetensors"
    torch.save({"state_dict": state, "optimizer": {"state": {}}, "global_step": 1}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        hub.HUB,
        "toy",
        hub.HubFile("toy", "toy", (("a/b", "c/public.pth", "main"),), "play", digest),
    )
    header = weights.convert_checkpoint("toy", target)
    assert header == weights.Header(kind, weights.PUBLIC[kind], "play", "a/b/c/public.pth", digest)
    converted = weights.load_model(target, kind=kind).state_dict()
    assert all(
        torch.equal(converted[key.removeprefix("module.")], value) for key, value in state.items()
    )
    other = "sync_expert" if kind == "generator" else "generator"
    with pytest.raises(
        WeightsError, match=rf"holds .*\({kind}\); expected a Wav2Lip .*\({other}\)"
    ):
        weights.load_model(path, kind=other)
    path.unlink()
    target.unlink()  # pytest keeps the folder, and these are large


def test_a_file_of_unknown_origin_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disc.pth"
    torch.save(checkpoint("quality_discriminator"), path)
    header = weights.convert_checkpoint(path, tmp_path / "ours.safetensors")
    assert header.source == "disc.pth" and header.licence.startswith(
        "not stated by the file; of the public weights: res"
    )
    with pytest.raises(WeightsError, match="file of ours already"):
        weights.convert_checkpoint(tmp_path / "ours.safetensors", tmp_path / "again.safetensors")
    path.unlink()
    (tmp_path / "ours.safetensors").unlink()


def test_a_fork_of_another_size_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "disc.pth"
    torch.save(small().state_dict(), path)
    with pytest.raises(
        WeightsError, match=r"does not fit QualityDiscriminator: \d+ tensors missing .*of a fork"
    ):
        weights.load_model(path)


def test_read_header_of_a_foreign_file_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(small().state_dict(), path)
    with pytest.raises(
        WeightsError, match="is a checkpoint without our header; run `lipsync models convert"
    ):
        weights.read_header(path)
