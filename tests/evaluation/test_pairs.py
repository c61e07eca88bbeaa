"""Lists of pairs: the public orders, and draws of our own."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.media import write_sound, write_video

from lipsync_core.errors import LipSyncError
from lipsync_core.evaluation.pairs import Pair, draw_pairs, read_pairs, write_pairs
from lipsync_core.media import AudioSource, VideoWriter
from lipsync_core.types import Audio, Frames, VideoInfo


def listed(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_lists_without_suffixes_give_the_audio_first(tmp_path: Path) -> None:
    path = listed(tmp_path, "633/00011 554/00002\r\n\r\n633/00012\t554/00003\r\n")
    assert read_pairs(path) == [
        Pair("633/00011.mp4", "554/00002.mp4"),
        Pair("633/00012.mp4", "554/00003.mp4"),
    ]


def test_lists_with_suffixes_give_the_video_first(tmp_path: Path) -> None:
    path = listed(tmp_path, "\ufeffsachin.mp4 speech.wav\nwoman.mkv other.MP3\n")
    assert read_pairs(path) == [Pair("speech.wav", "sachin.mp4"), Pair("other.MP3", "woman.mkv")]
    assert read_pairs(path, order="audio-video")[0] == Pair("sachin.mp4", "speech.wav")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b\nc\n", "line 2 has 1 names"),
        ("a b.mp4\n", "1 of 2 names have a suffix"),
        ("# a b\n", "holds no pairs"),
        ("a b\n\n./a b\n", "line 3 repeats the pair of line 1"),
        ("a b\na/../../b c\n", r"line 2: a/../../b leads out of the root"),
        ("/a.mp4\tb.mp4\n", "line 1: /a.mp4 leads out of the root"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LipSyncError, match=said):
        read_pairs(listed(tmp_path, text))


def test_lists_of_our_own_carry_any_name(tmp_path: Path) -> None:
    pairs = [
        Pair("#one.mp4", "two words/a  b.mp4"),
        Pair("ünï.mp4", " #.mkv"),
        Pair("a\u2028b.mp4", "#two.mp4"),
    ]
    write_pairs(pairs, tmp_path / "pairs.txt")
    assert read_pairs(tmp_path / "pairs.txt") == pairs
    commented = listed(tmp_path, "# of our own\na/../b.mp4 c.mp4\n")
    assert read_pairs(commented) == [Pair("c.mp4", "a/../b.mp4")]
    for name in ("a\tb.mp4", "a\nb.mp4", "\udc80.mp4"):
        with pytest.raises(LipSyncError, match="no list of pairs can hold"):
            write_pairs([Pair(name, "c.mp4")], tmp_path / "pairs.txt")


def clip(path: Path, frames: int, *, speech: float | None) -> None:
    """Grey frames at 25 fps, and ``speech`` seconds of sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = (
        None if speech is None else AudioSource(Audio(torch.zeros(1, round(16000 * speech)), 16000))
    )
    with VideoWriter(
        path, VideoInfo(32, 32, Fraction(25), frames), sound, preset="ultrafast"
    ) as out:
        out.write(Frames(torch.full((frames, 32, 32, 3), 90, dtype=torch.uint8)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for name, frames in {"b/15": 15, "a/20": 20, "25": 25, "a/30": 30, "35": 35}.items():
        clip(folder / f"{name}.mkv", frames, speech=frames / 25)
    clip(folder / "mute.mp4", 40, speech=None)
    write_video(folder / "short speech.mp4", torch.zeros(3, 16, 32, 3, dtype=torch.uint8))
    # no video: its speech is not drawn
    write_sound(folder / "voice.wav", np.zeros((1, 9000), np.float32), 16000)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def test_each_video_speaks_with_a_shorter_one(root: Path) -> None:
    drawn = draw_pairs(root, seed=3)
    assert sorted(pair.video for pair in drawn.pairs) == [
        "25.mkv",
        "35.mkv",
        "a/20.mkv",
        "a/30.mkv",
        "mute.mp4",
    ]
    length = {"mute": 40} | {str(n): n for n in (15, 20, 25, 30, 35)}
    assert all(
        length[Path(pair.audio).stem] < length[Path(pair.video).stem] for pair in drawn.pairs
    )
    assert set(drawn.unpaired) == {"b/15.mkv", "short speech.mp4", "broken.mp4"}
    assert "shorter than its 0.60 s" in drawn.unpaired["b/15.mkv"]


def test_a_draw_depends_on_its_seed_alone(root: Path) -> None:
    assert draw_pairs(root, seed=3) == draw_pairs(root, seed=3)
    assert len({draw_pairs(root, seed=seed).pairs for seed in range(4)}) > 1


def test_earlier_dubs_are_not_drawn_from(root: Path) -> None:
    drawn = draw_pairs(root, leave=root / "a")
    assert sorted(pair.video for pair in drawn.pairs) == ["25.mkv", "35.mkv", "mute.mp4"]
    assert not any(
        "a/" in name for name in (*(pair.audio for pair in drawn.pairs), *drawn.unpaired)
    )


def test_every_pair_there_is_comes_once(root: Path, tmp_path: Path) -> None:
    drawn = draw_pairs(root, count=1 + 2 + 3 + 4 + 5)
    assert len(set(drawn.pairs)) == 15 and all(pair.audio != pair.video for pair in drawn.pairs)
    with pytest.raises(LipSyncError, match=r"16 pairs were asked for, and .* allows 15"):
        draw_pairs(root, count=16)
    assert (
        draw_pairs(root, count=2).unpaired.items()
        >= {"broken.mp4": drawn.unpaired["broken.mp4"]}.items()
    )
    assert sum(reason == "not drawn" for reason in draw_pairs(root, count=2).unpaired.values()) == 3
    write_pairs(drawn.pairs, tmp_path / "pairs.txt")
    assert read_pairs(tmp_path / "pairs.txt") == list(drawn.pairs)


def test_a_folder_that_allows_no_pair_is_told(tmp_path: Path) -> None:
    clip(tmp_path / "one.mkv", 20, speech=0.8)
    with pytest.raises(LipSyncError, match="at least two videos"):
        draw_pairs(tmp_path)
    with pytest.raises(LipSyncError, match="not a folder"):
        draw_pairs(tmp_path / "none")


def test_a_list_saved_in_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("ä.mp4\tb.mp4\n", encoding="utf-16")
    assert read_pairs(tmp_path / "pairs.txt", order="video-audio") == [Pair("b.mp4", "ä.mp4")]
