"""Read sound as float samples on the picture's clock, whole or block by block."""

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
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
from .channels import useful_channels
from .container import (
    Warn,
    clock_jumps,
    decode_sound,
    first_frame_audio_time,
    is_mp4,
    joined_parts,
    open_source,
    path_of_container,
    raise_media_errors,
    warn_once,
)
from .edit_list import MEDIA_CLOCK, Part, sound_of_part
from .sound_ends import padding_begins, promised_end
from .sound_tracks import choose_sound

Samples = npt.NDArray[np.float32]  # (C,T)
_Timed = tuple[Fraction, Samples, int]
"""A block: its time in seconds of the container's clock, its samples, and their rate in Hz."""

_BLOCK = 1 << 16  # samples given to the resampler at once
# seconds decoded and dropped after a seek: decoders carry state (MP3 reservoir, AAC overlap)
_SEEK_PREROLL = 1
_SEEK_FROM = 4  # seconds: nearer to the start than this, reading from it is as quick as seeking
# Beside MP4: containers whose seeks land on exact times; others (raw MP3 and AAC) guess from the
# bit rate and are read through.
_SEEKABLE = ("matroska", "wav", "flac", "ogg", "mpegts")
# seconds: time stamps off by less are rounding, by more a gap in the track
_JITTER = Fraction(1, 50)
# seconds of silence that a time stamp may ask for; more is taken to be a damaged time stamp
_LONGEST_GAP = 3600
# Blocks of a decoder that may follow the end that an edit list states, as the padding of the last
# packets; if there is more, the statement is wrong.
_PADDING = 2
# PyAV 18.1 miscounts the planes of frames with more; those are interleaved.
_MOST_PLANES = 7
_MISSING = Fraction(1, 10)  # seconds: a sound that ends by more before its promised end is cut off


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """Properties of a sound track of a file.

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


def probe_sound(src: Path | str, track: int | None = None) -> SoundInfo:
    """Return the properties of a sound track of a file.

    Args:
        src: the file.
        track: number of the track, from 1; None for the default one.

    Raises:
        MediaError: If the file has none or cannot be read.
    """
    with open_source(src) as container:
        stream = choose_sound(container, track, lambda _: None)
        return SoundInfo(
            stream.rate, stream.channels, stream.layout.name, stream.codec_context.name
        )


def first_sample_time(src: Path | str, track: int | None = None) -> Fraction:
    """Return when a sound track of ``src`` begins, in seconds of the container's clock.

    Encoder priming is not counted.
    """
    with (
        open_source(src) as container,
        raise_media_errors(Path(src), "the sound cannot be decoded"),
    ):
        stream = choose_sound(container, track, lambda _: None)
        parts = joined_parts(container, stream)
        if parts:
            return parts[0].begin
        for frame in decode_sound(container, stream, lambda _: None):
            if frame.pts is not None and frame.time_base is not None:
                return frame.pts * frame.time_base
    return Fraction(0)


def clock_zero(
    src: Path | str, track: int | None = None, *, keep_early: bool = False
) -> Fraction | None:
    """Return when sample 0 of a file sounds, in seconds of the container's clock.

    Args:
        src: the file.
        track: number of its sound track, from 1; None for the default one.
        keep_early: see ``read_audio``.

    Returns:
        The time of the first picture, with ``keep_early`` that of the first sound if it is earlier;
        None without a picture, for the beginning of the sound.
    """
    picture = first_frame_audio_time(src)
    if picture is None or not keep_early:
        return picture
    return min(picture, first_sample_time(src, track))


def read_audio(
    src: Path | str,
    *,
    rate: int | None = 16000,
    mono: bool = True,
    start: int = 0,
    stop: int | None = None,
    track: int | None = None,
    keep_early: bool = False,
    on_warning: Warn | None = None,
) -> Audio:
    """Read a sound track of an audio or video file.

    Sample 0 sounds when clip frame 0 of ``read_frames`` is shown (without a picture: when the sound
    begins): a track that begins later is preceded by silence, earlier sound is cut, encoder priming
    is left out, gaps are silent.

    Args:
        src: the file.
        rate: sample rate in Hz; None for the file's own.
        mono: return one channel for the models: the center of 5.1 and 7.1, else the mean, without
            channels that are silent or cancel it (see ``useful_channels``; decided by the beginning
            of the track, whatever part of it is read).
        start: first sample, at the output rate.
        stop: end (exclusive) at the output rate; it may lie past the end.
        track: number of the file's sound track, from 1; None for the default one.
        keep_early: let sample 0 be the first sound if that comes before the first picture, for a
            file that is heard without its picture.
        on_warning: called with each warning.

    Returns:
        (1,T) or (C,T) samples.

    Raises:
        MediaError: If the file cannot be read, has no sound, or holds NaN or infinite samples.
    """
    if start < 0 or (stop is not None and stop < start) or (rate is not None and rate < 1):
        raise ValueError(
            f"rate={rate}, start={start}, stop={stop}; expected a positive rate, 0 <= start <= stop"
        )
    info = probe_sound(src, track)
    blocks = read_audio_blocks(
        src,
        rate=rate,
        mono=mono,
        start=start,
        stop=stop,
        track=track,
        keep_early=keep_early,
        on_warning=on_warning,
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
    track: int | None = None,
    keep_early: bool = False,
    on_warning: Warn | None = None,
) -> Iterator[Samples]:
    """Yield the samples of ``read_audio`` as blocks (C,T) in order, in bounded memory."""
    path, warn = Path(src), warn_once(on_warning)
    native = probe_sound(path, track).rate
    rate = rate or native
    ratio = Fraction(rate, native)
    # The filter is heard for `reach` native samples to either side. Beginning at a multiple of the
    # ratio's denominator puts the filter in the phase that it has when reading from the start, so
    # that parts equal slices of the whole.
    reach = 0 if rate == native else 128 * max(1, math.ceil(1 / ratio))
    begin = max(0, math.floor(start / ratio) - reach) // ratio.denominator * ratio.denominator
    end = None if stop is None else math.ceil(stop / ratio) + reach
    zero = clock_zero(path, track, keep_early=keep_early)
    blocks = trim_blocks(
        _placed(path, track, zero, begin, warn), 0, None if end is None else end - begin
    )
    if mono:
        useful = list(_useful_channels(path, track, warn))
        blocks = (block[useful].mean(axis=0, keepdims=True) for block in blocks)
    done = int(begin * ratio)
    return trim_blocks(
        resample_blocks(blocks, native, rate), start - done, None if stop is None else stop - done
    )


def _useful_channels(path: Path, track: int | None, warn: Warn) -> tuple[int, ...]:
    with open_source(path) as container:
        stream = choose_sound(container, track, lambda _: None)
        rate, names = stream.rate, [channel.name for channel in stream.layout.channels]
    if len(names) == 1:
        return (0,)
    with closing(_decoded(path, track, 0, None, lambda _: None)) as decoded:
        found = useful_channels((samples for _, samples, _ in decoded), rate, names)
    if found.warning is not None:
        warn(f"{path.name}: {found.warning}")
    return found.indices


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
            frames = [make_audio_frame(row[None], from_rate, taken, "mono") for row in block]
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


def make_audio_frame(samples: Samples, rate: int, at: int, layout: str) -> AudioFrame:
    """Make a frame of FFmpeg from samples.

    Args:
        samples: (C,T).
        rate: samples per second.
        at: time of the first sample, counted in samples.
        layout: FFmpeg's name of the channel layout.

    Returns:
        The frame.
    """
    if len(samples) <= _MOST_PLANES:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
    else:
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = AudioFrame.from_ndarray(interleaved, "flt", layout)
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


def _placed(
    path: Path, track: int | None, zero: Fraction | None, begin: int, warn: Warn
) -> Iterator[Samples]:
    """Yield the track at its own rate from sample ``begin`` after ``zero``, gaps silent.

    ``zero`` is None for the track's own beginning.
    """
    at = begin
    for time, samples, rate in _decoded(path, track, begin, zero, warn):
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
    path: Path, track: int | None, begin: int, zero: Fraction | None, warn: Warn
) -> Generator[_Timed, None, None]:
    """Yield the blocks of a track from before ``begin`` on, without the padding at its end."""
    with open_source(path) as container, raise_media_errors(path, "the sound cannot be decoded"):
        stream = choose_sound(container, track, warn)
        if zero is None and stream.start_time is not None and stream.time_base is not None:
            zero = stream.start_time * stream.time_base
        seconds = Fraction(begin, stream.rate)
        parts = joined_parts(container, stream)
        if parts:
            yield from _decoded_parts(path, track, parts, (zero or 0) + seconds, warn)
            return
        if zero is not None:
            _seek_before(container, stream, zero + seconds, seconds)
        blocks, last = _float_blocks(container, stream, zero or Fraction(0), warn), None
        for time, samples, rate in _without_padding(blocks, padding_begins(container, stream)):
            yield time, samples, rate
            last = time + Fraction(samples.shape[1], rate)
        if last is None and begin == 0:
            raise MediaError(f"{path}: no sound could be decoded from its sound track")
        promised = promised_end(container, stream)
        if promised is not None and last is not None and last < promised - _MISSING:
            warn(
                f"{path.name}: the sound ends at {float(last):.2f} of the {float(promised):.2f} s "
                "that its header promises; the file is incomplete"
            )


def _decoded_parts(
    path: Path, track: int | None, parts: tuple[Part, ...], time: Fraction, warn: Warn
) -> Iterator[_Timed]:
    """Yield the blocks of a track whose edit list joins parts, from the part at ``time`` on."""
    for part in parts:
        if part.end > time:
            with open_source(path, MEDIA_CLOCK) as container:
                stream = choose_sound(container, track, warn)
                _seek_before(container, stream, part.media, part.media)
                yield from sound_of_part(_float_blocks(container, stream, Fraction(0), warn), part)


def _seek_before(
    container: InputContainer, stream: AudioStream, time: Fraction, distance: Fraction
) -> None:
    """Go to before ``time`` if seeking is exact and passes over enough of ``distance`` seconds."""
    seekable = is_mp4(container) or container.format.name.startswith(_SEEKABLE)
    if seekable and not clock_jumps(container) and distance - _SEEK_PREROLL > _SEEK_FROM:
        container.seek(math.floor((time - _SEEK_PREROLL) / (stream.time_base or 1)), stream=stream)


def _float_blocks(
    container: InputContainer, stream: AudioStream, following: Fraction, warn: Warn
) -> Iterator[_Timed]:
    """Decode from the current position on; blocks without a time follow the one before."""
    # kept, as the decoder changes them with the sound
    rate, channels, layout = stream.rate, stream.channels, stream.layout.name
    planar = channels <= _MOST_PLANES
    converters: dict[tuple[str, str, int], AudioResampler] = {}
    for frame in decode_sound(container, stream, warn):
        known = frame.pts is not None and frame.time_base is not None
        begins: Fraction = frame.pts * frame.time_base if known else following  # pyright: ignore
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind not in converters:
            if converters:
                warn(
                    f"{path_of_container(container).name}: rate or channels of the sound change at "
                    f"{float(begins):.2f} s; it is converted to those of its beginning"
                )
            converters[kind] = AudioResampler("fltp" if planar else "flt", layout, rate)
        for part in converters[kind].resample(frame):
            samples = part.to_ndarray()
            yield begins, samples if planar else samples.reshape(-1, channels).T, rate  # pyright: ignore[reportReturnType]
        following = begins + Fraction(frame.samples, frame.sample_rate)


def _without_padding(blocks: Iterable[_Timed], end: Fraction | None) -> Iterator[_Timed]:
    """Cut ``blocks`` at ``end``, unless so much follows that it can be no padding."""
    if end is None:
        yield from blocks
        return
    held: list[_Timed] = []
    largest = 1
    for time, samples, rate in blocks:
        largest = max(largest, samples.shape[1])
        held.append((time, samples, rate))
        after = time + Fraction(samples.shape[1], rate) - end
        if after <= 0 or after * rate > _PADDING * largest:
            yield from held
            held.clear()
    for time, samples, rate in held:
        kept = max(0, round((end - time) * rate))
        if kept:
            yield time, samples[:, :kept], rate
