"""The work of the node 'LipSync Dub': videos as files, images in memory."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..lipsync_core.audio.ops import mix, pad_or_trim
from ..lipsync_core.audio.vad import Silence
from ..lipsync_core.errors import MediaError, NoFaceError
from ..lipsync_core.media import probe
from ..lipsync_core.media.clip import ImageClip, open_clip
from ..lipsync_core.models.generator import TalkingFace
from ..lipsync_core.options import Blend, Cut, Encoding, Longer, Restore
from ..lipsync_core.pipelines.audio_inputs import read_audio_inputs
from ..lipsync_core.pipelines.dub import dub
from ..lipsync_core.pipelines.dub_plan import (
    PlanOptions,
    Speakers,
    choose_reference,
    count_output_frames,
    parse_speakers,
    plan_dub,
)
from ..lipsync_core.pipelines.lipsync import LipSync
from ..lipsync_core.pipelines.mouth_verdict import MouthVerdict, MouthWatch
from ..lipsync_core.pipelines.reference import Reference
from ..lipsync_core.pipelines.render import render
from ..lipsync_core.pipelines.restore import restorer_for
from ..lipsync_core.pipelines.roles import GeneratorCache
from ..lipsync_core.pipelines.run_log import RunLog
from ..lipsync_core.pipelines.track_faces import Finding, load_parser
from ..lipsync_core.types import Audio, FaceTrack, Frames, VideoInfo
from . import convert, host
from .lru import LastResult
from .preview import PARSER_BYTES
from .types import People, Voice
from .videos import (
    NO_MASK,
    VideoSource,
    explain_failure,
    member_name,
    result_output,
    video_source,
)

# Of frames as a file codes them, that travel together: six such chunks are on their way at a time,
# and what large ones leave behind in glibc's heap is not used again. 4 frames of 1080p, 9 of 720p.
_CHUNK_BYTES = 12 * 2**20
_PIXEL_BYTES = 16  # of an IMAGE and its MASK: four floats
# of a pixel that is being drawn into: floats of the frame, its copies and its mask
_WORKING_BYTES = 48
_WORKING_ROOM = 2**28
# 350 MB of weights, and eight faces of 512 px: the features of one layer take half a gigabyte
_RESTORER_BYTES = 3 << 30

_log = logging.getLogger("lipsync.nodes")
_caches: LastResult[list[GeneratorCache]] = LastResult()
"""What was drawn last, so that another blend of it need not draw again."""


@dataclass(frozen=True, slots=True, eq=False)
class DubSettings:
    """The node's widgets.

    Attributes:
        blend: How new mouths are put into the frames.
        longer: How the picture continues if the speech outlasts it.
        batch: Frames at a time.
        restorer: A network that restores the faces afterwards; None for none.
        silence: What a mouth does in silence.
        reference: Which pictures mouths are drawn from.
        speakers: "chosen", or the node's option for active speaker detection.
    """

    blend: Blend = Blend()
    longer: Longer = "pingpong"
    batch: int = 8
    restorer: Restore | None = None
    silence: Silence = "generate"
    reference: Reference = "auto"
    speakers: str = "chosen"

    @property
    def by_turns(self) -> bool:
        """Whether everybody speaks in their own turns."""
        return self.speakers == "whoever speaks"


@dataclass(frozen=True, slots=True, eq=False)
class DubJob:
    """Who says what, and how it is rendered.

    Attributes:
        speech: Audio of speakers who have none of their own; None to use the media's own sound.
        people: Faces found before; None to search for them.
        voice: The model.
        settings: The node's widgets.
        inputs: The host's own values, by which the generator cache is recognized.
    """

    speech: Audio | None
    people: People | None
    voice: Voice
    settings: DubSettings
    inputs: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        media: Any,
        audio: Mapping[str, Any] | None,
        people: People | None,
        voice: Voice | None,
        settings: DubSettings,
    ) -> "DubJob":
        """Convert the inputs of the node."""
        voice = voice or Voice(host.bundled_model(), "mini")
        speech = None if audio is None else convert.audio(audio)
        inputs = (media, None if audio is None else audio["waveform"], people, voice.patcher)
        return cls(speech, people, voice, settings, inputs)

    @property
    def reference(self) -> Reference:
        """Which pictures mouths are drawn from; see ``choose_reference``."""
        return choose_reference(
            self.settings.reference, self.settings.silence, self.voice.patcher.model
        )

    def speakers(
        self, own: Callable[[], Path | Audio]
    ) -> list[tuple[Path | Audio, FaceTrack | str]]:
        """Pair each speaker's audio with a face.

        Args:
            own: Provides the media's own sound, for speakers without any.

        Raises:
            ValueError: Faces are chosen although the active speaker is to be detected.
        """
        if self.settings.by_turns and self.people is not None and self.people.speakers:
            raise ValueError(
                "'Select Face' chose who speaks, and speakers is 'whoever speaks': connect the "
                "tracks of 'Detect Faces' itself, or set speakers to 'chosen'"
            )
        if self.people is None or self.settings.by_turns:
            return [(self.speech or own(), "largest")]
        chosen, own = self.people.speaking, cache(own)
        if self.speech is not None and all(speaker.audio for speaker in chosen):
            _log.warning(
                "the audio of 'LipSync Dub' is heard nowhere: every 'Select Face' has one of "
                "its own"
            )
        return [(speaker.audio or self.speech or own(), speaker.track) for speaker in chosen]

    def caches(self, batch: int, *settings: Any, count: int) -> list[GeneratorCache]:
        """Return the last run's caches for ``count`` faces, unless something drawn changes."""
        longer, precision = self.settings.longer, self.voice.precision
        key = (*settings, batch, longer, self.reference, precision)
        return _caches.get(self.inputs, key, lambda: [GeneratorCache() for _ in range(count)])

    def progress(self) -> host.Progress:
        """A progress bar of the stages to come."""
        stages = {
            "pull": self.settings.blend.occlusion == "parse",
            "find faces": self.people is None,
            "listen": self.settings.by_turns,
            "find references": self.reference != "current",
        }
        return host.Progress({**{stage: 1 for stage, there in stages.items() if there}, "dub": 3})

    def network(self, progress: host.Progress) -> TalkingFace:
        """Load the generator onto its device, and free memory for the networks beside it."""
        if self.settings.blend.occlusion == "parse":
            host.pull_weights("face_parsing", progress)
            host.free_device_memory(PARSER_BYTES)
        if self.settings.restorer is not None:
            host.free_device_memory(_RESTORER_BYTES)
        network = host.loaded(self.voice.patcher)
        assert isinstance(network, TalkingFace)
        return network


def dub_video(media: Any, job: DubJob, *, crf: float) -> tuple[Any, Any, Any, Any, str]:
    """Dub a VIDEO.

    Args:
        media: VIDEO. One of a folder that cannot be dubbed is passed through, with a warning, so
            that the others go on.
        job: Who says what, and how.
        crf: Quality of the file.

    Returns:
        VIDEO, AUDIO, a block that says why there is no MASK, the frame rate, and the report.
    """
    source, name = video_source(media), member_name(media)
    try:
        return _dub_file(source, job, crf)
    except (NoFaceError, MediaError) as error:
        if name is None:
            raise
        return _pass_through(media, source, job, explain_failure(name, source.path, error))


def _pass_through(
    media: Any, source: VideoSource, job: DubJob, fault: str
) -> tuple[Any, Any, Any, Any, str]:
    """The outputs for a clip of a folder that cannot be dubbed; blocks where there is nothing."""
    nothing = host.blocked(fault)
    try:
        fps = float(probe(source.path).fps)
    except MediaError:
        _log.warning("left out: %s", fault)
        return nothing, nothing, nothing, nothing, f"left out: {fault}"
    _log.warning("not dubbed: %s", fault)
    try:
        sound = convert.audio_value(source.audio())
    except MediaError:
        sound = nothing if job.speech is None else convert.audio_value(job.speech)
    return media, sound, host.blocked(NO_MASK), fps, f"not dubbed: {fault}"


def _dub_file(source: VideoSource, job: DubJob, crf: float) -> tuple[Any, Any, Any, float, str]:
    settings = job.settings
    info = open_clip(source.path, Cut(source.start, source.end)).info
    end = _picture_end(source, info)
    frames = None if end is None else round((end - source.start) * info.fps)
    if job.people is not None:
        # containers state it roughly
        job.people.check(info.width, info.height, frames, spare=2 + (frames or 0) // 50)
    speakers = job.speakers(lambda: _own_sound(source))
    own = any(sound is source.sound for sound, _ in speakers)
    if settings.by_turns and not own and isinstance(source.sound, Audio):
        raise ValueError(
            "who speaks when is heard in a video's own sound, and that of this one is no part of "
            "its file: save it with 'Save Video', and connect the file ('Load Video')"
        )
    cut = Cut(source.start, end if own else source.end, None, settings.longer)
    progress = job.progress()
    generator = job.network(progress)

    def run(batch: int) -> Any:
        return dub(
            source.path,
            speakers,
            host.temp_file(".mp4", source.path),
            model=generator,
            model_name=job.voice.name,
            blend=settings.blend,
            restore=settings.restorer,
            silence=settings.silence,
            reference=settings.reference,
            speakers="auto" if settings.by_turns else None,
            cut=cut,
            finding=Finding(cache=source.lasting),
            encoding=Encoding(crf=crf),
            device=str(host.device()),
            precision=job.voice.precision,
            batch=batch,
            people=None if job.people is None else (job.people.tracks, job.people.frames),
            drawings=None if settings.by_turns else job.caches(batch, count=len(speakers)),
            on_progress=progress,
            on_frames=progress.show,
        )

    most = max(1, _CHUNK_BYTES // (info.width * info.height * 3 // 2))
    report = host.halving(min(settings.batch, most), run)
    seconds = report.frames / report.fps
    heard = [
        sound if isinstance(sound, Audio) else source.audio(end=seconds) for sound, _ in speakers
    ]
    return (
        result_output(report.out),
        convert.audio_value(pad_or_trim(mix(heard), seconds)),
        host.blocked(NO_MASK),
        float(report.fps),
        _report(report.dubbed, report.fps, report.mouths, report.warnings, of=report.frames),
    )


def _report(
    dubbed: int, fps: Fraction, mouths: Sequence[MouthVerdict], warnings: Sequence[str], *, of: int
) -> str:
    """What was done, in words, whether each mouth moved, and each warning on a line of its own."""
    done = f"{dubbed} of {of} frames dubbed, {float(fps):g} frames per second"
    said = [f"mouth {mouth.verdict}: {mouth.reason}" for mouth in mouths]
    told = {mouth.reason for mouth in mouths}
    return "\n".join([done, *said, *(text for text in warnings if text not in told)])


def _picture_end(source: VideoSource, info: VideoInfo) -> Fraction | None:
    """End of the picture in seconds of the file, if it is known.

    The last packet of AAC outlasts the picture; a video that speaks its own sound keeps its length.
    """
    ends = [end for end in (source.end, info.frames and info.frames / info.fps) if end]
    return min(ends, default=None)


def _own_sound(source: VideoSource) -> Path | Audio:
    """The video's own sound, not read yet; raises MediaError if it has none."""
    if source.sound is None:
        source.audio()  # raises
    assert source.sound is not None
    return source.sound


def dub_images(
    media: Tensor, job: DubJob, *, fps: float
) -> tuple[Tensor, dict[str, Any], Tensor, float, str]:
    """Dub an IMAGE batch in memory.

    Args:
        media: (N,H,W,3) images.
        job: Who says what, and how.
        fps: The rate at which the images are shown.

    Returns:
        IMAGE, AUDIO, the MASK of the new mouths, the frame rate, and the report.
    """
    settings = job.settings
    clip = ImageClip(convert.frames(media).pixels, convert.rate(fps))
    if settings.by_turns:
        raise ValueError(
            "images have no sound that tells who speaks: set speakers to 'chosen', with 'Select "
            "Face' for each person, or connect a VIDEO (Load Video)"
        )
    (width, height), length = clip.size, clip.length
    if job.people is not None:
        job.people.check(width, height, length)
    pairs = [(audio, face) for audio, face in job.speakers(_no_sound) if isinstance(audio, Audio)]
    sources, faces = parse_speakers(pairs, "largest")
    progress = job.progress()
    log, sync = RunLog(_log, progress), _load_model(job, progress)
    audio = read_audio_inputs(sources, sync.config.features.rate, warn=log.warn)
    count = count_output_frames(clip, length, audio, settings.longer)
    batch = max(1, min(settings.batch, count, _WORKING_ROOM // (height * width * _WORKING_BYTES)))
    host.refuse_unless_fits(
        (count * _PIXEL_BYTES + batch * _WORKING_BYTES) * height * width,
        f"{count} images of {width}x{height} px, with their mask,",
        "connect a VIDEO instead (Load Video), which is written frame by frame, or make it shorter "
        "or smaller",
    )
    options = PlanOptions(
        Cut(longer=settings.longer),
        settings.silence,
        settings.reference,
        device=host.device(),
        whole_clip=True,
    )
    people = None if job.people is None else (job.people.tracks, length)
    plan = plan_dub(clip, audio, Speakers(faces), sync, options, people=people, log=log)
    restorer = restorer_for(
        settings.restorer, settings.blend, host.device(), precision=job.voice.precision
    )

    def run(batch: int) -> tuple[Tensor, Tensor, tuple[MouthVerdict, ...]]:
        watch = MouthWatch(plan, device=host.device())
        images, opacity = torch.empty(count, height, width, 3), torch.empty(count, height, width)
        caches = job.caches(batch, str(clip.fps), count=len(plan.faces))
        for chunk in render(
            plan, sync, log=log, restorer=restorer, batch=batch, opacity=True, caches=caches
        ):
            stop = chunk.frames.start + len(chunk.frames.pixels)
            assert isinstance(chunk.frames, Frames) and chunk.opacity is not None
            images[chunk.frames.start : stop] = chunk.frames.pixels
            opacity[chunk.frames.start : stop] = chunk.opacity
            watch.see(chunk.frames)
            progress.show(chunk.frames)
            progress("dub", stop, count)
        return images, opacity, watch.conclude(sync)

    images, opacity, mouths = host.halving(batch, run)
    sound = pad_or_trim(mix([audio for audio, _ in pairs]), count / clip.fps)
    dubbed = int((opacity.amax((1, 2)) > 0).sum())
    report = _report(dubbed, clip.fps, mouths, log.warn.messages, of=count)
    return (
        convert.image(images),
        convert.audio_value(sound),
        convert.mask(opacity),
        float(clip.fps),
        report,
    )


def _load_model(job: DubJob, progress: host.Progress) -> LipSync:
    network, blend, precision = job.network(progress), job.settings.blend, job.voice.precision
    parser = load_parser(host.device(), precision) if blend.occlusion == "parse" else None
    return LipSync(network, blend=blend, precision=precision, parser=parser)


def _no_sound() -> Audio:
    raise ValueError("there is nothing to say: connect an audio here, or to every 'Select Face'")
