"""Face crops of the people in one source, piece by piece: a video, or folders of face pictures."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MediaError
from ...faces import Detector
from ...faces.tracking import track_window
from ...image.affine import Framing, compose, crop_to_frame, translation
from ...image.crop import crop_frames, crop_pictures
from ...media import probe
from ...media.clip import VideoClip, open_clip
from ...metrics.sync_embedder import Scorer
from ...options import Cut
from ...pipelines.track_faces import track_faces
from ...runtime.intervals import true_runs
from ...runtime.prefetch import prefetch
from ...types import FaceTrack
from .settings import FPS, Settings
from .sources import PICTURES

_CHUNK = 32  # frames
# of a face picture's longer side, added all round: the detector knows faces with something about
# them
_AROUND = 0.25
# pictures without a found face that are bridged: their points lie between those of their neighbors
_MISSED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive frames of a take.

    Attributes:
        take: number of the take.
        start: number of its first frame.
        crops: (N,C,C,3) uint8, for the shard.
        looked: (N,3,S,S), for the judge.
    """

    take: int
    start: int
    crops: Tensor
    looked: Tensor


@dataclass(frozen=True, slots=True)
class Take:
    """Frames in which one person is seen without a break.

    Attributes:
        person: number of the person.
        first: the first frame.
        stop: the frame after the last.
        face_px: the usual longer side of the face, in pixels.
    """

    person: int
    first: int
    stop: int
    face_px: float


class VideoTakes:
    """The people of a video at 25 fps; scene cuts end takes.

    Raises:
        MediaError: the video cannot be read.
    """

    def __init__(self, path: Path, detector: Detector) -> None:
        if probe(path).still:
            raise MediaError(f"{path}: a photograph does not move; expected a video")
        self._footage: VideoClip = open_clip(path, Cut(fps=FPS), on_warning=lambda _: None)
        self._tracks, self.frames = track_faces(self._footage, detector)
        self.takes = [
            Take(person, track.start + first, track.start + stop, _side(track.boxes[first:stop]))
            for person, track in enumerate(self._tracks)
            for first, stop in true_runs(track.visible).tolist()
        ]

    def pieces(self, settings: Settings, scorer: Scorer) -> Iterator[Piece]:
        """Yield every frame of every take, takes side by side."""
        coded = self._footage.coded(chunk=_CHUNK)
        with closing(prefetch(coded)) as chunks:
            for chunk in chunks:
                end = chunk.start + chunk.pixels.shape[0]
                for number, take in enumerate(self.takes):
                    first, stop = max(take.first, chunk.start), min(take.stop, end)
                    if first >= stop:
                        continue
                    seen = track_window(self._tracks[take.person], first, stop - first)
                    frames = replace(
                        chunk, pixels=chunk.pixels[first - chunk.start : stop - chunk.start]
                    )
                    wide, looked = _placed(seen, settings, scorer)
                    crops = crop_frames(frames, wide, settings.size + 2 * settings.margin)
                    faces = crop_frames(
                        frames, looked, scorer.size, antialias=scorer.framing.kind != "box"
                    )
                    yield Piece(number, first, _bytes(crops), faces)


class PictureTakes:
    """The person of a folder of face pictures, numbered at 25 fps; missing numbers end takes."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        numbers = sorted(
            int(path.stem) for path in folder.glob(f"*{PICTURES}") if path.stem.isdigit()
        )
        self._folder, self.frames = folder, numbers[-1] + 1 if numbers else 0
        self._shares = _bridged(
            {n: face for n in numbers if (face := self._found(n, detector)) is not None},
            set(numbers),
        )
        there = torch.zeros(self.frames + 1, dtype=torch.bool)
        there[list(self._shares)] = True
        sides = [
            max(*self._open(n).shape[1:3])
            for n in list(self._shares)[:: max(1, len(self._shares) // 25)]
        ]
        self.takes = [
            Take(0, first, stop, float(np.median(sides)))
            for first, stop in true_runs(there).tolist()
        ]

    def pieces(self, settings: Settings, scorer: Scorer) -> Iterator[Piece]:
        """Yield every picture of every take, in order."""
        for number, take in enumerate(self.takes):
            for frame in range(take.first, take.stop):
                pixels = self._open(frame)
                _, height, width, _ = pixels.shape
                scale = torch.tensor([width, height])
                points = self._shares[frame][None] * scale
                box = torch.tensor([[0, 0, width, height]], dtype=torch.float32)
                seen = FaceTrack(box, points, torch.ones(1, dtype=torch.bool), frame)
                # whose crops have none
                wide, looked = _placed(seen, settings, scorer, pads=(0, 0, 0, 0))
                crops = crop_pictures(pixels, wide, settings.size + 2 * settings.margin)
                yield Piece(
                    number, frame, _bytes(crops), crop_pictures(pixels, looked, scorer.size)
                )

    def _open(self, number: int) -> Tensor:
        """Read a picture as (1,H,W,3) uint8."""
        from PIL import Image

        path = self._folder / f"{number}{PICTURES}"
        try:
            with Image.open(path) as picture:
                return torch.from_numpy(np.array(picture.convert("RGB")))[None]
        except (OSError, SyntaxError) as error:
            raise MediaError(
                f"{path} cannot be read as a picture ({error}); remove it or preprocess the clip "
                "again"
            ) from error

    def _found(self, number: int, detector: Detector) -> Tensor | None:
        """Return (5,2) points of the best face, in parts of the picture's width and height."""
        pixels = self._open(number)
        _, height, width, _ = pixels.shape
        edge = round(max(height, width) * _AROUND)
        planes = pixels.permute(0, 3, 1, 2).float()
        padded = (
            F.pad(planes, (edge, edge, edge, edge), mode="replicate").byte().permute(0, 2, 3, 1)
        )
        (faces,) = detector.detect(padded)
        if not len(faces.scores):
            return None
        return (faces.points[0].cpu() - edge) / torch.tensor([width, height])


def _placed(
    seen: FaceTrack,
    settings: Settings,
    scorer: Scorer,
    *,
    pads: tuple[int, int, int, int] = (0, 10, 0, 0),
) -> tuple[Tensor, Tensor]:
    """Return the (N,2,3) maps of the shard's crops with their margin, and of the judge's."""
    framing = Framing("box", pads=pads) if settings.framing == "box" else Framing()
    boxes, points = seen.boxes.float(), seen.points.float()
    matrices = crop_to_frame(boxes, points, framing, settings.size)
    wide = compose(matrices, translation(torch.full((len(boxes), 2), -float(settings.margin))))
    return wide, crop_to_frame(boxes, points, scorer.framing, scorer.size)


def _bytes(crops: Tensor) -> Tensor:
    return (crops * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def _side(boxes: Tensor) -> float:
    return float((boxes[:, 2:] - boxes[:, :2]).amax(1).median())


def _bridged(found: dict[int, Tensor], numbers: set[int]) -> dict[int, Tensor]:
    """Fill the gaps of ``found`` between two neighbors that are close."""
    known = sorted(found)
    out = dict(found)
    for a, b in pairwise(known):
        between = range(a + 1, b)
        if 0 < len(between) <= _MISSED and all(n in numbers for n in between):
            out |= {n: torch.lerp(found[a], found[b], (n - a) / (b - a)) for n in between}
    return dict(sorted(out.items()))
