"""From speech to the shape of the lips: how far the network looks ahead, and that it is the same in
any company."""

from fractions import Fraction

import pytest
import torch
from helpers.golden import build

from lipsync_core.models.speech_lips import SHAPE, SpeechLips, SpeechLipsConfig
from lipsync_core.types import Audio

FPS, FRAME = Fraction(25), 20


def network() -> SpeechLips:
    model = build(SpeechLips, SpeechLipsConfig(width=16))
    assert isinstance(model, SpeechLips)
    return model


def noise(seed: int = 0, *, count: int = 32000) -> torch.Tensor:
    return 0.2 * torch.randn(1, count, generator=torch.Generator().manual_seed(seed))


def heard(samples: torch.Tensor, frame: int = FRAME) -> torch.Tensor:
    return SpeechLipsConfig().features.windows(Audio(samples, 16000), FPS, frame, 1)


@torch.inference_mode()
def test_sound_of_a_quarter_second_later_and_more_changes_nothing() -> None:
    model, samples = network(), noise()
    for ahead, same in ((0.25, True), (0.15, False)):
        other = samples.clone()
        begin = round((FRAME / 25 + ahead) * 16000)
        other[:, begin:] = noise(1)[:, begin:]
        assert torch.equal(heard(samples), heard(other)) == same
        assert torch.equal(model(heard(samples)), model(heard(other))) == same


def test_sound_that_is_long_past_changes_nothing() -> None:
    samples = noise()
    other = samples.clone()
    other[:, : round((FRAME / 25 - 0.32) * 16000)] = 0
    assert torch.equal(heard(samples), heard(other))


@torch.inference_mode()
def test_silence_is_the_same_whenever_it_is() -> None:
    """Before, in and after a sound of silence; and no other than what digital silence of any length
    gives."""
    model, quiet = network(), torch.zeros(1, 32000)
    windows = SpeechLipsConfig().features.windows(Audio(quiet, 16000), FPS, 0, 60)
    said = model(windows)
    assert said.shape == (60, SHAPE) and bool(torch.isfinite(said).all())
    torch.testing.assert_close(said, said[:1].expand_as(said), atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [8, 16])
@torch.inference_mode()
def test_a_batch_is_its_singles(width: int) -> None:
    model = build(SpeechLips, SpeechLipsConfig(width=width))
    windows = SpeechLipsConfig().features.windows(Audio(noise(), 16000), FPS, 5, 7)
    together = model(windows)
    for i in range(7):
        torch.testing.assert_close(model(windows[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-5)
