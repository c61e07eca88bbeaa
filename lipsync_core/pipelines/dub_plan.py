"""Who speaks what, and when, through which face, drawn from what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..audio.vad import Silence, shown_in, voice_activity
from ..blend.blender import Occlusion
from ..blend.lip_warp import raise_range, scale_shape
from ..errors import NoFaceError
from ..faces.landmarks import sure_shares
from ..faces.selection import FaceSelector, parse_face, select
from ..media import probe
from ..media.clip import Cut, ImageClip, VideoClip, frame_order
from ..models.generator import TalkingFace
from ..models.lip_warp import LipWarp
from ..types import Audio, FaceTrack, ProgressCallback, References
from .lipsync import LipSync
from .reference import Reference, clear, matching, references
from .roles import FaceDub, GeneratorCache
from .speakers import Row, auto_turns, parts, read_turns, turns_of_rows
from .track_faces import arranged

Speech = Path | str | Audio
"""A file with sound, or sound in memory."""
Faces = Sequence[tuple[FaceTrack, Tensor | None]]
"""Who speaks, in frames of the footage, and how much of the new mouth is seen in each of the
output, None for all of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What an output shows: the frames ``index`` (T,) of the ``length`` that were searched of
    ``footage``, a ``cut``."""

    footage: VideoClip | ImageClip
    length: int
    index: Tensor
    cut: Cut = Cut()

    @classmethod
    def of(cls, footage: VideoClip, cut: Cut, length: int, wanted: int) -> "Shown":
        """For sound of ``wanted`` frames."""
        count = wanted if footage.info.still or cut.longer != "trim" else min(wanted, length)
        return cls(footage, length, frame_order(length, count, cut.longer), cut)


def speakers_of(
    audio: Speech | Sequence[tuple[Speech, str | FaceTrack]], select: str
) -> tuple[list[Path | Audio], list[FaceSelector | FaceTrack]]:
    """Who says what: the sounds, and as many faces."""
    pairs = [(audio, select)] if isinstance(audio, (str, Path, Audio)) else list(audio)
    if not pairs:
        raise ValueError("no audio; wanted a file, or at least one (file, face) pair")
    sounds = [sound if isinstance(sound, Audio) else Path(sound) for sound, _ in pairs]
    return sounds, [who if isinstance(who, FaceTrack) else parse_face(who) for _, who in pairs]


def chosen(found: Sequence[FaceTrack], selectors: Sequence[FaceSelector | FaceTrack]) -> Faces:
    """The faces that ``selectors`` name among those ``found``, always seen. NoFaceError."""
    return [(who if isinstance(who, FaceTrack) else select(found, who), None) for who in selectors]


def table(
    speakers: Path | str | None, sounds: int, face: Path, drawings: Sequence[GeneratorCache] | None
) -> list[Row]:
    """The rows of the table ``speakers``; none where the judge is to tell, or nobody."""
    if speakers is None:
        return []
    if sounds > 1:
        raise ValueError(
            f"{sounds} sounds and speakers; wanted one sound that they share, or pairs without speakers"
        )
    if drawings is not None:
        raise ValueError("drawings are kept for pairs of sound and face; wanted none with speakers")
    if speakers != "auto":
        if not Path(speakers).is_file():
            raise ValueError(
                f"speakers are {str(speakers)!r}, and there is no such file; wanted auto, or a table of turns"
            )
        return read_turns(Path(speakers))
    if probe(face).still:
        raise ValueError(
            f"{face}: nobody speaks in a photograph by itself; wanted a table of turns"
        )
    return []


def turns(
    rows: list[Row],
    sound: Path | Audio,
    shown: Shown,
    found: Sequence[FaceTrack],
    *,
    device: torch.device,
    warn: Callable[[str], None],
    say: ProgressCallback,
) -> Faces:
    """The faces that speak by turns, by the table's ``rows`` or by the judge. NoFaceError where
    none is in the picture."""
    footage, length, index = shown.footage, shown.length, shown.index
    assert isinstance(footage, VideoClip)
    fps, path = footage.fps, footage.path
    if rows:
        found_turns = turns_of_rows(rows, found, fps, warn, length=length, index=index)
    else:
        found_turns = auto_turns(
            path,
            sound,
            found,
            length,
            fps=fps,
            cut=shown.cut,
            device=device,
            warn=warn,
            on_progress=say,
        )
    faces = parts(found_turns, found, fps=fps, length=length, index=index, of_output=bool(rows))
    if not any(
        bool((arranged(face, length, index).visible & (seen > 0)).any()) for face, seen in faces
    ):
        raise NoFaceError(
            f"{path}: none of {len(found)} faces has a turn that is in the picture; "
            + ("mend the table of turns" if rows else "give a table of turns, or --face")
        )
    return [(face, seen) for face, seen in faces]


def drawn_from(reference: Reference, silence: Silence, model: TalkingFace) -> Reference:
    """What mouths are drawn from: ``auto`` is left to a ``LipWarp`` alone, which also closes lips
    by itself; of other models a mouth that closes in silence needs a closed one."""
    if isinstance(model, LipWarp):
        return reference
    if reference in ("auto", "current"):
        return "nearest-closed" if silence == "close" else "current"
    return reference


def looks_of(
    faces: Faces,
    shown: Shown,
    reference: Reference,
    silence: Silence,
    say: ProgressCallback,
    *,
    sync: LipSync,
    heard: Sequence[Audio],
) -> list[References | None]:
    """What each face is drawn from when it speaks what is ``heard`` (one sound for all, or one
    each); see ``Reference``."""
    kind = drawn_from(reference, silence, sync.model)
    if kind == "auto":
        sounds = list(heard) * len(faces) if len(heard) == 1 else heard
        looks: list[References | None] = []
        for (face, _), sound in zip(faces, sounds, strict=True):
            say("find references", len(looks), len(faces))
            looks.append(_matching(face, sound, shown, sync))
        say("find references", len(faces), len(faces))
        return looks
    return [
        references(
            shown.footage,
            face,
            kind,
            length=shown.length,
            index=shown.index,
            on_found=lambda done: say("find references", done, shown.length),
        )
        for face, _ in faces
    ]


def _matching(face: FaceTrack, sound: Audio, shown: Shown, sync: LipSync) -> References | None:
    """The mouths of ``face`` that are nearest to what ``sound`` asks for."""
    said = sync.lip_shapes(sound, shown.footage.fps, len(shown.index))
    own = raise_range(sync.lip_range(face), said)
    return matching(
        shown.footage,
        face,
        scale_shape(said, own),
        own.spread,
        length=shown.length,
        index=shown.index,
    )


def roles_of(
    faces: Faces,
    heard: Sequence[Audio],
    shown: Shown,
    looks: Sequence[References | None],
    silence: Silence,
    occlusion: Occlusion,
    drawings: Sequence[GeneratorCache] | None = None,
) -> list[FaceDub]:
    """Who says what through whom, in frames of the output, and how much of each is seen; one sound
    is for all."""
    many, count = len(faces), len(shown.index)
    sounds = list(heard) * many if len(heard) == 1 else heard
    roles: list[FaceDub] = []
    for (face, turn), sound, kept, look in zip(
        faces, sounds, drawings or [None] * many, looks, strict=True
    ):
        voice = (
            None
            if silence == "generate"
            else voice_activity(sound, fps=shown.footage.fps, count=count)
        )
        seen, speaking = shown_in(silence, turn, voice)
        plain = clear(shown.footage, face, length=shown.length) if occlusion == "compare" else None
        roles.append(
            FaceDub(
                sound, arranged(face, shown.length, shown.index), kept, seen, speaking, look, plain
            )
        )
    return roles


def suit_roles(roles: Sequence[FaceDub], sync: LipSync, shown: Shown) -> list[FaceDub]:
    """``roles`` for the model of ``sync``: one that moves lips moves them as far as speakers do,
    and shows nothing in frames whose landmarks cannot be believed."""
    if not isinstance(sync.model, LipWarp):
        return list(roles)
    out: list[FaceDub] = []
    for role in roles:
        said = sync.lip_shapes(role.audio, shown.footage.fps, len(shown.index))
        sure = sure_shares(role.track)
        seen = (
            sure
            if sure is None or role.opacity is None
            else role.opacity[: len(sure)] * sure[: len(role.opacity)]
        )
        lips = raise_range(sync.lip_range(role.track), said)
        out.append(replace(role, opacity=role.opacity if sure is None else seen, lip_range=lips))
    return out
