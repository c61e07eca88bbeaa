"""What 'Generate Lip Sync (Wav2Lip)' does: a video from file to file, images in memory."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..lipsync_core.audio.ops import fitted, frame_count, mixed, mono, resample
from ..lipsync_core.audio.vad import Silence
from ..lipsync_core.blend.blender import Blend
from ..lipsync_core.faces.selection import parse_face, select
from ..lipsync_core.media.clip import Cut, ImageClip, Longer, frame_order, open_clip
from ..lipsync_core.models.generator import TalkingFace
from ..lipsync_core.pipelines.dub import Encoding, dub
from ..lipsync_core.pipelines.dub_plan import Shown, drawn_from, looks_of, roles_of, suit_roles
from ..lipsync_core.pipelines.lipsync import LipSync
from ..lipsync_core.pipelines.reference import Reference
from ..lipsync_core.pipelines.restore import Restore, restored, restorer_for
from ..lipsync_core.pipelines.roles import FaceDub, GeneratorCache, RenderedChunk
from ..lipsync_core.pipelines.track_faces import Finding, find_people, load_parser
from ..lipsync_core.types import Audio, FaceTrack, Frames, VideoInfo
from . import convert, host
from .looking import PARSER_BYTES
from .lru import LastResult
from .types import People, Voice
from .videos import NO_MASK, VideoSource, video_output, video_source

# Of frames as a file codes them, that travel together: six such chunks are on their way at a time,
# and what large ones leave behind in glibc's heap is not used again. 4 frames of 1080p, 9 of 720p.
_CHUNK_BYTES = 12 * 2**20
_PIXEL_BYTES = 16  # of an IMAGE and its MASK: four floats
# of a pixel that is being drawn into: floats of the frame, its copies and its mask
_WORKING_BYTES = 48
_WORKING_ROOM = 2**28
_RESTORER_BYTES = (
    3 << 30
)  # of 350 MB of weights and eight faces of 512 px, of which a layer's features take half a gigabyte

_log = logging.getLogger("lipsync.nodes")
_drawings: LastResult[list[GeneratorCache]] = LastResult()
"""What was drawn last, so that another blend of it need not draw again."""


@dataclass(frozen=True, slots=True, eq=False)
class Wishes:
    """What widgets say. ``speakers``: "chosen", or "whoever speaks". ``restorer``: what restores
    the faces afterwards."""

    blend: Blend = Blend()
    longer: Longer = "pingpong"
    batch: int = 8
    restorer: Restore | None = None
    silence: Silence = "generate"
    reference: Reference = "auto"
    speakers: str = "chosen"

    @property
    def turns(self) -> bool:
        """Whether everybody speaks in their own turns."""
        return self.speakers == "whoever speaks"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Who says what, and how it is shown. ``speech``: what speakers say who have no sound of their
    own. ``people``: None where nobody was looked for yet. ``inputs``: the host's own values, by
    which the drawings are known again."""

    speech: Audio | None
    people: People | None
    voice: Voice
    wishes: Wishes
    inputs: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        media: Any,
        audio: Mapping[str, Any] | None,
        people: People | None,
        voice: Voice | None,
        wishes: Wishes,
    ) -> "Job":
        voice = voice or Voice(host.bundled_model(), "mini")
        speech = None if audio is None else convert.audio(audio)
        inputs = (media, None if audio is None else audio["waveform"], people, voice.patcher)
        return cls(speech, people, voice, wishes, inputs)

    @property
    def drawn_from(self) -> Reference:
        """What mouths are drawn from: ``looks_of`` has a closed one for those that close."""
        return drawn_from(self.wishes.reference, self.wishes.silence, self.voice.patcher.model)

    def speakers(
        self, own: Callable[[], Path | Audio]
    ) -> list[tuple[Path | Audio, FaceTrack | str]]:
        """Each speaker's sound and face. ``own``: the media's own sound, for who has no other.
        ValueError where somebody is chosen and whoever speaks is to speak."""
        if self.wishes.turns and self.people is not None and self.people.speakers:
            raise ValueError(
                "'Select Face' chose who speaks, and speakers is 'whoever speaks': connect the tracks of 'Detect Faces' "
                "itself, or set speakers to 'chosen'"
            )
        if self.people is None or self.wishes.turns:
            return [(self.speech or own(), "largest")]
        chosen, own = self.people.speaking, cache(own)
        if self.speech is not None and all(speaker.audio for speaker in chosen):
            _log.warning(
                "the audio of 'Generate Lip Sync' is heard nowhere: every 'Select Face' has one of its own"
            )
        return [(speaker.audio or self.speech or own(), speaker.track) for speaker in chosen]

    def drawings(self, batch: int, *settings: Any, count: int) -> list[GeneratorCache]:
        """What was drawn before for ``count`` speakers, by all that changes what is drawn."""
        wishes = self.wishes
        settings = (*settings, batch, wishes.longer, self.drawn_from, self.voice.precision)
        return _drawings.get(
            self.inputs, settings, lambda: [GeneratorCache() for _ in range(count)]
        )

    def progress(self) -> host.Progress:
        """A bar of the stages that there will be."""
        stages = {
            "pull": self.wishes.blend.occlusion == "parse",
            "find faces": self.people is None,
            "listen": self.wishes.turns,
            "find references": self.drawn_from != "current",
        }
        return host.Progress({**{stage: 1 for stage, there in stages.items() if there}, "dub": 3})

    def network(self, progress: host.Progress) -> TalkingFace:
        """The generator on its device, beside room for what works there for a moment, which is
        fetched where it is not here."""
        if self.wishes.blend.occlusion == "parse":
            host.pulled("face_parsing", progress)
            host.make_room(PARSER_BYTES)
        if self.wishes.restorer is not None:
            host.make_room(_RESTORER_BYTES)
        network = host.loaded(self.voice.patcher)
        assert isinstance(network, TalkingFace)
        return network


def video(media: Any, job: Job, *, crf: float) -> tuple[Any, Any, Any]:
    """VIDEO, AUDIO, and instead of a MASK why there is none."""
    source, wishes = video_source(media), job.wishes
    info = open_clip(source.path, Cut(source.start, source.end)).info
    end = _picture_end(source, info)
    frames = None if end is None else round((end - source.start) * info.fps)
    if job.people is not None:
        # containers state it roughly
        job.people.check(info.width, info.height, frames, spare=2 + (frames or 0) // 50)
    speakers = job.speakers(lambda: _own_sound(source))
    own = any(sound is source.sound for sound, _ in speakers)
    if wishes.turns and not own and isinstance(source.sound, Audio):
        raise ValueError(
            "who speaks when is heard in a video's own sound, and that of this one is no part of its file: save it with "
            "'Save Video', and connect the file ('Load Video')"
        )
    cut = Cut(source.start, end if own else source.end, None, wishes.longer)
    progress = job.progress()
    generator = job.network(progress)

    def run(batch: int) -> Any:
        return dub(
            source.path,
            speakers,
            host.temp_file(".mp4"),
            model=generator,
            model_name=job.voice.name,
            blend=wishes.blend,
            restore=wishes.restorer,
            silence=wishes.silence,
            reference=wishes.reference,
            speakers="auto" if wishes.turns else None,
            cut=cut,
            finding=Finding(cache=source.lasting),
            encoding=Encoding(crf=crf),
            device=str(host.device()),
            precision=job.voice.precision,
            batch=batch,
            people=None if job.people is None else (job.people.tracks, job.people.frames),
            drawings=None if wishes.turns else job.drawings(batch, count=len(speakers)),
            on_progress=progress,
            on_frames=progress.show,
        )

    most = max(1, _CHUNK_BYTES // (info.width * info.height * 3 // 2))
    report = host.halving(min(wishes.batch, most), run)
    seconds = report.frames / report.fps
    heard = [
        sound if isinstance(sound, Audio) else source.audio(end=seconds) for sound, _ in speakers
    ]
    return (
        video_output(report.out),
        convert.audio_value(fitted(mixed(heard), seconds)),
        host.blocked(NO_MASK),
    )


def _picture_end(source: VideoSource, info: VideoInfo) -> Fraction | None:
    """Where the picture ends, in seconds of the file, as far as it is known: the last packet of AAC
    outlasts it, and a video that speaks its own sound stays as long as it is."""
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
    wishes, pictures = job.wishes, ImageClip(convert.frames(media).pixels, convert.rate(fps))
    if wishes.turns:
        raise ValueError(
            "images have no sound in which to hear who speaks: set speakers to 'chosen', with 'Select Face' for each "
            "person, or connect a VIDEO (Load Video)"
        )
    length, height, width, _ = pictures.pixels.shape
    still = length == 1
    if job.people is not None:
        job.people.check(width, height, length)
    speakers = [(sound, who) for sound, who in job.speakers(_no_sound) if isinstance(sound, Audio)]
    progress = job.progress()
    sync = _sync(job, progress)
    heard = [resample(mono(sound), sync.config.features.rate) for sound, _ in speakers]
    count = max(frame_count(sound, pictures.fps) for sound in heard)
    if wishes.longer == "trim" and not still:
        count = min(count, length)
    batch = max(1, min(wishes.batch, count, _WORKING_ROOM // (height * width * _WORKING_BYTES)))
    host.refuse_unless_fits(
        (count * _PIXEL_BYTES + batch * _WORKING_BYTES) * height * width,
        f"{count} images of {width}x{height} px, with their mask,",
        "connect a VIDEO instead (Load Video), which is written frame by frame, or make it shorter or smaller",
    )
    shown = Shown(pictures, length, frame_order(length, count, wishes.longer))
    roles = _roles(
        job, sync, shown, heard, [_track(who, pictures, progress) for _, who in speakers], progress
    )

    def run(batch: int) -> tuple[Tensor, Tensor]:
        return _spoken(job, sync, shown, roles, batch, progress)

    made, mask = host.halving(batch, run)
    sound = fitted(mixed([sound for sound, _ in speakers]), count / pictures.fps)
    return convert.image(made), convert.audio_value(sound), convert.mask(mask)


def _sync(job: Job, progress: host.Progress) -> LipSync:
    network, blend, precision = job.network(progress), job.wishes.blend, job.voice.precision
    parser = load_parser(host.device(), precision) if blend.occlusion == "parse" else None
    return LipSync(network, blend=blend, precision=precision, parser=parser)


def _roles(
    job: Job,
    sync: LipSync,
    shown: Shown,
    heard: list[Audio],
    tracks: list[FaceTrack],
    progress: host.Progress,
) -> list[FaceDub]:
    """Who says what, as the wishes have it."""
    silence, faces = job.wishes.silence, [(track, None) for track in tracks]
    looks = looks_of(faces, shown, job.wishes.reference, silence, progress, sync=sync, heard=heard)
    roles = roles_of(
        faces, heard, shown, looks, silence=silence, occlusion=job.wishes.blend.occlusion
    )
    return suit_roles(roles, sync, shown)


def _spoken(
    job: Job, sync: LipSync, shown: Shown, roles: list[FaceDub], batch: int, progress: host.Progress
) -> tuple[Tensor, Tensor]:
    """The pictures (T,H,W,3) that ``shown`` tells, with ``roles`` spoken, and how much of new
    mouths they show (T,H,W)."""
    wishes, pictures, count = job.wishes, shown.footage, len(shown.index)
    assert isinstance(pictures, ImageClip)
    width, height = pictures.size
    still, fps = shown.length == 1, pictures.fps
    made, mask = torch.empty(count, height, width, 3), torch.empty(count, height, width)
    kept = job.drawings(batch, str(fps), count=len(roles))
    roles = [replace(role, cache=cache) for role, cache in zip(roles, kept, strict=True)]
    frames = pictures.frames(count, longer=wishes.longer, chunk=batch)

    if still:
        frames = iter([Frames(pictures.pixels)])
    chunks = sync.render(
        frames, roles, fps=fps, still=count if still else None, chunk=batch, opacity=True
    )

    def frames_of(chunks: Iterator[RenderedChunk[Frames]]) -> Iterator[Frames]:
        for chunk in chunks:
            assert chunk.opacity is not None
            mask[chunk.frames.start : chunk.frames.start + len(chunk.opacity)] = chunk.opacity
            yield chunk.frames

    pieces = frames_of(chunks)
    if wishes.restorer is not None:
        restorer = restorer_for(
            wishes.restorer, wishes.blend, host.device(), precision=job.voice.precision
        )
        assert restorer is not None
        tracks, shares = [role.track for role in roles], [role.opacity for role in roles]
        clear = [role.unoccluded for role in roles]
        pieces = restored(pieces, tracks, restorer=restorer, shown=shares, clear=clear, fps=fps)
    for chunk in pieces:
        here = slice(chunk.start, chunk.start + len(chunk.pixels))
        made[here] = chunk.pixels
        progress.show(chunk)
        progress("dub", here.stop, count)
    return made, mask


def _track(who: FaceTrack | str, pictures: ImageClip, progress: host.Progress) -> FaceTrack:
    if isinstance(who, FaceTrack):
        return who
    count = len(pictures.pixels)
    people, _ = find_people(
        pictures,
        Finding(),
        host.device(),
        stop=count,
        on_found=lambda done: progress("find faces", done, count),
    )
    return select(people, parse_face(who))


def _no_sound() -> Audio:
    raise ValueError("there is nothing to say: connect an audio here, or to every 'Select Face'")
