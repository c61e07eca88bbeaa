"""Whether the mouth of a dub moved, and followed the speech."""

import json
import math
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.cli import run_command
from helpers.dubs import ASTRONAUT, FRESH, tone

import lipsync_core
from lipsync_core import dub
from lipsync_core.media import read_audio
from lipsync_core.pipelines.dub import DubReport
from lipsync_core.pipelines.mouth_verdict import MouthVerdict, Verdict, judge_mouth
from lipsync_core.types import Audio

USUAL = 0.05
ASKED, OTHER = (  # deviation of about USUAL
    USUAL / 0.29 * torch.rand(50, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
)


@pytest.mark.parametrize(
    ("drawn", "old", "verdict"),
    [
        (ASKED + 0.02, None, "good"),
        (ASKED + 0.2 * OTHER, OTHER, "good"),
        (torch.full((50,), 0.03), OTHER, "failed"),
        (0.15 * ASKED, None, "doubtful"),  # hardly moves
        (OTHER, OTHER, "doubtful"),  # the old lips
        (0.7 * OTHER + 0.5 * ASKED, OTHER, "doubtful"),
    ],
)
def test_a_mouth_is_judged_by_its_openings(
    drawn: torch.Tensor, old: torch.Tensor | None, verdict: str
) -> None:
    found = judge_mouth(drawn, ASKED, old, usual=USUAL)
    assert found.verdict == verdict, found
    assert (found.leak is None) == (old is None)


def test_openings_that_were_not_measured_do_not_count() -> None:
    drawn = ASKED.clone()
    drawn[::2] = math.nan
    found = judge_mouth(drawn, ASKED, None, usual=USUAL)
    assert found.measured == 25 and found.followed == pytest.approx(1)


def test_a_dub_says_whether_its_mouth_moved(tmp_path: Path) -> None:
    """The bundled model moves it; silence asks for nothing, and a warning says so."""
    speech = read_audio(Path(lipsync_core.__file__).parent / "assets" / "demo.flac")
    second = Audio(speech.samples[:, 2 * speech.rate : int(3.2 * speech.rate)], speech.rate)
    (mouth,) = dub(ASTRONAUT, second, tmp_path / "a.mp4", finding=FRESH).mouths
    assert mouth.verdict == "good" and (mouth.followed or 0) > 0.8, mouth
    silence = Audio(torch.zeros_like(second.samples), second.rate)
    report = dub(ASTRONAUT, silence, tmp_path / "b.mp4", finding=FRESH)
    assert report.mouths[0].verdict != "good" and report.mouths[0].reason in report.warnings
    assert json.loads(report.to_json())["mouths"][0]["verdict"] == report.mouths[0].verdict


def _return(report: DubReport, *_: object, **__: object) -> DubReport:
    return report


def test_a_pipeline_can_refuse_a_doubtful_dub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.mp4"

    def written(verdict: Verdict) -> DubReport:
        mouths = (MouthVerdict(verdict, "as the test says"),)
        return DubReport(
            out, 1, 1, 0, 1, Fraction(25), "mini", "mini", seconds={}, warnings=(), mouths=mouths
        )

    codes: list[int] = []
    verdicts: tuple[Verdict, ...] = ("good", "unknown", "doubtful", "failed")
    for verdict in verdicts:
        monkeypatch.setattr("lipsync_core.cli.dub.run_dub", partial(_return, written(verdict)))
        for limit in ("doubtful", "failed"):
            asked = ("dub", ASTRONAUT, tone(tmp_path / "a.wav"), "-o", out, "--fail-on", limit)
            codes.append(run_command(*asked).returncode)
    assert codes == [0, 0, 6, 0, 6, 0, 6, 6]
