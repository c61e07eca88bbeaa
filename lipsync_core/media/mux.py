"""Write the tracks beside the picture: sound copied or encoded, other tracks copied."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from av.audio.stream import AudioStream
from av.codec import Codec, CodecContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from ..errors import MediaError
from ..runtime.paths import same_file
from ..types import Audio
from .audio_reader import (
    Samples,
    clock_zero,
    first_sample_time,
    make_audio_frame,
    probe_sound,
    read_audio_blocks,
    resample_blocks,
    trim_blocks,
)
from .container import (
    Warn,
    first_frame_audio_time,
    joined_parts,
    open_source,
    path_of_container,
    picture_times,
    read_packets,
)
from .encoders import keeps_aspect, tag_for_players
from .sound_tracks import choose_sound, has_decoder, other_tracks

# What players can be expected to play in each container; a superset may be legal. None: anything.
_COPIED_SOUND: dict[str, frozenset[str] | None] = {
    ".mp4": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"}),
    ".m4v": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    ".mkv": None,
    ".webm": frozenset({"opus", "vorbis"}),
}
_COPIED_TEXT: dict[str, frozenset[str]] = {
    ".mp4": frozenset({"mov_text"}),
    ".m4v": frozenset({"mov_text"}),
    ".mov": frozenset({"mov_text"}),
    ".mkv": frozenset(
        {
            "subrip",
            "srt",
            "ass",
            "ssa",
            "webvtt",
            "dvdsub",
            "dvd_subtitle",
            "pgssub",
            "hdmv_pgs_subtitle",
        }
    ),
    ".webm": frozenset({"webvtt"}),
}
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_BITS_PER_CHANNEL = 96_000  # per second: 192 kb/s stereo, transparent for AAC-LC
_REORDERED = 32  # packets: more than any codec holds back (16 in H.264 and HEVC)
LATER_THAN_ANYTHING = Fraction(1 << 40)  # seconds
_HIDING = frozenset({"mp4", "mov", "ipod"})  # containers with edit lists
# seconds that a copied track may begin before the picture without being cut
_ALIGNED = Fraction(1, 1000)


@dataclass(frozen=True, slots=True, eq=False)
class AudioSource:
    """Sound of an output file.

    Attributes:
        source: a file, or samples in memory.
        start: seconds after its sample 0 (see ``read_audio``) that sound with the first frame
            written, or after ``lead``.
        stop: seconds at which it falls silent; None for its end.
        lead: seconds of silence before it.
        track: number of the file's sound track, from 1; None for the default one.
        keep_early: whether sample 0 is the first sound of the file if that comes before its first
            picture; see ``read_audio``.
    """

    source: Path | Audio
    start: Fraction = Fraction(0)
    stop: Fraction | None = None
    lead: Fraction = Fraction(0)
    track: int | None = None
    keep_early: bool = False

    def __post_init__(self) -> None:
        if self.lead < 0:
            raise ValueError(
                f"lead={self.lead} s; expected 0 or more (an earlier sound: a later start)"
            )
        if self.start < 0 or (self.stop is not None and self.stop < self.start):
            raise ValueError(f"start={self.start}, stop={self.stop} s; expected 0 <= start <= stop")
        if isinstance(self.source, Audio):
            samples = self.source.samples
            if not len(samples):
                raise ValueError(
                    "the audio has no channels; expected samples (C,T) with C from 1 on"
                )
            bad = (~torch.isfinite(samples)).any(dim=0).nonzero()
            if len(bad):
                at = int(bad[0]) / self.source.rate
                raise ValueError(
                    f"{len(bad)} samples of the audio are NaN or infinite, the first at {at:.3f} "
                    "s; repair it"
                )


def add_audio_stream(
    out: OutputContainer, suffix: str, sound: AudioSource, stack: ExitStack, warn: Warn
) -> "Track":
    """Add a stream for ``sound`` to ``out``.

    It is copied if the container takes the codec and nothing is cut or put before it, else encoded.
    """
    if (
        isinstance(sound.source, Path)
        and sound.start == sound.lead == 0
        and _can_copy(sound, suffix)
    ):
        container = stack.enter_context(open_source(sound.source))
        zero = clock_zero(sound.source, sound.track, keep_early=sound.keep_early)
        zero = first_sample_time(sound.source, sound.track) if zero is None else zero
        stream = choose_sound(container, sound.track, warn)
        return CopiedTracks(out, container, (stream,), zero, sound.stop, warn)
    return EncodedTrack(out, suffix, sound, warn)


def add_other_streams(
    out: OutputContainer,
    suffix: str,
    source: Path,
    start: Fraction,
    stack: ExitStack,
    warn: Warn,
    sound: AudioSource | None = None,
) -> "Track | None":
    """Add streams for all sound tracks of ``source`` but one, and for its subtitles.

    Args:
        out: the container to write.
        suffix: its file name suffix, which decides what it can hold; a warning names the rest.
        source: the file to copy from.
        start: seconds of the picture's clock of ``source`` that belong to the first frame written.
        stack: closes ``source``.
        warn: called with each warning.
        sound: the sound that takes the place of one track: of its own, if it is read from
            ``source``, else of the default one.

    Returns:
        The tracks, None if there are none.
    """
    container = stack.enter_context(open_source(source))
    replaced = sound.track if sound is not None and same_file(sound.source, source) else None
    kept: list[Stream] = []
    for stream in (*other_tracks(container, replaced, warn), *container.streams.subtitles):
        codec = stream.codec_context.name if has_decoder(stream) else "of an unknown kind"
        allowed = (_COPIED_SOUND if stream.type == "audio" else _COPIED_TEXT).get(suffix)
        joined = joined_parts(container, stream)
        if not joined and (allowed is None or codec in allowed):
            kept.append(stream)
        else:
            kind = "sound" if stream.type == "audio" else "subtitle"
            reason = "its edit list joins parts" if joined else f"{suffix} cannot hold it"
            warn(f"{source.name}: {kind} track {stream.index} ({codec}) is dropped; {reason}")
    if not kept:
        return None
    return CopiedTracks(
        out,
        container,
        tuple(kept),
        (first_frame_audio_time(source) or Fraction(0)) + start,
        None,
        warn,
    )


class CannotCopy(MediaError):
    """Packets of a track that show something else when they are copied."""


class CopiedTracks:
    """Streams of one file, copied packet by packet.

    Args:
        zero: time of the file's clock at which the first frame is shown.
        stop: seconds after it from which on nothing is copied.

    Raises:
        CannotCopy: If the copy of a picture would show other pictures, also while it is written.
    """

    def __init__(
        self,
        out: OutputContainer,
        container: InputContainer,
        streams: tuple[Stream, ...],
        zero: Fraction,
        stop: Fraction | None,
        warn: Warn,
    ) -> None:
        self._out = out
        self._zero = zero
        self._stop = stop
        name = path_of_container(container).name
        if any(joined_parts(container, stream) for stream in streams):
            raise CannotCopy(f"{name}: its edit list joins several parts of a track")
        self._streams = {stream.index: _add_copy(out, stream, name) for stream in streams}
        can_hide = out.format.name in _HIDING
        self._packets = _decodable(
            _dated(_timed(container, streams, warn)), zero, name, can_hide, warn
        )
        self._next: Packet[Stream] | None = next(self._packets, None)
        self._last: dict[int, Packet[Stream]] = {}  # of each stream, not written yet
        self.end = Fraction(0)  # seconds after the first frame at which the last packet ends

    def mux_until(self, until: Fraction) -> None:
        """Write what is played before ``until``, in seconds after the first frame."""
        if self._stop is not None:
            until = min(until, self._stop)
        while self._next is not None:
            packet = self._next
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                base = packet.time_base
                if stamp * base - self._zero >= until:
                    return
                # What ended before the first frame is left out; encoder priming ends exactly there
                # and stays, and so do the hidden pictures from which shown ones are decoded.
                hidden = packet.is_discard and packet.stream.type == "video"
                if hidden or (stamp + (packet.duration or 0)) * base >= self._zero:
                    self._mux(packet, round(self._zero / base), stamp)
            self._next = next(self._packets, None)

    def _mux(self, packet: "Packet[Stream]", shift: int, stamp: int) -> None:
        packet.stream = self._streams[packet.stream_index]
        packet.pts = stamp - shift
        packet.dts = (packet.dts if packet.dts is not None else stamp) - shift
        self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        last = self._last.pop(packet.stream_index, None)
        self._last[packet.stream_index] = packet
        if last is not None:
            self._out.mux_one(last)

    def finish(self, end: Fraction, picture_end: Fraction) -> None:
        """Write the rest, up to ``end`` seconds.

        The last packet of sound lasts until the picture ends, where that is less than a second.
        """
        self.mux_until(end)
        for packet in self._last.values():
            ends = (packet.pts or 0) + (packet.duration or 0)
            missing = math.ceil(picture_end / packet.time_base) - ends
            if packet.stream.type == "audio" and 0 < missing * packet.time_base < 1:
                packet.duration = (packet.duration or 0) + missing
            self._out.mux_one(packet)


def _add_copy(out: OutputContainer, stream: Stream, name: str) -> Stream:
    # opaque: the decoder gives its name, as there may be no encoder for a codec (AV1)
    copy = out.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(stream.metadata)
    if isinstance(stream, VideoStream) and isinstance(copy, VideoStream):
        tag_for_players(out, copy)
        aspect, codec = stream.sample_aspect_ratio, stream.codec_context.codec.canonical_name
        if aspect and aspect != 1:
            if not keeps_aspect(out.format.name, codec):
                raise CannotCopy(
                    f"{name}: its pixels are not square, which {out.format.name} is not told of "
                    f"{codec} that is copied"
                )
            copy.codec_context.sample_aspect_ratio = aspect
    return copy


def _timed(
    container: InputContainer, streams: tuple[Stream, ...], warn: Warn
) -> "Iterator[Packet[Stream]]":
    """Read packets; pictures of AVI files get the times at which they are shown."""
    picture = next((stream for stream in streams if isinstance(stream, VideoStream)), None)
    times = None
    if picture is not None:
        with open_source(path_of_container(container)) as other:
            same = next(one for one in other.streams.video if one.index == picture.index)
            times = picture_times(other, same)
    for packet in read_packets(container, streams, warn):
        if times is not None and packet.stream is picture and packet.dts in times:
            packet.dts, packet.pts = times[packet.dts]
        yield packet


def _dated(found: "Iterator[Packet[Stream]]") -> "Iterator[Packet[Stream]]":
    """Repair the decoding times of a picture's first packets.

    Frames may be stored in another order than shown: Matroska leaves their decoding times out,
    MPEG-PS repeats the first. They are counted back from the first that is sure.
    """
    held: list[Packet[Stream]] = []
    sure = False
    for packet in found:
        if sure or packet.stream.type != "video":
            yield packet
            continue
        held.append(packet)
        if (len(held) > 1 and packet.dts is not None) or len(held) == _REORDERED:
            sure = True
            for earlier, later in zip(held[-2::-1], held[:0:-1], strict=True):
                if later.dts is not None and (earlier.dts is None or earlier.dts >= later.dts):
                    earlier.dts = later.dts - max(1, earlier.duration or 0)
            yield from held
            held.clear()
    shown = [packet.pts for packet in held if packet.pts is not None]
    # a few frames in all
    if held and len(shown) == len(held) and any(packet.dts is None for packet in held):
        places = sorted(shown)
        late = max(place - pts for place, pts in zip(places, shown, strict=True))
        for packet, place in zip(held, places, strict=True):
            packet.dts = place - late
    yield from held


def _decodable(
    found: "Iterator[Packet[Stream]]", zero: Fraction, name: str, can_hide: bool, warn: Warn
) -> "Iterator[Packet[Stream]]":
    """Yield the pictures that are shown, with the hidden ones from which they are decoded.

    An edit list may begin and end between key frames, as in cuts made without encoding. What it
    hides is left out where nothing that is shown needs it.

    Args:
        found: the packets in file order; those of other kinds pass.
        zero: seconds at which the first frame is shown.
        name: the file's name, for messages.
        can_hide: whether the container that is written can hide pictures at its start.
        warn: called with each warning.

    Yields:
        The packets in file order.

    Raises:
        CannotCopy: If pictures that must be hidden cannot be.
    """
    hidden: list[Packet[Stream]] = []
    begun = False
    for packet in found:
        if packet.stream.type != "video":
            yield packet
            continue
        if packet.is_discard:
            hidden.append(packet)
            continue
        # a key frame that comes later than the first frame shown may follow pictures that need
        # the hidden ones
        first = packet.pts is None or packet.pts * packet.time_base <= zero
        if packet.is_keyframe and (begun or first):
            hidden.clear()
        if hidden:
            _check_hidden(hidden, begun, name, can_hide)
        late = [p for p in hidden if p.pts is not None and p.pts * p.time_base > zero]
        if late:
            warn(
                f"{name}: the copy shows {len(late)} more picture at its end than the edit list "
                "does; the one before is decoded from it"
            )
        yield from hidden
        hidden.clear()
        begun = True
        yield packet


def _check_hidden(hidden: "list[Packet[Stream]]", begun: bool, name: str, can_hide: bool) -> None:
    """Raise CannotCopy where ``hidden`` pictures would be shown in what is written."""
    if not begun and not can_hide:
        raise CannotCopy(
            f"{name} is cut between key frames: pictures before the cut would have to stay in the "
            "file without being shown, which only .mp4 and .mov can do"
        )
    if begun and any(packet.is_keyframe for packet in hidden):
        raise CannotCopy(f"{name}: its edit list hides key frames between pictures that it shows")


class EncodedTrack:
    """Sound that is decoded and encoded again, as AAC (Opus in WebM).

    It keeps its rate and channels if the encoder can.
    """

    def __init__(self, out: OutputContainer, suffix: str, sound: AudioSource, warn: Warn) -> None:
        codec = "libopus" if suffix == ".webm" else "aac"
        if isinstance(sound.source, Audio):
            rate, channels, layout = sound.source.rate, len(sound.source.samples), None
        else:
            info = probe_sound(sound.source, sound.track)
            rate, channels, layout = info.rate, info.channels, info.layout
        self._rate = _nearest_rate(codec, rate)
        self._layout = _encodable_layout(codec, self._rate, channels, layout)
        self._out = out
        self._stream: AudioStream = out.add_stream(codec, self._rate, layout=self._layout)  # pyright: ignore
        self._stream.bit_rate = _BITS_PER_CHANNEL * channels  # pyright: ignore[reportAttributeAccessIssue]
        self._blocks = _blocks(sound, self._rate, warn)
        self._rest = np.zeros((channels, round(sound.lead * self._rate)), np.float32)
        self._at = 0

    def mux_until(self, until: Fraction) -> None:
        """Write what is played before ``until``, in seconds after the first frame."""
        wanted = round(until * self._rate)
        while self._at < wanted:
            if not self._rest.shape[1]:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._rest = block
            part, self._rest = np.split(self._rest, [wanted - self._at], axis=1)
            frame = make_audio_frame(part, self._rate, self._at, self._layout)
            self._at += part.shape[1]
            self._out.mux(self._stream.encode(frame))

    def finish(self, end: Fraction, picture_end: Fraction) -> None:
        """Write the rest, up to ``end`` seconds, and silence up to the end of the picture."""
        self.mux_until(end)
        missing = round(picture_end * self._rate) - self._at
        if missing > 0:
            self._blocks = iter([np.zeros((self._rest.shape[0], missing), np.float32)])
            self.mux_until(picture_end)
        self._out.mux(self._stream.encode(None))


Track = CopiedTracks | EncodedTrack


def _can_copy(sound: AudioSource, suffix: str) -> bool:
    assert isinstance(sound.source, Path)
    with open_source(sound.source) as container:
        if joined_parts(container, choose_sound(container, sound.track, lambda _: None)):
            return False
    allowed = _COPIED_SOUND[suffix]
    if allowed is not None and probe_sound(sound.source, sound.track).codec not in allowed:
        return False
    zero = clock_zero(sound.source, sound.track, keep_early=sound.keep_early)
    return zero is None or first_sample_time(sound.source, sound.track) > zero - _ALIGNED


def _nearest_rate(codec: str, rate: int) -> int:
    """``rate`` if the encoder has it, else the next higher one, else its highest."""
    rates = Codec(codec, "w").audio_rates
    return (
        rate
        if not rates or rate in rates
        else min((r for r in rates if r > rate), default=max(rates))
    )


def _encodable_layout(codec: str, rate: int, channels: int, layout: str | None) -> str:
    """Return the source's channel layout if the encoder takes it, else the customary one."""
    for name in (layout, _LAYOUTS.get(channels)):
        if name is not None:
            context = CodecContext.create(codec, "w")
            context.sample_rate, context.layout = rate, name  # pyright: ignore[reportAttributeAccessIssue]
            context.format = "fltp" if codec == "aac" else "flt"  # pyright: ignore[reportAttributeAccessIssue]
            try:
                context.open()
            except (FFmpegError, ValueError):
                continue
            return name
    raise MediaError(
        f"{codec} cannot hold {channels} channels ({layout}); mix the sound down to 8 or fewer"
    )


def _blocks(sound: AudioSource, rate: int, warn: Warn) -> Iterator[Samples]:
    start = round(sound.start * rate)
    stop = None if sound.stop is None else round(sound.stop * rate)
    if isinstance(sound.source, Audio):
        samples = sound.source.samples.detach().cpu().to(torch.float32).numpy()
        return trim_blocks(resample_blocks([samples], sound.source.rate, rate), start, stop)
    return read_audio_blocks(
        sound.source,
        rate=rate,
        start=start,
        stop=stop,
        track=sound.track,
        keep_early=sound.keep_early,
        on_warning=warn,
    )
