"""Find which visible person speaks, and when, by scoring each face against one audio track.

Method: for every window of frames, the distances to the audio up to 15 frames earlier and later
are taken, as for a sync score, and averaged over about a second. The confidence that a face speaks
is (median - minimum) / median of these mean distances, with the minimum taken within 2 frames of
no shift. A Viterbi search over one state per face and one state for "no visible speaker" then
maximizes the sum of confidences over the voiced frames, less a cost for each change of state,
which is lower in a pause.

The constants were chosen on 14 clips of two people side by side (GRID, a Korean speaker, a weekly
address, an old recording; turns of 2 to 4 s while the other person rests, is frozen, or says
something else; 6 min), and checked on 10 others (GRID, two of its speakers new to the scorer; the
Korean speaker). Of the frames in which one of them is heard, 97 and 97 per cent are assigned to
that person, and 0.2 and 0 per cent to the other. When each is alone in the picture, 97 and 95 per
cent of their speech is found, and of the speech of the other person, who is then off screen, 17
and 13 per cent is wrongly assigned to the visible one. A speaker's mean confidence is 0.2 to 0.5,
that of others 0.01 to 0.06.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.vad import voiced_stretches
from ..runtime.intervals import true_runs
from ..types import Audio, FaceTrack, Frames, YuvFrames
from .sync import meter_tracks
from .sync_embedder import Scorer

_HALF = 12  # windows averaged on each side
_LAG = 2  # frames by which the audio may be early or late
_OFF_SCREEN = 0.05  # confidence below which a voice belongs to no visible face
# costs of a change of state: 0.75 equals a confidence lower by 0.1 for 0.3 s at 25 fps;
# a change costs less in a pause because people take turns in pauses
_CHANGE, _CHANGE_IN_PAUSE = 0.75, 0.25
_LEAST_SECONDS = 0.4  # shortest turn
_PAUSE_SECONDS = 1.0  # longest pause within a turn
_AWAY = -1e6  # gain of a face that is not visible


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of frames in which one person speaks.

    Attributes:
        track: Index of the person in the list of tracks.
        first: First frame of the turn.
        stop: Frame after the last one of the turn.
    """

    track: int
    first: int
    stop: int


def find_speaker_turns(
    frames: Iterable[Frames | YuvFrames],
    audio: Audio,
    scorer: Scorer,
    *,
    tracks: Sequence[FaceTrack],
) -> list[Turn]:
    """Find the turns in which each of the tracked people speaks.

    One person speaks at a time, for 0.4 s or more; pauses of up to a second belong to the turn.
    Speech that fits no face, such as that of a person off screen, belongs to no turn.

    Args:
        frames: Pieces of a clip at ``scorer.fps``.
        audio: Mono audio at ``scorer.rate`` whose first sample belongs to the first frame.
        scorer: Sync scorer that embeds faces and audio.
        tracks: Face tracks of the people in the clip.

    Returns:
        The turns, ordered by time.
    """
    meters = meter_tracks(frames, audio, scorer, tracks=tracks)
    count = max((track.start + len(track.visible) for track in tracks), default=0)
    faces = [
        speaker_confidence(*meter.windows(), span=scorer.window, count=count) for meter in meters
    ]
    if not faces:
        return []
    voiced = _mark_frames(voiced_stretches(audio), float(scorer.fps), count)
    return decode_turns(torch.stack(faces, 1), voiced, fps=float(scorer.fps))


def speaker_confidence(starts: Tensor, distances: Tensor, *, span: int, count: int) -> Tensor:
    """Compute at each frame how confident it is that the face speaks the audio.

    The confidence is (median - minimum) / median of the mean distances, a ratio because the vectors
    of different scorers differ in length.

    Args:
        starts: (W,) first frames of the windows, as ``SyncMeter.windows`` returns them.
        distances: (W,2K+1) distances of the windows at shifts of -K to K frames.
        span: Frames per window.
        count: Frames of the clip.

    Returns:
        (count,) confidences of at most 1, higher for a face that fits the audio better; NaN where
        the face is not visible.
    """
    middle = distances.shape[1] // 2
    whole = distances.new_full((count, distances.shape[1]), torch.nan)
    whole[starts + span // 2] = distances
    known = whole.isnan().logical_not()
    size = 2 * _HALF + 1
    sums = _sum_windows(whole.nan_to_num(0), size)
    pairs = _sum_windows(known.to(whole), size)
    curves = torch.where(pairs > 0, sums / pairs.clamp_min(1), torch.nan)
    near = curves[:, middle - _LAG : middle + _LAG + 1].nan_to_num(torch.inf).amin(1)
    usual = curves.nanmedian(1).values
    confidence = (usual - near) / usual  # a ratio: scorers' vectors differ in length
    seen = F.max_pool1d(known.any(1).to(whole)[None, None], span, 1, span // 2)[0, 0] > 0
    return torch.where(seen & confidence.isfinite(), confidence, torch.nan)


def decode_turns(confidence: Tensor, voiced: Tensor, *, fps: float) -> list[Turn]:
    """Decode the most likely turns from the confidences of several faces.

    Args:
        confidence: (N,F) confidences of F faces, NaN where a face is not visible.
        voiced: (N,) bool, whether there is speech in the audio of each frame.
        fps: Frames per second.

    Returns:
        The turns, ordered by time.
    """
    count, faces = confidence.shape
    gains = torch.cat(
        [confidence.nan_to_num(_AWAY), confidence.new_full((count, 1), _OFF_SCREEN)], 1
    )
    prices = torch.where(voiced, _CHANGE, _CHANGE_IN_PAUSE)
    state = _find_best_path(torch.where(voiced[:, None] | (gains == _AWAY), gains, 0.0), prices)
    pause, least = round(_PAUSE_SECONDS * fps), round(_LEAST_SECONDS * fps)
    found: list[Turn] = []
    for face in range(faces):
        spoken = true_runs((state == face) & voiced).tolist()
        gaps = [(a[1], b[0]) for a, b in pairwise(spoken)]
        apart = [
            end - begin > pause or bool((state[begin:end] != face).any()) for begin, end in gaps
        ]
        begins = [run[0] for run, new in zip(spoken, [True, *apart], strict=False) if new]
        ends = [run[1] for run, last in zip(spoken, [*apart, True], strict=False) if last]
        found += [Turn(face, a, b) for a, b in zip(begins, ends, strict=True) if b - a >= least]
    return sorted(found, key=lambda turn: (turn.first, turn.track))


def _find_best_path(gains: Tensor, prices: Tensor) -> Tensor:
    """Return the (N,) states of (N,S) gains with the greatest sum (Viterbi).

    Each change of state costs the (N,) price of its frame; of two equally good ways the one that
    keeps the earlier state is taken.
    """
    count, states = gains.shape
    total = torch.zeros(states, dtype=torch.float64)
    came = torch.empty(count, states, dtype=torch.long)
    stay = torch.arange(states)
    for i, (gain, price) in enumerate(zip(gains.double(), prices.double(), strict=True)):
        best = int(total.argmax())
        other = total[best] - price
        changed = other > total
        came[i] = torch.where(changed, best, stay)
        total = torch.where(changed, other, total) + gain
    path = [int(total.argmax())] if count else []
    for row in came[1:].flip(0):
        path.append(int(row[path[-1]]))
    return torch.tensor(path[::-1], dtype=torch.long)


def _sum_windows(values: Tensor, size: int) -> Tensor:
    """Return (N,S) sums over ``size`` neighbors of each of the N rows."""
    return F.avg_pool1d(F.pad(values.T[None], (size // 2, size // 2)), size, 1)[0].T * size


def _mark_frames(stretches: Tensor, fps: float, count: int) -> Tensor:
    here = torch.zeros(count, dtype=torch.bool)
    for begin, end in (stretches * fps).round().long().tolist():
        here[begin:end] = True
    return here
