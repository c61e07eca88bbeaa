"""The demo: a bundled portrait with a closed mouth, a spoken sentence, the bundled weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..audio.ops import frame_count
from ..errors import MediaError
from ..media import VideoWriter, read_audio, read_frames, shift_audio
from ..options import Encoding
from ..types import Audio, Frames, ProgressCallback, VideoInfo
from .dub import Finding, dub
from .preview import tile_pictures

SPEECH = Path(__file__).parents[1] / "assets" / "demo.flac"
PHOTO = Path(__file__).parents[1] / "assets" / "demo.jpg"
DemoName = Literal["portrait", "talking", "out of sync", "two people"]
LATE = Fraction(1, 5)  # seconds: the sound of "out of sync"
_WHOLE = (slice(None), slice(None))  # of each frame: the head fills the photograph
_FPS = Fraction(25)
# how far the camera sways, as a part of the picture, and how long that takes
_SWAY, _SWAY_SECONDS = 0.02, 3.0
_CHUNK = 16  # frames


def demo(
    folder: Path, *, overwrite: bool = False, on_progress: ProgressCallback | None = None
) -> tuple[Path, Path]:
    """Dub a photo, and draw a contact sheet of the result.

    The picture is an official portrait of a former member of the US Congress (public domain;
    ``assets/demo.md``). Its mouth is closed.

    Args:
        folder: Where ``demo.mp4`` and ``demo.png`` are written.
        overwrite: Whether they replace existing files.
        on_progress: Called with the stage, the frames done and their total.

    Returns:
        The paths of the video and the sheet.

    Raises:
        MediaError: A file exists, or cannot be written.
    """
    from skimage.io import imsave

    folder.mkdir(parents=True, exist_ok=True)
    video, sheet = folder / "demo.mp4", folder / "demo.png"
    if sheet.exists() and not overwrite:
        raise MediaError(f"{sheet} exists; choose another folder or allow overwriting")
    dub(
        PHOTO,
        SPEECH,
        video,
        finding=Finding(cache=False),
        encoding=Encoding(overwrite=overwrite),
        on_progress=on_progress,
    )
    imsave(sheet, make_contact_sheet(video, _WHOLE), check_contrast=False)
    return video, sheet


def make_contact_sheet(
    video: Path,
    part: tuple[slice, slice],
    *,
    columns: int = 4,
    rows: int = 2,
    every: int = 4,
    first: int = 8,
) -> np.ndarray:
    """Tile a part of frames of a video.

    Args:
        video: The file.
        part: Rows and columns of each frame that are shown.
        columns: Number of tiles side by side.
        rows: Number of rows of tiles; a short video gives fewer.
        every: Distance of two frames.
        first: Number of the first frame.

    Returns:
        (rows*h, columns*w, 3) uint8, in reading order.
    """
    count = columns * rows
    pieces = read_frames(video, start=first, stop=first + count * every, every=every)
    tiles = torch.cat([piece.pixels[:, *part] for piece in pieces])
    return tile_pictures(tiles[:count], columns=columns).numpy()


@dataclass(frozen=True, slots=True, eq=False)
class DemoClip:
    """A clip to try things with.

    Attributes:
        image: (H,W,3) uint8.
        video: A video as long as the speech.
        audio: The speech.
    """

    image: Tensor
    video: Path
    audio: Audio


def make_demo_clip(
    folder: Path, name: DemoName, *, on_progress: ProgressCallback | None = None
) -> DemoClip:
    """Make one of four clips, unless the folder holds it.

    Args:
        folder: Where the videos are written.
        name: ``portrait``: the photo, a silent video that sways gently over it, the speech.
            ``talking``: the video speaks. ``out of sync``: its sound is ``LATE``. ``two people``:
            the silent video beside its mirror image.
        on_progress: Called with the stage, the frames done and their total.

    Raises:
        ValueError: ``name`` is another.
    """
    if name not in get_args(DemoName):
        raise ValueError(
            f"no demo clip is called {name!r}; expected {', '.join(get_args(DemoName))}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (photo,) = read_frames(PHOTO)
    image = photo.pixels[0]
    speech = read_audio(SPEECH, rate=None, mono=False)
    if name == "two people":
        image = torch.cat([image, image.flip(1)], 1)
    silent = folder / ("two people.mp4" if name == "two people" else "portrait.mp4")
    if not silent.exists():
        _sway(image, frame_count(speech, _FPS), silent)
    if name in ("portrait", "two people"):
        return DemoClip(image, silent, speech)
    talking = folder / "talking.mp4"
    if not talking.exists():
        dub(silent, SPEECH, talking, finding=Finding(cache=False), on_progress=on_progress)
    if name == "talking":
        return DemoClip(image, talking, speech)
    late = folder / "out of sync.mp4"
    if not late.exists():
        shift_audio(talking, late, LATE)
    silence = torch.zeros(speech.samples.shape[0], round(LATE * speech.rate))
    return DemoClip(image, late, Audio(torch.cat([silence, speech.samples], 1), speech.rate))


def _sway(image: Tensor, count: int, out: Path) -> None:
    """Write ``count`` frames over which a camera sways gently from side to side."""
    height, width, _ = image.shape
    planes = image.permute(2, 0, 1)[None].float()

    def frames() -> Iterator[Frames]:
        for start in range(0, count, _CHUNK):
            turn = torch.arange(start, min(start + _CHUNK, count)) * (
                2 * math.pi / (_SWAY_SECONDS * float(_FPS))
            )
            camera = torch.zeros(len(turn), 2, 3)
            # zoomed in, so that no edge comes into view
            camera[:, 0, 0] = camera[:, 1, 1] = 1 - 2 * _SWAY
            camera[:, 0, 2], camera[:, 1, 2] = turn.sin() * 2 * _SWAY, (turn / 2).sin() * _SWAY
            grid = F.affine_grid(camera, [len(turn), 3, height, width], align_corners=False)
            pictures = F.grid_sample(
                planes.expand(len(turn), -1, -1, -1), grid, align_corners=False
            )
            yield Frames(pictures.round().to(torch.uint8).permute(0, 2, 3, 1), start)

    with VideoWriter(out, VideoInfo(width, height, _FPS, count)) as writer:
        for chunk in frames():
            writer.write(chunk)
