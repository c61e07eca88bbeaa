"""A talking head, for the tests of preparing and fine-tuning."""

from fractions import Fraction
from pathlib import Path

from lipsync_core.media import AudioSource, VideoWriter, probe, read_frames
from lipsync_core.types import Frames, VideoInfo


def write_head(
    src: Path, out: Path, *, fps: int = 25, mirrored: bool = False, stop: int = 125
) -> Path:
    """The upper square of the first ``stop`` frames, counted at 25 fps, of a video."""
    info = probe(src)
    side = min(info.width, info.height)
    with VideoWriter(
        out,
        VideoInfo(side, side, Fraction(fps), None),
        AudioSource(src),
        preset="ultrafast",
        crf=12,
    ) as writer:
        for piece in read_frames(src, fps=Fraction(fps), stop=stop * fps // 25):
            pixels = piece.pixels[:, :side, :side]
            writer.write(Frames(pixels.flip(2) if mirrored else pixels, piece.start))
    return out
