"""Tags and chapters go with the picture."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from helpers.media import levels

from lipsync_core.media import VideoWriter, shift_audio
from lipsync_core.types import Audio, Frames, VideoInfo

_TAGS = {"title": "Talk", "artist": "Ann", "copyright": "Ann, 2026", "comment": "first take"}


def described(path: Path) -> Path:
    """2 s with tags and a chapter for each second."""
    with av.open(str(path), "w") as out:
        out.metadata.update(_TAGS)
        out.set_chapters(
            [
                {
                    "id": second,
                    "start": second * 1000,
                    "end": (second + 1) * 1000,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": f"part {second}"},
                }
                for second in range(2)
            ]
        )
        picture = out.add_stream("libx264", 25)
        picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
        for image in levels(50).numpy():
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(picture.encode(None))
    return path


def description(path: Path) -> tuple[dict[str, str], list[tuple[str, float, float]]]:
    with av.open(str(path)) as file:
        tags = {key.lower(): text for key, text in file.metadata.items()}
        chapters = [
            (
                chapter["metadata"]["title"],
                float(chapter["start"] * chapter["time_base"]),
                float(chapter["end"] * chapter["time_base"]),
            )
            for chapter in file.chapters()
        ]
    return tags, chapters


@pytest.mark.parametrize("source", [".mp4", ".mkv"])
@pytest.mark.parametrize("target", [".mp4", ".mkv"])
def test_a_copy_keeps_tags_and_chapters(tmp_path: Path, source: str, target: str) -> None:
    src, out = described(tmp_path / f"a{source}"), tmp_path / f"b{target}"
    shift_audio(src, out, Fraction(0), audio=Audio(torch.zeros(1, 8000), 8000))
    tags, chapters = description(out)
    assert _TAGS.items() <= tags.items()
    assert chapters == [("part 0", 0, 1), ("part 1", 1, 2)]


def test_chapters_move_with_a_cut_and_own_tags_win(tmp_path: Path) -> None:
    src, out = described(tmp_path / "a.mkv"), tmp_path / "b.mp4"
    with VideoWriter(
        out,
        VideoInfo(32, 16, Fraction(25), None),
        metadata={"comment": "made by a program"},
        extra_tracks_from=src,
        extra_start=Fraction(1, 5),
        extra_seconds=Fraction(6, 5),
    ) as writer:
        writer.write(Frames(levels(30)))
    tags, chapters = description(out)
    assert {**_TAGS, "comment": "made by a program"}.items() <= tags.items()
    assert chapters == [("part 0", 0, 0.8), ("part 1", 0.8, 1.2)]
