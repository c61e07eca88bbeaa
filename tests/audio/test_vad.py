"""When a person speaks: onsets and ends in time, at any level and rate, in noise; and the soft
edges."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lipsync_core.audio.vad import (
    Edges,
    activity_curve,
    opacity_and_activity,
    silent_frames,
    voice_activity,
    voiced_stretches,
)
from lipsync_core.types import Audio

RATE = 16000
FPS = Fraction(25)
WORDS = [(0.6, 1.5), (2.3, 3.1)]  # seconds


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def speech(seconds: float = 4, rate: int = RATE) -> Tensor:
    """(T,) syllables, four a second: 12 harmonics of a gliding voice under two moving formants, in
    ``WORDS``, which begin and end with a syllable's loud part; peak 0.5."""
    t = torch.arange(round(seconds * rate)).double() / rate
    out = torch.zeros_like(t)
    for begin, end in WORDS:
        inside = ((t >= begin) & (t < end)).double()
        pitch = 2 * math.pi * (120 * t + 4 * torch.sin(3 * t))
        formants = [500 + 250 * torch.sin(9 * t), 1500 + 500 * torch.sin(7 * t + 1)]
        voice = sum(
            torch.sin(k * pitch) * sum(torch.exp(-(((120 * k - f) / 180) ** 2)) for f in formants)
            for k in range(1, 30)
        )
        out += inside * voice * (0.55 + 0.45 * torch.cos(2 * math.pi * 4 * (t - begin)))
    return (out / out.abs().max() / 2).float()


def sound(samples: Tensor, rate: int = RATE) -> Audio:
    return Audio(samples[None] if samples.ndim == 1 else samples, rate)


def near(found: Tensor, wanted: list[tuple[float, float]], tolerance: float) -> bool:
    return found.shape == (len(wanted), 2) and bool(
        (found - torch.tensor(wanted)).abs().max() <= tolerance
    )


def hum(count: int) -> Tensor:
    t = torch.arange(count) / RATE
    return torch.stack([torch.sin(2 * math.pi * 50 * k * t) / k for k in range(1, 10)]).sum(
        0
    ) + 0.05 * noise(count)


@pytest.mark.parametrize("snr_db", [20, 10])
@pytest.mark.parametrize("kind", [noise, hum])
def test_words_are_found_in_steady_noise(kind, snr_db: int) -> None:
    words = speech()
    background = kind(len(words))
    power = words[words != 0].square().mean()
    background *= (power / background.square().mean()).sqrt() * 10 ** (-snr_db / 20)
    assert near(voiced_stretches(sound(words + background)), WORDS, 0.08)


@pytest.mark.parametrize("gain", [2.0, 0.1, 0.01])
def test_level_does_not_matter(gain: float) -> None:
    assert near(voiced_stretches(sound(speech() * gain)), WORDS, 0.04)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_rate_and_channels_do_not_matter(rate: int) -> None:
    words = speech(rate=rate)
    assert near(voiced_stretches(sound(torch.stack([words, words]), rate)), WORDS, 0.04)


def test_nothing_and_steady_sounds_are_silent() -> None:
    for samples in (
        torch.zeros(RATE),
        torch.zeros(0),
        torch.ones(RATE) / 2,
        0.1 * noise(5 * RATE),
        1e-5 * noise(RATE),
        hum(RATE),
    ):
        assert not voice_activity(sound(samples), fps=FPS, count=30).any()
    click = torch.zeros(2 * RATE)
    click[RATE : RATE + 80] = 0.9
    assert not voice_activity(sound(click), fps=FPS, count=50).any()


def test_noise_beside_inserted_silence_is_no_voice() -> None:
    """A recording in a room, to which an editor added digital silence: the room is still its
    background."""
    room = 0.003 * noise(4 * RATE)
    room[: RATE // 4] = 0
    room[-RATE // 4 :] = 0
    assert near(voiced_stretches(sound(speech() + room)), WORDS, 0.06)


@pytest.mark.parametrize("count", [1, 10, 159, 160, 1600, 4000])
def test_short_sounds_have_an_answer(count: int) -> None:
    piece = speech()[round(0.6 * RATE) :][:count]
    activity = voice_activity(sound(piece), fps=FPS, count=6)
    assert activity.shape == (6,) and bool(((activity >= 0) & (activity <= 1)).all())
    assert bool(activity.any()) == (count >= 4000)  # of a tenth of a second it knows nothing


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(60)])
def test_time_is_exact_hours_on(fps: Fraction) -> None:
    count = round(7200 * fps)
    first = math.floor(7000 * fps)
    stretch = (
        Fraction(2 * first - 1, 2) / fps,
        Fraction(2 * first + 61, 2) / fps,
    )  # from the middle of a frame to that of another
    found = activity_curve(
        torch.tensor([[float(t) for t in stretch]]).double(),
        fps=fps,
        count=count,
        edges=Edges(0, 1, 1, 0),
    )
    assert found.nonzero()[:, 0].tolist() == list(range(first - 1, first + 31))


def test_edges_are_soft_and_lead_the_sound() -> None:
    fine = Fraction(1000)
    found = activity_curve(torch.tensor([[1.0, 2.0]]), fps=fine, count=3000)
    assert (
        found[1000:2000].eq(1).all()
        and found[960] == 1
        and found[860:960].diff().gt(0).all()
        and found[:859].eq(0).all()
    )
    assert (
        found[2000:2080].eq(1).all()
        and found[2081:2200].diff().lt(0).all()
        and found[2201:].eq(0).all()
    )
    assert found.diff().abs().max() < 0.011
    both = activity_curve(torch.tensor([[1.0, 2.0], [2.2, 2.4]]), fps=fine, count=3000)
    # they meet before either is down
    assert both[2000:2200].min() > 0.3 and torch.equal(both[:2080], found[:2080])
    assert not activity_curve(torch.zeros(0, 2), fps=fine, count=9).any()
    with pytest.raises(ValueError, match="negative"):
        Edges(attack_ms=-1)


def test_frames_do_not_depend_on_how_many_are_asked_for() -> None:
    audio = sound(speech())
    whole = voice_activity(audio, fps=Fraction(60), count=300)
    assert torch.equal(voice_activity(audio, fps=Fraction(60), count=77), whole[:77])
    assert not whole[250:].any()  # past the end


def test_spectra_in_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = sound(speech() + 0.001 * noise(4 * RATE))
    whole = voiced_stretches(audio)
    monkeypatch.setattr("lipsync_core.audio.vad._AT_ONCE", 7)
    assert torch.equal(voiced_stretches(audio), whole)


def test_silent_frames_are_those_far_from_voice() -> None:
    silent = silent_frames(sound(speech()), FPS, 120)
    speaking = torch.zeros(120, dtype=torch.bool)
    for begin, end in WORDS:
        speaking[math.floor((begin - 0.2) * 25) : math.ceil((end + 0.2) * 25)] = True
    assert int((silent == speaking).sum()) <= 4 and silent[110:].all()
    assert silent_frames(sound(torch.zeros(2, RATE)), FPS, 25).all()
    assert silent_frames(sound(torch.zeros(0)), FPS, 0).shape == (0,)


def test_what_is_shown_in_silence() -> None:
    activity, turns = torch.rand(9), torch.rand(9)
    assert opacity_and_activity("keep", None, activity) == (
        activity,
        None,
    ) and opacity_and_activity("close", None, activity) == (
        None,
        activity,
    )
    assert opacity_and_activity("generate", None, None) == (None, None)
    assert opacity_and_activity("generate", turns, activity) == (
        turns,
        None,
    ) and opacity_and_activity("close", turns, activity) == (
        turns,
        activity,
    )
    both, speaks = opacity_and_activity("keep", turns, activity)
    assert speaks is None and both is not None and torch.equal(both, turns * activity)
