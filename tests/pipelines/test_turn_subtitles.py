"""Who speaks when, from subtitles with names and from diarizations."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipsync_core.cli.main import app
from lipsync_core.errors import LipSyncError
from lipsync_core.faces.selector import parse_face
from lipsync_core.pipelines.dub_plan import read_speaker_turns
from lipsync_core.pipelines.turn_subtitles import parse_who, read_subtitle_turns
from lipsync_core.pipelines.turn_table import TurnRow

WHO = {"Anna": "left", "Ben Lee": "right"}
SRT = """1
00:00:01,000 --> 00:00:02,500
[Anna] Hello.

2
0:0:3,5 --> 0:0:4,0
BEN LEE: And hello.

3
00:00:04.000 --> 00:00:05.000 X1:10 X2:20
He said: yes.
"""
VTT = """WEBVTT

NOTE Anna: this is no text

first
00:01.000 --> 00:02.500 align:start
<v Anna>Hello.</v>

00:00:03.000 --> 00:00:04.000
<v.loud Ben  Lee>abcde</v> <v Anna>fghij
klmno
"""
RTTM = """;; a comment
SPEAKER talk 1 1.00 1.50 <NA> <NA> anna <NA> <NA>
SPKR-INFO talk 1 <NA> <NA> <NA> unknown anna <NA>
SPEAKER talk 1 3.5 0.5 <NA> <NA> Ben\N{NO-BREAK SPACE}Lee <NA>
"""


def turn(start: float, end: float, face: str) -> TurnRow:
    return TurnRow(Fraction(str(start)), Fraction(str(end)), parse_face(face))


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_of_srt_in_brackets_and_before_colons(tmp_path: Path, encoding: str) -> None:
    """Text without a name continues the speaker; a colon within a sentence names nobody."""
    assert read_subtitle_turns(written(tmp_path, "a.srt", SRT, encoding), WHO) == [
        turn(1, 2.5, "left"),
        turn(3.5, 4, "right"),
        turn(4, 5, "right"),
    ]


def test_voices_of_webvtt_share_a_cue_by_the_lengths_of_their_texts(tmp_path: Path) -> None:
    found = read_subtitle_turns(written(tmp_path, "a.vtt", VTT), WHO)
    assert found[:2] == [turn(1, 2.5, "left"), TurnRow(Fraction(3), Fraction(10, 3), found[1].face)]
    assert [str(row.face) for row in found] == ["left", "right", "left", "left"]
    assert found[-1].end == 4 and all(a.end == b.start for a, b in pairwise(found[1:]))


def test_speakers_of_a_diarization(tmp_path: Path) -> None:
    who = {"Anna": "left", "ben": "none"}
    path = written(tmp_path, "a.rttm", RTTM.replace("Ben\N{NO-BREAK SPACE}Lee", "Ben"))
    assert read_subtitle_turns(path, who) == [turn(1, 2.5, "left")]


@pytest.mark.parametrize(
    ("name", "text", "who", "says"),
    [
        ("a.srt", SRT, {"Anna": "left"}, r"line 7: no face .* BEN LEE.*--who BEN LEE=left"),
        ("a.srt", "1\n00:00:02,0 --> 00:00:01,0\nAnna: x\n", WHO, "line 2: it ends before"),
        ("a.srt", "1\n00:00:01,0 --> 00:99:02,0\nAnna: x\n", WHO, "line 2: .*00:99:02.0"),
        ("a.srt", "1\n00:00:01,0 --> 00:00:02,0\nno names\n", WHO, "names no speaker"),
        ("a.vtt", "", WHO, "names no speaker"),
        ("a.rttm", "SPEAKER talk 1 x 1 <NA> <NA> Anna\n", WHO, "line 1: .*SPEAKER FILE"),
        ("a.rttm", RTTM + "SPEAKER other 1 9 1 <NA> <NA> Anna\n", WHO, "second recording"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, who: dict[str, str], says: str
) -> None:
    with pytest.raises(LipSyncError, match=says):
        read_subtitle_turns(written(tmp_path, name, text), who)


def test_a_name_that_never_speaks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Carl; its speakers are Anna, BEN LEE"):
        read_subtitle_turns(written(tmp_path, "a.srt", SRT), {**WHO, "Carl": "0"})


def test_names_and_faces_are_pairs() -> None:
    assert parse_who(["Anna = left", "Ben=10,20", "Off=none"]) == {
        "Anna": "left",
        "Ben": "10,20",
        "Off": "none",
    }
    for texts in (["Anna"], ["=left"], ["Anna="], ["Anna=up"], ["Anna=left", "Anna=right"]):
        with pytest.raises(ValueError):
            parse_who(texts)


def test_faces_of_names_need_a_file_with_names(tmp_path: Path) -> None:
    for speakers in (None, "auto", written(tmp_path, "a.csv", "start,end,face\n0,1,left\n")):
        with pytest.raises(ValueError, match="expected a file with names"):
            read_speaker_turns(speakers, 1, tmp_path / "face.mp4", who=WHO, cached=False)
    rows = read_speaker_turns(
        written(tmp_path, "a.srt", SRT), 1, tmp_path / "face.mp4", who=WHO, cached=False
    )
    assert rows is not None and len(rows) == 3


def test_the_command_refuses_names_without_faces_before_anything_is_loaded(tmp_path: Path) -> None:
    for name in ("face.mp4", "talk.wav"):
        (tmp_path / name).write_bytes(b"")
    path = written(tmp_path, "a.srt", SRT)
    files = [str(tmp_path / "face.mp4"), str(tmp_path / "talk.wav")]
    got = CliRunner().invoke(app, ["dub", *files, "--speakers", str(path), "--who", "Anna=up"])
    assert got.exit_code == 2 and "up" in got.output
