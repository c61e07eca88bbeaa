"""Read with Pillow what FFmpeg cannot by way of PyAV: animated WebP, and photos stored in tiles."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame

from ..errors import MediaError

if TYPE_CHECKING:
    from PIL import Image

_TICK = Fraction(1, 1000)  # seconds
_ANIMATION = 0x02  # of the flags of the chunk VP8X


def is_animated_webp(container: InputContainer, path: Path) -> bool:
    """Return whether a file is a WebP image with an animation, of one picture or more."""
    if container.format.name != "webp_pipe":
        return False
    with path.open("rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and bool(head[-1] & _ANIMATION)


def is_tiled(container: InputContainer) -> bool:
    """Return whether a file is a photo in tiles, as those of phones are (HEIC, AVIF).

    PyAV shows the tiles as tracks that depend on each other, and not how they are put together.
    """
    tracks = container.streams.video
    return len(tracks) > 1 and any(track.disposition & Disposition.dependent for track in tracks)


def read_animated_webp(path: Path) -> Iterator[VideoFrame]:
    """Yield the pictures of an animated WebP with their times.

    Raises:
        MediaError: If Pillow cannot read it.
    """
    from PIL import Image

    time = 0
    try:
        with Image.open(path, formats=("WEBP",)) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                frame = _frame(image, time)
                frame.duration = int(image.info.get("duration", 0))
                time += frame.duration
                yield frame
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(
            f"{path}: the animated WebP cannot be read ({error}); save it as GIF, APNG or MP4"
        ) from error


def read_tiled(path: Path) -> VideoFrame:
    """Return a photo stored in tiles, upright.

    Raises:
        MediaError: If Pillow cannot read it; HEIC takes the package pillow-heif.
    """
    from PIL import Image, ImageOps

    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        with Image.open(path) as image:
            return _frame(ImageOps.exif_transpose(image), 0)
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(
            f"{path}: this photo is stored in tiles, which only the package pillow-heif puts "
            "together; install it (pip install pillow-heif), or save the photo as JPEG or PNG"
        ) from error


def _frame(image: "Image.Image", time: int) -> VideoFrame:
    """A frame that shows ``image`` at ``time`` ms."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    form = "rgba" if mode == "RGBA" else "rgb24"
    frame = VideoFrame.from_ndarray(np.asarray(image.convert(mode)), form)
    frame.pts, frame.time_base = time, _TICK
    return frame
