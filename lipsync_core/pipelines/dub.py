"""The edge: paths in, a dubbed file out."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Yields
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from .._version import __version__
from ..audio.ops import frame_count
from ..audio.vad import Silence
from ..blend.blender import Blend
from ..faces.landmarks import unsure_warning
from ..media import AudioSource, VideoWriter, refuse_inputs
from ..media.clip import Cut, VideoClip, open_clip
from ..models.generator import TalkingFace
from ..models.lip_warp import LipWarp
from ..models.precision import Precision
from ..models.weights import load_talking_face
from ..runtime.options import Option
from ..runtime.prefetch import ahead, timed
from ..runtime.warnings import Warnings
from ..types import FaceTrack, Frames, ProgressCallback, YuvFrames
from .audio_inputs import Voices
from .dub_plan import (
    Shown,
    Speech,
    chosen,
    looks_of,
    roles_of,
    speakers_of,
    suit_roles,
    table,
    turns,
)
from .lipsync import LipSync
from .reference import Reference
from .restore import Restore, Restorer, enlargement, restored, restorer_for
from .roles import FaceDub, GeneratorCache
from .track_faces import Finding, device_named, find_people, load_parser

_log = logging.getLogger("lipsync.dub")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the output is written. ``codec`` None: what suits the container (H.264 in MP4).
    ``veryfast`` because encoding is the slowest stage on a CPU. ``tag``: say in the file's metadata
    that the picture is generated, and by what. ``repeatable``: see ``VideoWriter``."""

    codec: Annotated[
        str | None,
        Option("FFmpeg video encoder; by default H.264 for MP4.", panel="Encoding"),
    ] = None
    crf: Annotated[
        float,
        Option(
            "Quality of the video: lower is better and larger.",
            panel="Encoding",
            advanced=True,
        ),
    ] = 18
    preset: Annotated[
        str, Option("Encoder preset: slower ones make smaller files.", panel="Encoding")
    ] = "veryfast"
    tag: Annotated[
        bool, Option("State in the file's metadata that the video is generated.", panel="Encoding")
    ] = True
    overwrite: Annotated[bool, Option("Replace an existing output.", flags=("--overwrite",))] = (
        False
    )
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class DubReport:
    """What was done: ``frames`` written at ``fps``, of which ``dubbed`` show a redrawn face and
    ``passed_through`` none; ``faces``: people found (a person counts once a scene); ``seconds`` per
    stage, which overlap, and in ``total``; ``restorer``: what restored them, with its licence."""

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

    def to_json(self) -> str:
        """One JSON object; fps as "25" or "30000/1001"."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({**values, "out": str(self.out), "fps": str(self.fps)})


def dub(
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
    cut: Cut = Cut(),
    finding: Finding = Finding(),
    encoding: Encoding = Encoding(),
    pads: tuple[int, int, int, int] | None = None,
    lead_ms: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 8,
    people: tuple[Sequence[FaceTrack], int] | None = None,
    drawings: Sequence[GeneratorCache] | None = None,
    on_progress: ProgressCallback | None = None,
    on_frames: Callable[[Frames | YuvFrames], None] | None = None,
) -> DubReport:
    """Write ``out``: the video or photo ``face`` with its mouth speaking ``audio``. The output is
    as long as the speech.

    audio: a file with sound, or sound in memory, spoken by the face that ``select`` names (largest
    | left | right | INDEX | x,y), or a list of (sound, face) pairs, heard together, where a face
    may also be a track. A sound that is the face file itself is cut with the picture. silence: see
    ``Silence``. speakers: who speaks the one sound, and when, instead of ``select``: a table
    (``read_turns``; its times are the output's), or "auto" for what the judge makes of the video's
    own sound, or of ``audio`` where it has none; everybody keeps their own mouth otherwise.
    reference: which picture of a person a mouth is drawn from (``Reference``); a mouth that closes
    in silence is one of ``nearest-closed``.

    restore: a network that restores the dubbed faces, and how. pads: (top, bottom, left, right) px
    for models framed by the detector's box. model_name: for the report and the file, instead of the
    model's own. lead_ms: see ``SoundFeatures``. precision: the networks'; see ``arithmetic``.
    batch: frames at a time. people: the tracks found in this cut before, and how many of its frames
    were searched; then nobody is looked for. drawings: one for each pair; see ``GeneratorCache``.
    on_progress(stage, done, total); on_frames hears every chunk before it is written.

    Raises NoFaceError before anything is generated when no frame has the face, MediaError,
    WeightsError, ValueError.
    """
    face, out = Path(face), Path(out)
    sounds, selectors = speakers_of(audio, select)
    rows = table(speakers, len(sounds), face, drawings)
    refuse_inputs(out, face, *(sound for sound in sounds if isinstance(sound, Path)))
    say, show = on_progress or (lambda *_: None), on_frames or (lambda _: None)
    notes = _Notes()
    with notes.clock("total"):
        footage, target = open_clip(face, cut, on_warning=notes.warn), device_named(device)
        network, name = _network(model, model_name, target)
        parser = load_parser(target, precision) if blend.occlusion == "parse" else None
        sync = LipSync(
            network, blend=blend, pads=pads, lead_ms=lead_ms, precision=precision, parser=parser
        )
        restorer = restorer_for(restore, blend, target, precision=precision)
        voices = Voices.read(sounds, face, cut, sync.config.features.rate, notes.warn)
        with _writer(out, footage, voices.sound, cut.start, encoding, name, notes) as writer:
            wanted = max(frame_count(voice, footage.info.fps) for voice in voices.heard)
            say("find faces", 0, wanted)
            with notes.clock("find faces"):
                found, length = people or find_people(
                    footage,
                    finding,
                    target,
                    stop=wanted,
                    on_found=lambda done: say("find faces", done, wanted),
                )
            shown = Shown.of(footage, cut, min(length, wanted), wanted)
            if speakers is None:
                faces = chosen(found, selectors)
            else:
                with notes.clock("find turns"):
                    faces = turns(
                        rows, sounds[0], shown, found, device=target, warn=notes.warn, say=say
                    )
            moved = isinstance(network, LipWarp)
            doubt = unsure_warning([face for face, _ in faces], passed=moved)
            if doubt and (moved or blend.mask != "box"):
                notes.warn(doubt)
            with notes.clock("find references"):
                looks = looks_of(
                    faces, shown, reference, silence, say, sync=sync, heard=voices.heard
                )
            roles = roles_of(faces, voices.heard, shown, looks, silence, blend.occlusion, drawings)
            roles = suit_roles(roles, sync, shown)
            dubbing = _dubbed(sync, footage, shown, roles, batch, restorer, notes)
            written = 0
            with closing(ahead(dubbing)) as frames:
                for chunk in frames:
                    show(chunk)
                    with notes.clock("write"):
                        writer.write(chunk)
                    written += chunk.pixels.shape[0]
                    say("dub", written, len(shown.index))
    dubbed = int(torch.stack([_redrawn(role) for role in roles]).any(0).sum())
    counts, found_by = (
        (written, dubbed, written - dubbed, len(found), footage.info.fps),
        finding.detector,
    )
    return DubReport(
        out, *counts, name, found_by, notes.spent, tuple(notes.warn.messages), _licensed(restorer)
    )


def _licensed(restorer: Restorer | None) -> str | None:
    return None if restorer is None else f"{restorer.name}; licence: {restorer.licence}"


def _redrawn(role: FaceDub) -> Tensor:
    """(T,) bool: output frames that show something of the new mouth."""
    return role.track.visible if role.opacity is None else role.track.visible & (role.opacity > 0)


def _dubbed(
    sync: LipSync,
    footage: VideoClip,
    shown: Shown,
    roles: list[FaceDub],
    batch: int,
    restorer: Restorer | None,
    notes: "_Notes",
) -> Iterator[Frames | YuvFrames]:
    """The output's frames: each voice in turn speaks through its face, and is restored."""
    count, fps = len(shown.index), footage.fps
    if footage.info.still:
        chunks = sync.render(footage.frames(1, 1), roles, fps=fps, still=count, chunk=batch)
    else:
        frames = footage.frames(shown.length, count, longer=shown.cut.longer, chunk=batch)
        read = timed(frames, notes.adder("read"))
        chunks = sync.render(timed(ahead(read), notes.adder("wait")), roles, fps=fps)
    pieces = timed((chunk.frames for chunk in chunks), notes.adder("generate"))
    yield from pieces if restorer is None else _restored(pieces, roles, fps, restorer, notes)
    notes.seconds["generate"] -= notes.seconds.pop("wait", 0.0)


def _restored(
    pieces: Iterator[Frames | YuvFrames],
    speakers: list[FaceDub],
    fps: Fraction,
    restorer: Restorer,
    notes: "_Notes",
) -> Iterator[Frames | YuvFrames]:
    """``pieces`` with the faces of ``speakers`` restored."""
    largest = max(enlargement(role.track) for role in speakers)
    if largest > 1.25:  # a quarter more is not seen
        notes.warn(
            f"a face is {largest:.1f} times as large as {restorer.name} draws it and may lose sharpness where it is restored; "
            "lower its strength, or leave it out for large faces"
        )
    tracks, shown = [role.track for role in speakers], [role.opacity for role in speakers]
    clear = [role.unoccluded for role in speakers]
    made = restored(pieces, tracks, restorer=restorer, shown=shown, clear=clear, fps=fps)
    yield from timed(made, notes.adder("restore"))
    notes.seconds["restore"] -= notes.seconds["generate"]


class _Notes:
    """What a run gathers for its report."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.warn = Warnings(_log)

    @property
    def spent(self) -> dict[str, float]:
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}

    def adder(self, stage: str) -> Callable[[float], None]:
        def add(seconds: float) -> None:
            self.seconds[stage] += seconds

        return add

    @contextmanager
    def clock(self, stage: str) -> Yields[None, None, None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


def _network(
    model: Path | str | TalkingFace, name: str | None, device: torch.device
) -> tuple[TalkingFace, str]:
    """The network, and its name for reports."""
    if isinstance(model, TalkingFace):
        return model.to(device), name or type(model).__name__
    return load_talking_face(model, device=device), name or Path(model).name


def _writer(
    out: Path,
    footage: VideoClip,
    sound: AudioSource,
    start: Fraction,
    encoding: Encoding,
    model: str,
    notes: _Notes,
) -> VideoWriter:
    return VideoWriter(
        out,
        footage.info,
        sound,
        codec=encoding.codec,
        crf=encoding.crf,
        preset=encoding.preset,
        repeatable=encoding.repeatable,
        overwrite=encoding.overwrite,
        metadata=_tag(model) if encoding.tag else {},
        extra_tracks_from=None if footage.info.still else footage.path,
        extra_start=start,
        on_warning=notes.warn,
    )


def _tag(model: str) -> dict[str, str]:
    maker = f"lipsync-core {__version__}"
    return {
        "comment": f"AI-generated: the mouth in this video was made to speak by {maker} with the model {model}.",
        "lipsync": json.dumps({"generated": "lip movements", "software": maker, "model": model}),
    }
