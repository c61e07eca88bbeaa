"""Did the mouth move: the lips of the drawn frames against what the model was asked for."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from ..audio.ops import resample
from ..blend.lip_warp import scale_shape
from ..faces.landmarks import SURE, LandmarkFinder, confident_frames, to_own_layout
from ..image.affine import apply, square_places
from ..image.crop import crop_frames
from ..image.landmarks import mouth_opening
from ..metrics.mouth import correlate_openings, fit_old_and_new
from ..models.lip_warp import LipWarp
from ..models.weights import load_talking_face
from ..types import FaceTrack, Frames, YuvFrames
from .dub_plan import DubPlan
from .lipsync import LipSync
from .roles import FaceDub, values_at
from .track_faces import load_landmarks

Verdict = Literal["good", "doubtful", "failed", "unknown"]

# Openings that are measured a second: as many as keep the check below 5 % of a dub's CPU time.
_RATE = Fraction(25, 4)
_WANTED = 25  # openings: of short dubs more a second
_BATCH = 24  # crops at once
_LEAST = 21  # openings: correlations of fewer mean nothing
_LEAST_SEEN = 0.5  # of the frames that were measured
# Chosen on six clips and a photo, 3 s each, dubbed with mini and mini-2; on no others were they
# tried. In deviations of a typical speaker: a silent mouth moves by 0.08, a drawn, nearly still
# face by 0.18, the least of the speaking ones by 0.26 (a smile, whose lips the network sees less
# apart).
STILL, SLIGHT, SILENT = 0.12, 0.2, 0.05
HELD = 0.5  # of the movement asked for: a pause moves little
# Correlation: mini's dubs 0.65 to 0.99; with other speech than their own at most 0.51, and few of
# 64 at 0.45 or more.
FOLLOWS = 0.45
# Weight of the old opening: mini up to 0.43, mini-2 0.72 to 0.93 on three speaking clips.
LEAKS = 0.5
_DRAWN = 0.5  # opacity from which a frame shows the new mouth rather than the old one


@dataclass(frozen=True, slots=True)
class MouthVerdict:
    """Whether the mouth of one face moved, and followed the sound.

    Attributes:
        verdict: ``good``, ``doubtful``, ``failed`` (it did not move), or ``unknown`` where lips
            cannot be measured.
        reason: The verdict in a sentence.
        movement: Deviation of the mouth's opening over that of a typical speaker; best about 1.
        source_movement: The same of the source; None for a photo.
        followed: Correlation of the opening with what the model was asked for, or, for models that
            are not asked for an opening, with what `mini` predicts of the voice; in [-1,1].
        leak: Weight of the old opening in the drawn one, beyond what it has in common with the one
            asked for (``metrics.mouth.fit_old_and_new``); best 0. None for a photo.
        measured: Number of frames that were measured.
    """

    verdict: Verdict
    reason: str
    movement: float | None = None
    source_movement: float | None = None
    followed: float | None = None
    leak: float | None = None
    measured: int = 0

    def to_values(self) -> dict[str, Any]:
        """Give the fields by their names, for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class MouthWatch:
    """Measures the mouths of a dub while its frames are written.

    Args:
        plan: The dub.
        finder: Finds landmarks; None for the bundled network on ``device``.
        device: Of the bundled network.
    """

    def __init__(
        self,
        plan: DubPlan,
        *,
        finder: LandmarkFinder | None = None,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self._plan, self._device = plan, device
        self._finder = finder or load_landmarks(device)
        count = len(plan.frame_order)
        self._step = max(1, min(round(plan.clip.fps / _RATE), count // _WANTED))
        self._openings = [torch.full((count,), torch.nan) for _ in plan.faces]
        self._waiting: list[tuple[int, Tensor, Tensor, Tensor]] = []  # face, frames, maps, crops
        self._drawn = [_find_drawn(face, count) for face in plan.faces]

    @property
    def frames(self) -> int:
        """Number of frames of the dub."""
        return len(self._plan.frame_order)

    def see(self, frames: Frames | YuvFrames) -> None:
        """Measure the mouths in the next drawn frames.

        Args:
            frames: Consecutive frames of the output.
        """
        index = torch.arange(len(frames.pixels)) + frames.start
        index = index[index % self._step == 0]
        for number, (face, drawn) in enumerate(zip(self._plan.faces, self._drawn, strict=True)):
            here = index[drawn[index]]
            if not len(here):
                continue
            track = face.track
            maps = self._finder.maps(track.boxes[here], track.points[here])
            size = self._finder.size
            picked = replace(frames, pixels=frames.pixels[here - frames.start])
            crops = crop_frames(picked, maps.to(picked.pixels.device), size)
            self._waiting.append((number, here, maps.cpu(), crops))
        if sum(len(here) for _, here, _, _ in self._waiting) >= _BATCH:
            self._measure()

    def _measure(self) -> None:
        """Measure the crops that wait."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        found, scores = self._finder.look(torch.cat([crops for _, _, _, crops in waiting]))
        counts = [len(here) for _, here, _, _ in waiting]
        parts = zip(waiting, found.split(counts), scores.split(counts), strict=True)
        for (number, here, maps, _), points, sure in parts:
            places = square_places(apply(maps, points), self._plan.faces[number].track.pixel_aspect)
            self._openings[number][here] = torch.where(
                sure >= SURE, mouth_opening(places), torch.nan
            )

    @torch.inference_mode()
    def conclude(self, model: LipSync) -> tuple[MouthVerdict, ...]:
        """Compare what was measured with the speech.

        Args:
            model: The model that the dub was rendered with.

        Returns:
            A verdict for each face of the plan.
        """
        self._measure()
        found: list[MouthVerdict] = []
        said: dict[int, Tensor] = {}  # by the identity of the speech
        listener = model if isinstance(model.model, LipWarp) else _load_listener(self._device)
        assert isinstance(listener.model, LipWarp)
        usual = float(listener.model.prior.spread[0])
        for face, drawn, openings in zip(
            self._plan.faces, self._drawn, self._openings, strict=True
        ):
            seen = ~openings.isnan()
            if not bool(drawn.any()):
                found.append(MouthVerdict("failed", "no frame shows a new mouth", 0.0))
                continue
            tried = int(drawn[:: self._step].sum())
            if int(seen.sum()) < max(_LEAST, _LEAST_SEEN * tried):
                found.append(_unknown(int(seen.sum()), tried))
                continue
            if id(face.audio) not in said:
                fps, count = self._plan.clip.fps, len(openings)
                said[id(face.audio)] = self._hear(listener, face, fps, count)
            asked = _asked_openings(face, said[id(face.audio)], listener)
            old = None if self._plan.clip.still else _source_openings(face.track)
            found.append(judge_mouth(openings, asked, old, usual=usual))
        return tuple(found)

    @staticmethod
    def _hear(listener: LipSync, face: FaceDub, fps: Fraction, count: int) -> Tensor:
        """Return (T,3) the lip shapes of the speech of a face."""
        audio = resample(face.audio, listener.config.features.rate)
        return listener.lip_shapes(audio, fps, count)


def judge_mouth(drawn: Tensor, asked: Tensor, old: Tensor | None, *, usual: float) -> MouthVerdict:
    """Judge a mouth by its openings, in distances between the outer corners of the eyes.

    Args:
        drawn: (T,) in the output, NaN where it was not measured.
        asked: (T,) what the model was asked for.
        old: (T,) in the source, NaN where unknown; None for a photo.
        usual: Standard deviation of a typical speaker's opening.

    Returns:
        The verdict.
    """
    seen = ~drawn.isnan()
    old = None if old is None or int((seen & ~old.isnan()).sum()) < _LEAST else old
    seen = seen if old is None else seen & ~old.isnan()
    shown, wanted = drawn[seen], asked[seen]
    movement, wish = (float(one.std(correction=0)) / usual for one in (shown, wanted))
    followed = correlate_openings(shown, wanted)
    before = leak = None
    if old is not None:
        before = float(old[seen].std(correction=0)) / usual
        leak = fit_old_and_new(shown, wanted, old[seen], 0)[0]
    verdict, reason = _decide(movement, wish, followed, leak)
    return MouthVerdict(verdict, reason, movement, before, followed, leak, int(seen.sum()))


def _decide(
    movement: float, wish: float, followed: float, leak: float | None
) -> tuple[Verdict, str]:
    """Return the verdict and its sentence; see ``judge_mouth``."""
    if wish < SILENT:
        return "doubtful", "the speech asks for hardly any movement of the mouth"
    held = movement < HELD * wish
    if held and movement < STILL:
        return "failed", f"the mouth did not move ({movement:.0%} of a typical speaker)"
    if held and movement < SLIGHT:
        return "doubtful", f"the mouth hardly moved ({movement:.0%} of a typical speaker)"
    if followed < FOLLOWS:
        return "doubtful", f"the mouth moved, but not with the speech (correlation {followed:.2f})"
    if leak is not None and leak > max(LEAKS, followed):
        return "doubtful", f"the mouth follows its old movement more than the speech ({leak:.2f})"
    return "good", f"the mouth moved and followed the speech (correlation {followed:.2f})"


def _unknown(seen: int, tried: int) -> MouthVerdict:
    if tried < _LEAST:
        return MouthVerdict(
            "unknown", f"too short to tell: {seen} frames were measured", measured=seen
        )
    return MouthVerdict(
        "unknown",
        f"the lips are clear in only {seen} of {tried} frames (turned away, covered, cut off or "
        "drawn)",
        measured=seen,
    )


def _load_listener(device: torch.device) -> LipSync:
    """The bundled model, which predicts openings from a voice."""
    return LipSync(load_talking_face("mini", device=device))


def _asked_openings(face: FaceDub, said: Tensor, listener: LipSync) -> Tensor:
    """Return (T,) openings that the speech asks of a face."""
    assert isinstance(listener.model, LipWarp)
    lips = face.lip_range or listener.model.prior
    opening = scale_shape(said, lips)[:, 0]
    weight = values_at(face.speech_weight, torch.arange(len(opening)))
    return opening if weight is None else torch.lerp(lips.neutral[0], opening, weight.cpu())


def _source_openings(track: FaceTrack) -> Tensor | None:
    """Return (T,) openings of the source, NaN where unknown; None without landmarks."""
    track = to_own_layout(track)
    if track.dense is None:
        return None
    openings = mouth_opening(square_places(track.dense.float(), track.pixel_aspect)).cpu()
    return torch.where(confident_frames(track).cpu(), openings, torch.nan)


def _find_drawn(face: FaceDub, count: int) -> Tensor:
    """Return (count,) bool: frames that show the new mouth of a face."""
    opacity = values_at(face.opacity, torch.arange(count))
    visible = face.track.visible.cpu()
    return visible if opacity is None else visible & (opacity.cpu() > _DRAWN)
