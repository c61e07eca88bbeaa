"""Larger faces: the generator and the expert at 192, 256 and 384 px, and the layouts of public
derivatives."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.golden import build, uniform, weights
from helpers.networks import macs
from helpers.streams import FPS, close, person, pieces, voice, whole
from torch import Tensor, nn

from lipsync_core.errors import WeightsError
from lipsync_core.models import architectures, wav2lip
from lipsync_core.models.layers import Stage, fold_batch_norms
from lipsync_core.models.sync_expert import WAV2LIP_EXPERT, SyncExpert, config_for_size
from lipsync_core.models.wav2lip import WAV2LIP, Generator
from lipsync_core.models.wav2lip_hd import (
    WAV2LIP_288,
    WAV2LIP_288_MIXED,
    WAV2LIP_288_PRELU,
    WAV2LIP_384,
    WAV2LIP_384_SAM,
    LargeGenerator,
    LargeGeneratorConfig,
)
from lipsync_core.models.weights import convert_checkpoint, load_model, load_talking_face
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.training.losses import reconstruction, sync_loss

SIZES = [192, 256, 384]
LAYOUTS = {
    "288 px derivative of Wav2Lip": WAV2LIP_288,
    "288 px derivative of Wav2Lip (PReLU)": WAV2LIP_288_PRELU,
    "288 px derivative of Wav2Lip (PReLU on its way up)": WAV2LIP_288_MIXED,
    "384 px derivative of Wav2Lip": WAV2LIP_384,
    "384 px derivative of Wav2Lip with spatial attention": WAV2LIP_384_SAM,
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("size", "coarse", "wanted", "heard"),
    [(192, 3, 5.07, 1.39), (256, 4, 8.95, 2.40), (384, 3, 6.48, 1.67)],
)
def test_larger_ones_cost_what_is_stated(
    size: int, coarse: int, wanted: float, heard: float
) -> None:
    config = wav2lip.LARGER[size]
    model, face = Generator(config).eval(), torch.rand(1, 3, size, size)
    with torch.inference_mode():
        sides = [feature.shape[2] for feature in model.encode(face, face)]
    assert sides == [*(size >> k for k in range(len(sides) - 1)), 1] and sides[-2] == coarse
    assert macs(model, torch.rand(1, 1, 80, 16), face, face) / 1e9 == pytest.approx(
        wanted, abs=0.01
    )
    expert = SyncExpert(config_for_size(WAV2LIP_EXPERT, size)).eval()
    faces = face.expand(1, 5, -1, -1, -1)
    assert [tuple(x.shape) for x in expert(torch.rand(1, 1, 80, 16), faces)] == [(1, 512)] * 2
    assert macs(expert, torch.rand(1, 1, 80, 16), faces) / 1e9 == pytest.approx(heard, abs=0.01)


def test_larger_ones_hold_the_layers_of_the_classic() -> None:
    """So that its weights can be where training begins."""
    with torch.device("meta"):
        small, large = Generator(WAV2LIP), Generator(wav2lip.LARGER[192])
    both = [(large.face_encoder_blocks[k + 1], small.face_encoder_blocks[k]) for k in range(1, 7)]
    both += [(large.face_decoder_blocks[k], small.face_decoder_blocks[k]) for k in range(7)]
    for mine, theirs in both:
        assert {k: v.shape for k, v in mine.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }


@pytest.mark.parametrize("size", SIZES)
def test_a_training_step_at_that_size(size: int) -> None:
    """Of thin ones: the sizes of the maps are what is asked."""
    torch.manual_seed(0)
    model, expert = (
        Generator(thin(wav2lip.LARGER[size])).train(),
        SyncExpert(thin(config_for_size(WAV2LIP_EXPERT, size))).eval(),
    )
    expert.requires_grad_(False)
    truth, mel = uniform(1, (5, 3, size, size)), uniform(2, (5, 1, 80, 16), -4, 4)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(2):
        made = model(mel, truth, truth)
        sync = sync_loss(*expert(mel[:1], made[None]))
        loss = reconstruction(made, truth) + 0.03 * sync
        optimiser.zero_grad()
        loss.backward()
        assert [
            key
            for key, p in model.named_parameters()
            if p.grad is None or not p.grad.isfinite().all()
        ] == []
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def thin(config, by: int = 32):
    """The same layout with a fraction of the channels."""

    def thinner(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(
            dataclasses.replace(stage, channels=max(2, stage.channels // by)) for stage in stages
        )

    parts = {
        name: thinner(getattr(config, name))
        for name in ("face", "audio", "decoder")
        if hasattr(config, name)
    }
    return dataclasses.replace(config, **parts)


# --- derivatives
# --------------------------------------------------------------------------------------------------


def table(config: LargeGeneratorConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the convolutions' weights, told from the public code's tables and not
    from our modules."""
    deep = config.size == 384
    encoders = {
        288: (
            "16x7 | 32x5 32 | 32 32 32 | 64 64 64 64 | 128 128 128 | 256 256 256 | 512 512 | "
            "512 512x1 | 512 512x1"
        ),
        384: "8x7 | 16 16 16 | 32 32 32 | 64 64 64 64 | 128 128 128 | 256 256 256 | 512 512 512 | 1024 1024 1024 | "
        "1024 1024x1",
    }
    text = encoders[config.size]
    if config.attention:
        blocks = [
            " ".join([f"{c}x7" if c == 16 else str(c)] + [str(c)] * 3)
            for c in (16, 32, 64, 128, 256, 512, 1024)
        ]
        text = " | ".join([*blocks, "1024 1024x1 1024x1"])
    widths: list[int] = []
    cin = 6
    for b, block in enumerate(text.split(" | ")):
        for n, layer in enumerate(block.split()):
            cout, _, kernel = layer.partition("x")
            k = int(kernel or 3)
            yield f"face_encoder_blocks.{b}.{n}.conv_block.0.weight", (int(cout), cin, k, k)
            cin = int(cout)
        widths.append(cin)
    audio = (
        [32] * 3
        + [64] * 3
        + [128] * 3
        + ([256] * 3 + [512] * 3 + [1024] * 2 if deep else [256] * 2 + [512] * 2)
    )
    cin = 1
    for n, cout in enumerate(audio):
        k = 1 if n == len(audio) - 1 else 3
        yield f"audio_encoder.{n}.conv_block.0.weight", (cout, cin, k, k)
        cin = cout
    if deep:
        yield from ((f"audio_refine.{n}.conv_block.0.weight", (1024, 1024, 1, 1)) for n in range(2))
    if config.attention:
        yield "sam.sa.conv1.weight", (1, 2, 7, 7)
    ups = (
        [1024, 1024, 1024, 768, 512, 256, 128, 64]
        if deep
        else [512, 512, 512, 512, 384, 256, 128, 64, 64]
    )
    ups += [32] if deep and not config.attention else []
    for b, cout in enumerate(ups):
        shape = (cout, cin, 1, 1) if b == 0 else (cin, cout, 3, 3)
        yield f"face_decoder_blocks.{b}.0.conv_block.0.weight", shape
        for n in range(1, 1 + min(b, 2)):
            yield f"face_decoder_blocks.{b}.{n}.conv_block.0.weight", (cout, cout, 3, 3)
        cin = cout + widths.pop()
    head = 16 if deep and not config.attention else 32
    yield "output_block.0.conv_block.0.weight", (head, cin, 3, 3)
    yield "output_block.1.weight", (3, head, 1, 1)


@pytest.mark.parametrize("title", LAYOUTS)
def test_names_and_shapes_are_those_of_the_public_code(title: str) -> None:
    config = LAYOUTS[title]
    with torch.device("meta"):
        state = LargeGenerator(config).state_dict()
    got = {key: tuple(value.shape) for key, value in state.items() if value.ndim == 4}
    assert got == dict(table(config))
    slopes = [key.removesuffix(".act.weight") for key in state if key.endswith(".act.weight")]
    layers = [
        key.removesuffix(".conv_block.0.weight")
        for key in state
        if key.endswith(".conv_block.0.weight")
    ]
    ups = [
        layer
        for layer in layers
        if layer.startswith("face_decoder_blocks.") and layer.endswith(".0")
    ][1:]
    assert (
        slopes
        == {"prelu": layers, "relu": ups if config.act_up == "prelu" else [], "leaky": []}[
            config.act
        ]
    )


@pytest.mark.parametrize(
    ("config", "millions", "gmacs"),
    [(WAV2LIP_288, 48.52, 18.47), (WAV2LIP_384, 159.1, 23.5), (WAV2LIP_384_SAM, 172.7, 80.7)],
)
def test_the_derivatives_cost_what_is_stated(
    config: LargeGeneratorConfig, millions: float, gmacs: float
) -> None:
    """Those of 288 px are the figures of the public code itself."""
    with torch.device("meta"):
        model, face = LargeGenerator(config).eval(), torch.rand(1, 3, config.size, config.size)
        assert parameters(model) / 1e6 == pytest.approx(millions, rel=1e-3)
        assert macs(model, torch.rand(1, 1, 80, 16), face, face) / 1e9 == pytest.approx(
            gmacs, rel=2e-3
        )


@pytest.mark.parametrize("title", LAYOUTS)
def test_they_are_recognised_by_their_layers_and_read(
    title: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LAYOUTS[title]
    slim = thin(config)
    # a fiftieth of the bytes, the same names
    known = [
        dataclasses.replace(n, config=slim) if n.config == config else n
        for n in architectures.NETWORKS
    ]
    monkeypatch.setattr(architectures, "NETWORKS", tuple(known))
    state = weights(LargeGenerator(slim).state_dict())
    path, ours = tmp_path / "checkpoint.pth", tmp_path / "ours.safetensors"
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "global_step": 1},
        path,
    )
    with caplog.at_level(logging.WARNING, "lipsync.weights"):
        model = load_model(path, kind="large_generator")
    assert (
        f"looks like a {title}: its layers are known from public code, and no real file was ever "
        "tried" in caplog.text
    )
    assert model.config == slim
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    header = convert_checkpoint(path, ours)
    assert header.licence.startswith("not stated by the file")
    again = load_talking_face(ours)
    assert again.config == slim and all(
        torch.equal(v, state[k]) for k, v in again.state_dict().items()
    )
    del state["output_block.1.weight"]
    torch.save(state, path)
    with pytest.raises(
        WeightsError, match=r"does not fit LargeGenerator: 1 tensors missing .*is it of a fork"
    ):
        load_model(path)


@torch.inference_mode()
@pytest.mark.parametrize("title", LAYOUTS)
def test_they_draw_the_same_folded_and_the_mouth_is_never_seen(title: str) -> None:
    config = thin(LAYOUTS[title])
    model = build(LargeGenerator, config).double()
    size, margin = config.size, config.margin
    target, reference = (
        uniform(2, (1, 3, size, size)).double(),
        uniform(3, (1, 3, size, size)).double(),
    )
    mel = uniform(1, (2, 1, 80, 16), -4, 4).double()
    made = model.decode(mel, model.encode(target, reference), target, reference)
    assert made.shape == (2, 3, size, size) and made.min() >= 0 and made.max() <= 1
    assert not torch.equal(made[0], made[1])  # the output depends on the audio
    other = target.clone()
    other[:, :, size // 2 : size - margin, margin : size - margin] = 0.5
    alone = model(mel[:1], other, reference)
    torch.testing.assert_close(alone, made[:1], atol=1e-6, rtol=0)
    fold_batch_norms(model)
    torch.testing.assert_close(model(mel[:1], target, reference), alone, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_activations_are_those_that_are_named() -> None:
    below = torch.full((1, 2, 1, 1), -1.0)
    for act, wanted in (("relu", 0.0), ("leaky", -0.2), ("prelu", -0.25)):
        model = LargeGenerator(dataclasses.replace(thin(WAV2LIP_288), act=act, act_up=act))
        assert model.face_encoder_blocks[0][0].activate(
            below.clone()
        ).mean().item() == pytest.approx(wanted)
        assert model.face_decoder_blocks[1][0].activate(
            below.clone()
        ).mean().item() == pytest.approx(wanted)
        tail = 0.0 if act == "leaky" else wanted
        assert model.audio_encoder[-1].activate(below.clone()).mean().item() == pytest.approx(tail)


def test_they_stream(clip: Tensor) -> None:
    model = build(LargeGenerator, thin(WAV2LIP_384_SAM))
    sync = LipSync(model, precision="float32")
    streams = [
        whole(sync.stream(pieces(clip[:6], n), voice(1), fps=FPS, tracks=[person(20, count=6)]))
        for n in (6, 1, 4)
    ]
    close(streams[0], streams[1])
    close(streams[0], streams[2])
    assert not torch.equal(streams[0], clip[:6])
