"""Dub a video or photo file."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch

from .._version import __version__
from ..audio.vad import Silence
from ..image.opencv import describe_warp
from ..media import VideoWriter, refuse_inputs
from ..media.clip import VideoClip, open_clip
from ..models.generator import TalkingFace
from ..models.precision import Precision
from ..models.weights import load_talking_face
from ..options import Blend, Cut, Encoding, Restore
from ..runtime.prefetch import prefetch
from ..types import FaceTrack, Frames, ProgressCallback, YuvFrames
from .audio_inputs import AudioInputs, continue_picture, read_audio_inputs
from .dub_plan import (
    People,
    PlanOptions,
    Speakers,
    Speech,
    parse_speakers,
    plan_dub,
    read_speaker_turns,
)
from .lipsync import LipSync
from .mouth_verdict import MouthVerdict, MouthWatch
from .reference import Reference
from .render import render
from .restore import Restorer, restorer_for
from .roles import GeneratorCache, RenderedChunk
from .run_log import RunLog
from .track_faces import Finding, load_parser, select_device

_logger = logging.getLogger("lipsync.dub")


@dataclass(frozen=True, slots=True)
class DubReport:
    """The outcome of a dub.

    Attributes:
        out: The file written.
        frames: Number of frames written.
        dubbed: Those that show a redrawn face.
        passed_through: Those that show none.
        faces: People found; a person counts once a scene.
        fps: Frame rate of the output.
        model: Name of the model.
        detector: Name of the face detector.
        seconds: Time per stage, which overlap, and in ``total``.
        warnings: Each warning once.
        restorer: The network that restored the faces, with its licence; None for none.
        warped_by: Library, with its version, that moves pixels on the CPU.
        audio_tracks: Which sound track was used of each file of speech that has several.
        passed_reasons: Number of frames passed through by the reason: no face found, speaker
            silent, or face turned away, covered, cut off or drawn.
        mouths: Whether the mouth of each speaking face moved, and followed the speech.
    """

    out: Path
    frames: int
    dubbed: int
    passed_through: int
    faces: int
    fps: Fraction
    model: str
    detector: str
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    restorer: str | None = None
    warped_by: str = ""
    audio_tracks: tuple[str, ...] = ()
    passed_reasons: dict[str, int] = field(default_factory=dict[str, int])
    mouths: tuple[MouthVerdict, ...] = ()

    def is_as_bad_as(self, limit: Literal["doubtful", "failed"]) -> bool:
        """Whether a mouth is ``failed``, or, for ``doubtful``, any is not ``good``."""
        if limit == "failed":
            return any(mouth.verdict == "failed" for mouth in self.mouths)
        return any(mouth.verdict != "good" for mouth in self.mouths)

    def to_json(self) -> str:
        """One JSON object; fps as "25" or "30000/1001"."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mouths = [mouth.to_values() for mouth in self.mouths]
        return json.dumps({**values, "out": str(self.out), "fps": str(self.fps), "mouths": mouths})


def dub(  # noqa: PLR0913
    face: Path | str,
    audio: Speech | Sequence[tuple[Speech, str | FaceTrack]],
    out: Path | str,
    *,
    model: Path | str | TalkingFace = "mini",
    model_name: str | None = None,
    select: str = "largest",
    blend: Blend = Blend(),
    restore: Restore | Restorer | None = None,
    silence: Silence = "generate",
    reference: Reference = "auto",
    speakers: Path | str | None = None,
    who: Mapping[str, str] | None = None,
    cut: Cut = Cut(),
    finding: Finding = Finding(),
    encoding: Encoding = Encoding(),
    pads: tuple[int, int, int, int] | None = None,
    lead_ms: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 8,
    people: People | None = None,
    drawings: Sequence[GeneratorCache] | None = None,
    on_progress: ProgressCallback | None = None,
    on_frames: Callable[[Frames | YuvFrames], None] | None = None,
) -> DubReport:
    """Write a video in which the mouths of a video or photo speak other audio.

    The output is as long as the speech, unless ``cut.shorter`` keeps the rest of the video.

    Args:
        face: The video or photo.
        audio: A file, or audio in memory, spoken by the face that ``select`` names; or a list of
            (audio, face) pairs that are heard together, where a face may also be a track. If the
            audio is the face video itself, it is cut with the picture.
        out: The file to be written.
        model: A model's name, its file, or the loaded network.
        model_name: The model's name in the report and the file; None for its own.
        select: The face that speaks: largest, left, right, an index, or x,y.
        blend: How new mouths are put into the frames.
        restore: A network that restores the dubbed faces, and how; None for none.
        silence: What a mouth does in silence.
        reference: Which pictures of a person mouths are drawn from. A mouth that closes in silence
            is drawn from ``nearest-closed``.
        speakers: Who speaks the one audio when, instead of ``select``: a table (``read_turns``;
            its times are the output's), subtitles with names or a diarization
            (``read_subtitle_turns``), or "auto" to detect the active speaker by the video's own
            sound, or by ``audio`` if it has none. Everybody else keeps their own mouth.
        who: The face of each name in such subtitles, or ``none`` for a voice off screen.
        cut: The part of the video that is dubbed.
        finding: How faces are found and tracked.
        encoding: How the output is encoded.
        pads: Padding (top, bottom, left, right) in px, for models that frame faces by the
            detector's box.
        lead_ms: Overrides the model's ``SoundFeatures.lead_ms``.
        device: auto, or a device of torch.
        precision: Precision of the networks; see ``arithmetic``.
        batch: Frames at a time.
        people: Tracks found before in this cut, and how many of its frames were searched; None to
            search.
        drawings: One cache per pair; see ``render``.
        on_progress: Called with the stage, the frames done and their total.
        on_frames: Called with every chunk of frames before it is written.

    Returns:
        What was done.

    Raises:
        NoFaceError: No frame shows a chosen face; raised before anything is generated.
        MediaError: A file cannot be read or written.
        WeightsError: Weights are missing or damaged.
        ValueError: Options do not go together.
    """
    face, out, log = Path(face), Path(out), RunLog(_logger, on_progress)
    sources, faces = parse_speakers(audio, select)
    turns = read_speaker_turns(speakers, len(sources), face, who=who, cached=drawings is not None)
    refuse_inputs(out, face, *(source for source in sources if isinstance(source, Path)))
    with log.clock("total"):
        clip, target = open_clip(face, cut, on_warning=log.warn), select_device(device)
        network, name = _load_network(model, model_name, target)
        parser = load_parser(target, precision) if blend.occlusion == "parse" else None
        sync = LipSync(
            network, blend=blend, pads=pads, lead_ms=lead_ms, precision=precision, parser=parser
        )
        restorer = restorer_for(restore, blend, target, precision=precision)
        rate = sync.config.features.rate
        inputs = read_audio_inputs(sources, rate, face=face, cut=cut, warn=log.warn)
        inputs = continue_picture(inputs, face, cut, log.warn)
        options = PlanOptions(cut, silence, reference, finding, target)
        with _open_writer(out, clip, inputs, cut.start, encoding, name, log) as writer:
            plan = plan_dub(
                clip, inputs, Speakers(faces, turns), sync, options, people=people, log=log
            )
            chunks = render(plan, sync, log=log, restorer=restorer, batch=batch, caches=drawings)
            watch = MouthWatch(plan, device=target)
            written = _write(chunks, writer, watch, log, on_frames)
            with log.clock("check mouths"):
                mouths = watch.conclude(sync)
    for mouth in mouths:
        if mouth.verdict in ("doubtful", "failed"):
            log.warn(mouth.reason)
    dubbed = int(plan.dubbed_frames().sum())
    return DubReport(
        out,
        frames=written,
        dubbed=dubbed,
        passed_through=written - dubbed,
        faces=plan.found,
        fps=clip.fps,
        model=name,
        detector=finding.detector,
        seconds=log.rounded_seconds,
        warnings=tuple(log.warn.messages),
        restorer=None if restorer is None else f"{restorer.name}; licence: {restorer.licence}",
        warped_by=describe_warp(),
        audio_tracks=inputs.tracks,
        passed_reasons=plan.count_reasons(),
        mouths=mouths,
    )


def _write(
    chunks: Iterator[RenderedChunk[Frames | YuvFrames]],
    writer: VideoWriter,
    watch: MouthWatch,
    log: RunLog,
    on_frames: Callable[[Frames | YuvFrames], None] | None,
) -> int:
    """Write all ``chunks``, rendered ahead by a thread; returns the number of frames."""
    written = 0
    with closing(prefetch(chunks)) as rendered:
        for chunk in rendered:
            with log.clock("check mouths"):
                watch.see(chunk.frames)
            if on_frames is not None:
                on_frames(chunk.frames)
            with log.clock("write"):
                writer.write(chunk.frames)
            written += len(chunk.frames.pixels)
            log.progress("dub", written, watch.frames)
    return written


def _load_network(
    model: Path | str | TalkingFace, name: str | None, device: torch.device
) -> tuple[TalkingFace, str]:
    """The network, and its name for reports."""
    if isinstance(model, TalkingFace):
        return model.to(device), name or type(model).__name__
    return load_talking_face(model, device=device), name or Path(model).name


def _open_writer(
    out: Path,
    clip: VideoClip,
    inputs: AudioInputs,
    start: Fraction,
    encoding: Encoding,
    model: str,
    log: RunLog,
) -> VideoWriter:
    return VideoWriter(
        out,
        clip.info,
        inputs.output,
        codec=encoding.codec,
        crf=encoding.crf,
        preset=encoding.preset,
        repeatable=encoding.repeatable,
        overwrite=encoding.overwrite,
        metadata=_tag(model) if encoding.tag else {},
        extra_tracks_from=None if clip.still else clip.path,
        extra_start=start,
        extra_seconds=inputs.count_frames(clip.info.fps) / clip.info.fps,
        on_warning=log.warn,
    )


def _tag(model: str) -> dict[str, str]:
    maker = f"lipsync-core {__version__}"
    return {
        "comment": "AI-generated: the mouth in this video was made to speak by "
        f"{maker} with the model {model}.",
        "lipsync": json.dumps({"generated": "lip movements", "software": maker, "model": model}),
    }
