"""What 'Generate Lip Sync (Wav2Lip)' does: a video from file to file, images in memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..lipsync_core.audio import fitted, frame_count, mixed, mono, resample
from ..lipsync_core.dubbing import Encoding, dub
from ..lipsync_core.faces.selection import parse_face, select
from ..lipsync_core.finding import Finding, find_people
from ..lipsync_core.footage import Cut, Longer, Pictures, arranged, opened, order
from ..lipsync_core.models.talking_face import TalkingFace
from ..lipsync_core.pipeline import Blend, Drawings, LipSync
from ..lipsync_core.types import Audio, FaceTrack, Frames, VideoInfo
from . import convert, host
from .recent import Recent
from .values import People, Speaker, Voice
from .videos import VideoSource, video_output, video_source

_PIXEL_BYTES = 16  # of an IMAGE and its MASK: four floats
_NO_MASK = "a video's mask would take gigabytes, so there is none; the images of 'Get Video Components' have one"

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

    def speakers(self, own: Callable[[], Audio]) -> list[tuple[Audio, FaceTrack | str]]:
        """Each speaker's sound and face. ``own``: the media's own sound, for who has no other."""
        if self.people is None:
            return [(self.speech or own(), "largest")]
        chosen = self.people.speakers or (Speaker(select(self.people.tracks, parse_face("largest")), None),)
        own = cache(own)
        return [(speaker.audio or self.speech or own(), speaker.track) for speaker in chosen]

    def check(self, width: int, height: int, frames: int | None) -> None:
        """ValueError when the tracks are of other media."""
        if self.people is None:
            return
        got, wanted = (self.people.width, self.people.height), (width, height)
        if got != wanted or (frames is not None and self.people.frames != frames):
            counted = "" if frames is None else f" and {frames} frames"
            raise ValueError(
                f"the tracks are of {got[0]}x{got[1]} px and {self.people.frames} frames, the media has "
                f"{width}x{height} px{counted}; connect both from the same place"
            )

    def drawings(self, *settings: Any, count: int) -> list[Drawings]:
        return _drawings.get(self.inputs, settings, lambda: [Drawings() for _ in range(count)])


def video(media: Any, job: Job, *, crf: float) -> tuple[Any, Any, Any]:
    """VIDEO, AUDIO, and instead of a MASK why there is none."""
    source = video_source(media)
    cut = Cut(source.start, source.end, None, job.longer)
    info = opened(source.path, cut).info
    job.check(info.width, info.height, None)
    speakers = job.speakers(lambda: _own_sound(source, info))
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
            encoding=Encoding(crf=crf),
            device=str(host.device()),
            precision=job.voice.precision,
            batch=batch,
            people=None if job.people is None else (job.people.tracks, job.people.frames),
            drawings=job.drawings(batch, job.longer, count=len(speakers)),
            on_progress=progress,
            on_frames=progress.show,
        )

    report = host.halving(job.batch, run)
    sound = fitted(mixed([sound for sound, _ in speakers]), report.frames / report.fps)
    return video_output(report.out), convert.audio_value(sound), host.blocked(_NO_MASK)


def _own_sound(source: VideoSource, info: VideoInfo) -> Audio:
    """What a video says itself, no longer than its picture is seen: the last packet of AAC outlasts it."""
    sound = source.audio()
    if info.frames is None:
        return sound
    end = info.frames / info.fps
    seconds = (end if source.end is None else min(end, source.end)) - source.start
    return Audio(sound.samples[:, : int(seconds * sound.rate)], sound.rate)


def images(media: Tensor, job: Job, *, fps: float) -> tuple[Tensor, dict[str, Any], Tensor]:
    """IMAGE, AUDIO and MASK."""
    pictures = Pictures(convert.frames(media).pixels, convert.rate(fps))
    length, height, width, _ = pictures.pixels.shape
    job.check(width, height, length)
    speakers = job.speakers(_no_sound)
    sync = LipSync(_network(job), blend=job.blend, precision=job.voice.precision)
    heard = [resample(mono(sound), sync.config.features.rate) for sound, _ in speakers]
    count = max(frame_count(sound, pictures.fps) for sound in heard)
    if job.longer == "trim" and length > 1:
        count = min(count, length)
    host.refuse_unless_fits(
        count * height * width * _PIXEL_BYTES,
        f"{count} images of {width}x{height} px, with their mask,",
        "connect a VIDEO instead (Load Video), which is written frame by frame, or make it shorter or smaller",
    )
    progress = host.Progress({"dub": 3} if job.people else {"find faces": 1, "dub": 3})
    index = order(length, count, job.longer)
    faces = [arranged(_track(who, pictures, progress), length, index) for _, who in speakers]

    def run(batch: int) -> tuple[Tensor, Tensor]:
        drawings = job.drawings(batch, job.longer, str(pictures.fps), count=len(speakers))
        made, mask = torch.empty(count, height, width, 3), torch.empty(count, height, width)
        for chunk in _spoken(pictures, sync, list(zip(heard, faces, drawings, strict=True)), count, job.longer, batch):
            here = slice(chunk.start, chunk.start + len(chunk.pixels))
            made[here] = chunk.pixels
            mask[here] = sync.masks(height, width, faces, start=chunk.start, count=len(chunk.pixels))
            progress.show(chunk)
            progress("dub", here.stop, count)
        return made, mask

    made, mask = host.halving(job.batch, run)
    sound = fitted(mixed([sound for sound, _ in speakers]), count / pictures.fps)
    return convert.image(made), convert.audio_value(sound), convert.mask(mask)


def _spoken(
    pictures: Pictures,
    sync: LipSync,
    speakers: list[tuple[Audio, FaceTrack, Drawings]],
    count: int,
    longer: Longer,
    batch: int,
) -> Iterator[Frames]:
    """The frames, each speaker in turn speaking in them."""
    fps, rest = pictures.fps, list(speakers)
    if len(pictures.pixels) == 1:
        voice, face, drawn = rest.pop(0)
        photo = Frames(pictures.pixels)
        pieces = sync.still(photo, voice, fps=fps, tracks=[face], count=count, chunk=batch, drawings=drawn)
    else:
        pieces = pictures.frames(count, longer=longer, chunk=batch)
    for voice, face, drawn in rest:
        pieces = sync.stream(pieces, voice, fps=fps, tracks=[face], drawings=drawn)
    return iter(pieces)


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
