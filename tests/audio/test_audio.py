"""Log-mel, windows and resampling: the reference's numbers, exact time, and no lost sound."""

import importlib
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE
from torch import Tensor

from lipsync_core.audio.features import (
    SILENCE,
    MelFeatures,
    log_mel,
    mean_spectrum,
    mel_basis,
    mel_length,
    mel_windows,
    window_start,
)
from lipsync_core.audio.ops import frame_count, mix_to_mono, resample, shift
from lipsync_core.media import resample_pyav
from lipsync_core.types import Audio

RATES = [Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(50), Fraction(60)]
ZEROS = MelFeatures(padding="constant")
GOLDEN = np.load(REFERENCE / "mel.npz")


def signals() -> dict[str, Tensor]:
    """The sounds whose spectrograms are known (16 kHz)."""
    t = np.arange(24000) / 16000
    impulse = np.zeros(8000)
    impulse[4000] = 1
    arrays = {
        "chirp": 0.5 * np.sin(2 * np.pi * (100 * t + 0.5 * (6900 / 1.5) * t**2)),
        "noise": np.clip(0.1 * np.random.RandomState(1).standard_normal(16001), -1, 1),
        "silence": np.zeros(8000),
        "impulse": impulse,
        "short": 0.3 * np.sin(2 * np.pi * 440 * np.arange(900) / 16000),
        "speech": GOLDEN["speech_int16"] / 32768,
    }
    return {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}


def sound(samples: Tensor, rate: int = 16000) -> Audio:
    return Audio(samples[None], rate)


def noise(count: int, seed: int = 3) -> Audio:
    return sound(torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.1)


def test_the_filters_are_the_reference_s() -> None:
    torch.testing.assert_close(
        mel_basis(), torch.from_numpy(GOLDEN["mel_basis"]), atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["chirp", "noise", "silence", "impulse", "short", "speech"])
def test_log_mel_agrees_with_the_reference(name: str) -> None:
    audio = sound(signals()[name])
    wanted = torch.from_numpy(GOLDEN[f"mel_{name}"])
    got = log_mel(audio)
    assert got.shape == wanted.shape == (80, mel_length(audio.samples.shape[1]))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["chirp", "noise", "speech"])
def test_zero_padding_agrees_with_newer_librosa(name: str) -> None:
    audio = sound(signals()[name])
    got = log_mel(audio, features=ZEROS)
    edges = torch.cat([got[:, :3], got[:, -3:]], 1)
    torch.testing.assert_close(
        edges, torch.from_numpy(GOLDEN[f"mel_zeropad_edge_{name}"]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(got[:, 2:-2], log_mel(audio)[:, 2:-2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("features", [MelFeatures(), ZEROS])
@pytest.mark.parametrize("step", [1, 7, 64])
def test_the_pieces_are_the_whole_bit_for_bit(features: MelFeatures, step: int) -> None:
    audio = noise(40_037)
    whole = log_mel(audio, features=features)
    starts = range(0, whole.shape[1], step)
    pieces = [
        log_mel(audio, first=s, count=min(step, whole.shape[1] - s), features=features)
        for s in starts
    ]
    assert torch.equal(torch.cat(pieces, 1), whole)


def test_silence_and_what_lies_outside_are_the_floor() -> None:
    assert bool((log_mel(sound(torch.zeros(5000))) == SILENCE).all())
    got = log_mel(noise(2000), first=-4, count=20)  # columns 0 to 10 exist
    assert bool((got[:, :4] == SILENCE).all()) and bool((got[:, 15:] == SILENCE).all())
    assert bool((got[:, 4:15] > SILENCE).any(0).all())
    assert log_mel(noise(2000), first=50, count=3).eq(SILENCE).all()
    assert log_mel(noise(2000), first=2, count=0).shape == (80, 0)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("count", [0, 1, 2, 199, 1600])
def test_short_sound_is_padded_and_not_refused(count: int, padding) -> None:
    audio = noise(count)
    windows = mel_windows(audio, Fraction(25), 0, 3, features=MelFeatures(padding=padding))
    assert windows.shape == (3, 1, 80, 16) and bool(windows.isfinite().all())
    assert bool((windows[0, 0, :, mel_length(count) :] == SILENCE).all())
    if count >= 199:
        assert bool((windows[0, 0, :, 0] > SILENCE).any())


def test_sound_that_is_not_ready_is_refused() -> None:
    for audio in (Audio(torch.zeros(2, 800), 16000), Audio(torch.zeros(1, 800), 44100)):
        with pytest.raises(
            ValueError, match=r"channels at \d+ Hz; expected mono at 16000 Hz: use resample"
        ):
            log_mel(audio)


@pytest.mark.parametrize("fps", RATES)
def test_windows_are_exact_over_two_hours(fps: Fraction) -> None:
    frames = int(7200 * fps)
    numerator, denominator = fps.numerator, fps.denominator
    for frame in [*range(2000), *range(0, frames, 997), *range(frames - 500, frames)]:
        assert window_start(frame, fps) == 80 * frame * denominator // numerator
    # every whole cycle of the rate ends on a whole column, so nothing has drifted
    assert window_start(7200 * numerator, fps) == 80 * 7200 * denominator


def test_windows_start_where_the_reference_s_chunks_do() -> None:
    """The last chunk of the reference is its own (it repeats the last 16 columns); ours is padded
    with silence."""
    for name, starts in json.loads((REFERENCE / "chunk_index.json").read_text())[
        "inference_chunk_starts"
    ].items():
        columns, rate = name.split("@")
        fps = Fraction(rate).limit_denominator(1001)
        count, known = len(starts), starts[:-1]
        if int(columns) == 801:  # listed as [count, last three]
            count, known = starts[0], starts[1][:-1]
        got = [window_start(i, fps) for i in range(count - 1)]
        assert got[len(got) - len(known) :] == known, name
        assert all(start + 16 <= int(columns) for start in got)
        assert window_start(count - 1, fps) + 16 > int(columns)


def test_a_lead_of_40_ms_is_the_training_s_indexing() -> None:
    table = json.loads((REFERENCE / "chunk_index.json").read_text())["training"]
    lead, fps = MelFeatures(lead_ms=40), Fraction(25)
    for frame, starts in table.items():
        f = int(frame)
        assert window_start(f, fps) == starts["expert_window"]
        if f:  # the reference refuses frame 0, whose window would begin before the sound
            assert [window_start(f + j, fps, lead) for j in range(5)] == starts["indiv"]


def test_a_window_holds_the_columns_from_its_start() -> None:
    audio, fps = noise(40_000), Fraction(30000, 1001)
    whole = log_mel(audio)
    windows = mel_windows(audio, fps, 20, 5)
    for i in range(5):
        start = window_start(20 + i, fps)
        assert torch.equal(windows[i, 0], whole[:, start : start + 16])
    early = mel_windows(audio, fps, 0, 2, features=MelFeatures(lead_ms=100))
    assert bool((early[0, 0, :, :8] == SILENCE).all()) and torch.equal(
        early[0, 0, :, 8:], whole[:, :8]
    )
    assert mel_windows(audio, fps, 3, 0).shape == (0, 1, 80, 16)


def test_level_and_tone_of_a_recording_matter_less_with_a_relative_spectrum() -> None:
    """A microphone that changes level and tone changes windows by a tenth of that at 0.9."""
    speech = sound(signals()["speech"])
    quiet = sound(0.3 * speech.samples[0])
    for share, part in ((0.0, 1.0), (0.9, 0.1)):
        features = MelFeatures(relative=share)
        windows = [mel_windows(x, Fraction(25), 5, 20, features=features) for x in (speech, quiet)]
        difference = (windows[0] - windows[1]).median()
        assert float(difference) == pytest.approx(part * 8 * 10.458 / 100, abs=0.02)


def test_windows_of_a_relative_spectrum_are_the_same_in_pieces() -> None:
    features = MelFeatures(relative=0.9)
    speech = sound(signals()["speech"])
    whole = mel_windows(speech, Fraction(25), 0, 40, features=features)
    pieces = [mel_windows(speech, Fraction(25), i, 8, features=features) for i in range(0, 40, 8)]
    assert torch.equal(torch.cat(pieces), whole)


def test_the_mean_spectrum_is_of_the_louder_half_and_silence_is_not_raised() -> None:
    speech = sound(signals()["speech"])
    padded = sound(torch.cat([speech.samples[0], torch.zeros(speech.samples.shape[1])]))
    features = MelFeatures(relative=0.9)
    whole, half = (mean_spectrum(x, features).mean() for x in (padded, speech))
    assert SILENCE / 2 < whole < half
    still = mel_windows(sound(torch.zeros(8000)), Fraction(25), 0, 5, features=features)
    assert float(still.max()) == pytest.approx(SILENCE + 0.9 * 2)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("count", [1, 3000, 16000, 159_999, 160_000, 160_001])
def test_no_tail_is_lost(fps: Fraction, count: int) -> None:
    frames = frame_count(Audio(torch.zeros(1, 1).expand(1, count), 16000), fps)
    seconds = Fraction(count, 16000)
    assert frames / fps >= seconds > (frames - 1) / fps
    assert window_start(frames - 1, fps) <= count // 200


def test_mono_is_the_mean() -> None:
    audio = mix_to_mono(Audio(torch.tensor([[1.0, 0.5], [0.0, -0.5]]), 8000))
    assert audio.samples.tolist() == [[0.5, 0.0]] and audio.rate == 8000


def tones(rate: int, count: int, limit: float) -> Tensor:
    """(2,T) sums of sines up to ``limit`` Hz, which any rate above twice that holds exactly."""
    t = torch.arange(count, dtype=torch.float64) / rate
    hz = torch.linspace(60, limit, 12, dtype=torch.float64)[:, None]
    phase = torch.arange(12, dtype=torch.float64)[:, None]
    return torch.stack([torch.sin(2 * math.pi * hz * t + phase * k).sum(0) for k in (1, 2)]) / 12


def snr(got: Tensor, wanted: Tensor, edge: int) -> float:
    """Signal to error in dB without the ends, where the filter reaches into silence."""
    error = (got.double() - wanted)[:, edge:-edge]
    return float(10 * (wanted[:, edge:-edge].square().mean() / error.square().mean()).log10())


def torchaudio_kernel(samples: Tensor, rate: int, wanted: int) -> Tensor:
    try:
        importlib.import_module("torchaudio.functional")
    except (
        Exception
    ) as error:  # OSError beside a CPU build of torch, RuntimeError beside another CUDA
        pytest.skip(f"torchaudio does not import here: {type(error).__name__}: {error}")
    return resample(Audio(samples, rate), wanted).samples


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("kernel", [resample_pyav, torchaudio_kernel], ids=["pyav", "torchaudio"])
def test_resampling_keeps_a_band_limited_sound(kernel, rate: int) -> None:
    """Tones up to 0.85 of the lower Nyquist frequency, with neither delay nor aliases."""
    limit = 0.85 * min(rate, 16000) / 2
    got = kernel(tones(rate, rate, limit).float(), rate, 16000)
    assert got.shape == (2, 16000)
    assert snr(got, tones(16000, 16000, limit), edge=400) > 80  # PyAV: 100 dB at every rate


@pytest.mark.parametrize("kernel", [resample_pyav, torchaudio_kernel], ids=["pyav", "torchaudio"])
def test_resampling_removes_what_the_new_rate_cannot_hold(kernel) -> None:
    t = torch.arange(48000, dtype=torch.float64) / 48000
    got = kernel(torch.sin(2 * math.pi * 9500 * t).float()[None], 48000, 16000)
    assert float(got[:, 400:-400].abs().max()) < 1e-3  # -60 dB


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    audio = noise(100)
    assert resample(audio, 16000) is audio


@pytest.mark.parametrize("count", [0, 1, 7])
def test_resampling_few_samples(count: int) -> None:
    got = resample(Audio(torch.ones(1, count), 44100), 16000)
    assert got.samples.shape == (1, -(-count * 16000 // 44100)) and bool(
        got.samples.isfinite().all()
    )


@pytest.mark.parametrize(
    "delay", [Fraction(0), Fraction(3, 8), Fraction(-3, 8), Fraction(9), Fraction(-9)]
)
def test_shifted_sound_comes_back_but_for_its_end(delay: Fraction) -> None:
    audio = Audio(torch.rand(2, 16, generator=torch.manual_seed(0)) + 0.1, 8)
    there = shift(audio, delay)
    back = shift(there, -delay)
    lost = min(16, abs(round(delay * 8)))
    kept = slice(0, 16 - lost) if delay >= 0 else slice(lost, 16)
    assert torch.equal(back.samples[:, kept], audio.samples[:, kept])
    assert (
        int((there.samples == 0).sum()) == 2 * lost and there.samples.shape == audio.samples.shape
    )


def test_sound_is_shifted_to_the_nearest_sample() -> None:
    audio = Audio(torch.tensor([[1.0, 2.0, 3.0]]), 10)
    assert [shift(audio, Fraction(n, 100)).samples[0, 0].item() for n in (4, 5, -5, -6)] == [
        1.0,
        0.0,
        1.0,
        2.0,
    ]
