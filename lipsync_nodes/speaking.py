"""What 'Generate Lip Sync (Wav2Lip)' does: a video from file to file, images in memory."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..lipsync_core.audio import fitted, frame_count, mixed, mono, resample
from ..lipsync_core.blending import Blend
from ..lipsync_core.casting import Drawings, Role
from ..lipsync_core.dubbing import Encoding, dub
from ..lipsync_core.faces.selection import parse_face, select
from ..lipsync_core.finding import Finding, find_people
from ..lipsync_core.footage import Cut, Longer, Pictures, arranged, opened, order
from ..lipsync_core.models.talking_face import TalkingFace
from ..lipsync_core.pipeline import LipSync
from ..lipsync_core.types import Audio, FaceTrack, Frames, VideoInfo
from . import convert, host
from .recent import Recent
from .values import People, Speaker, Voice
from .videos import NO_MASK, VideoSource, video_output, video_source

# Of frames as a file codes them, that travel together: six such chunks are on their way at a time, and what large ones leave
# behind in glibc's heap is not used again. 4 frames of 1080p, 9 of 720p.
_CHUNK_BYTES = 12 * 2**20
_PIXEL_BYTES = 16  # of an IMAGE and its MASK: four floats
_WORKING_BYTES = 48  # of a pixel that is being drawn into: floats of the frame, its copies and its mask
_WORKING_ROOM = 2**28

_log = logging.getLogger("lipsync.nodes")
_drawings: Recent[list[Drawings]] = Recent()
"""What was drawn last, so that another blend of it need not draw again."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Who says what, and how it is shown. ``speech``: what speakers say who have no sound of their own. ``people``: None
    where nobody was looked for yet. ``inputs``: the host's own values, by which the drawings are known again."""

    speech: Audio | None
    people: People | None
    voice: Voice
    blend: Blend
    longer: Longer
    batch: int
    inputs: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        media: Any,
        audio: Mapping[str, Any] | None,
        people: People | None,
        voice: Voice | None,
        blend: Blend | None,
        *,
        longer: Longer,
        batch: int,
    ) -> "Job":
        voice = voice or Voice(host.bundled_model(), "mini")
        speech = None if audio is None else convert.audio(audio)
        inputs = (media, None if audio is None else audio["waveform"], people, voice.patcher)
        return cls(speech, people, voice, blend or Blend(), longer, batch, inputs)

    def speakers(self, own: Callable[[], Path | Audio]) -> list[tuple[Path | Audio, FaceTrack | str]]:
        """Each speaker's sound and face. ``own``: the media's own sound, for who has no other."""
        if self.people is None:
            return [(self.speech or own(), "largest")]
        chosen = self.people.speakers or (Speaker(select(self.people.tracks, parse_face("largest")), None),)
        own = cache(own)
        if self.speech is not None and all(speaker.audio for speaker in chosen):
            _log.warning("the audio of 'Generate Lip Sync' is heard nowhere: every 'Select Face' has one of its own")
        return [(speaker.audio or self.speech or own(), speaker.track) for speaker in chosen]

    def check(self, width: int, height: int, frames: int | None, *, spare: int = 0) -> None:
        """ValueError when the tracks are of media of another size or, by more than ``spare`` frames, length."""
        if self.people is None:
            return
        got, wanted = (self.people.width, self.people.height), (width, height)
        if got != wanted or (frames is not None and abs(self.people.frames - frames) > spare):
            counted = "" if frames is None else f" and {frames} frames"
            raise ValueError(
                f"the tracks are of {got[0]}x{got[1]} px and {self.people.frames} frames, the media has "
                f"{width}x{height} px{counted}; connect both from the same place"
            )

    def drawings(self, *settings: Any, count: int) -> list[Drawings]:
        settings = (*settings, self.voice.precision)
        return _drawings.get(self.inputs, settings, lambda: [Drawings() for _ in range(count)])


def video(media: Any, job: Job, *, crf: float) -> tuple[Any, Any, Any]:
    """VIDEO, AUDIO, and instead of a MASK why there is none."""
    source = video_source(media)
    info = opened(source.path, Cut(source.start, source.end)).info
    end = _picture_end(source, info)
    frames = None if end is None else round((end - source.start) * info.fps)
    job.check(info.width, info.height, frames, spare=2 + (frames or 0) // 50)  # containers state it roughly
    speakers = job.speakers(lambda: _own_sound(source))
    own = any(sound is source.sound for sound, _ in speakers)
    cut = Cut(source.start, end if own else source.end, None, job.longer)
    generator = _network(job)
    progress = host.Progress({"dub": 3} if job.people else {"find faces": 1, "dub": 3})

    def run(batch: int) -> Any:
        return dub(
            source.path,
            speakers,
            host.temp_file(".mp4"),
            model=generator,
            model_name=job.voice.name,
            blend=job.blend,
            cut=cut,
            finding=Finding(cache=source.lasting),
            encoding=Encoding(crf=crf),
            device=str(host.device()),
            precision=job.voice.precision,
            batch=batch,
            people=None if job.people is None else (job.people.tracks, job.people.frames),
            drawings=job.drawings(batch, job.longer, count=len(speakers)),
            on_progress=progress,
            on_frames=progress.show,
        )

    most = max(1, _CHUNK_BYTES // (info.width * info.height * 3 // 2))
    report = host.halving(min(job.batch, most), run)
    seconds = report.frames / report.fps
    heard = [sound if isinstance(sound, Audio) else source.audio(end=seconds) for sound, _ in speakers]
    return video_output(report.out), convert.audio_value(fitted(mixed(heard), seconds)), host.blocked(NO_MASK)


def _picture_end(source: VideoSource, info: VideoInfo) -> Fraction | None:
    """Where the picture ends, in seconds of the file, as far as it is known: the last packet of AAC outlasts it, and a video
    that speaks its own sound stays as long as it is."""
    ends = [end for end in (source.end, info.frames and info.frames / info.fps) if end]
    return min(ends, default=None)


def _own_sound(source: VideoSource) -> Path | Audio:
    """What a video says itself; a file's is read as it is needed. MediaError without any."""
    if source.sound is None:
        source.audio()  # raises
    assert source.sound is not None
    return source.sound


def images(media: Tensor, job: Job, *, fps: float) -> tuple[Tensor, dict[str, Any], Tensor]:
    """IMAGE, AUDIO and MASK."""
    pictures = Pictures(convert.frames(media).pixels, convert.rate(fps))
    length, height, width, _ = pictures.pixels.shape
    still = length == 1
    job.check(width, height, length)
    speakers = [(sound, who) for sound, who in job.speakers(_no_sound) if isinstance(sound, Audio)]
    sync = LipSync(_network(job), blend=job.blend, precision=job.voice.precision)
    heard = [resample(mono(sound), sync.config.features.rate) for sound, _ in speakers]
    count = max(frame_count(sound, pictures.fps) for sound in heard)
    if job.longer == "trim" and not still:
        count = min(count, length)
    batch = max(1, min(job.batch, count, _WORKING_ROOM // (height * width * _WORKING_BYTES)))
    host.refuse_unless_fits(
        (count * _PIXEL_BYTES + batch * _WORKING_BYTES) * height * width,
        f"{count} images of {width}x{height} px, with their mask,",
        "connect a VIDEO instead (Load Video), which is written frame by frame, or make it shorter or smaller",
    )
    progress = host.Progress({"dub": 3} if job.people else {"find faces": 1, "dub": 3})
    index = order(length, count, job.longer)
    faces = [arranged(_track(who, pictures, progress), length, index) for _, who in speakers]

    def run(batch: int) -> tuple[Tensor, Tensor]:
        drawings = job.drawings(batch, job.longer, str(pictures.fps), count=len(speakers))
        made, mask = torch.empty(count, height, width, 3), torch.empty(count, height, width)
        voices = [Role(*parts) for parts in zip(heard, faces, drawings, strict=True)]
        frames = [Frames(pictures.pixels)] if still else pictures.frames(count, longer=job.longer, chunk=batch)

        def seen(start: int, shares: Tensor) -> None:
            mask[start : start + len(shares)] = shares

        wanted = count if still else None
        for chunk in sync.in_turn(frames, voices, fps=pictures.fps, still=wanted, chunk=batch, on_shares=seen):
            here = slice(chunk.start, chunk.start + len(chunk.pixels))
            made[here] = chunk.pixels
            progress.show(chunk)
            progress("dub", here.stop, count)
        return made, mask

    made, mask = host.halving(batch, run)
    sound = fitted(mixed([sound for sound, _ in speakers]), count / pictures.fps)
    return convert.image(made), convert.audio_value(sound), convert.mask(mask)


def _track(who: FaceTrack | str, pictures: Pictures, progress: host.Progress) -> FaceTrack:
    if isinstance(who, FaceTrack):
        return who
    count = len(pictures.pixels)
    people, _ = find_people(
        pictures, Finding(), host.device(), stop=count, on_found=lambda done: progress("find faces", done, count)
    )
    return select(people, parse_face(who))


def _network(job: Job) -> TalkingFace:
    network = host.loaded(job.voice.patcher)
    assert isinstance(network, TalkingFace)
    return network


def _no_sound() -> Audio:
    raise ValueError("there is nothing to say: connect an audio here, or to every 'Select Face'")
