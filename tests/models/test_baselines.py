"""The baselines LipGAN and Speech2Vid: their shapes against their tables, their sound, and that
they dub like any other."""

import dataclasses
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.benchmarks import speaking
from helpers.dubs import ASTRONAUT, FRESH, tone
from helpers.golden import build, uniform
from helpers.networks import macs
from helpers.streams import COUNT, FPS, close, opacities, person, pieces, voice, whole
from torch import Tensor, nn
from typer.testing import CliRunner

from lipsync_core import dub
from lipsync_core.audio.features import CepstrumFeatures
from lipsync_core.cli.main import app
from lipsync_core.errors import WeightsError
from lipsync_core.evaluation.benchmark import Benchmark
from lipsync_core.evaluation.pairs import Pair
from lipsync_core.models.baselines.lipgan import (
    LIPGAN,
    LIPGAN_BASIC,
    LipGAN,
    LipGANConfig,
    LipGANStage,
)
from lipsync_core.models.baselines.lipgan_discriminator import (
    LipGANDiscriminator,
    LipGANDiscriminatorConfig,
)
from lipsync_core.models.baselines.speech2vid import SPEECH2VID, Speech2Vid, Speech2VidConfig
from lipsync_core.models.generator import TalkingFace, flip_channels
from lipsync_core.models.layers import SameConv, SameUpConv, fold_batch_norms, pool_same
from lipsync_core.models.weights import TALKING_FACES, load_model, load_talking_face, save_model
from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.roles import FaceDub, GeneratorCache
from lipsync_core.runtime.jobs import run_jobs
from lipsync_core.training.losses import margin_loss, reconstruction
from lipsync_core.types import Audio, FaceTrack, Frames


def thinner(stages: tuple[LipGANStage, ...]) -> tuple[LipGANStage, ...]:
    return tuple(dataclasses.replace(stage, channels=stage.channels // 16) for stage in stages)


def thin_lipgan(config: LipGANConfig = LIPGAN) -> LipGANConfig:
    return dataclasses.replace(
        config,
        face=thinner(config.face),
        audio=thinner(config.audio),
        decoder=thinner(config.decoder),
        finish=8,
    )


THIN_SPEECH2VID = Speech2VidConfig(
    (8, 8, 16, 16, 16), (12, 16, 16, 16, 16), 32, 16, decoder=(16, 16, 12, 12, 8), references=5
)
THIN: dict[str, tuple[type[TalkingFace], Any]] = {
    "lipgan": (LipGAN, thin_lipgan()),
    "speech2vid": (Speech2Vid, THIN_SPEECH2VID),
}


def talking(name: str, **changes: Any) -> TalkingFace:
    network, config = THIN[name]
    model = build(network, dataclasses.replace(config, **changes))
    assert isinstance(model, TalkingFace)
    return model


# --- shapes and sizes: the tables of the public code, told once more as numbers
# -------------------------------------


def conv(cin: int, cout: int, height: int, width: int | None = None) -> int:
    """Parameters of a convolution with bias and of its batch norm."""
    return cin * cout * height * (width or height) + 3 * cout


def pairs(channels: int, count: int) -> int:
    return 2 * count * conv(channels, channels, 3)


def lipgan_parameters() -> int:
    face = (
        conv(6, 32, 7)
        + conv(32, 64, 5)
        + pairs(64, 2)
        + conv(64, 128, 3)
        + pairs(128, 3)
        + conv(128, 256, 3)
    )
    face += (
        pairs(256, 2)
        + conv(256, 512, 3)
        + pairs(512, 2)
        + 2 * conv(512, 512, 3)
        + conv(512, 512, 1)
    )
    audio = (
        conv(1, 128, 3)
        + pairs(128, 3)
        + conv(128, 256, 3)
        + pairs(256, 2)
        + conv(256, 512, 3)
        + pairs(512, 2)
    )
    audio += conv(512, 512, 3) + pairs(512, 1) + conv(512, 512, 4, 5) + conv(512, 512, 1)
    ups = (
        conv(1024, 512, 3) + conv(1024, 512, 3) + pairs(512, 2) + conv(1024, 256, 3) + pairs(256, 2)
    )
    ups += conv(512, 128, 3) + pairs(128, 2) + conv(256, 64, 3) + pairs(64, 2) + conv(128, 32, 3)
    return face + audio + ups + conv(64, 16, 3) + conv(16, 16, 3) + 16 * 3 + 3


def speech2vid_parameters() -> int:
    audio = (
        conv(1, 64, 3)
        + conv(64, 128, 3)
        + conv(128, 256, 3)
        + conv(256, 256, 3)
        + conv(256, 512, 3)
    )
    face = conv(6, 96, 7) + conv(96, 256, 5) + conv(256, 512, 3) + 2 * conv(512, 512, 3)
    dense = (512 * 6 * 9 + 1) * 512 + (512 * 7 * 7 + 1) * 512 + 2 * 513 * 256 + 513 * 98
    ups = (
        conv(2, 512, 6) + conv(512, 256, 5) + conv(512, 96, 5) + conv(352, 96, 5) + conv(192, 64, 5)
    )
    return audio + face + dense + ups + 64 * 3 * 25 + 3


def discriminator_parameters() -> int:
    face = (
        conv(3, 64, 7)
        + conv(64, 128, 5)
        + conv(128, 256, 3)
        + conv(256, 512, 3)
        + conv(512, 512, 3)
    )
    audio = (
        conv(1, 64, 3)
        + conv(64, 128, 3)
        + conv(128, 256, 3)
        + 2 * conv(256, 256, 3)
        + conv(256, 512, 3)
    )
    return face + audio + 512 * 512 * 9 + 512 + 512 * 512 * 20 + 512


@pytest.mark.parametrize(
    ("network", "config", "parameters", "gmacs"),
    [
        (LipGAN, LIPGAN, lipgan_parameters(), 5.55),
        (Speech2Vid, SPEECH2VID, speech2vid_parameters(), 1.62),
        (LipGANDiscriminator, LipGANDiscriminatorConfig(), discriminator_parameters(), None),
    ],
)
def test_parameters_are_those_of_the_tables(
    network: type[nn.Module], config: Any, parameters: int, gmacs: float | None
) -> None:
    with torch.device("meta"):
        model = network(config).eval()
        assert sum(p.numel() for p in model.parameters()) == parameters
        if gmacs is not None:  # what the docstrings state
            face = torch.rand(1, 3, config.size, config.size)
            assert macs(model, torch.rand(1, 1, 12, 35), face, face) / 1e9 == pytest.approx(
                gmacs, abs=0.005
            )


@torch.inference_mode()
@pytest.mark.parametrize("config", [LIPGAN, LIPGAN_BASIC])
def test_lipgan_s_maps_have_the_sizes_of_its_table(config: LipGANConfig) -> None:
    model = LipGAN(thin_lipgan(config)).eval()
    face = torch.rand(2, 3, 96, 96)
    features = model.encode(face, face)
    assert [feature.shape[2] for feature in features] == [96, 48, 24, 12, 6, 3, 1]
    assert [f.shape[1] * 16 for f in features] == [
        32,
        64,
        128,
        256,
        512,
        512,
        config.face[-1].channels,
    ]
    maps: list[tuple[int, ...]] = []
    for stage in model.audio_encoder:
        stage.register_forward_hook(lambda _, __, made: maps.append(tuple(made.shape[2:])))
    planes = model.draw(torch.rand(2, 1, 12, 35), features)
    assert planes.shape == (2, 3, 96, 96)
    assert list(dict.fromkeys(maps)) == [(12, 35), (13, 18), (7, 9), (4, 5), (1, 1)]


@torch.inference_mode()
def test_speech2vid_s_maps_have_the_sizes_of_its_table() -> None:
    model = talking("speech2vid")
    face = torch.rand(2, 3, 112, 112)
    features = model.encode(face, face.repeat(1, 5, 1, 1))
    assert [tuple(f.shape[1:]) for f in features] == [(12, 28, 28), (16, 14, 14), (16, 7, 7), (16,)]
    assert model.draw(torch.rand(2, 1, 12, 35), features).shape == (2, 3, 112, 112)


def test_layers_keep_their_size_as_keras_does() -> None:
    x = torch.rand(1, 2, 8, 7, dtype=torch.float64)
    down = SameConv(2, 3, 3, 2).double()
    even = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 0, 1)), down.weight, down.bias, 2)
    assert torch.equal(down(x), even)  # 8 rows: one more below; 7 columns: as many on both sides
    for kernel, stride, size in ((3, 2, 8), (5, 2, 8), (6, 1, 7), (3, 3, 9), (7, 1, 8)):
        forth = SameConv(2, 3, kernel, stride, bias=False).double()
        back = SameUpConv(3, 2, kernel, stride, bias=False).double()
        back.weight = forth.weight
        a = torch.rand(1, 2, size, size, dtype=torch.float64)
        b = torch.rand(1, 3, size // stride, size // stride, dtype=torch.float64)
        assert back(b).shape == a.shape
        # each the other's transpose
        torch.testing.assert_close((forth(a) * b).sum(), (a * back(b)).sum())
    assert pool_same(torch.arange(5.0).view(1, 1, 1, 5), 3, (1, 2)).flatten().tolist() == [1, 3, 4]


# --- what they hear
# ------------------------------------------------------------------------------------------------


def told_again(samples: np.ndarray, column: int) -> np.ndarray:
    """One column of LipGAN's cepstra, as its description has it: loops and all."""
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    frame = emphasised[160 * column : 160 * column + 400] * (
        0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    )
    spectrum = np.abs(np.fft.rfft(frame, 512))
    low, high = (1127 * math.log(1 + hz / 700) for hz in (300, 3700))
    edges = [700 * (math.exp((low + (high - low) * i / 41) / 1127) - 1) for i in range(42)]
    energies = np.zeros(40)
    for m in range(40):
        for k, magnitude in enumerate(spectrum):
            hz = k * 16000 / 512
            if edges[m] <= hz <= edges[m + 1]:
                energies[m] += magnitude * (hz - edges[m]) / (edges[m + 1] - edges[m])
            elif edges[m + 1] < hz <= edges[m + 2]:
                energies[m] += magnitude * (edges[m + 2] - hz) / (edges[m + 2] - edges[m + 1])
    cosines = [[math.cos(math.pi * n * (m + 0.5) / 40) for m in range(40)] for n in range(13)]
    cepstrum = math.sqrt(2 / 40) * np.array(cosines) @ np.log(energies)
    return (cepstrum * (1 + 11 * np.sin(np.pi * np.arange(13) / 22)))[1:]


def test_cepstra_are_those_of_the_description() -> None:
    samples = np.round(np.random.RandomState(3).uniform(-9000, 9000, 8000))
    audio = Audio(torch.from_numpy(samples / 32768).float()[None], 16000)
    windows = CepstrumFeatures(lead_ms=0).windows(audio, FPS, 0, 3)
    assert windows.shape == (3, 1, 12, 35)
    for frame, step in ((0, 0), (1, 2), (2, 20)):
        wanted = torch.from_numpy(told_again(samples, 4 * frame + step)).float()
        torch.testing.assert_close(windows[frame, 0, :, step], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24000, 1001), Fraction(60)])
def test_windows_do_not_depend_on_the_pieces_and_lie_round_their_frame(fps: Fraction) -> None:
    features = CepstrumFeatures()
    audio = voice(1)
    all_at_once = features.windows(audio, fps, 0, 30)
    for size in (1, 7):
        parts = [features.windows(audio, fps, i, min(size, 30 - i)) for i in range(0, 30, size)]
        torch.testing.assert_close(torch.cat(parts), all_at_once, atol=1e-5, rtol=0)
    assert features.windows(audio, fps, 4, 0).shape == (0, 1, 12, 35)
    click = torch.zeros(1, 32000)
    click[0, int(20 / fps * 16000)] = 0.9  # with the beginning of frame 20
    heard = features.windows(Audio(click, 16000), fps, 20, 1)[0, 0].abs().sum(0) > 1
    # of 35: the window's middle lies in the frame
    assert 15 <= heard.nonzero().float().mean() <= 17.5
    assert features.windows(audio, fps, -900, 2).abs().max() < 1e-6  # long before the sound


# --- that they are dubbed with, like any other
# ---------------------------------------------------------------------


@pytest.mark.parametrize("name", THIN)
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_stream_does_not_depend_on_the_chunks(name: str, size: int, clip: Tensor) -> None:
    sync = LipSync(talking(name), precision="float32")
    track = person(20, hidden=slice(5, 9))
    streams = [
        whole(sync.stream(pieces(clip, n), voice(1), fps=FPS, tracks=[track]))
        for n in (COUNT, size)
    ]
    close(*streams)
    assert torch.equal(streams[0][5:9], clip[5:9])
    assert bool((streams[0] != clip).flatten(1).any(1)[track.visible].all())
    other = whole(sync.stream(pieces(clip, COUNT), voice(2), fps=FPS, tracks=[track]))
    assert (
        int((other != streams[0]).flatten(1).any(1).sum()) > COUNT // 2
    )  # the output depends on the audio


@pytest.mark.parametrize("name", THIN)
def test_a_still_is_the_stream_of_its_frame(name: str, clip: Tensor) -> None:
    sync, track = LipSync(talking(name), precision="float32"), person(20, count=1)
    got = whole(sync.still(Frames(clip[:1]), voice(1), fps=FPS, tracks=[track], count=9, chunk=4))
    repeated = FaceTrack(
        track.boxes.expand(9, -1), track.points.expand(9, -1, -1), track.visible.expand(9)
    )
    close(
        got,
        whole(
            sync.stream(
                pieces(clip[:1].expand(9, -1, -1, -1), 9), voice(1), fps=FPS, tracks=[repeated]
            )
        ),
    )


@pytest.mark.parametrize("name", THIN)
def test_drawings_and_masks_know_them(
    name: str, clip: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings, track = GeneratorCache(), person(20)

    def spoken(blend: Blend, kept: GeneratorCache | None) -> tuple[Tensor, LipSync]:
        sync = LipSync(talking(name), blend=blend, precision="float32")
        return whole(
            sync.stream(pieces(clip, 8), voice(1), fps=FPS, tracks=[track], drawings=kept)
        ), sync

    spoken(Blend(), drawings)
    wanted, sync = spoken(Blend("lower", colour_match="spread"), None)
    role = FaceDub(voice(1), track)
    masks = opacities(sync.render(pieces(clip, COUNT), [role], fps=FPS, opacity=True))
    assert not ((wanted != clip).any(-1) & (masks == 0)).any() and masks.max() > 0.99
    monkeypatch.setattr(f"{THIN[name][0].__module__}.{THIN[name][0].__name__}.draw", None)
    assert torch.equal(spoken(Blend("lower", colour_match="spread"), drawings)[0], wanted)


@pytest.mark.parametrize("name", THIN)
def test_they_are_saved_loaded_and_dubbed_with(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_model(talking(name), path, licence="Apache-2.0", source="a test")
    loaded = load_talking_face(path)
    assert loaded.config == THIN[name][1] and name in TALKING_FACES
    report = dub(
        ASTRONAUT, tone(tmp_path / "a.wav", 0.2), tmp_path / "out.mp4", model=path, finding=FRESH
    )
    assert (report.dubbed, report.model) == (5, "weights.safetensors")
    with pytest.raises(
        WeightsError, match=rf"holds a {name}; expected a Wav2Lip generator \(generator\)"
    ):
        load_model(path, kind="generator")
    with pytest.raises(
        WeightsError,
        match=r"expected a Wav2Lip generator \(generator\) or a lipgan or a speech2vid",
    ):
        load_talking_face("judge")


@pytest.mark.parametrize("name", THIN)
def test_they_are_benchmarked_and_told_about(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_model(talking(name), path, licence="Apache-2.0", source="a test")
    speaking(tmp_path / "long.mp4", 30, 0)
    speaking(tmp_path / "short.mp4", 22, 1)
    plan = Benchmark(tmp_path, tmp_path / "results", models=(str(path),))
    jobs = [
        job for job in plan.jobs([Pair("short.mp4", "long.mp4")]) if job.arguments["method"] == name
    ]
    (outcome,) = run_jobs(jobs, plan.prepare, tmp_path / "results.jsonl", attempts=1, threads=1)
    assert (
        outcome.error is None
        and outcome.result is not None
        and outcome.result["frames"] in (22, 23)
    )
    told = CliRunner().invoke(app, ["models", "info", str(path)])
    assert (
        told.exit_code == 0
        and f"bytes, {name}" in told.output
        and "CepstrumFeatures" in told.output
    )


# --- that they can be trained
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THIN)
def test_folding_keeps_the_output_and_the_lower_half_is_never_seen(name: str) -> None:
    model = talking(name).double()
    size, count = model.config.size, model.config.references
    target, reference = (
        uniform(2, (2, 3, size, size)).double(),
        uniform(3, (2, 3 * count, size, size)).double(),
    )
    sound = uniform(1, (2, 1, 12, 35), -9, 9).double()
    made = model(sound, target, reference)
    other = target.clone()
    other[:, :, size // 2 :] = 0.5
    assert torch.equal(model(sound, other, reference), made)
    fold_batch_norms(model)
    torch.testing.assert_close(model(sound, target, reference), made, atol=1e-6, rtol=0)


def test_bgr_is_a_secret_of_the_model() -> None:
    rgb, bgr = talking("lipgan"), talking("lipgan", bgr=True)
    face, sound = uniform(2, (2, 3, 96, 96)), uniform(1, (2, 1, 12, 35), -9, 9)
    torch.testing.assert_close(
        bgr(sound, face.flip(1), face.flip(1)), rgb(sound, face, face).flip(1)
    )
    assert torch.equal(
        flip_channels(torch.cat([face, face + 1], 1)),
        torch.cat([face.flip(1), face.flip(1) + 1], 1),
    )


@pytest.mark.parametrize("name", THIN)
def test_a_step_lowers_the_loss_and_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = talking(name).train()
    size = model.config.size
    truth, sound = uniform(2, (2, 3, size, size)), uniform(1, (2, 1, 12, 35), -9, 9)
    reference = truth.repeat(1, model.config.references, 1, 1)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = reconstruction(model(sound, truth, reference), truth)
        loss.backward()
        assert [
            key
            for key, p in model.named_parameters()
            if p.grad is None or not p.grad.isfinite().all()
        ] == []
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_margin_pulls_what_agrees_and_pushes_what_does_not() -> None:
    audio = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    video = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1]])
    distances = (0.0, math.sqrt(0.4), math.sqrt(2))
    for label, each in (
        (1.0, [d**2 for d in distances]),
        (0.0, [max(0.0, 1 - d) ** 2 for d in distances]),
    ):
        loss = margin_loss(audio, video, torch.full((3,), label))
        assert loss.item() == pytest.approx(sum(each) / 3, abs=1e-5)
    video.requires_grad_(True)
    margin_loss(audio, video, torch.zeros(3)).backward()
    assert video.grad is not None and bool(video.grad.isfinite().all())


def test_lipgan_s_discriminator_learns_from_one_batch() -> None:
    torch.manual_seed(0)
    config = LipGANDiscriminatorConfig()
    model = LipGANDiscriminator(
        dataclasses.replace(config, face=thinner(config.face), audio=thinner(config.audio))
    )
    faces, sound = torch.rand(6, 3, 96, 96), torch.randn(6, 1, 12, 35) * 5
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(8):
        right, wrong = model(sound, faces), model(sound.roll(1, 0), faces)
        loss = margin_loss(*right, torch.ones(6)) + margin_loss(*wrong, torch.zeros(6))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    audio, video = model(sound, faces)
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(video.norm(dim=1), torch.ones(6))
