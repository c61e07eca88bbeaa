"""Compute LSE-D and LSE-C by the protocol of the public scripts, to compare with published ones.

This follows the scripts of joonson/syncnet_python and of Wav2Lip's evaluation, including their
doubtful choices: zero vectors stand for missing audio, the last window is dropped, 25 frames a
second are assumed, and the best shift within 15 frames either way counts. LSE-D is
``SyncScore.distance`` and LSE-C ``SyncScore.confidence`` of a score of this module, and of no
other. One step is left out: the scripts write frames and crops as MPEG-4 and JPEG and read them
back, which blurs them; here they stay as they are, so figures may differ from theirs in the second
decimal.

All frames here are 25 a second, and all audio is mono at 16 kHz: 640 samples a frame.
``models.layers.fold_batch_norms`` makes the network a tenth faster.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.boxes import box_iou
from ..image.crop import resize_bytes
from ..models.syncnet import FPS, SIZE, WINDOW, SyncNet
from ..types import Audio, Detections, Frames, SyncScore
from .sync_embedder import BATCH, embed_lips, embed_sound

SEARCH = 15
"""Shifts each way, in frames."""

_SAMPLES_PER_FRAME = 640
_SMOOTHING = 9  # frames, median of the confidence over time
# syncnet_python's run_pipeline.py, defaults:
_MIN_TRACK = 100  # frames: shots of fewer and tracks of no more give no score
_MAX_GAP = 25  # frames without a face that a track may bridge
_MIN_OVERLAP = 0.5  # of a face and the track's last one, intersection over union
_MIN_FACE = 100  # px, mean of the longer side
_STEADYING = 13  # frames, median of place and size
# reach of the crop from the center of the face, in half sides of its box
_ABOVE, _BELOW, _BESIDE = 1.0, 1.8, 1.4
_GRAY = 110  # pixel value outside the frame


def measure_lse(lip: Tensor, sound: Tensor) -> SyncScore:
    """Compute LSE-D and LSE-C from embeddings of the lips and of the audio.

    LSE-D is the lowest mean Euclidean distance over the 31 shifts (0 or more, lower is better),
    LSE-C the median of the mean distances less that minimum (0 or more, higher is better).

    Args:
        lip: (L,1024) embeddings of the lips.
        sound: (L,1024) embeddings of the audio at the same frames.

    Returns:
        The score: ``curve`` holds the mean distances over the 31 shifts, with zero vectors for the
            audio before the first frame and after the last; ``frame_confidence`` the median of the
            curve less the distance at the best shift, frame by frame, smoothed. L = 0 gives NaN
            figures and a reason.

    Raises:
        ValueError: If the two shapes differ.
    """
    if lip.ndim != 2 or lip.shape != sound.shape:
        raise ValueError(
            f"lip is {tuple(lip.shape)}, sound {tuple(sound.shape)}; expected two of the same "
            "shape (L,1024)"
        )
    if lip.shape[0] == 0:
        return _make_empty_score()
    padded = F.pad(sound, (0, 0, SEARCH, SEARCH))
    # (L,31), a thousand windows at a time; the eps of pairwise_distance belongs to the protocol
    distances = torch.cat(
        [_distances(few, padded[1000 * i :]) for i, few in enumerate(lip.split(1000))]
    )
    curve = distances.mean(0)
    best = int(curve.argmin())
    offset = SEARCH - best
    return SyncScore(
        scorer="syncnet",
        offset_frames=offset,
        offset_ms=float(offset * 1000 / FPS),
        distance=float(curve[best]),
        confidence=float(curve.median() - curve[best]),
        frame_confidence=_running_median(curve.median() - distances[:, best], _SMOOTHING),
        curve=curve,
        search_frames=SEARCH,
        uncertainty=None,
    )


def _distances(lip: Tensor, padded: Tensor) -> Tensor:
    shifted = [
        F.pairwise_distance(lip, padded[j : j + lip.shape[0]]) for j in range(2 * SEARCH + 1)
    ]
    return torch.stack(shifted, 1)


def _make_empty_score() -> SyncScore:
    reason = (
        f"shorter than {WINDOW + 1} frames at {FPS} fps, in picture or sound: the reference "
        "protocol has no score"
    )
    nothing = torch.full((2 * SEARCH + 1,), math.nan)
    return SyncScore(
        "syncnet", None, None, math.nan, math.nan, nothing[:0], nothing, SEARCH, None, reason
    )


def _running_median(x: Tensor, width: int) -> Tensor:
    """Return (N,) medians over ``width`` (odd) neighbors.

    Values beyond the ends are zeros, as in scipy.signal.medfilt.
    """
    return F.pad(x, (width // 2, width // 2)).unfold(0, width, 1).median(1).values


class ReferenceScore:
    """LSE-D and LSE-C of one face whose pictures arrive in pieces.

    Only the embeddings (4 kB a frame) are kept. The size of the pieces does not change the result.

    Args:
        syncnet: SyncNet.
        audio: Audio from the first picture on, mono at 16 kHz.
    """

    def __init__(self, syncnet: SyncNet, audio: Audio) -> None:
        """``audio``: the sound from the first picture on, mono at 16 kHz."""
        self._syncnet, self._audio = syncnet, audio
        # windows for which there is audio
        self._allowed = max(0, audio.samples.shape[1] // _SAMPLES_PER_FRAME - WINDOW)
        self._waiting = torch.empty((0, SIZE, SIZE, 3), dtype=torch.uint8)
        self._lips = torch.empty(self._allowed, syncnet.config.embedding)
        self._done = 0

    def update(self, pictures: Tensor) -> None:
        """Add the next pictures, (N,224,224,3) uint8 RGB."""
        if self._done < self._allowed:  # pictures without audio are not embedded
            self._waiting = torch.cat((self._waiting, pictures.cpu()))
        while self._waiting.shape[0] >= BATCH + WINDOW:
            self._embed(BATCH)

    def compute(self) -> SyncScore:
        """Compute the score of all pictures; none may be added afterwards."""
        self._embed(self._waiting.shape[0] - WINDOW)
        return measure_lse(
            self._lips[: self._done], embed_sound(self._syncnet, self._audio, 0, self._done)
        )

    def _embed(self, windows: int) -> None:
        """Embed up to ``windows`` windows, as far as there is audio for them.

        One picture more than they need is kept back, so that the last window of the clip is
        dropped.
        """
        windows = max(0, min(windows, self._allowed - self._done))
        pictures = self._waiting[: windows + WINDOW - 1].permute(0, 3, 1, 2).float() / 255
        self._lips[self._done : self._done + windows] = embed_lips(self._syncnet, pictures)
        self._done += windows
        self._waiting = self._waiting[BATCH:]


def score_whole_frame(frames: Iterable[Frames], audio: Audio, syncnet: SyncNet) -> SyncScore:
    """Score a clip whose whole frames are faces (LRS2, LRS3, LRW), resized to 224x224.

    Args:
        frames: All frames of the clip in order, RGB (N,H,W,3) at 25 fps.
        audio: Mono audio at 16 kHz from the same beginning.
        syncnet: SyncNet.

    Returns:
        The score of the clip.
    """
    score = ReferenceScore(syncnet, audio)
    for chunk in frames:
        score.update(resize_bytes(chunk.pixels, (SIZE, SIZE)))
    return score.compute()


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceTrack:
    """One face through one shot, without a gap.

    Attributes:
        first_frame: First frame in the clip.
        boxes: (N,4) float64 xyxy px, detected or interpolated.
        squares: (N,3) float64 center x, center y and half side in px of the squares to cut,
            smoothed.
    """

    first_frame: int
    boxes: Tensor
    squares: Tensor

    @property
    def last_frame(self) -> int:
        """Last frame of the track, in the clip."""
        return self.first_frame + self.boxes.shape[0] - 1


_Face = tuple[int, list[float]]  # frame, box


def find_reference_tracks(
    detections: Sequence[Detections], cuts: Tensor | None = None
) -> list[ReferenceTrack]:
    """Find the face tracks of a clip, shot by shot.

    Each track begins with the first face that no other track has taken. Shots under 100 frames,
    tracks of up to 100 detections and faces of up to 100 px give no track, so a clip of four
    seconds or less gives none at all.

    Args:
        detections: Faces of every frame, from ``faces.detector_s3fd.syncnet_detector`` to match the
            protocol.
        cuts: (N,) bool, frames that begin a shot, as ``faces.shot_boundaries.find_cuts`` finds
            them. The reference uses PySceneDetect's ContentDetector, which cuts in other places
            when a shot is short or dark.

    Returns:
        The tracks, in the order of their shots.
    """
    begins = [] if cuts is None else [int(i) for i in cuts.nonzero()[:, 0] if i > 0]
    tracks: list[ReferenceTrack] = []
    for begin, end in zip([0, *begins], [*begins, len(detections)], strict=True):
        if end - begin < _MIN_TRACK:
            continue
        shot = [[(frame, box) for box in _boxes(detections[frame])] for frame in range(begin, end)]
        while faces := _follow(shot):
            track = _track(faces) if len(faces) > _MIN_TRACK else None
            if track is not None and float(_longer(track.boxes).mean(0).max()) > _MIN_FACE:
                tracks.append(track)
    return tracks


def _boxes(found: Detections) -> list[list[float]]:
    return found.boxes.double().tolist()


def _longer(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


def _follow(shot: list[list[_Face]]) -> list[_Face]:
    """Remove the faces of one track from ``shot`` and return them.

    It starts with the first face left, then takes in every frame the first one that overlaps the
    last one taken. (Detections of one frame overlap too little for two of them to belong to one
    track.)
    """
    track: list[_Face] = []
    for faces in shot:
        for i, (frame, box) in enumerate(faces):
            if not track or (
                frame - track[-1][0] <= _MAX_GAP and _iou(box, track[-1][1]) > _MIN_OVERLAP
            ):
                track.append(faces.pop(i))
                break
    return track


def _iou(a: list[float], b: list[float]) -> float:
    return float(
        box_iou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    )


def _track(faces: list[_Face]) -> ReferenceTrack:
    known = torch.tensor([frame for frame, _ in faces])
    found = torch.tensor([box for _, box in faces], dtype=torch.float64)
    frames = torch.arange(int(known[0]), int(known[-1]) + 1)
    after = torch.searchsorted(known, frames, right=True).clamp(max=len(faces) - 1)
    before = after - 1
    slope = (found[after] - found[before]) / (known[after] - known[before])[:, None]
    boxes = found[before] + slope * (frames - known[before])[:, None]
    centers, half = (boxes[:, :2] + boxes[:, 2:]) / 2, _longer(boxes).amax(1) / 2
    steady = [_running_median(row, _STEADYING) for row in (*centers.unbind(1), half)]
    return ReferenceTrack(int(known[0]), boxes, torch.stack(steady, 1))


def crop_regions(track: ReferenceTrack) -> Tensor:
    """Compute how each frame is padded and cropped.

    Args:
        track: Track of N frames.

    Returns:
        (N,5) int64: px of gray padding around each frame, then first row, end row, first column and
        end column of the crop in the padded frame.
    """
    x, y, half = track.squares.unbind(1)
    pad = (half * _BELOW).trunc()
    x, y = x + pad, y + pad
    limits = (y - half * _ABOVE, y + half * _BELOW, x - half * _BESIDE, x + half * _BESIDE)
    return torch.stack((pad, *(limit.trunc() for limit in limits)), 1).long()


def crop_track(frames: Iterable[Frames], track: ReferenceTrack) -> Iterator[Frames]:
    """Yield the crops of a tracked face as SyncNet takes them, (n,224,224,3) uint8 RGB.

    Args:
        frames: RGB (N,H,W,3) at 25 fps, in order.
        track: Track of the face.

    Yields:
        The crops of each piece; ``start`` counts in the clip.
    """
    regions = crop_regions(track).tolist()
    for chunk in frames:
        first = max(chunk.start, track.first_frame)
        end = min(chunk.start + chunk.pixels.shape[0], track.last_frame + 1)
        crops = [
            _crop(chunk.pixels[frame - chunk.start], regions[frame - track.first_frame])
            for frame in range(first, end)
        ]
        if crops:
            yield Frames(torch.cat(crops), first)


def _crop(pixels: Tensor, region: Sequence[int]) -> Tensor:
    """(H,W,3) -> (1,224,224,3) uint8."""
    height, width, _ = pixels.shape
    pad, top, bottom, left, right = region
    top, left = max(0, top) - pad, max(0, left) - pad  # from here on in pixels of the frame
    bottom, right = min(bottom - pad, height + pad), min(right - pad, width + pad)
    gray = _GRAY if pixels.dtype == torch.uint8 else _GRAY / 255
    face = pixels.new_full((1, max(1, bottom - top), max(1, right - left), 3), gray)
    inside = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    y, x = max(0, -top), max(0, -left)
    face[0, y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return resize_bytes(face, (SIZE, SIZE))


def score_reference_tracks(
    frames: Iterable[Frames], audio: Audio, tracks: Sequence[ReferenceTrack], syncnet: SyncNet
) -> list[SyncScore]:
    """Score every track of a clip with its own part of the audio, in one pass over the frames.

    Args:
        frames: All frames of the clip in order, RGB (N,H,W,3) at 25 fps.
        audio: Mono audio at 16 kHz from the same beginning.
        tracks: Tracks of the clip, as ``find_reference_tracks`` returns them.
        syncnet: SyncNet.

    Returns:
        The scores, in the order of the tracks.

    Raises:
        ValueError: If frames are missing, or a track goes on after the last frame.
    """
    scores = [ReferenceScore(syncnet, _stretch(audio, track)) for track in tracks]
    seen = 0
    for chunk in frames:
        if chunk.start != seen:
            raise ValueError(
                f"frames {chunk.start} follow frame {seen - 1}; expected all frames of the clip, "
                "in order"
            )
        seen += chunk.pixels.shape[0]
        for track, score in zip(tracks, scores, strict=True):
            for crops in crop_track([chunk], track):
                score.update(crops.pixels)
    if any(track.last_frame >= seen for track in tracks):
        raise ValueError(
            f"the clip has {seen} frames, and a track goes on after them; are they of one clip?"
        )
    return [score.compute() for score in scores]


def _stretch(audio: Audio, track: ReferenceTrack) -> Audio:
    begin, end = track.first_frame * _SAMPLES_PER_FRAME, (track.last_frame + 1) * _SAMPLES_PER_FRAME
    return Audio(audio.samples[:, begin:end], audio.rate)
