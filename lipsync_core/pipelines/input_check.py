"""Check a face and a speech before they are dubbed."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..audio.ops import frame_count, speech_level
from ..audio.vad import silent_frames
from ..errors import MediaError, NoFaceError
from ..faces.landmarks import SURE
from ..faces.overlays import covered_frames
from ..faces.selection import median_center
from ..media.clip import Clip, open_clip
from ..options import Cut
from ..types import Audio, FaceTrack, ProgressCallback
from .audio_inputs import QUIET_DBFS, part_of_source, read_mono
from .dub_plan import LEAST_MOUTH_PX
from .run_log import RunLog
from .track_faces import Finding, find_people, select_device

Outlook = Literal["good", "doubtful", "will fail"]

_log = logging.getLogger("lipsync.check")
_RATE = 16000  # of the bundled models
_OUTLOOKS: tuple[Outlook, ...] = ("good", "doubtful", "will fail")
# Shares of frames without clear landmarks, in which mini leaves the mouth as it is: a dub warns
# from the first on, and from the second on tracks carry no landmarks.
SOME_UNCLEAR, MOST_UNCLEAR = 0.05, 0.5
MOST_UNSEEN = 0.5  # of the frames: with more, most of the output keeps the old mouth
# Share of clipped samples: mini's openings correlate with those of the clean sound by 0.92 to 0.98
# at 2 to 3 %, and by 0.62 to 0.88 at 23 to 33 % (four speakers, 8 s each).
MOST_CLIPPED = 0.05
_FULL_SCALE = 0.999
_FPS = Fraction(25)  # at which silence is counted


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One thing that was checked.

    Attributes:
        subject: ``face N at x,y``, ``video`` or ``sound``.
        what: What was measured.
        value: The figure, in the unit that ``what`` names; None where there is none.
        outlook: What it means for a dub.
        advice: What to do; empty if nothing.
    """

    subject: str
    what: str
    value: float | None
    outlook: Outlook = "good"
    advice: str = ""


@dataclass(frozen=True, slots=True)
class InputReport:
    """What a dub of a face with a speech can be expected to be.

    Attributes:
        face: The video or photo.
        audio: The speech.
        rows: What was checked.
    """

    face: Path
    audio: Path
    rows: tuple[CheckRow, ...]

    @property
    def outlook(self) -> Outlook:
        """The worst of all rows about the largest face, the video and the sound."""
        return max((row.outlook for row in self.rows if row.subject in _COUNTED), key=_rank)

    def to_json(self) -> str:
        """One JSON object: face, audio, outlook and rows."""
        return json.dumps(
            {
                "face": str(self.face),
                "audio": str(self.audio),
                "outlook": self.outlook,
                "rows": [asdict(row) for row in self.rows],
            }
        )


_FIRST = "face 0"
_COUNTED = (_FIRST, "video", "sound")


def check_dub_inputs(
    face: Path | str,
    audio: Path | str,
    *,
    cut: Cut = Cut(),
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
) -> InputReport:
    """Check a face and a speech before they are dubbed; nothing is drawn.

    The faces found are cached as those of a dub, which then need not search.

    Args:
        face: The video or photo.
        audio: The speech.
        cut: The part of the video that would be dubbed.
        finding: How faces are found.
        device: auto, or a device of torch.
        on_progress: Called with the stage, the frames done and their total.

    Returns:
        What was found, of the most visible person first.

    Raises:
        MediaError: A file cannot be read, or has no sound.
        WeightsError: Weights are missing or damaged.
    """
    face, audio, log = Path(face), Path(audio), RunLog(_log, on_progress)
    clip, heard = open_clip(face, cut, on_warning=log.warn), list[str]()
    speech = read_mono(part_of_source(audio, face, cut), _RATE, heard.append)
    if not speech.samples.shape[1]:
        raise MediaError(f"{audio} has no sound; give a longer one")
    sound = _check_sound(speech, heard)
    stop = clip.clamp(frame_count(speech, clip.fps))
    log.progress("find faces", 0, stop)
    try:
        people, count = find_people(
            clip,
            finding,
            select_device(device),
            stop=stop,
            on_found=lambda done: log.progress("find faces", done, stop),
        )
    except NoFaceError:
        people, count = [], stop
    rows = [*_check_video(people, clip, count), *sound]
    rows += [CheckRow("video", "warning", None, "doubtful", text) for text in log.warn.messages]
    order = sorted(people, key=lambda one: -int(one.visible.sum()) * _side(one))
    for number, person in enumerate(order):
        rows += _check_person(f"face {number}", person, count)
    return InputReport(face, audio, tuple(rows))


def _check_video(people: Sequence[FaceTrack], clip: Clip, count: int) -> list[CheckRow]:
    """Check the whole picture, of which ``count`` frames were searched."""
    if not people:
        return [
            CheckRow(
                "video",
                "people",
                0,
                "will fail",
                "no face was found: take a video or photo that shows one, not covered",
            )
        ]
    cuts = len({person.scene for person in people}) - 1
    return [
        CheckRow("video", "people (one counts once a scene)", len(people)),
        CheckRow("video", "cuts between scenes with faces", cuts),
        CheckRow("video", "frames of the clip that are shown", 1 if clip.still else count),
    ]


def _check_person(name: str, person: FaceTrack, count: int) -> list[CheckRow]:
    """Check one person, of whose clip ``count`` frames were searched."""
    seen = person.visible.cpu()
    points = person.points[seen].float()
    x, y = median_center(person.boxes[seen])
    mouth = float((points[:, 3] - points[:, 4]).norm(dim=1).median())
    share = int(seen.sum()) / max(count, 1)
    scores = person.dense_scores
    unclear = 0.0 if scores is None else float((scores[seen] < SURE).float().mean())
    covered = float(covered_frames(person)[seen].float().mean())
    return [
        CheckRow(name, "place x, px", x),
        CheckRow(name, "place y, px", y),
        CheckRow(
            name,
            "width of the mouth, px",
            round(mouth, 1),
            *_judge(
                (mouth < LEAST_MOUTH_PX, "doubtful"),
                advice=f"its movement will hardly be seen (expected {LEAST_MOUTH_PX} px or more): "
                "take a larger picture, or crop it to the person",
            ),
        ),
        CheckRow(name, "roll, degrees", round(_roll(points))),
        CheckRow(name, "turned aside, eye distances", round(_turn(points), 2)),
        CheckRow(
            name,
            "share of frames with the face",
            round(share, 3),
            *_judge(
                (1 - share > MOST_UNSEEN, "doubtful"),
                advice="the other frames keep the old mouth: choose another part (--start, --end)",
            ),
        ),
        CheckRow(
            name,
            "share of them without clear landmarks",
            round(unclear, 3),
            *_judge(
                (unclear > SOME_UNCLEAR, "doubtful"),
                (unclear > MOST_UNCLEAR, "will fail"),
                advice="turned away, covered, cut off or drawn: mini leaves the mouth as it is "
                "there; try --model mini-2",
            ),
        ),
        CheckRow(
            name,
            "share of them under a caption or logo",
            round(covered, 3),
            *_judge(
                (covered > 0, "doubtful"),
                advice="it stays readable and may hide the mouth: look at the result",
            ),
        ),
    ]


def _check_sound(speech: Audio, warnings: Sequence[str]) -> list[CheckRow]:
    """Check speech; ``warnings`` came while it was read."""
    level = speech_level(speech)
    full = float((speech.samples.abs() >= _FULL_SCALE).float().mean())
    silent = silent_frames(speech, _FPS, frame_count(speech, _FPS))
    rows = [
        CheckRow(
            "sound",
            "level of the speech, dBFS",
            None if math.isinf(level) else round(level, 1),
            *_judge(
                (level < QUIET_DBFS, "doubtful"),
                (math.isinf(level), "will fail"),
                advice="the model gets it raised with its noise, and silence moves no mouth: take "
                "a recording at about -20 dBFS",
            ),
        ),
        CheckRow(
            "sound",
            "share of samples at full scale",
            round(full, 5),
            *_judge(
                (full > MOST_CLIPPED, "doubtful"),
                advice="the sound is clipped, and lips follow it less: take a recording that is "
                "not too loud",
            ),
        ),
        CheckRow("sound", "share without a voice", round(float(silent.float().mean()), 3)),
        CheckRow("sound", "length, s", round(speech.samples.shape[1] / speech.rate, 2)),
    ]
    # what reading said of the file itself, such as channels that cancel each other out
    rows += [CheckRow("sound", "warning", None, "doubtful", text) for text in warnings]
    return rows


def _judge(*failures: tuple[bool, Outlook], advice: str) -> tuple[Outlook, str]:
    """Return the worst outlook whose condition holds with the advice; good without any."""
    held: list[Outlook] = [outlook for holds, outlook in failures if holds]
    return (max(held, key=_rank), advice) if held else ("good", "")


def _rank(outlook: Outlook) -> int:
    return _OUTLOOKS.index(outlook)


def _side(person: FaceTrack) -> float:
    boxes = person.boxes[person.visible]
    return float((boxes[:, 2:] - boxes[:, :2]).amax(1).median())


def _roll(points: Tensor) -> float:
    """Return the median roll of faces by the line of their eyes, degrees."""
    eyes = points[:, 1] - points[:, 0]
    return math.degrees(float(torch.atan2(eyes[:, 1], eyes[:, 0]).median()))


def _turn(points: Tensor) -> float:
    """Return how far the nose is beside the middle of the eyes, in their distances: median."""
    eyes = points[:, 1] - points[:, 0]
    aside = points[:, 2] - (points[:, 0] + points[:, 1]) / 2
    return float(((aside * eyes).sum(1) / eyes.square().sum(1).clamp_min(1e-6)).median())
