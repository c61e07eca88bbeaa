"""A talking head, for the tests of preparing and fine-tuning."""

from fractions import Fraction
from pathlib import Path

from lipsync_core.media import AudioSource, VideoWriter, read_frames
from lipsync_core.types import Frames, VideoInfo


def write_head(
    src: Path, out: Path, *, fps: int = 25, mirrored: bool = False, stop: int = 125
) -> Path:
    """The astronaut's head, 224 px wide, of the first ``stop`` frames of a portrait of 512 px, or of
    another head, as at 25 fps."""
    with VideoWriter(
        out, VideoInfo(224, 224, Fraction(fps), None), AudioSource(src), preset="ultrafast", crf=12
    ) as writer:
        for piece in read_frames(src, fps=Fraction(fps), stop=stop * fps // 25):
            pixels = piece.pixels
            pixels = pixels if pixels.shape[1] == 224 else pixels[:, :224, 112:336]
            writer.write(Frames(pixels.flip(2) if mirrored else pixels, piece.start))
    return out
