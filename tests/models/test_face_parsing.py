"""The face parser against numbers of the public code (tests/reference/face_parsing.npz), and what
it is read from."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, uniform
from helpers.networks import macs
from torch import Tensor, nn

from lipsync_core.errors import WeightsError
from lipsync_core.models import hub, weights
from lipsync_core.models.face_parsing import FaceParsing, FaceParsingConfig
from lipsync_core.models.layers import prepare_for_inference

KEYS = json.loads((REFERENCE / "state_dict_keys.json").read_text(encoding="utf-8"))["face_parsing"]
SMALL = FaceParsingConfig(stages=(4, 8, 8, 12), blocks=(1, 2, 1, 1), width=8, side=64)


@pytest.fixture(scope="module")
def model() -> FaceParsing:
    return build(FaceParsing, FaceParsingConfig())  # type: ignore[return-value]


def test_names_shapes_and_size_are_the_public_file_s(model: FaceParsing) -> None:
    state = {
        key: [list(v.shape), str(v.dtype).removeprefix("torch.")]
        for key, v in model.state_dict().items()
    }
    assert state == KEYS["keys"] and len(state) == 191
    assert sum(p.numel() for p in model.parameters()) == KEYS["params"] == 13_300_416
    # the numbers alone, without names, are a little less than the published file
    size = hub.HUB["face_parsing"].size
    assert (
        size is not None and 0 < size - sum(v.nbytes for v in model.state_dict().values()) < 40_000
    )


@torch.inference_mode()
def test_logits_agree_with_the_public_code(model: FaceParsing) -> None:
    wanted = torch.from_numpy(np.load(REFERENCE / "face_parsing.npz")["logits"])
    pixels = uniform(601, (2, 3, 96, 128))
    torch.testing.assert_close(model(pixels)[:, :, 3::8, 3::8], wanted, atol=1e-4, rtol=0)
    folded = prepare_for_inference(copy.deepcopy(model))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(pixels)[:, :, 3::8, 3::8], wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_training_heads_cost_nothing(model: FaceParsing) -> None:
    assert macs(model, torch.zeros(1, 3, 256, 256)) / 1e9 == pytest.approx(3.347, abs=0.001)


@torch.inference_mode()
@pytest.mark.parametrize("side", [64, 65, 71, 96])
def test_any_side_will_do(side: int) -> None:
    small = build(FaceParsing, SMALL)
    assert small(torch.zeros(1, 3, side, side)).shape == (1, 19, side, side)
    cells = -(-side // 8)
    assert small.cells(torch.zeros(1, 3, side, side)).shape == (1, 19, cells, cells)  # type: ignore[operator]


def test_gradients_reach_what_inference_uses() -> None:
    small = build(FaceParsing, SMALL).train()
    pixels = uniform(3, (2, 3, 64, 64)).requires_grad_()
    small(pixels).square().mean().backward()
    idle = {name.partition(".")[0] for name, p in small.named_parameters() if p.grad is None}
    assert (
        idle == {"conv_out16", "conv_out32"} and pixels.grad is not None and bool(pixels.grad.any())
    )


def public(
    path: Path, model: FaceParsing, changes: Mapping[str, Tensor | None] = MappingProxyType({})
) -> Path:
    """A checkpoint as the public training saves it: the bare state dict, in the older plain
    container."""
    state = {**model.state_dict(), **changes}
    state = {key: value for key, value in state.items() if value is not None}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def test_the_public_file_loads_strictly(tmp_path: Path, model: FaceParsing) -> None:
    path = public(tmp_path / "79999_iter.pth", model)
    loaded = weights.load_model(path, kind="face_parsing")
    assert isinstance(loaded, FaceParsing) and not loaded.training
    assert all(
        torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items()
    )
    with pytest.raises(
        WeightsError, match=r"holds the BiSeNet face parser \(face_parsing\); expected .*\(s3fd\)"
    ):
        weights.load_model(path, kind="s3fd")
    path.unlink()


WRONG: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "a label too few": (
        {"conv_out.conv_out.weight": torch.zeros(18, 256, 1, 1)},
        r"\(18, 256, 1, 1\); expected \(19, 256",
    ),
    "a layer too few": (
        {"cp.resnet.layer4.1.bn2.running_var": None},
        "1 tensors missing .*layer4.1.bn2.running_var",
    ),
    "a layer too many": (
        {"cp.resnet.layer4.2.conv1.weight": torch.zeros(1)},
        "1 unknown .*layer4.2.conv1.weight",
    ),
    "not finite": (
        {"ffm.conv1.weight": torch.full((64, 256, 1, 1), torch.nan)},
        "ffm.conv1.weight holds numbers",
    ),
    "whole numbers": (
        {"ffm.conv1.weight": torch.zeros(64, 256, 1, 1, dtype=torch.int64)},
        "is torch.int64; expected",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_file_is_told(tmp_path: Path, model: FaceParsing, name: str) -> None:
    changes, message = WRONG[name]
    path = public(tmp_path / "x.pth", model, changes)
    with pytest.raises(WeightsError, match=message):
        weights.load_model(path)
    path.unlink()


def test_the_licence_says_what_it_must() -> None:
    licence = hub.HUB["face_parsing"].licence
    assert "non-commercial" in licence and "CelebAMask-HQ" in licence and "MIT" in licence
