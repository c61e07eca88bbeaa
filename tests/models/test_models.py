"""The three networks against numbers of the public reference, and what `mini` promises."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, integers, uniform
from helpers.networks import macs
from torch import Tensor, nn

from lipsync_core.models.inception import Inception, InceptionConfig
from lipsync_core.models.layers import fold_batch_norms
from lipsync_core.models.quality_discriminator import WAV2LIP_DISCRIMINATOR, QualityDiscriminator
from lipsync_core.models.sync_expert import WAV2LIP_EXPERT, SyncExpert
from lipsync_core.models.wav2lip import MINI, WAV2LIP, Generator
from lipsync_core.training.losses import cosine_bce, discriminator_loss, perceptual_loss, sync_loss

KEYS = json.loads((REFERENCE / "state_dict_keys.json").read_text())
PUBLIC = {
    "fid_inception": (Inception, InceptionConfig()),
    "Wav2Lip": (Generator, WAV2LIP),
    "SyncNet_color": (SyncExpert, WAV2LIP_EXPERT),
    "Wav2Lip_disc_qual": (QualityDiscriminator, WAV2LIP_DISCRIMINATOR),
}
BATCH, TIME = 2, 5


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    return build(Generator, WAV2LIP)


@pytest.fixture(scope="module")
def expert() -> nn.Module:
    return build(SyncExpert, WAV2LIP_EXPERT)


@pytest.fixture(scope="module")
def discriminator() -> nn.Module:
    return build(QualityDiscriminator, WAV2LIP_DISCRIMINATOR)


def faces(stacked: Tensor) -> tuple[Tensor, Tensor]:
    """RGB (target, reference) of the reference's (N,6,S,S) BGR stack. What it masks is left in: we
    mask inside."""
    return stacked[:, :3].flip(1), stacked[:, 3:].flip(1)


def time_major(clips: Tensor) -> Tensor:
    """(B,C,T,H,W) -> (T*B,C,H,W), the order in which the reference flattens."""
    return clips.permute(2, 0, 1, 3, 4).flatten(0, 1)


def sequences(frames: Tensor) -> Tensor:
    """(T*B,3,S,S) -> (B,T,3,S,S)."""
    return frames.unflatten(0, (TIME, BATCH)).transpose(0, 1)


def expert_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """mel, RGB faces whose upper half, which the reference does not get, is noise, and labels."""
    lower = uniform(201, (3, 15, 48, 96)).view(3, 5, 3, 48, 96).flip(2)
    upper = uniform(1, (3, 5, 3, 48, 96))
    return (
        uniform(202, (3, 1, 80, 16), -4, 4),
        torch.cat([upper, lower], 3),
        torch.tensor([1.0, 0.0, 1.0]),
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_names_shapes_and_sizes_are_the_public_ones(name: str) -> None:
    network, config = PUBLIC[name]
    with torch.device("meta"):
        model = network(config)
    state = {
        key: [list(v.shape), str(v.dtype).removeprefix("torch.")]
        for key, v in model.state_dict().items()
    }
    assert state == KEYS[name]["keys"]
    assert sum(p.numel() for p in model.parameters()) == KEYS[name]["params"]


@torch.inference_mode()
def test_generator_agrees_with_the_reference(generator: nn.Module) -> None:
    wanted = np.load(REFERENCE / "wav2lip_generator.npz")
    target, reference = faces(uniform(101, (2, 6, 96, 96)))
    features = generator.encode(target, reference)
    for k, feature in enumerate(features):
        mean = torch.from_numpy(wanted[f"act_mean_face_enc{k}"])
        torch.testing.assert_close(feature.mean((2, 3)), mean, atol=2e-5, rtol=2e-5)
    mel = uniform(102, (2, 1, 80, 16), -4, 4)
    made = generator(mel, target, reference).flip(1)
    torch.testing.assert_close(made, torch.from_numpy(wanted["out4d"]), atol=2e-5, rtol=0)
    clips, mels = uniform(103, (2, 6, 5, 96, 96)), uniform(104, (2, 5, 1, 80, 16), -4, 4)
    made = sequences(
        generator(mels.transpose(0, 1).flatten(0, 1), *faces(time_major(clips)))
    ).permute(0, 2, 1, 3, 4)
    made = made.flip(1)  # (B,3,T,S,S) BGR
    torch.testing.assert_close(
        made[..., ::8, ::8], torch.from_numpy(wanted["out5d_sub"]), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(
        made.mean((3, 4)), torch.from_numpy(wanted["out5d_mean"]), atol=2e-5, rtol=0
    )


@torch.inference_mode()
def test_bytes_in_and_bytes_out_agree_with_the_reference(generator: nn.Module) -> None:
    wanted = np.load(REFERENCE / "wav2lip_generator.npz")
    crops = integers(105, (3, 96, 96, 3)).permute(0, 3, 1, 2).flip(1) / 255
    made = generator(uniform(106, (3, 1, 80, 16), -4, 4), crops, crops)
    packed = (made.flip(1).permute(0, 2, 3, 1) * 255).to(torch.uint8)  # the reference truncates
    off = (packed.int() - torch.from_numpy(wanted["pack_out_u8"]).int()).abs()
    assert int(off.max()) <= 1 and int((off > 0).sum()) <= 20  # of 82 944; an independent run had 4


@torch.inference_mode()
def test_expert_agrees_with_the_reference(expert: nn.Module) -> None:
    wanted = np.load(REFERENCE / "syncnet_color.npz")
    mel, video, labels = expert_inputs()
    got = expert(mel, video)
    for embedding, name in zip(got, ("audio_emb", "face_emb"), strict=True):
        torch.testing.assert_close(embedding, torch.from_numpy(wanted[name]), atol=1e-5, rtol=0)
    assert float(cosine_bce(*got, labels)) == pytest.approx(float(wanted["bce"]), abs=1e-5)


@torch.inference_mode()
def test_discriminator_agrees_with_the_reference(discriminator: nn.Module) -> None:
    wanted = np.load(REFERENCE / "wav2lip_disc_qual.npz")
    pictures = time_major(uniform(301, (2, 3, 5, 96, 96))).flip(1)
    verdict = discriminator(pictures)
    torch.testing.assert_close(verdict, torch.from_numpy(wanted["pred"]), atol=1e-5, rtol=0)
    assert float(perceptual_loss(verdict)) == pytest.approx(float(wanted["bce_vs_ones"]), abs=1e-5)
    fake = discriminator_loss(verdict, verdict)["fake"]
    assert float(fake) == pytest.approx(float(wanted["bce_vs_zeros"]), abs=1e-5)


def is_noise(model: nn.Module, key: str) -> bool:
    """Whether ``key`` is the bias of a convolution whose batch norm takes the mean away again."""
    if not key.endswith("conv_block.0.bias"):
        return False
    return isinstance(model.get_submodule(key.removesuffix(".0.bias"))[-1], nn.BatchNorm2d)


def check_norms(model: nn.Module, wanted: dict[str, float], rel: float = 1e-3) -> None:
    """The gradients of every parameter of ``model`` have these norms."""
    got = {key: p.grad for key, p in model.named_parameters()}
    assert list(got) == list(wanted)
    for key, norm in wanted.items():
        grad = got[key]
        assert grad is not None
        if not is_noise(model, key):
            assert float(grad.norm()) == pytest.approx(norm, rel=rel), key


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_training_step_agrees_with_the_reference(
    generator: nn.Module, expert: nn.Module, discriminator: nn.Module, mode: str
) -> None:
    """The paper's step with weights .03, .07, .90; the expert's batch norms in both modes (the
    public code has train).

    The generator's gradients are ill-conditioned: over a batch of two, train-mode batch norms of
    1x1 maps leave little but signs. Against a float64 run, the reference itself is off by 1.4e-4 in
    the sync loss and by up to 27 % in gradient norms with the expert in train mode, by 0.8 % in
    eval mode; the two float32 runs differed by 4 % and 0.1 % on a CPU with AVX-512, by 53 % and 2 %
    on one with AVX2. The modes lie apart by factors of 500, which is what the loose bound of the
    first tells.
    """
    rel = {"train": 0.6, "eval": 0.03}[mode]
    generator, expert, judge = (
        copy.deepcopy(m).train() for m in (generator, expert, discriminator)
    )
    expert.train(mode == "train").requires_grad_(False)
    wanted = json.loads((REFERENCE / "train_step.json").read_text())[f"expert_{mode}_mode"]
    target, reference = faces(time_major(uniform(401, (2, 6, 5, 96, 96))))
    truth = time_major(uniform(402, (2, 3, 5, 96, 96))).flip(1)
    mels = uniform(403, (2, 5, 1, 80, 16), -4, 4).transpose(0, 1).flatten(0, 1)
    made = generator(mels, target, reference)
    terms = {
        "sync": sync_loss(*expert(uniform(404, (2, 1, 80, 16), -4, 4), sequences(made))),
        "perceptual": perceptual_loss(judge(made)),
        "l1": (made - truth).abs().mean(),
    }
    terms["total"] = 0.03 * terms["sync"] + 0.07 * terms["perceptual"] + 0.9 * terms["l1"]
    terms["total"].backward()
    judge.zero_grad()
    verdicts = discriminator_loss(judge(truth), judge(made.detach()))
    (verdicts["real"] + verdicts["fake"]).backward()
    terms |= {f"disc_{name}": value for name, value in verdicts.items()}
    for name, value in terms.items():
        rounding = 3e-4 if mode == "train" and name in ("sync", "total") else 1e-5
        assert value.item() == pytest.approx(wanted["losses"][name], abs=rounding), name
    check_norms(generator, wanted["gen_grad_norm"], rel)
    check_norms(judge, wanted["disc_grad_norm"])
    check_arrays(generator, mode, rel)


def check_arrays(generator: nn.Module, mode: str, rel: float) -> None:
    """Some whole gradients, and the batch norms' running statistics."""
    arrays = np.load(REFERENCE / "train_step.npz")
    grads = {f"{mode[0].upper()}_{key}": p.grad for key, p in generator.named_parameters()}
    buffers = {f"bn_{key}": b for key, b in generator.named_buffers()}
    for name in arrays.files:
        got, wanted = (grads | buffers).get(name), torch.from_numpy(arrays[name])
        if got is not None and not is_noise(generator, name[2:]):
            bound = rel if name in grads else 1e-4
            torch.testing.assert_close(got, wanted, rtol=0, atol=bound * float(wanted.abs().max()))


def test_an_expert_s_training_step_agrees_with_the_reference(expert: nn.Module) -> None:
    expert = copy.deepcopy(expert).train()
    wanted = json.loads((REFERENCE / "expert_train_step.json").read_text())
    mel, video, labels = expert_inputs()
    audio, lips = expert(mel, video)
    torch.testing.assert_close(
        (audio * lips).sum(1), torch.tensor(wanted["cos"]), atol=1e-5, rtol=0
    )
    loss = cosine_bce(audio, lips, labels)
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss"], abs=1e-5)
    check_norms(expert, wanted["grad_norm"])


def sample(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """mel, target, reference."""
    return uniform(1, (n, 1, 80, 16), -4, 4), uniform(2, (n, 3, 96, 96)), uniform(3, (n, 3, 96, 96))


@torch.inference_mode()
@pytest.mark.parametrize("config", [WAV2LIP, MINI, dataclasses.replace(MINI, output="paint")])
def test_folding_keeps_the_output(config) -> None:
    # in float64: recipe weights swell rounding, and what is asked is whether the numbers are the
    # same
    model, inputs = build(Generator, config).double(), [x.double() for x in sample(2)]
    whole = model(*inputs)
    fold_batch_norms(model.train())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    torch.testing.assert_close(model(*inputs), whole, atol=1e-6, rtol=0)


def test_mini_is_small(generator: nn.Module) -> None:
    """The yardstick: the public generator's 3.967 GMAC."""
    assert macs(generator, *sample(1)) / 1e9 == pytest.approx(3.967, abs=0.1)
    mini = build(Generator, MINI)
    assert macs(mini, *sample(1)) < 0.35e9
    assert sum(v.numel() * 2 for v in mini.state_dict().values()) < 12e6  # bytes in float16


@torch.inference_mode()
def test_mini_leaves_the_upper_half_alone() -> None:
    mel, target, reference = sample(2)
    made = build(Generator, MINI)(mel, target, reference)
    assert made.shape == target.shape and torch.equal(made[:, :, :48], target[:, :, :48])
    assert bool((made >= 0).all()) and bool((made <= 1).all())


@torch.inference_mode()
@pytest.mark.parametrize("config", [WAV2LIP, MINI])
def test_the_lower_half_of_the_target_is_never_seen(config) -> None:
    model = build(Generator, config)
    mel, target, reference = sample(2)
    other = target.clone()
    other[:, :, 48:] = 0.5
    assert torch.equal(model(mel, target, reference), model(mel, other, reference))


@torch.inference_mode()
@pytest.mark.parametrize("config", [WAV2LIP, MINI])
def test_a_face_encoded_once_speaks_as_if_encoded_every_time(config) -> None:
    model = build(Generator, config).double()
    mel, target, reference = (x.double() for x in sample(3))
    target, reference = target[:1], reference[:1]
    made = model.decode(mel, model.encode(target, reference), target, reference)
    wanted = model(mel, target.expand(3, -1, -1, -1), reference.expand(3, -1, -1, -1))
    torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("output", ["flow", "paint"])
def test_gradients_reach_every_parameter_and_the_sound(output) -> None:
    model = build(Generator, dataclasses.replace(MINI, output=output)).train()
    mel, target, reference = sample(2)
    mel.requires_grad_(True)
    (model(mel, target, reference) - target).square().mean().backward()
    grads = {"mel": mel.grad, **{key: p.grad for key, p in model.named_parameters()}}
    assert [
        key for key, grad in grads.items() if grad is None or not bool(grad.isfinite().all())
    ] == []
    assert mel.grad is not None and float(mel.grad.abs().max()) > 0
