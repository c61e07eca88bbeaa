"""A cut that begins after the end of the video, in every command that takes one."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import write_video
from typer.testing import CliRunner

from lipsync_core import Cut, MediaError
from lipsync_core.cli.main import app
from lipsync_core.pipelines.score import score


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = torch.zeros(20, 96, 96, 3, dtype=torch.uint8)
    return write_video(tmp_path_factory.mktemp("cuts") / "a.mp4", frames)


@pytest.mark.parametrize("command", ["dub", "mask", "speakers", "score"])
def test_a_cut_after_the_end_says_where_the_video_ends(
    command: str, video: Path, tmp_path: Path
) -> None:
    words = {
        "dub": [str(video), "-o", str(tmp_path / "o.mp4")],
        "mask": ["-o", str(tmp_path / "m.png")],
        "speakers": [],
    }
    with pytest.raises(MediaError, match=r"from 5 s on; begin the cut earlier \(it lasts 0\.80 s"):
        if command == "score":
            score(video, cut=Cut(Fraction(5)))
        else:
            line = [command, str(video), *words[command], "--start", "5"]
            raise CliRunner().invoke(app, line).exception or AssertionError("it ended well")
