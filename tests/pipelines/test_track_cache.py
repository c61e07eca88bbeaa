"""Stored tracks: they come back as they were, or not at all."""

import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import write_video
from torch import Tensor

from lipsync_core.faces.detector_s3fd import canonical_points
from lipsync_core.faces.extension import extend_tracks
from lipsync_core.media.clip import Cut, open_clip
from lipsync_core.pipelines.track_cache import cache_dir, load_tracks, store_tracks, track_key
from lipsync_core.pipelines.track_faces import Pace, track_faces
from lipsync_core.types import Detections, FaceTrack

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def people(count: int = 2, frames: int = 50) -> list[FaceTrack]:
    g = torch.Generator().manual_seed(0)
    return [
        FaceTrack(
            torch.randn(frames + i, 4, generator=g),
            torch.randn(frames + i, 5, 2, generator=g),
            torch.rand(frames + i, generator=g) > 0.5,
            start=7 * i,
            scene=3 * i,
        )
        for i in range(count)
    ]


def dense(person: FaceTrack, count: int) -> FaceTrack:
    return replace(
        person,
        dense=torch.randn(
            len(person.visible), count, 2, generator=torch.Generator().manual_seed(count)
        ),
    )


@pytest.mark.parametrize("counts", [(106, 106), (68, 0), (0, 478)])
def test_dense_points_come_back(counts: tuple[int, int]) -> None:
    stored = [
        dense(person, count) if count else person
        for person, count in zip(people(), counts, strict=True)
    ]
    store_tracks(KEY, stored, 40)
    kept = load_tracks(KEY)
    assert kept is not None and same(kept, stored)
    for one, other in zip(kept[0], stored, strict=True):
        assert (one.dense is None) == (other.dense is None)
        assert one.dense is None or other.dense is None or torch.equal(one.dense, other.dense)


def same(kept: tuple[list[FaceTrack], int] | None, b: list[FaceTrack]) -> bool:
    if kept is None:
        return False
    a, frames = kept
    return frames == 40 and all(
        torch.equal(x.boxes, y.boxes)
        and torch.equal(x.points, y.points)
        and torch.equal(x.visible, y.visible)
        and (x.start, x.scene) == (y.start, y.scene)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_round_trip(count: int, folder: Path) -> None:
    assert load_tracks(KEY) is None
    store_tracks(KEY, people(count), 40)
    assert same(load_tracks(KEY), people(count))
    # no temporary files
    assert [p.name for p in (folder / "tracks").iterdir()] == [f"{KEY}.safetensors"]


def test_damage_is_a_warning_and_is_written_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store_tracks(KEY, people(), 40)
    path = folder / "tracks" / f"{KEY}.safetensors"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    other = whole.replace(b"boxes", b"boxen")
    for broken in (
        b"",
        b"hello",
        whole[:-1],
        whole[: len(whole) // 2],
        bytes(flipped),
        other,
        whole[:8] + b"x" * 99,
    ):
        path.write_bytes(broken)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="lipsync.faces"):
            assert load_tracks(KEY) is None
        assert "damaged" in caplog.text and str(path) in caplog.text
    store_tracks(KEY, people(), 40)
    assert same(load_tracks(KEY), people())


def test_an_entry_under_another_name_is_not_believed(folder: Path) -> None:
    store_tracks(KEY, people(), 40)
    (folder / "tracks" / f"{KEY}.safetensors").rename(
        folder / "tracks" / f"{'cd' * 32}.safetensors"
    )
    assert load_tracks("cd" * 32) is None


def test_concurrent_writers_and_readers_never_see_half_a_file(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracks = people(4, 2000)
    store_tracks(KEY, tracks, 40)
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(store_tracks, KEY, tracks, 40) for _ in range(20)]
        reads = [pool.submit(load_tracks, KEY) for _ in range(40)]
        assert all(write.result() is None for write in writes)
        assert all(same(read.result(), tracks) for read in reads)
    assert "damaged" not in caplog.text
    assert len(list((folder / "tracks").iterdir())) == 1


def test_a_folder_that_cannot_be_written_costs_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file where the folder should be")
    store_tracks(KEY, people(), 40)
    assert "cannot store" in caplog.text and load_tracks(KEY) is None


def test_key_follows_content_and_settings(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(bytes(3_000_000))
    key = track_key(clip, detector="mini", weights_sha256="00", settings={"every": 5, "fps": "25"})
    assert len(key) == 64 and set(key) <= set("0123456789abcdef")
    assert key == track_key(
        clip, detector="mini", weights_sha256="00", settings={"fps": "25", "every": 5}
    )
    moved = clip.rename(tmp_path / "other.mkv")
    assert key == track_key(
        moved, detector="mini", weights_sha256="00", settings={"every": 5, "fps": "25"}
    )
    assert key != track_key(
        moved, detector="s3fd", weights_sha256="00", settings={"every": 5, "fps": "25"}
    )
    assert key != track_key(
        moved, detector="mini", weights_sha256="01", settings={"every": 5, "fps": "25"}
    )
    assert key != track_key(
        moved, detector="mini", weights_sha256="00", settings={"every": 4, "fps": "25"}
    )
    edited = bytearray(3_000_000)
    edited[1_234_567] = 1  # in the middle, same size
    moved.write_bytes(edited)
    assert key != track_key(
        moved, detector="mini", weights_sha256="00", settings={"every": 5, "fps": "25"}
    )


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("LIPSYNC_CACHE")
    assert cache_dir().is_absolute() and "lipsync" in cache_dir().parts
    if sys.platform not in ("win32", "darwin"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_dir() == tmp_path / "lipsync"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_dir() == Path.home() / ".cache" / "lipsync"


def ramp(path: Path) -> Path:
    """A clip of 40 frames that are not blank."""
    shades = torch.linspace(0, 255, 32).byte()[:, None].expand(40, 16, 32, 3)
    return write_video(path, shades.contiguous())


def searched(path: Path, seen: list[int], cut: Cut = Cut(), stop: int = 1000) -> list[FaceTrack]:
    """The people of a cut; ``seen`` takes the frames of each search."""

    class Still:
        def detect(self, pixels: Tensor) -> list[Detections]:
            seen[-1] += len(pixels)
            box = torch.tensor([[4.0, 2.0, 12.0, 10.0]])
            return [Detections(box, canonical_points(box), torch.ones(1)) for _ in pixels]

    seen.append(0)
    people, count = track_faces(
        open_clip(path, cut), Still(), stop=stop, detector_key=("still", "00"), pace=Pace(1)
    )
    assert sum(len(person.visible) for person in people) == count
    return people


def test_one_search_serves_every_shorter_speech_and_cut(tmp_path: Path) -> None:
    path, seen = ramp(tmp_path / "ramp.mp4"), list[int]()
    stops = [30, 30, 10, 29, 35, 100, 200, 38]
    lengths = [len(searched(path, seen, stop=stop)[0].visible) for stop in stops]
    assert lengths == [30, 30, 10, 29, 35, 40, 40, 38]
    # after the file's end nothing is searched again
    assert seen == [30, 0, 0, 0, 35, 40, 0, 0]
    short = searched(path, seen, Cut(end=Fraction(1, 2)))
    assert len(short[0].visible) == 13 and seen[-1] == 0
    searched(path, seen, Cut(start=Fraction(1, 5)))
    assert seen[-1] == 35


def test_the_end_of_a_cut_is_not_that_of_the_file(tmp_path: Path) -> None:
    path, seen = ramp(tmp_path / "ramp.mp4"), list[int]()
    assert len(searched(path, seen, Cut(end=Fraction(1, 2)))[0].visible) == 13
    assert len(searched(path, seen)[0].visible) == 40 and seen == [13, 40]


def test_people_after_the_end_of_a_shorter_cut_are_not_in_it() -> None:
    first, later = people(2)
    first = replace(first, visible=torch.arange(50) < 20)
    later = replace(later, start=30)
    store_tracks(KEY, [first, later], 90)
    assert load_tracks(KEY, 91) is None
    ((kept,), count) = load_tracks(KEY, 30) or ([], 0)
    assert count == 30 and len(kept.visible) == 20 and torch.equal(kept.boxes, first.boxes[:20])
    assert len((load_tracks(KEY, 60) or ([], 0))[0]) == 2


def test_a_shorter_search_does_not_replace_a_longer_one() -> None:
    store_tracks(KEY, people(), 40)
    store_tracks(KEY, people(1), 30)
    assert same(load_tracks(KEY), people())


def test_a_longer_speech_continues_the_search(tmp_path: Path) -> None:
    """Only the new frames and those of two seconds before are searched."""
    shades = torch.linspace(0, 255, 32).byte()[:, None].expand(40, 16, 32, 3)
    path, seen = (
        write_video(tmp_path / "slow.mp4", shades.contiguous(), fps=Fraction(5)),
        list[int](),
    )
    assert len(searched(path, seen, stop=30)[0].visible) == 30
    (continued,) = searched(path, seen)
    assert seen == [30, 20]
    shutil.rmtree(cache_dir())
    (whole,) = searched(path, seen)
    assert torch.equal(continued.visible, whole.visible) and continued.scene == whole.scene == 0
    torch.testing.assert_close(continued.boxes, whole.boxes)
    searched(path, seen, stop=35)
    assert seen == [30, 20, 40, 0]


def test_continued_tracks_keep_people_apart() -> None:
    """One who stays, one who left, one who comes back to the same place, one who is new."""

    def there(x: float, first: int, last: int, *, scene: int = 0) -> FaceTrack:
        box = torch.tensor([[x, 10.0, x + 30, 40.0]]).repeat(last - first, 1)
        points = canonical_points(box)
        return FaceTrack(box, points, torch.ones(last - first, dtype=torch.bool), first, scene)

    stays, left, back = there(0, 0, 60), there(100, 0, 30), there(200, 0, 30)
    later = [there(0, 40, 90, scene=40), there(200, 70, 90, scene=40), there(300, 65, 90, scene=65)]
    tracks = extend_tracks([stays, left, back], later, 40, 50)
    spans = [(int(t.boxes[-1, 0]), t.start, len(t.visible), int(t.visible.sum())) for t in tracks]
    assert spans == [(100, 0, 30, 30), (0, 0, 90, 90), (200, 0, 90, 50), (300, 65, 25, 25)]
    assert [track.scene for track in tracks] == [0, 0, 0, 65]
