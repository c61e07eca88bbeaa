"""From folders of videos to shards: what is kept, what is dropped and why, and that nothing is lost
on the way."""

import json
import shutil
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.heads import write_head
from helpers.media import write_sound, write_video
from PIL import Image

from lipsync_core.errors import LipSyncError
from lipsync_core.media import read_audio, read_frames, shift_audio
from lipsync_core.runtime.atomic import exclusive_dir
from lipsync_core.runtime.jobs import Cluster
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.prepare import run as preparing_run
from lipsync_core.training.prepare import stages
from lipsync_core.training.prepare.identity_split import (
    duplicates,
    kept_together,
    same_people,
    shared_out,
)
from lipsync_core.training.prepare.run import Splitting, prepare
from lipsync_core.training.prepare.settings import Settings
from lipsync_core.training.prepare.sources import Source, find_sources, given_split, speaker_names
from lipsync_core.training.shards import load_arrays, read_index
from lipsync_core.training.sync_eval import remove_margin

SETTINGS = Settings(longest=60)
APART = Splitting(val=0.3, test=0)


@pytest.fixture(scope="module")
def talk(talking_head: Path) -> Path:
    """Five seconds of the astronaut's head, speaking by `mini-2`."""
    return talking_head


def pictures(src: Path, folder: Path, *, missing: range) -> None:
    """As the reference's preprocessing leaves a video."""
    folder.mkdir(parents=True)
    for piece in read_frames(src, stop=100):
        for i, picture in enumerate(piece.pixels, piece.start):
            if i not in missing:
                box = (52 + i % 3, 42 - i % 2, 175 + i % 2, 190)  # every frame has a box of its own
                Image.fromarray(picture.numpy()).crop(box).save(folder / f"{i}.jpg", quality=95)
    write_sound(
        folder / "audio.wav",
        np.repeat(read_audio(src, rate=44100).samples.numpy(), 2, 0),
        44100,
        layout="stereo",
    )


@pytest.fixture(scope="module")
def root(talk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that can come up."""
    root = tmp_path_factory.mktemp("footage")
    for name in ("ann", "bob", "odd"):
        (root / name).mkdir()
    shutil.copy(talk, root / "ann" / "talk.mp4")
    shutil.copy(talk, root / "ann" / "again.mp4")
    mirrored = write_head(talk, root.parent / "mirrored.mp4", fps=30, mirrored=True)
    shift_audio(mirrored, root / "bob" / "late at 30.mp4", Fraction(1, 5))
    (root / "odd" / "broken.mp4").write_bytes(b"this is no video")
    (root / "odd" / "cut.mp4").write_bytes(talk.read_bytes()[:3000])
    noise = torch.randint(
        0, 256, (40, 48, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    write_video(root / "odd" / "silent.mp4", noise)
    write_sound(
        root / "odd" / "faceless.mp4",
        np.full((1, 32000), 0.1, np.float32),
        16000,
        codec="aac",
        picture_frames=50,
    )
    return root


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    prepare(root, out, settings=SETTINGS, splitting=APART)
    return out


def figures(out: Path) -> dict[str, dict[str, list[float]]]:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_what_is_kept_and_why_the_rest_is_not(out: Path) -> None:
    found = figures(out)
    assert {split: row[:2] for split, row in found["splits"].items()} == {
        "train": [3, 1],
        "val": [3, 1],
        "test": [0, 0],
    }
    dropped = {reason: number for reason, (number, _) in found["dropped"].items()}
    assert dropped == {"duplicate": 3, "cannot be read": 2, "no sound": 1, "no face": 1}
    speakers = [{entry.speaker for entry in read_index(out / split)} for split in ("train", "val")]
    assert sorted(map(sorted, speakers)) == [["ann"], ["bob"]]
    assert not (out / "parts").exists()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        "odd/broken.mp4: " in page
        and page.count("data:image/jpeg") == 2
        and page.count("<svg") == 5
    )


def by_speaker(out: Path) -> dict[str, list[Clip]]:
    clips = [clip for split in ("train", "val") for clip in load_clips(out / split)]
    return {who: [clip for clip in clips if clip.speaker == who] for who in ("ann", "bob")}


def test_offsets_are_measured_and_mended_at_25_fps(out: Path, talk: Path) -> None:
    facts = {e.speaker: e.facts for split in ("train", "val") for e in read_index(out / split)}
    assert (facts["ann"]["offset_frames"], facts["bob"]["offset_frames"]) == (0, -5)  # 1/5 s late
    clips = by_speaker(out)
    assert (
        [len(c.faces) for c in clips["ann"]] == [len(c.faces) for c in clips["bob"]] == [42, 41, 42]
    )
    for ann, bob in zip(clips["ann"], clips["bob"], strict=True):
        frames = list(range(5, 35))
        gap = (ann.mels(frames) - bob.mels(frames)).abs().mean()  # coded twice, so not equal
        wrong = (ann.mels(frames) - bob.mels([f + 5 for f in frames])).abs().mean()
        assert gap < 0.25 * wrong
        mirror = (bob.frames(0, 41).flip(-1).float() - ann.frames(0, 41).float()).abs().mean()
        # the same crops
        assert mirror < 0.5 * (bob.frames(0, 41).float() - ann.frames(0, 41).float()).abs().mean()


def test_sound_is_cut_out_of_however_long_a_video() -> None:
    """640 samples are a frame. 64 TiB of silence would not fit into any memory."""
    sound = torch.arange(1.0, 4 * 640 + 1)
    assert torch.equal(stages.cut_sound(sound, 1, 3), sound[640:1920])
    assert torch.equal(stages.cut_sound(sound, -1, 5), torch.nn.functional.pad(sound, (640, 640)))
    assert torch.equal(stages.cut_sound(sound, -3, -1), torch.zeros(1280))
    assert torch.equal(stages.cut_sound(sound, 6, 8), torch.zeros(1280))
    assert len(stages.cut_sound(torch.zeros(1).expand(1 << 44), 1000, 1010)) == 6400


def test_crops_are_aligned_and_sound_is_kept(out: Path) -> None:
    entries = read_index(out / "train")
    for entry, arrays in zip(
        entries, load_arrays(out / "train", entries, ("faces", "sound", "mel")), strict=True
    ):
        assert arrays["faces"].shape[1:] == (112, 112, 3) and arrays["sound"][:].dtype == np.int16
        assert len(arrays["sound"]) == 640 * (
            entry.facts["first"] + len(arrays["faces"]) + stages.CONTEXT
        )
        assert arrays["mel"].shape[1] == 80 and entry.facts["face_px"] > 80


def test_the_same_command_again_does_nothing_and_new_sources_are_added(
    root: Path, out: Path, tmp_path: Path
) -> None:
    here = tmp_path / "out"
    shutil.copytree(out, here)
    before = {p: p.read_bytes() for p in sorted(here.rglob("*.tar"))}
    lines = (here / "jobs.jsonl").read_bytes()
    assert prepare(root, here, settings=SETTINGS, splitting=APART).clips == 6
    assert (here / "jobs.jsonl").read_bytes() == lines and {
        p: p.read_bytes() for p in before
    } == before
    late = root / "cleo"
    pictures(root / "ann" / "talk.mp4", late / "00001", missing=range(40, 50))
    try:
        counts = prepare(root, here, settings=SETTINGS, splitting=APART)
    finally:
        shutil.rmtree(late)
    assert counts.clips == 8 and {p: p.read_bytes() for p in before} == before
    added = [e for s in ("train", "val") for e in read_index(here / s) if e.speaker == "cleo"]
    assert [(e.facts["start"], e.facts["frames"], e.facts["offset_frames"]) for e in added] == [
        (0, 40, 0),
        (50, 50, 0),
    ]
    ann = by_speaker(here)["ann"][0]
    (cleo,) = [c for s in ("train", "val") for c in load_clips(here / s) if c.name == added[0].name]
    face, video = (clip.frames(0, 40)[:, :, 16:96].float() for clip in (cleo, ann))
    apart = {
        shift: (face - video.roll(shift, 2)).abs()[:, :, 12:-12].mean() for shift in range(-12, 13)
    }
    # aligned like the video's own crops, within 3 px
    assert abs(min(apart, key=lambda shift: apart[shift])) <= 3
    torch.testing.assert_close(cleo.mels(range(5, 35)), ann.mels(range(5, 35)), atol=0.5, rtol=0)
    with pytest.raises(LipSyncError, match="other longest"):
        prepare(root, here, settings=Settings())


def test_killed_while_shards_are_written_nothing_is_lost(
    root: Path, out: Path, tmp_path: Path
) -> None:
    def killed(stage: str, done: int, total: int) -> None:
        if stage == "gather" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(
            root,
            tmp_path / "out",
            settings=SETTINGS,
            splitting=APART,
            on_progress=killed,
            processes=2,
        )
    assert not list((tmp_path / "out").rglob("*.tar")) and list(
        (tmp_path / "out" / "parts").iterdir()
    )
    told: list[str] = []
    prepare(
        root,
        tmp_path / "out",
        settings=SETTINGS,
        splitting=APART,
        on_progress=lambda stage, *_: told.append(stage),
    )
    assert told.count("prepare") == 1  # all was done
    for split in ("train", "val"):  # and what comes out is what comes of an undisturbed run
        assert (tmp_path / "out" / split / "000000.tar").read_bytes() == (
            out / split / "000000.tar"
        ).read_bytes()


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage = tmp_path / "in"
    footage.mkdir()
    shutil.copy(talk, footage)
    monkeypatch.setattr(stages, "LEAST_FREE", 1 << 62)
    with pytest.raises(LipSyncError, match="is full: 0 of 1 sources are done"):
        prepare(footage, tmp_path / "out")
    monkeypatch.undo()
    counts = prepare(footage, tmp_path / "out")  # and one clip is enough
    assert counts.splits == {"train": (1, 1, 5.0), "val": (0, 0, 0.0), "test": (0, 0, 0.0)}
    assert read_index(tmp_path / "out" / "train")[0].speaker == "person-000"


def test_without_a_clip_the_reasons_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LipSyncError, match=r"no clip is left of 4 sources: cannot be read \(2\)"):
        prepare(root / "odd", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LipSyncError, match="holds nothing to prepare"):
        prepare(tmp_path / "empty", tmp_path / "out2")
    with pytest.raises(LipSyncError, match="not a folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out2")
    (tmp_path / "file").touch()
    with pytest.raises(LipSyncError, match="cannot be"):
        prepare(root / "odd", tmp_path / "file" / "out")


@pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'lipsync-core[ray]'"
)
def test_ray_makes_the_same_shards(talk: Path, tmp_path: Path) -> None:
    footage = tmp_path / "in"
    footage.mkdir()
    write_head(talk, footage / "talk.mp4", stop=50)
    (footage / "broken.mp4").write_bytes(b"")
    prepare(footage, tmp_path / "here", processes=1)
    prepare(footage, tmp_path / "ray", cluster=Cluster(workers=1))
    shards = [(tmp_path / name / "train" / "000000.tar").read_bytes() for name in ("here", "ray")]
    assert shards[0] == shards[1]


def test_takes_that_do_not_fit_are_dropped() -> None:
    dropped: list[dict[str, object]] = []
    takes = [stages.Take(0, 0, 24, 90), stages.Take(0, 30, 280, 90), stages.Take(1, 0, 50, 30)]
    made = stages._stretches(takes, "k", Settings(longest=100), dropped)
    assert [(s.key, s.first, s.stop) for s in made] == [
        ("k-000", 30, 113),
        ("k-001", 113, 197),
        ("k-002", 197, 280),
    ]
    assert [(row["reason"], row["frames"]) for row in dropped] == [
        *(("shorter than wanted", 24), ("face smaller than wanted", 50))
    ]
    with pytest.raises(ValueError, match="expected size"):
        Settings(longest=30)


def test_sources_and_their_speakers(tmp_path: Path) -> None:
    for name in (
        "x/1.MP4",
        "x/2.txt",
        "y/a b.mkv",
        "y/7/0.jpg",
        "y/7/audio.wav",
        "y/8/0.jpg",
        "out/train.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_sources(tmp_path, leave=tmp_path / "out")
    assert [(s.name, s.kind) for s in found] == [
        ("x/1.MP4", "video"),
        ("y/7", "pictures"),
        ("y/a b.mkv", "video"),
    ]
    assert Source("gone.mp4", "video").stamp(tmp_path) == [0, 0] != found[0].stamp(tmp_path)
    assert (
        found[2].key.startswith("y_a_b-")
        and len({Source(n, "video").key for n in ("a.mp4", "a.mkv", "a.avi")}) == 3
    )
    names = ["x/ann_1.mp4", "x/bob_2.mp4", "y/ann_3.mp4"]
    assert list(speaker_names(names, None).values()) == ["x", "x", "y"]
    assert list(speaker_names(names[:2], None).values()) == [None, None]
    assert list(speaker_names(names, "file").values()) == names
    assert list(speaker_names(names, "([a-z]+)_").values()) == ["ann", "bob", "ann"]
    with pytest.raises(LipSyncError, match="matches nothing in x/bob_2"):
        speaker_names(names, "ann")
    with pytest.raises(ValueError, match="not a regular expression"):
        speaker_names(names, "(")
    assert given_split("val/a/b.mp4") == "val"
    for name in ("other/a.mp4", "train"):
        with pytest.raises(LipSyncError, match="none of the folders"):
            given_split(name)


def test_speakers_stay_whole_and_where_they_are() -> None:
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    frames = {f"s{i}": 100 + i for i in range(50)}
    first = shared_out(frames, shares, {})
    held = {
        split: sum(frames[s] for s, where in first.items() if where == split) for split in shares
    }
    assert all(
        abs(held[split] / sum(frames.values()) - share) < 0.03 for split, share in shares.items()
    )
    more = shared_out(frames | {"new": 500}, shares, first)
    assert {s: more[s] for s in frames} == first and shared_out(frames, shares, {}, seed=1) != first
    few = shared_out({"a": 900, "b": 500, "c": 400}, shares, {})
    assert sorted(few.values()) == ["test", "train", "val"] and few["a"] == "train"
    assert shared_out({"a": 5}, shares, {}) == {"a": "train"}


def prints(rng: np.random.Generator, people: list[int]) -> np.ndarray:
    """Clips of ``people`` that have their face, and pictures and sounds of their own."""
    faces = np.abs(rng.standard_normal((max(people) + 1, 40)))
    likeness = faces[people] + 0.05 * rng.standard_normal((len(people), 40))
    parts = [rng.standard_normal((len(people), size)) for size in stages.PRINT] + [likeness]
    return np.concatenate([p / np.linalg.norm(p, axis=1, keepdims=True) for p in parts], 1).astype(
        np.float32
    )


def test_people_are_told_apart_and_repetitions_found() -> None:
    rng = np.random.default_rng(0)
    people = [0, 1, 0, 2, 1, 0]
    found = prints(rng, people)
    names = same_people(found, range(6), [None] * 6)
    assert [names.index(name) for name in names] == [0, 1, 0, 3, 1, 0]
    assert same_people(found, range(6), ["ann", None, None, None, None, None])[2] == "ann"
    tracked = same_people(found[[0, 1]], [("clip", 0), ("clip", 0)], [None] * 2)
    assert tracked[0] == tracked[1]  # whatever the faces look like
    together = kept_together([("v", "a"), ("v", "b"), ("w", "b"), ("w", "c"), ("x", "d")])
    assert together == {"a": "a", "b": "a", "c": "a", "d": "d"}
    again = np.concatenate([found, found[[3, 0, 3]] + 1e-3])
    sounds = slice(stages.PRINT[0], sum(stages.PRINT))
    again[7, sounds] = found[1, sounds]  # other words, the same pictures: no repetition
    assert duplicates(again) == {6: 3, 8: 3}
    assert duplicates(found[:0]) == {} and same_people(found[:1], [0], [None]) == ["person-000"]


def test_the_command_says_what_it_did(
    root: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from train.prepare import main

    here = tmp_path / "out"
    shutil.copytree(out, here)
    main(
        [str(root), str(here), "--longest", "60", "--val", "0.3", "--test", "0", "--processes", "1"]
    )
    told = capsys.readouterr().out
    assert (
        "train: 3 clips, 1 speakers" in told
        and "dropped, duplicate: 3" in told
        and "report.html" in told
    )
    with pytest.raises(SystemExit, match=r"error: .* was prepared from"):
        main([str(root), str(here)])

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing_run, "gather", fail)
    with pytest.raises(SystemExit, match=r"No space left on device.*nothing is lost"):
        main(
            [
                str(root),
                str(here),
                "--longest",
                "60",
                "--val",
                "0.3",
                "--test",
                "0",
                "--processes",
                "1",
            ]
        )


def test_one_person_s_last_words_are_held_out_by_time(talk: Path, tmp_path: Path) -> None:
    footage, here = tmp_path / "in", tmp_path / "out"
    footage.mkdir()
    shutil.copy(talk, footage / "ann.mp4")
    settings = Settings(shortest=20, longest=40)  # four clips of 31 frames
    splitting = Splitting("file", "time", val=0.25, test=0)

    def killed(stage: str, done: int, total: int) -> None:
        if stage == "gather" and done == 4:  # train is written, val is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(footage, here, settings=settings, splitting=splitting, on_progress=killed)
    (here / "val" / ".000000.0123abcd.part.tar").touch()  # as a kill would leave it
    counts = prepare(footage, here, settings=settings, splitting=splitting)
    assert {split: row[0] for split, row in counts.splits.items()} == {
        "train": 3,
        "val": 1,
        "test": 0,
    }
    last = max(entry.facts["start"] for entry in read_index(here / "train"))
    assert read_index(here / "val")[0].facts["start"] > last and counts.shared == ("ann.mp4",)
    assert sorted(path.name for path in (here / "val").iterdir()) == ["000000.tar", "index.json"]
    with pytest.raises(LipSyncError, match="with other by;"):
        prepare(footage, here, settings=settings, splitting=Splitting("file", val=0.25, test=0))


def test_a_folder_is_one_preparation_s_alone_and_not_that_of_the_footage(
    root: Path, tmp_path: Path
) -> None:
    with (
        exclusive_dir(tmp_path / "out"),
        pytest.raises(LipSyncError, match="another process is at work in"),
    ):
        prepare(root, tmp_path / "out")
    with pytest.raises(LipSyncError, match="give another folder for the shards"):
        prepare(root, root)


def test_what_could_not_begin_binds_nobody(root: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        with pytest.raises(LipSyncError, match="no weights are called 'no-such-scorer'"):
            prepare(
                root / "odd",
                tmp_path,
                settings=Settings(scorer="no-such-scorer"),
                processes=processes,
            )
    with pytest.raises(LipSyncError, match="no clip is left of 4 sources"):
        prepare(root / "odd", tmp_path)


@pytest.mark.parametrize("size", [96, 192, 256, 384])
def test_recipes_take_off_the_margin_that_is_kept(size: int) -> None:
    margin = Settings(size=size).margin
    crop = torch.zeros(1, 3, size + 2 * margin, size + 2 * margin, dtype=torch.uint8)
    crop[..., margin:-margin, margin:-margin] = 255
    assert remove_margin(crop, size).shape[-1] == size and bool(
        (remove_margin(crop, size) == 1).all()
    )
