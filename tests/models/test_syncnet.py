"""SyncNet against numbers of the public reference (tests/reference/syncnet_S.npz, mfcc.npz), and
what it is read from."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, recipe
from torch import Tensor
from torch.nn import functional as F

from lipsync_core.audio.features import mfcc, mfcc_filters, mfcc_length
from lipsync_core.errors import WeightsError
from lipsync_core.image.affine import crop_to_frame
from lipsync_core.metrics.sync_embedder import SyncNetScorer, embed_lips
from lipsync_core.models import weights
from lipsync_core.models.layers import fold_batch_norms
from lipsync_core.models.s3fd import SYNCNET_S3FD
from lipsync_core.models.syncnet import SyncNet, SyncNetConfig
from lipsync_core.types import Audio

KEYS = json.loads((REFERENCE / "state_dict_keys.json").read_text(encoding="utf-8"))
CEPSTRA = np.load(REFERENCE / "mfcc.npz")
SMALL = SyncNetConfig(lip=(2, 2, 2, 2, 2, 4), audio=(2, 2, 2, 2, 2, 4), hidden=4, embedding=8)


@pytest.fixture(scope="module")
def model() -> SyncNet:
    return build(SyncNet, SyncNetConfig())  # type: ignore[return-value]


@pytest.fixture(scope="module")
def small() -> SyncNet:
    return build(SyncNet, SMALL)  # type: ignore[return-value]


def lips() -> Tensor:
    """RGB in [0,1] of the BGR bytes that the reference was given."""
    bgr = np.random.RandomState(501).randint(0, 256, (2, 3, 5, 224, 224))
    return torch.from_numpy(bgr).float().flip(1) / 255


def test_names_shapes_and_size_are_the_public_file_s() -> None:
    with torch.device("meta"):
        model = SyncNet(SyncNetConfig())
    state = {
        key: [list(v.shape), str(v.dtype).removeprefix("torch.")]
        for key, v in model.state_dict().items()
    }
    assert state == KEYS["syncnet_S"]["keys"] and len(state) == 102
    assert sum(p.numel() for p in model.parameters()) == 13_631_616


@torch.inference_mode()
def test_embeddings_agree_with_the_reference(model: SyncNet) -> None:
    wanted = np.load(REFERENCE / "syncnet_S.npz")
    heard = np.random.RandomState(502).normal(0, 10, (2, 1, 13, 20)).astype(np.float32)
    video, audio = model.embed_video(lips()), model.embed_audio(torch.from_numpy(heard))
    torch.testing.assert_close(video, torch.from_numpy(wanted["lip"]), atol=1e-3, rtol=0)
    torch.testing.assert_close(audio, torch.from_numpy(wanted["aud"]), atol=1e-3, rtol=0)
    distances = F.pairwise_distance(video, audio)
    torch.testing.assert_close(
        distances, torch.from_numpy(wanted["pairwise"]), atol=1e-3, rtol=1e-6
    )
    features = model.netcnnlip(lips().flip(1).flatten(1, 2) * 255).flatten(1)
    torch.testing.assert_close(features, torch.from_numpy(wanted["lipfeat"]), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_folding_keeps_the_embeddings() -> None:
    model, pictures = build(SyncNet, SyncNetConfig()).double(), lips()[:1].double()
    heard = torch.randn(
        2, 1, 13, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert isinstance(model, SyncNet)
    whole = model.embed_video(pictures), model.embed_audio(heard)
    fold_batch_norms(model.train())
    assert not any("Norm" in type(layer).__name__ for layer in model.modules())
    torch.testing.assert_close(model.embed_video(pictures), whole[0], atol=1e-8, rtol=0)
    torch.testing.assert_close(model.embed_audio(heard), whole[1], atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind"), [("syncnet_S", "syncnet"), ("s3fd_syncnet_python", "s3fd")]
)
def test_public_files_load_by_their_own_names_and_become_ours(
    tmp_path: Path, name: str, kind: str
) -> None:
    state = {
        key: recipe(key, tuple(shape)) if len(shape) < 2 else torch.full(shape, 1e-3)
        for key, (shape, _) in KEYS[name]["keys"].items()
    }
    state["conf.3.weight" if kind == "s3fd" else "netcnnlip.4.weight"].uniform_(-1, 1)
    path, ours = tmp_path / "public.model", tmp_path / "ours.safetensors"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    loaded = weights.load_model(path, kind=kind)
    assert loaded.config == (SYNCNET_S3FD if kind == "s3fd" else SyncNetConfig())
    assert "MIT" in weights.convert_checkpoint(path, ours).licence or kind == "s3fd"
    again = weights.load_model(ours, kind=kind)
    for key in (
        ("conf.3.weight", "fc7_mbox_conf.weight"),
        ("vgg.31.bias", "fc6.bias"),
        ("netcnnlip.4.weight",) * 2,
    ):
        if key[0] in state:
            for model in (loaded, again):
                assert torch.equal(model.state_dict()[key[1]], state[key[0]])
    state.popitem()
    torch.save(state, path)
    with pytest.raises(WeightsError, match="1 tensors missing"):
        weights.load_model(path)
    path.unlink()
    ours.unlink()  # pytest keeps the folder, and these are large


# ---- cepstra


def signals() -> dict[str, np.ndarray]:
    """int16 numbers of the sounds whose cepstra are known (16 kHz)."""
    t = np.arange(24000) / 16000
    tone = 2 * np.pi * np.arange(4000) / 16000
    return {
        "chirp": np.round(0.5 * 32767 * np.sin(2 * np.pi * (100 * t + 0.5 * (6900 / 1.5) * t**2))),
        "noise": np.round(3000 * np.clip(np.random.RandomState(2).standard_normal(16001), -5, 5)),
        "silence": np.zeros(8000),
        "short": np.round(8000 * np.sin(440 * tone[:300])),
        "loud": np.round(32000 * np.sign(np.sin(4000 * tone + 0.1))),
        "speech": np.load(REFERENCE / "mel.npz")["speech_int16"],
    }


def sound(numbers: np.ndarray) -> Audio:
    return Audio(torch.from_numpy((numbers / 32768).astype(np.float32))[None], 16000)


def test_the_filters_are_the_reference_s() -> None:
    torch.testing.assert_close(
        mfcc_filters().float(), torch.from_numpy(CEPSTRA["filterbank"]).float()
    )


@pytest.mark.parametrize("name", ["chirp", "noise", "silence", "short", "loud", "speech"])
def test_cepstra_agree_with_the_reference(name: str) -> None:
    audio = sound(signals()[name])
    got = mfcc(audio)
    assert got.shape[1] == mfcc_length(audio.samples.shape[1])
    torch.testing.assert_close(
        got, torch.from_numpy(CEPSTRA[f"mfcc_{name}"]).float().T, atol=1e-4, rtol=0
    )


def test_samples_are_rounded_to_int16() -> None:
    exact = sound(signals()["speech"])
    off = Audio(exact.samples + 0.4 / 32768, 16000)
    assert torch.equal(mfcc(off), mfcc(exact))


@pytest.mark.parametrize("step", [1, 2, 7, 32])
def test_pieces_equal_the_whole_and_silence_lies_outside(step: int) -> None:
    audio = sound(signals()["speech"])
    whole = mfcc(audio, first=-40, count=240)
    pieces = [
        mfcc(audio, first=first, count=min(step, 200 - first)) for first in range(-40, 200, step)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    inside = mfcc_length(audio.samples.shape[1])
    torch.testing.assert_close(whole[:, 40 : 40 + inside], mfcc(audio), atol=1e-5, rtol=0)
    silence = mfcc(sound(np.zeros(400)))
    outside = torch.cat((whole[:, :37], whole[:, 41 + inside :]), 1)
    torch.testing.assert_close(outside, silence.expand_as(outside), atol=1e-5, rtol=0)


def test_cepstra_of_nothing_and_of_the_wrong_rate() -> None:
    assert mfcc(sound(np.zeros(0))).shape == (13, 1) and mfcc(
        sound(np.zeros(0)), count=0
    ).shape == (13, 0)
    with pytest.raises(ValueError, match=r"1 channels at 44100 Hz; expected mono at 16000 Hz"):
        mfcc(Audio(torch.zeros(1, 100), 44100))


# ---- the scorer of the exact mode


def pictures(count: int) -> Tensor:
    return torch.rand((count, 3, 224, 224), generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [0, 4, 5, 6, 47])
def test_every_window_of_pictures_is_embedded(small: SyncNet, count: int) -> None:
    crops = pictures(count)
    got = SyncNetScorer(copy.deepcopy(small)).embed_video(crops)
    assert got.shape == (max(0, count - 4), 8)
    for i in {0, len(got) - 1} if len(got) else ():
        torch.testing.assert_close(
            got[i], embed_lips(small, crops[i : i + 5])[0], atol=1e-3, rtol=1e-4
        )


@torch.inference_mode()
def test_sound_is_embedded_for_any_frame(small: SyncNet) -> None:
    audio = sound(signals()["speech"])  # 37.5 frames
    scorer = SyncNetScorer(copy.deepcopy(small))
    got = scorer.embed_audio(audio, -6, 60)
    assert got.shape == (60, 8) and scorer.embed_audio(audio, 3, 0).shape == (0, 8)
    cepstra = mfcc(audio)
    for frame in (0, 7, 32):
        wanted = small.embed_audio(cepstra[None, None, :, 4 * frame : 4 * frame + 20])[0]
        torch.testing.assert_close(got[6 + frame], wanted, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(
            scorer.embed_audio(audio, frame, 1)[0], wanted, atol=1e-3, rtol=1e-4
        )
    torch.testing.assert_close(got[0], got[-1], atol=1e-3, rtol=1e-4)  # silence on both sides


def test_the_framing_is_a_square_that_reaches_below_the_face() -> None:
    boxes = torch.tensor([[100.0, 50.0, 200.0, 190.0]])  # 140 high, middle (150, 120)
    (matrix,) = crop_to_frame(boxes, torch.zeros(1, 5, 2), SyncNetScorer.framing, 224)
    corners = matrix @ torch.tensor([[0.0, 0.0, 1.0], [224.0, 224.0, 1.0]]).T
    torch.testing.assert_close(
        corners.T, torch.tensor([[150 - 98.0, 120 - 70.0], [150 + 98.0, 120 + 126.0]])
    )
