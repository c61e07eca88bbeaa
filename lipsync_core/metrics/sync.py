"""Measure the offset between lips and sound, and its confidence.

Mode ``exact``. For every window of frames the L2 distance to the windows of sound up to 15 frames
earlier and later is taken; the curve is its mean over the clip, its minimum the offset. Nothing is
padded: a window without partner (before the sound begins, after it ends) is left out of that
shift's mean, and beyond a track's own ends the clip's true sound is heard. (The public scripts
compare with vectors of zeros there; that is mode ``reference``, in ``protocol``. With the judge's
vectors and the first second of 35 Korean clips, 32 offsets are right within one frame, and 12 with
zeros.)

Distances are L2, as with SyncNet, for every scorer. For vectors of length 1 the cosine distance is
L2^2 / 2; on 75 GRID and Korean clips both find the same offsets. The cosine is what training
watches and what the model cards quote (``offset_curve``).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from ..faces.tracking import track_window
from ..image.affine import crop_to_frame
from ..image.crop import crop_frames
from ..runtime.intervals import true_runs
from ..types import Audio, FaceTrack, Frames, SyncScore, YuvFrames
from .sync_embedder import Scorer

SEARCH = 15  # frames to each side, as in SyncNet's public evaluation
_SEEN = 60  # frames to each side in which an offset beyond the search is noticed

_LEAST_PAIRS = 4  # windows compared at every shift
_LEAST_SEARCH = 2  # frames: five shifts, of which a median and a minimum can be told apart
_BATCH = 64  # windows of sound embedded at once
# Neighbouring windows share frames and syllables; blocks of 10 (0.4 s) are taken for independent.
# In clips of 2 s and more strangers' speech then gets a verdict in 3 to 10 % of cases (24 % between
# GRID's sentences, which are all built alike), with blocks of 5 in up to 15 %; at half a second in
# 16 to 19 %. Above 100 they grow instead.
_BLOCK, _LEAST_BLOCKS, _MOST_BLOCKS = 10, 4, 100
_DRAWS = 500
_NUMBERS = 4_000_000  # held at once by the draws: 16 MB, whatever the width of the search
_LEVEL = 0.95  # share of chance curves that a verdict must beat
_ROUNDING = 1e-3  # of the distance: what bfloat16 alone makes of equal windows
_SILENT = 2.0**-15  # one step of 16 bits
_MEDIAN = 9  # frames of the running median of the confidence, as in SyncNet's public evaluation


def score_sync(
    faces: Tensor | Iterable[Tensor],
    audio: Audio,
    scorer: Scorer,
    *,
    start: int = 0,
    search: int = SEARCH,
) -> SyncScore:
    """Score how well one face agrees with a sound.

    Pieces are embedded one by one; 121 numbers a frame are kept, or 2*search+1 if that is more.

    Args:
        faces: Crops (N,3,S,S) RGB in [0,1] of consecutive frames at ``scorer.fps``, whole or in
            pieces.
        audio: Mono, at ``scorer.rate``; sample 0 belongs to frame 0.
        scorer: The network that compares lips and sound.
        start: Index of the first frame of ``faces``.
        search: Frames to each side in which the offset is searched.

    Returns:
        The score, in frames at ``scorer.fps`` (25: 40 ms) whatever the rate of the file;
        ``offset_ms`` is the same in milliseconds.

    Raises:
        ValueError: For sound of another rate or shorter than one window.
    """
    meter = SyncMeter(scorer, audio, search=search, seen=_SEEN)
    for piece in [faces] if isinstance(faces, Tensor) else faces:
        meter.update(piece, start)
        start += piece.shape[0]
    return meter.compute()


def score_tracks(
    frames: Iterable[Frames | YuvFrames],
    audio: Audio,
    scorer: Scorer,
    *,
    tracks: Sequence[FaceTrack],
    search: int = SEARCH,
) -> list[SyncScore]:
    """Score every track as ``score_sync`` does, in one pass over the frames.

    Args:
        frames: The clip at ``scorer.fps``, in chunks.
        audio: Mono, at ``scorer.rate``; sample 0 belongs to frame 0.
        scorer: The network that compares lips and sound.
        tracks: The faces.
        search: Frames to each side in which the offset is searched.

    Returns:
        The scores in the order of ``tracks``.
    """
    return [
        meter.compute()
        for meter in meter_tracks(frames, audio, scorer, tracks=tracks, search=search, seen=_SEEN)
    ]


def meter_tracks(
    frames: Iterable[Frames | YuvFrames],
    audio: Audio,
    scorer: Scorer,
    *,
    tracks: Sequence[FaceTrack],
    search: int = SEARCH,
    seen: int = 0,
) -> list["SyncMeter"]:
    """Feed the frames of a clip to one meter per track.

    Args:
        frames: The clip at ``scorer.fps``, in chunks.
        audio: Mono, at ``scorer.rate``; sample 0 belongs to frame 0.
        scorer: The network that compares lips and sound.
        tracks: The faces.
        search: Frames to each side in which the offset is searched.
        seen: See ``SyncMeter``.

    Returns:
        The meters in the order of ``tracks``, each updated with all frames of its track.
    """
    sound = embed_audio_windows(audio, scorer)
    meters = [SyncMeter(scorer, audio, sound=sound, search=search, seen=seen) for _ in tracks]
    for chunk in frames:
        for track, meter in zip(tracks, meters, strict=True):
            part = track_window(track, chunk.start, chunk.pixels.shape[0])
            if part.visible.any():
                here = part.visible
                matrices = crop_to_frame(
                    part.boxes[here].float(),
                    part.points[here].float(),
                    scorer.framing,
                    scorer.size,
                    aspect=part.pixel_aspect,
                )
                there = chunk if bool(here.all()) else replace(chunk, pixels=chunk.pixels[here])
                crops = crop_frames(
                    there, matrices, scorer.size, antialias=scorer.framing.kind != "box"
                )
                for first, last in true_runs(here).tolist():
                    begin = int(here[:first].sum())
                    meter.update(crops[begin : begin + last - first], chunk.start + first)
    return meters


def embed_audio_windows(audio: Audio, scorer: Scorer) -> Tensor:
    """Embed every window that the sound contains completely.

    Args:
        audio: Mono, at ``scorer.rate``.
        scorer: The network that embeds it.

    Returns:
        (A, D) vectors; window k begins with frame k at ``scorer.fps``.

    Raises:
        ValueError: For sound of another rate or shorter than one window.
    """
    if audio.rate != scorer.rate or audio.samples.shape[0] != 1:
        raise ValueError(
            f"audio is {audio.samples.shape[0]} channels at {audio.rate} Hz; "
            f"expected mono at {scorer.rate} Hz: use resample() and mono() first"
        )
    seconds = Fraction(audio.samples.shape[1], audio.rate)
    count = math.floor(seconds * scorer.fps) - scorer.window + 1
    if count < 1:
        wanted = float(scorer.window / scorer.fps)
        raise ValueError(
            f"the sound lasts {float(seconds):.2f} s; {scorer.name} wants {wanted:g} s or more"
        )
    return torch.cat(
        [scorer.embed_audio(audio, i, min(_BATCH, count - i)) for i in range(0, count, _BATCH)]
    )


class SyncMeter:
    """Scores one face, piece by piece.

    Args:
        scorer: The network that compares lips and sound.
        audio: Mono, at ``scorer.rate``; sample 0 belongs to frame 0.
        sound: Result of ``embed_audio_windows`` for ``audio``, if several faces share it.
        search: Frames to each side in which the offset is searched.
        seen: Frames to each side in which an offset beyond the search is noticed, for the reason
            why there is no offset.
    """

    def __init__(
        self,
        scorer: Scorer,
        audio: Audio,
        *,
        sound: Tensor | None = None,
        search: int = SEARCH,
        seen: int = 0,
    ) -> None:
        if search < _LEAST_SEARCH:
            raise ValueError(f"search is {search} frames; expected {_LEAST_SEARCH} or more")
        self._scorer = scorer
        self._sound = embed_audio_windows(audio, scorer) if sound is None else sound
        self._silent = float(audio.samples.abs().max()) < _SILENT
        self._search, self._seen = search, max(search, seen)
        # the last window-1 crops, which begin windows that the next piece completes
        self._held: Tensor | None = None
        self._next = 0
        self._starts: list[Tensor] = []
        self._distances: list[Tensor] = []

    def update(self, faces: Tensor, start: int) -> None:
        """Add consecutive frames.

        Args:
            faces: Crops (N,3,S,S) RGB in [0,1].
            start: Index of the first one. If the last piece did not end there, the face was not
                visible in between, and no window spans the gap.
        """
        if self._held is not None and start == self._next:
            faces, start = torch.cat([self._held, faces]), start - self._held.shape[0]
        self._next = start + faces.shape[0]
        span = self._scorer.window
        self._held = faces[max(0, faces.shape[0] - span + 1) :].clone()
        if faces.shape[0] >= span:
            video = self._scorer.embed_video(faces)
            self._starts.append(torch.arange(start, start + video.shape[0]))
            self._distances.append(
                shift_distances(video, self._sound, start=start, search=self._seen)
            )

    def windows(self) -> tuple[Tensor, Tensor]:
        """Return the windows so far.

        Returns:
            (W,) first frame of each window, and (W, 2*search+1) its ``shift_distances``.
        """
        starts = torch.cat([torch.zeros(0, dtype=torch.long), *self._starts])
        return starts, _middle(self._all_distances(), self._search)

    def _all_distances(self) -> Tensor:
        return torch.cat([torch.zeros(0, 2 * self._seen + 1), *self._distances])

    def compute(self) -> SyncScore:
        """The score of what was seen so far."""
        starts, distances = self.windows()
        search = search_range(distances)
        if search < _LEAST_SEARCH:
            return _unscored(self._scorer, distances.shape[0])
        distances = _middle(distances, search)
        curve = distances.nanmean(0)
        offset, confidence = find_offset(curve)
        generator = torch.Generator().manual_seed(0)  # the same clip always gives the same verdict
        sums, pairs = _block_sums(distances)
        error = _offset_uncertainty(sums, pairs, distances.nanmean(0).argmin(), generator)
        chance = _chance_confidence(sums, pairs, generator)
        reason = "the sound is silent" if self._silent else self._find_reason(curve, chance)
        by_frame = _median_per_frame(
            curve.median() - distances[:, search - offset], starts, self._scorer.window
        )
        ms = float(1000 * offset / self._scorer.fps)
        found = (offset, ms, error) if reason is None else (None, None, None)
        return SyncScore(
            scorer=self._scorer.name,
            offset_frames=found[0],
            offset_ms=found[1],
            distance=float(curve.min()),
            confidence=confidence,
            frame_confidence=by_frame,
            curve=curve,
            search_frames=search,
            uncertainty=found[2],
            reason=reason,
        )

    def _find_reason(self, curve: Tensor, chance: float) -> str | None:
        """Say why a curve shows no offset; None if it does.

        Args:
            curve: (2K+1,) mean distance at each shift.
            chance: Confidence that chance alone reaches.
        """
        offset, confidence = find_offset(curve)
        search = curve.shape[0] // 2
        clear = confidence > max(chance, _ROUNDING * float(curve.min()))
        if clear and abs(offset) < search:
            return None
        limits = f"±{search} frames ({float(search / self._scorer.fps):g} s)"
        beyond = _offset_beyond(self._all_distances(), search)
        if not clear and beyond is None:
            return (
                f"the curve is flat: no offset within {limits} stands out, with a confidence of "
                f"{confidence:.3f} where chance alone reaches {chance:.3f}; for sound that is "
                "further off, search wider (--search-seconds)"
            )
        at = offset if beyond is None else beyond
        seconds = math.ceil((abs(at) + search) / self._scorer.fps)
        advice = f"search wider (--search-seconds {seconds})"
        if search < self._search:
            advice = "a longer clip allows a wider search"
        return (
            f"{'beyond' if abs(at) > search else 'at the edge of'} {limits}: the sound is about "
            f"{abs(at)} frames {'early' if at > 0 else 'late'}; {advice}"
        )


def shift_distances(
    video: Tensor, sound: Tensor, *, start: int = 0, search: int = SEARCH
) -> Tensor:
    """Compare each window of frames with the windows of sound around it.

    Args:
        video: (N, D) windows of frames.
        sound: (A, D) windows of sound; the first begins with frame 0.
        start: The frame with which the first window of ``video`` begins.
        search: Frames to each side.

    Returns:
        (N, 2*search+1) L2 distances; column j is the sound that begins j - search frames later, NaN
        if there is none.
    """
    shifts = torch.arange(-search, search + 1, device=video.device)
    found = [video.new_zeros(0, len(shifts))]
    at_once = max(1, _NUMBERS // (len(shifts) * video.shape[1]))
    for first in range(0, video.shape[0], at_once):
        part = video[first : first + at_once, None]
        frames = torch.arange(first, first + part.shape[0], device=video.device)
        partner = start + frames[:, None] + shifts
        there = (partner >= 0) & (partner < sound.shape[0])
        distances = (part - sound[partner.clamp(0, sound.shape[0] - 1)]).norm(dim=2)
        found.append(distances.masked_fill(~there, torch.nan))
    return torch.cat(found)


def _middle(distances: Tensor, search: int) -> Tensor:
    """Keep ``search`` columns to each side of the middle one."""
    middle = distances.shape[1] // 2
    return distances[:, middle - search : middle + search + 1]


def _offset_beyond(distances: Tensor, search: int) -> int | None:
    """Find an offset that stands out clearly, at ``search`` frames or farther; None without one.

    Args:
        distances: (N, 2K+1) result of ``shift_distances``.
        search: Frames to each side in which no offset stands out.
    """
    wide = search_range(distances)
    if wide <= search:
        return None
    distances = _middle(distances, wide)
    curve = distances.nanmean(0)
    offset, confidence = find_offset(curve)
    chance = _chance_confidence(*_block_sums(distances), torch.Generator().manual_seed(0))
    clear = confidence > max(chance, _ROUNDING * float(curve.min()))
    return offset if clear and abs(offset) >= search else None


def search_range(distances: Tensor) -> int:
    """Find how far a search is supported by enough windows.

    Args:
        distances: (N, 2K+1) result of ``shift_distances``.

    Returns:
        Frames to each side at which every shift compares at least 4 windows, and at least half as
        many as the shift that compares most: 15 from 1.4 s on, 4 for half a second.
    """
    pairs = (~distances.isnan()).sum(0)
    enough = (pairs >= _LEAST_PAIRS) & (2 * pairs >= pairs.max())
    middle = pairs.shape[0] // 2
    both = enough[: middle + 1].flip(0) & enough[middle:]  # by distance from no shift
    return int(both.cumprod(0).sum()) - 1


def offset_curve(audio: Tensor, video: Tensor, shifts: int = SEARCH) -> Tensor:
    """Average the cosine distance over a clip at every shift.

    Args:
        audio: (A, D) unit vectors.
        video: (N, D) unit vectors.
        shifts: Frames to each side.

    Returns:
        (2*shifts+1,) mean distances to the audio j - shifts frames later.
    """
    return (shift_distances(video, audio, search=shifts).square() / 2).nanmean(0)


def find_offset(curve: Tensor) -> tuple[int, float]:
    """Read the offset from a curve of distances.

    Args:
        curve: (2K+1,) mean distance at each shift.

    Returns:
        The offset in frames (> 0: the sound is early), and the confidence: median minus minimum.
    """
    best = int(curve.nan_to_num(torch.inf).argmin())
    return curve.shape[0] // 2 - best, float(curve.nanmedian() - curve[best])


def _block_sums(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the distances of neighboring windows, which are not independent of each other.

    Args:
        distances: (N, S) distances, NaN where nothing was compared.

    Returns:
        (B, S) sums over blocks of about 10 windows, and (B, S) how many distances each holds.
    """
    count, shifts = distances.shape
    blocks = min(max(count // _BLOCK, _LEAST_BLOCKS), _MOST_BLOCKS)
    block = torch.arange(count) * blocks // count
    zeros = distances.new_zeros(blocks, shifts)
    sums = zeros.index_add(0, block, distances.nan_to_num(0))
    return sums, zeros.index_add(0, block, (~distances.isnan()).to(distances.dtype))


def _offset_uncertainty(
    sums: Tensor, pairs: Tensor, best_shift: Tensor, generator: torch.Generator
) -> float:
    """Estimate the standard error of the offset by a bootstrap over blocks.

    Own code, because ``scipy.stats.bootstrap`` resamples single values, not sums of blocks.

    Args:
        sums: (B, S) sums of distances by block.
        pairs: (B, S) numbers of distances in them.
        best_shift: Index of the shift with the smallest mean distance.
        generator: Source of the draws.

    Returns:
        Frames: the rms difference of resampled offsets from the offset found, with the variance of
        rounding to whole frames (1/12).
    """
    blocks = sums.shape[0]
    resampled = torch.randint(0, blocks, (_DRAWS, blocks), generator=generator)
    curves = torch.cat(
        [sums[part].sum(1) / pairs[part].sum(1) for part in resampled.split(_draws_at_once(sums))]
    )
    errors = curves.nan_to_num(torch.inf).argmin(1) - best_shift
    return float((errors.double().square().mean() + 1 / 12).sqrt())


def _chance_confidence(sums: Tensor, pairs: Tensor, generator: torch.Generator) -> float:
    """Estimate the confidence that chance stays below in 19 of 20 cases.

    Every block's curve is rotated by a shift of its own, so that blocks agree on an offset only by
    accident. Silence, noise, a still face and the speech of others do no better.

    Args:
        sums: (B, S) sums of distances by block.
        pairs: (B, S) numbers of distances in them.
        generator: Source of the draws.

    Returns:
        The 95 % quantile of the confidence of rotated curves.
    """
    blocks, shifts = sums.shape
    rotations = torch.randint(0, shifts, (_DRAWS, blocks, 1), generator=generator)
    rows, found = torch.arange(blocks)[:, None], list[Tensor]()
    for part in rotations.split(_draws_at_once(sums)):
        columns = (torch.arange(shifts) + part) % shifts  # (draws, B, S)
        found.append(sums[rows, columns].sum(1) / pairs[rows, columns].sum(1))
    curves = torch.cat(found)
    confidences = curves.nanmedian(1).values - curves.nan_to_num(torch.inf).amin(1)
    return float(confidences.quantile(_LEVEL))


def _draws_at_once(sums: Tensor) -> int:
    """How many draws of (B, S) sums are held in memory together."""
    return max(1, _NUMBERS // sums.numel())


def _median_per_frame(confidence: Tensor, starts: Tensor, span: int) -> Tensor:
    """Compute the running median of the windows' confidence per frame.

    Args:
        confidence: (W,) of each window.
        starts: (W,) first frame of each window.
        span: Frames of a window; its confidence counts at the middle one.

    Returns:
        (N,) from the first visible frame to the last, NaN if nothing was compared nearby.
    """
    first, last = int(starts[0]), int(starts[-1]) + span - 1
    frames = confidence.new_full((last - first + 1,), torch.nan)
    frames[starts - first + span // 2] = confidence
    half = _MEDIAN // 2
    padded = torch.nn.functional.pad(frames, (half, half), value=torch.nan)
    return padded.unfold(0, _MEDIAN, 1).nanmedian(1).values


def _unscored(scorer: Scorer, windows: int) -> SyncScore:
    nan = torch.full((1,), torch.nan)
    reason = (
        f"too short: {windows} windows of frames with sound to compare; "
        "show the face for half a second or more"
    )
    return SyncScore(scorer.name, None, None, math.nan, math.nan, nan[:0], nan, 0, None, reason)
