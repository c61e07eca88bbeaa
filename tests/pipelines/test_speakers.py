"""Who speaks when: turns from confidences, tables of turns, and dubs in which everybody speaks in
their turn."""

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import skimage.data
import torch
from helpers.media import write_sound
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import lipsync_core
from lipsync_core.cli.main import app
from lipsync_core.errors import LipSyncError, MediaError, NoFaceError
from lipsync_core.faces.selector import FaceSelector, parse_face
from lipsync_core.media import AudioSource, VideoWriter, read_audio, read_coded, read_frames
from lipsync_core.media.clip import frame_order
from lipsync_core.metrics.active_speaker import Turn, decode_turns, speaker_confidence
from lipsync_core.options import Cut, Encoding
from lipsync_core.pipelines.dub import Finding, dub
from lipsync_core.pipelines.speakers import (
    describe_turns,
    match_rows,
    speakers,
    speaking_faces,
    turn_opacity,
)
from lipsync_core.pipelines.track_faces import reorder_track
from lipsync_core.pipelines.turn_table import TurnRow, read_turns, write_turns
from lipsync_core.types import Audio, FaceTrack, Frames, VideoInfo

ASTRONAUT = Path(skimage.data.__file__).parent / "astronaut.png"
SPEECH = Path(lipsync_core.__file__).parent / "assets" / "demo.flac"
FRESH = Finding(cache=False)
FPS = Fraction(25)


def confident(*spans: tuple[int, int], count: int = 100) -> Tensor:
    """(count,) 0.25 in the ``spans``, about 0.02 elsewhere."""
    out = 0.02 + 0.02 * torch.randn(
        count, generator=torch.Generator().manual_seed(count + len(spans))
    )
    for first, stop in spans:
        out[first:stop] += 0.23
    return out


def everywhere(count: int = 100) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


def near(found: list[Turn], wanted: list[Turn], frames: int = 2) -> bool:
    return [turn.track for turn in found] == [turn.track for turn in wanted] and all(
        abs(a.first - b.first) <= frames and abs(a.stop - b.stop) <= frames
        for a, b in zip(found, wanted, strict=True)
    )


def test_faces_speak_in_turns_and_nobody_off_the_picture() -> None:
    faces = torch.stack([confident((0, 40)), confident((40, 75))], 1)
    found = decode_turns(faces, everywhere(), fps=25)
    assert near(found, [Turn(0, 0, 40), Turn(1, 40, 75)])  # from 75 on a voice without a face


def test_doubts_are_no_turns() -> None:
    flicker = torch.stack([confident((0, 100)), confident((50, 54), count=100)], 1)
    flicker[50:54, 0] = 0.02
    assert decode_turns(flicker, everywhere(), fps=25) == [Turn(0, 0, 100)]
    assert decode_turns(torch.stack([confident(), confident()], 1), everywhere(), fps=25) == []
    brief = torch.zeros(100, dtype=torch.bool)
    brief[20:28] = True  # a word of 0.32 s
    assert decode_turns(confident((0, 100))[:, None], brief, fps=25) == []


def test_pauses_within_a_second_belong_to_the_turn_and_silence_to_none() -> None:
    voiced = everywhere()
    voiced[20:40] = False
    voiced[60:91] = False
    faces = torch.stack([confident((0, 100)), confident()], 1)
    # what follows the long pause is too short
    assert decode_turns(faces, voiced, fps=25) == [Turn(0, 0, 60)]
    assert decode_turns(faces, torch.zeros_like(voiced), fps=25) == []


def test_who_is_away_does_not_speak() -> None:
    faces = torch.stack([confident((0, 100)), confident((0, 100))], 1)
    faces[:50, 1] = faces[50:, 0] = torch.nan
    assert decode_turns(faces, everywhere(), fps=25) == [Turn(0, 0, 50), Turn(1, 50, 100)]


def test_a_voice_from_outside_after_a_pause_is_nobodys() -> None:
    """Too short for a change in the midst of speech, which a doubt of the same length would be."""
    face = torch.cat([torch.full((40,), 0.25), torch.full((30,), 0.01)])[:, None]
    voiced = torch.ones(70, dtype=torch.bool)
    voiced[40:46] = False
    voiced[64:] = False
    assert decode_turns(face, voiced, fps=25) == [Turn(0, 0, 40)]
    doubted = torch.cat([face[:40], face[46:64], face[:20]])
    assert decode_turns(doubted, torch.ones(78, dtype=torch.bool), fps=25) == [Turn(0, 0, 78)]


def test_confidence_is_high_where_the_curve_has_its_valley_at_no_shift() -> None:
    distances = torch.ones(60, 31)
    distances[:, 15] = 0.5
    distances[40:, :] = 1
    distances[40:, 3] = 0.5  # in sync with another moment
    found = speaker_confidence(torch.arange(10, 70), distances, span=5, count=90)
    assert found[:10].isnan().all() and found[74:].isnan().all() and not found[10:74].isnan().any()
    assert found[10:38].gt(0.4).all() and found[66:74].lt(0.01).all()
    assert torch.allclose(
        speaker_confidence(torch.arange(10, 70), 12 * distances, span=5, count=90),
        found,
        equal_nan=True,
    )


def track(start: int, count: int, x: float = 50, scene: int = 0) -> FaceTrack:
    box = torch.tensor([x - 20, 30, x + 20, 80.0])
    return FaceTrack(
        box.repeat(count, 1),
        torch.zeros(count, 5, 2),
        torch.ones(count, dtype=torch.bool),
        start,
        scene,
    )


def rowed(
    rows: Sequence[TurnRow],
    tracks: list[FaceTrack],
    warn: Callable[[str], None] = pytest.fail,
    *,
    fps: Fraction = FPS,
    length: int = 100,
) -> list[Turn]:
    """The turns of ``rows`` in an output that shows its ``length`` frames once."""
    return match_rows(rows, tracks, fps, warn, length=length, index=torch.arange(length))


def row(start: float, end: float, face: str) -> TurnRow:
    return TurnRow(Fraction(start), Fraction(end), parse_face(face))


def test_turns_become_shown_with_soft_edges_in_either_time() -> None:
    tracks = [track(0, 50), track(0, 50, 150), track(50, 50, 50, scene=50)]
    turns = [Turn(0, 10, 30), Turn(1, 30, 50), Turn(2, 60, 90)]
    index = frame_order(100, 150, "pingpong")
    in_clip = turn_opacity(turns, FPS, 100)
    opacity = {track: curve[index] for track, curve in in_clip.items()}
    (one, shown), (other, beside) = speaking_faces(opacity, tracks, length=100, index=index)
    # never met: one part
    assert shown[10:30].eq(1).all() and shown[60:90].eq(1).all() and shown[:6].eq(0).all()
    assert 0 < shown[8] < 1 and 0 < shown[32] < 1 and shown[40:50].eq(0).all()
    assert beside[30:50].eq(1).all() and not beside[50:149].any()  # not there any more
    assert torch.equal(shown[100:140], shown[59:99].flip(0))
    one, other = (reorder_track(face, 100, index) for face in (one, other))
    assert one.visible.all() and int(other.visible.sum()) == 51
    ((_, written),) = speaking_faces(
        turn_opacity([Turn(0, 110, 140)], FPS, 150),
        tracks[:1],
        length=50,
        index=frame_order(50, 150, "loop"),
    )
    assert written[110:140].eq(1).all() and not written[:100].any()


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    tracks = [track(0, 50), track(20, 80, 150)]
    for fps in (FPS, Fraction(24000, 1001), Fraction(60)):
        turns = [Turn(0, 3, 41), Turn(1, 41, 97)]
        write_turns(tmp_path / "t.csv", describe_turns(turns, tracks, fps), overwrite=True)
        assert rowed(read_turns(tmp_path / "t.csv"), tracks, fps=fps) == turns
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[0] == "start,end,face"
    with pytest.raises(LipSyncError, match="exists"):
        write_turns(tmp_path / "t.csv", [])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_tables_of_people(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        '﻿start, end, face\r\n0:01, 1:02.5, left\r\n\r\n2,3,"640, 200"\r\n', encoding="utf-8"
    )
    assert read_turns(path) == [
        TurnRow(Fraction(1), Fraction(125, 2), FaceSelector("left")),
        TurnRow(Fraction(2), Fraction(3), FaceSelector("point", point=(640, 200))),
    ]
    warned: list[str] = []
    assert rowed([row(1, 1.01, "left"), row(4, 5, "7")], [track(0, 9)], warned.append) == []
    assert "shorter than a frame" in warned[0] and "begins after the end, at 4 s" in warned[1]
    with pytest.raises(NoFaceError, match="no frame has the face 5"):
        rowed([row(0, 1, "5")], [track(0, 9)])


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffStart;End;Face;\r\n0,5;1:02,25;left\r\n;;\r\n2;3;640,200;\r\n",
        '\ufeffstart\tend\tface\r\n0,5\t1:02,25\tleft\r\n2\t3\t"640,200"\r\n',
        '\nSTART,END,FACE,,\n0.5,1:02.25,left,,\n,,,,\n02,3.0,"640,200"\n',
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert read_turns(tmp_path / "t.csv") == [row(0.5, 62.25, "left"), row(2, 3, "640,200")]


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("start,end,face\n0,1,left\n", encoding="utf-16")
    assert read_turns(tmp_path / "t.csv") == [row(0, 1, "left")]
    (tmp_path / "t.csv").write_bytes(b"start,end,face\n0,1,l\xe9ft\n")
    with pytest.raises(LipSyncError, match=r"not UTF-8; save it as .*start,end,face"):
        read_turns(tmp_path / "t.csv")


def test_rows_over_one_another_and_in_any_order_are_one_turn() -> None:
    person = [track(0, 100)]
    rows = [row(3, 3.4, "left"), row(0.4, 2, "left"), row(0.8, 1.2, "left"), row(1.6, 2.4, "left")]
    shown = turn_opacity(rowed(rows, person), FPS, 100)[0]
    tidy = [Turn(0, 10, 60), Turn(0, 75, 85)]
    assert shown[10:60].eq(1).all() and torch.equal(shown, turn_opacity(tidy, FPS, 100)[0])


def test_a_soft_end_does_not_reach_into_the_next_scene() -> None:
    """``left`` speaks up to a cut, after which another person is left."""
    tracks = [track(0, 50), track(50, 50, scene=50)]
    turns = rowed([row(1, 2, "left")], tracks)
    assert turns == [Turn(0, 25, 50)]
    opacity = turn_opacity(turns, FPS, 100)
    ((_, shown),) = speaking_faces(opacity, tracks, length=100, index=torch.arange(100))
    assert shown[49] == 1 and not shown[50:].any()
    assert rowed([row(1, 3, "left")], tracks) == [Turn(0, 25, 75), Turn(1, 25, 75)]


def test_a_face_that_is_away_in_its_turn_is_said() -> None:
    tracks, warned = [track(0, 50), track(0, 100, 150)], list[str]()
    rows = [row(2.5, 3, "left"), row(2.5, 3.5, "right")]
    assert rowed(rows, tracks, warned.append) == [Turn(1, 63, 88)]
    assert warned == [
        "the turn of left from 2.5 to 3 s is left out: that face is not in the picture then"
    ]
    again = match_rows(
        rows[:1], tracks[:1], FPS, pytest.fail, length=50, index=frame_order(50, 100, "loop")
    )
    assert again == [Turn(0, 63, 75)]  # the picture begins again


def test_two_names_of_one_face_do_not_speak_at_once() -> None:
    tracks = [track(0, 100)]
    rows = [row(0, 2, "left"), row(1, 3, "right")]
    with pytest.raises(ValueError, match=r"left and right choose the same face.* from 1 s on"):
        rowed(rows, tracks)
    assert len(rowed([row(0, 1, "left"), row(1, 3, "right")], tracks)) == 2
    assert len(rowed([row(0, 2, "left"), row(1, 3, "left")], tracks)) == 2


def test_who_began_where_another_did_is_named_by_index() -> None:
    """A person walks from the left to the right, then another appears where the first began."""
    walker, later = track(0, 100), track(40, 60, 52)
    walker.boxes[:, 0::2] += torch.linspace(0, 200, 100)[:, None]
    turns = [Turn(0, 0, 40), Turn(1, 45, 90)]
    rows = describe_turns(turns, [walker, later], FPS)
    assert [str(one.face) for one in rows] == ["50,55", "1"]
    assert rowed(rows, [walker, later]) == turns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with 'nothing'"),
        ("start,stop,face\n0,1,left\n", "begins with 'start,stop,face'"),
        ("start,end,face\n", "holds no turn"),
        ("start,end,face\n0,1,left\n1,2,640,200\n", "line 3 has 4 cells"),
        ("start,end,face\n\n0,x,left\n", "line 3: 'x' is not a time"),
        ("start,end,face\n0,1,top\n", "line 2: 'top' names no face"),
        ("start,end,face\n2,2,left\n", "line 2 ends at 2"),
        ('start,end,face\n0,1,"left\n', "cannot be read"),
    ],
)
def test_errors_of_a_table_name_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LipSyncError, match=said):
        read_turns(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the astronaut side by side for 6 s: the left one says the first half of the demo, the
    right one the second, each dubbed by `mini-2`, which the judge scores better on a photograph;
    the other keeps still."""
    folder = tmp_path_factory.mktemp("pair")
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).save(folder / "head.png")
    speech = read_audio(SPEECH)
    words = Audio(speech.samples[:, : 6 * speech.rate], speech.rate)
    whole = dub(folder / "head.png", words, folder / "whole.mp4", model="mini-2", finding=FRESH).out
    heads = torch.cat([piece.pixels for piece in read_frames(whole, stop=150)])
    still = heads[:1].expand(75, -1, -1, -1)
    shown = torch.cat([torch.cat([heads[:75], still], 2), torch.cat([still, heads[75:]], 2)])
    with VideoWriter(
        folder / "pair.mp4",
        VideoInfo(512, 256, FPS, 150),
        AudioSource(SPEECH),
        preset="ultrafast",
        crf=12,
    ) as out:
        out.write(Frames(shown))
    return folder / "pair.mp4"


def test_the_judge_tells_the_turns(pair: Path, tmp_path: Path) -> None:
    table = tmp_path / "turns.csv"
    done = CliRunner().invoke(
        app, ["speakers", str(pair), "--no-cache", "--json", "--out", str(table)]
    )
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout.splitlines()[-1])
    assert (values["scorer"], values["faces"]) == ("judge", 2)
    right = 0
    for turn in values["turns"]:
        x = float(turn["face"].split(",")[0])
        inside = (0, 3) if x < 256 else (3, 6)
        right += max(0, min(turn["end"], inside[1]) - max(turn["start"], inside[0]))
    assert right > 0.8 * sum(turn["end"] - turn["start"] for turn in values["turns"]) > 3
    assert len(read_turns(table)) == len(values["turns"])
    again = CliRunner().invoke(app, ["speakers", str(pair), "--out", str(table)])
    assert again.exit_code == 2 and "exists" in again.output
    nowhere = CliRunner().invoke(
        app, ["speakers", str(pair), "--out", str(tmp_path / "no" / "t.csv")]
    )
    assert nowhere.exit_code == 2 and "not a folder" in " ".join(
        nowhere.output.replace("│", " ").split()
    )


def test_turns_of_a_cut_count_from_its_start(pair: Path) -> None:
    whole, cut = (
        speakers(pair, cut=Cut(start=Fraction(start)), finding=FRESH).rows for start in (0, 1)
    )
    (first, second), (begun, rest) = whole, cut
    assert first.end > 2 and str(begun.face) == str(first.face) != str(second.face)
    assert all(
        abs(later.end + 1 - earlier.end) < 0.2
        for earlier, later in ((first, begun), (second, rest))
    )
    assert begun.start == 0 and abs(rest.start + 1 - second.start) < 0.2


def test_who_speaks_when_nobody_is_seen(tmp_path: Path) -> None:
    with VideoWriter(
        tmp_path / "grey.mp4", VideoInfo(128, 96, FPS, 25), AudioSource(SPEECH), preset="ultrafast"
    ) as out:
        out.write(Frames(torch.full((25, 96, 128, 3), 99, dtype=torch.uint8)))
    with pytest.raises(NoFaceError, match="no face was found"):
        dub(tmp_path / "grey.mp4", SPEECH, tmp_path / "x.mp4", speakers="auto", finding=FRESH)
    with pytest.raises(NoFaceError, match="no face in 25 frames"):
        speakers(tmp_path / "grey.mp4", finding=FRESH)
    assert not (tmp_path / "x.mp4").exists()


def moved(out: Path, source: Path, count: int) -> Tensor:
    """(count,2) how far the left and the right half of the first frames differ from the source, at
    most."""
    a, b = (
        torch.cat([piece.pixels for piece in read_frames(path, stop=count)]).float()
        for path in (out, source)
    )
    change = (a - b).abs().mean(-1)
    return torch.stack([change[:, :, :256].amax((1, 2)), change[:, :, 256:].amax((1, 2))], 1)


def test_a_table_gives_each_face_its_turn(pair: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("start,end,face\n0,0.8,right\n1.2,2,left\n", encoding="utf-8")
    sound = Audio(read_audio(SPEECH).samples[:, : 2 * 16000], 16000)
    report = dub(
        pair, sound, tmp_path / "out.mp4", speakers=table, finding=FRESH, encoding=Encoding(crf=8)
    )
    change = moved(tmp_path / "out.mp4", pair, 50)
    assert (
        change[:17, 1].amax() > 25 > change[:17, 0].amax()
        and change[33:48, 0].amax() > 25 > change[33:48, 1].amax()
    )
    assert report.frames == 50 and report.dubbed < 50  # 0.92 to 1.06 s: no speaker's


def test_silence_keeps_the_mouth(pair: Path, tmp_path: Path) -> None:
    """Half a second of the demo, a second of nothing: with keep the mouth is the old one there, bit
    for bit before the encoder; with generate it is not."""
    sound = Audio(
        torch.cat([read_audio(SPEECH).samples[:, 4800:12800], torch.zeros(1, 16000)], 1), 16000
    )
    seen: dict[str, list[Tensor]] = {}
    for silence in ("keep", "generate"):
        frames = seen[silence] = []
        report = dub(
            pair,
            sound,
            tmp_path / f"{silence}.mp4",
            silence=silence,
            select="left",
            finding=FRESH,
            on_frames=lambda chunk, frames=frames: frames.append(chunk.pixels.clone()),
        )
        assert report.dubbed == 38 if silence == "generate" else report.dubbed < 25
    plain = [piece.pixels for piece in read_coded(pair, stop=38)]
    kept, made, source = (torch.cat(part)[:38] for part in (seen["keep"], seen["generate"], plain))
    assert torch.equal(kept[22:], source[22:]) and not torch.equal(made[22:], source[22:])
    assert not torch.equal(kept[:10], source[:10])


def test_what_does_not_go_together_is_refused(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 .*speakers"):
        dub(pair, [(SPEECH, "left"), (SPEECH, "right")], tmp_path / "x.mp4", speakers="auto")
    with pytest.raises(ValueError, match="photo"):
        dub(ASTRONAUT, SPEECH, tmp_path / "x.mp4", speakers="auto")
    with pytest.raises(ValueError, match=r"'Auto'.*auto.*table"):
        dub(pair, SPEECH, tmp_path / "x.mp4", speakers="Auto")
    with pytest.raises(MediaError, match="photograph"):
        speakers(ASTRONAUT)
    with pytest.raises(MediaError, match=r"no frame from 50 s on.*begin the cut earlier"):
        speakers(pair, cut=Cut(start=Fraction(50)), finding=FRESH)
    done = CliRunner().invoke(app, ["dub", str(pair), "--pair", "left=a.wav", "--speakers", "auto"])
    assert done.exit_code == 2 and "--speakers" in done.output
    silent = write_sound(tmp_path / "s.wav", torch.zeros(1, 16000).numpy(), 16000)
    assert speakers(pair, silent, finding=FRESH).rows == ()
    assert not (tmp_path / "x.mp4").exists()
