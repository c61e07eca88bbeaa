"""Read sound as float samples on the picture's clock, whole or block by block."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from ..errors import MediaError
from ..types import Audio
from .container import (
    Warn,
    decode_sound,
    first_frame_audio_time,
    open_source,
    path_of_container,
    raise_media_errors,
    warn_once,
)

Samples = npt.NDArray[np.float32]  # (C,T)

_BLOCK = 1 << 16  # samples given to the resampler at once
# seconds decoded and dropped after a seek: decoders carry state (MP3 reservoir, AAC overlap)
_SEEK_PREROLL = 1
_SEEK_FROM = 4  # seconds: nearer to the start than this, reading from it is as quick as seeking
# Containers whose seeks land on exact times; others (raw MP3 and AAC) guess from the bit rate and
# are read through.
_SEEKABLE = ("mov,", "matroska", "wav", "flac", "ogg", "mpegts")
# seconds: time stamps off by less are rounding, by more a gap in the track
_JITTER = Fraction(1, 50)
# seconds of silence that a time stamp may ask for; more is taken to be a damaged time stamp
_LONGEST_GAP = 3600


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """Properties of the first sound track of a file.

    Attributes:
        rate: samples per second.
        channels: number of channels.
        layout: FFmpeg's name of the channel layout.
        codec: FFmpeg's name of the codec.
    """

    rate: int
    channels: int
    layout: str
    codec: str


def probe_sound(src: Path | str) -> SoundInfo:
    """Return the properties of the first sound track of ``src``.

    Raises:
        MediaError: If the file has none or cannot be read.
    """
    with open_source(src) as container:
        stream = _sound_stream(container)
        return SoundInfo(
            stream.rate, stream.channels, stream.layout.name, stream.codec_context.name
        )


def first_sample_time(src: Path | str) -> Fraction:
    """Return when the sound of ``src`` begins, in seconds of the container's clock.

    Encoder priming is not counted.
    """
    with (
        open_source(src) as container,
        raise_media_errors(Path(src), "the sound cannot be decoded"),
    ):
        stream = _sound_stream(container)
        for frame in decode_sound(container, stream, lambda _: None):
            if frame.pts is not None and frame.time_base is not None:
                return frame.pts * frame.time_base
    return Fraction(0)


def read_audio(
    src: Path | str,
    *,
    rate: int | None = 16000,
    mono: bool = True,
    start: int = 0,
    stop: int | None = None,
    on_warning: Warn | None = None,
) -> Audio:
    """Read the first sound track of an audio or video file.

    Sample 0 sounds when clip frame 0 of ``read_frames`` is shown (without a picture: when the sound
    begins): a track that begins later is preceded by silence, earlier sound is cut, encoder priming
    is left out, gaps are silent.

    Args:
        src: the file.
        rate: sample rate in Hz; None for the file's own.
        mono: return the mean of the channels.
        start: first sample, at the output rate.
        stop: end (exclusive) at the output rate; it may lie past the end.
        on_warning: called with each warning.

    Returns:
        (1,T) or (C,T) samples.

    Raises:
        MediaError: If the file cannot be read, has no sound, or holds NaN or infinite samples.
    """
    if start < 0 or (stop is not None and stop < start) or (rate is not None and rate < 1):
        raise ValueError(
            f"rate={rate}, start={start}, stop={stop}; wanted a positive rate, 0 <= start <= stop"
        )
    info = probe_sound(src)
    blocks = read_audio_blocks(
        src, rate=rate, mono=mono, start=start, stop=stop, on_warning=on_warning
    )
    return Audio(torch.from_numpy(_joined(blocks, 1 if mono else info.channels)), rate or info.rate)


def _joined(blocks: Iterable[Samples], channels: int) -> Samples:
    """Join blocks to one array, which doubles when it is full.

    A list of thousands of blocks would fragment the heap.
    """
    samples, count = np.empty((channels, _BLOCK), np.float32), 0
    for block in blocks:
        end = count + block.shape[1]
        if end > samples.shape[1]:
            samples, full = np.empty((channels, 2 * end), np.float32), samples
            samples[:, :count] = full[:, :count]
        samples[:, count:end] = block
        count = end
    return samples[:, :count]


def read_audio_blocks(
    src: Path | str,
    *,
    rate: int | None = None,
    mono: bool = False,
    start: int = 0,
    stop: int | None = None,
    on_warning: Warn | None = None,
) -> Iterator[Samples]:
    """Yield the samples of ``read_audio`` as blocks (C,T) in order, in bounded memory."""
    path = Path(src)
    native = probe_sound(path).rate
    rate = rate or native
    ratio = Fraction(rate, native)
    # The filter is heard for `reach` native samples to either side. Beginning at a multiple of the
    # ratio's denominator puts the filter in the phase that it has when reading from the start, so
    # that parts equal slices of the whole.
    reach = 0 if rate == native else 128 * max(1, math.ceil(1 / ratio))
    begin = max(0, math.floor(start / ratio) - reach) // ratio.denominator * ratio.denominator
    end = None if stop is None else math.ceil(stop / ratio) + reach
    blocks = trim_blocks(
        _placed(path, begin, warn_once(on_warning)), 0, None if end is None else end - begin
    )
    if mono:
        blocks = (block.mean(axis=0, keepdims=True) for block in blocks)
    done = int(begin * ratio)
    return trim_blocks(
        resample_blocks(blocks, native, rate), start - done, None if stop is None else stop - done
    )


def resample_pyav(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample with PyAV, band-limited and without delay.

    Args:
        samples: (C,T) float at ``from_rate``.
        from_rate: Hz.
        to_rate: Hz.

    Returns:
        (C, ceil(T * to_rate / from_rate)) on the device and in the dtype of ``samples``; computed
        on the CPU in float32.
    """
    array = samples.detach().cpu().to(torch.float32).numpy()
    blocks = list(resample_blocks([array], from_rate, to_rate))
    out = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(array), 0), np.float32)
    return torch.from_numpy(out).to(samples)


def resample_blocks(blocks: Iterable[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Resample blocks (C,T) to ``to_rate``: ceil(T * to_rate / from_rate) samples in all."""
    if from_rate == to_rate:
        yield from blocks
        return
    channels: list[AudioResampler] = []
    taken = given = 0
    for whole in blocks:
        channels = channels or [_resampler(to_rate) for _ in whole]
        for at in range(0, whole.shape[1], _BLOCK):
            block = whole[:, at : at + _BLOCK]
            frames = [_mono_frame(row, from_rate, taken) for row in block]
            taken += block.shape[1]
            out = np.stack(
                [_pull(channel, frame) for channel, frame in zip(channels, frames, strict=True)]
            )
            given += out.shape[1]
            if out.shape[1]:
                yield out
    if channels:
        rest = np.stack([_pull(channel, None) for channel in channels])
        missing = -(-taken * to_rate // from_rate) - given
        yield np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, : max(0, missing)]


def _resampler(rate: int) -> AudioResampler:
    # Twice swresample's default length (32): the transition band ends at the new Nyquist frequency.
    return AudioResampler("fltp", "mono", rate, options={"filter_size": "64", "cutoff": "0.95"})


def _mono_frame(samples: Samples, rate: int, at: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
    return frame


def _pull(resampler: AudioResampler, frame: AudioFrame | None) -> Samples:
    parts = [out.to_ndarray()[0] for out in resampler.resample(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)  # pyright: ignore[reportReturnType]


def trim_blocks(blocks: Iterable[Samples], start: int, stop: int | None) -> Iterator[Samples]:
    """Yield samples start..stop-1 of the concatenated ``blocks`` (C,T), and read no block more."""
    at = 0
    for block in blocks:
        part = block[:, max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += block.shape[1]
        if part.shape[1]:
            yield part
        if stop is not None and at >= stop:
            return


def _placed(path: Path, begin: int, warn: Warn) -> Iterator[Samples]:
    """Yield the track at its own rate from sample ``begin`` of the picture's clock, gaps silent."""
    zero = first_frame_audio_time(path)
    at = begin
    for time, samples, rate in _decoded(path, begin, zero, warn):
        zero = time if zero is None else zero
        place = math.floor((time - zero) * rate + Fraction(1, 2))
        gap = place - at
        if gap > rate * _LONGEST_GAP:
            warn(f"{path.name}: the sound jumps by {gap // rate} s, taken for a damaged time stamp")
        elif gap > (0 if at == begin else rate * _JITTER):
            yield np.zeros((len(samples), gap), np.float32)
            at += gap
        elif at == begin and gap < 0:  # before the wanted start, priming included
            samples = samples[:, -gap:]
        if not np.isfinite(samples).all():
            raise MediaError(
                f"{path}: NaN or infinite samples near {at / rate:.2f} s; export the sound again"
            )
        at += samples.shape[1]
        if samples.shape[1]:
            yield samples


def _decoded(
    path: Path, begin: int, zero: Fraction | None, warn: Warn
) -> Iterator[tuple[Fraction, Samples, int]]:
    """Yield (time on the container's clock, samples (C,T), rate) from before ``begin`` on."""
    with open_source(path) as container, raise_media_errors(path, "the sound cannot be decoded"):
        stream = _sound_stream(container)
        seconds = Fraction(begin, stream.rate) - _SEEK_PREROLL
        if zero is None and stream.start_time is not None and stream.time_base is not None:
            zero = stream.start_time * stream.time_base
        if (
            seconds > _SEEK_FROM
            and zero is not None
            and container.format.name.startswith(_SEEKABLE)
        ):
            container.seek(math.floor((zero + seconds) / (stream.time_base or 1)), stream=stream)
        rate, channels = stream.rate, stream.channels
        to_float = AudioResampler("fltp", stream.layout, rate)
        time: Fraction | None = None
        for frame in decode_sound(container, stream, warn):
            following = zero or Fraction(0) if time is None else time
            known = frame.pts is not None and frame.time_base is not None
            begins: Fraction = frame.pts * frame.time_base if known else following  # pyright: ignore
            if (frame.sample_rate, len(frame.layout.channels)) != (rate, channels):
                raise MediaError(
                    f"{path}: rate or channels of the sound change at {float(begins):.2f} s; "
                    "convert it"
                )
            for part in to_float.resample(frame):
                yield begins, part.to_ndarray(), rate  # pyright: ignore[reportReturnType]
            time = begins + Fraction(frame.samples, rate)
        if time is None and begin == 0:
            raise MediaError(f"{path}: no sound could be decoded from its sound track")


def _sound_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise MediaError(
            f"{path_of_container(container)}: holds no sound; wanted a file with a sound track"
        )
    return container.streams.audio[0]
