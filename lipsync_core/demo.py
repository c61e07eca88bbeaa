"""The demo: a photograph that every scikit-image has, a sentence of ours, the bundled weights."""

from pathlib import Path

import numpy as np
import torch

from .dubbing import Encoding, Finding, Progress, dub
from .errors import MediaError
from .media import read_frames

SPEECH = Path(__file__).parent / "assets" / "demo.flac"
_HEAD = (slice(0, 224), slice(112, 336))  # where it is in the photograph


def demo(folder: Path, *, overwrite: bool = False, on_progress: Progress | None = None) -> tuple[Path, Path]:
    """Write ``demo.mp4`` and a contact sheet ``demo.png`` into ``folder``; returns their paths.

    The picture is NASA's portrait of the astronaut Eileen Collins (public domain), ``skimage.data.astronaut()``.
    """
    import skimage.data
    from skimage.io import imsave

    folder.mkdir(parents=True, exist_ok=True)
    video, sheet = folder / "demo.mp4", folder / "demo.png"
    if sheet.exists() and not overwrite:
        raise MediaError(f"{sheet} exists; choose another folder or allow overwriting")
    photo = Path(skimage.data.__file__).parent / "astronaut.png"
    dub(
        photo,
        SPEECH,
        video,
        finding=Finding(cache=False),
        encoding=Encoding(overwrite=overwrite),
        on_progress=on_progress,
    )
    imsave(sheet, contact_sheet(video, _HEAD), check_contrast=False)
    return video, sheet


def contact_sheet(
    video: Path, part: tuple[slice, slice], *, columns: int = 4, rows: int = 2, every: int = 4, first: int = 8
) -> np.ndarray:
    """(rows*h, columns*w, 3) uint8: the ``part`` (rows, columns) of every ``every``-th frame of ``video`` from ``first``
    on, in reading order."""
    count = columns * rows
    pieces = read_frames(video, start=first, stop=first + count * every, every=every)
    tiles = torch.cat([piece.pixels[:, *part] for piece in pieces])
    tiles = torch.cat([tiles, tiles.new_zeros(max(0, count - len(tiles)), *tiles.shape[1:])])[:count]
    _, h, w, _ = tiles.shape
    return tiles.view(rows, columns, h, w, 3).permute(0, 2, 1, 3, 4).reshape(rows * h, columns * w, 3).numpy()
