"""Read animated WebP through Pillow: FFmpeg's decoder leaves out its animation."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from ..errors import MediaError

_TICK = Fraction(1, 1000)  # seconds
_ANIMATION = 0x02  # of the flags of the chunk VP8X


def is_animated_webp(path: Path) -> bool:
    """Return whether a file is a WebP image with an animation, of one picture or more."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[-1] & _ANIMATION)


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
                frame = VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), "rgba")
                frame.pts, frame.time_base = time, _TICK
                frame.duration = int(image.info.get("duration", 0))
                time += frame.duration
                yield frame
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(
            f"{path}: the animated WebP cannot be read ({error}); save it as GIF, APNG or MP4"
        ) from error
