"""Shards on disk and elsewhere, the clips in them, and batches that do not depend on who draws
them."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_core.audio.features import MelFeatures, log_mel
from lipsync_core.errors import LipSyncError, NoClipsError, TrainingError
from lipsync_core.models.sync_expert import WAV2LIP_EXPERT
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.loading import DubDraw, Loader, Share, WindowDraw
from lipsync_core.training.shards import INDEX, Fetched, ShardWriter, load_arrays, part, read_index
from lipsync_core.types import Audio

SIDE = 12


def write(folder: Path, names: list[str], *, frames: int = 30, shard_bytes: int = 1 << 20) -> None:
    with ShardWriter(folder, shard_bytes=shard_bytes) as writer:
        for name in names:
            noise = np.random.default_rng(len(name) + ord(name[-1]))
            faces = noise.integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8)
            mel = noise.standard_normal((frames * 16 // 5 + 40, 80)).astype(np.float32)
            writer.add(
                name, speaker=name[0], facts={"first": 2}, arrays={"faces": faces, "mel": mel}
            )


def remote(folder: Path, name: str) -> str:
    """The same files on a file system that is no disk."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/{name}/{path.name}", path.read_bytes())
    return f"memory://{name}"


def test_shards_are_tars_of_named_parts_that_any_reader_opens(tmp_path: Path) -> None:
    write(tmp_path, ["a-0", "a-1", "b-0"], shard_bytes=20_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000.tar",
        "000001.tar",
        "000002.tar",
        INDEX,
    ]
    with tarfile.open(tmp_path / "000001.tar") as tar:
        assert tar.getnames() == ["a-1.faces.npy", "a-1.mel.npy", "a-1.json"]
        inside = tar.extractfile("a-1.faces.npy")
        assert inside is not None
        tar.extract("a-1.faces.npy", tmp_path / "out", filter="data")
        assert json.loads(tar.extractfile("a-1.json").read()) == {"speaker": "a", "first": 2}  # pyright: ignore
    entry = read_index(tmp_path)[1]
    (arrays,) = load_arrays(tmp_path, [entry], ("faces",))
    assert np.array_equal(arrays["faces"][:], np.load(tmp_path / "out" / "a-1.faces.npy"))


def test_what_was_written_before_stays_and_equal_clips_give_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a", ["a-0", "a-1"])
    first = (tmp_path / "a" / "000000.tar").read_bytes()
    write(tmp_path / "a", ["b-0"])
    assert (tmp_path / "a" / "000000.tar").read_bytes() == first
    assert [(e.name, e.shard) for e in read_index(tmp_path / "a")] == [
        *(("a-0", "000000.tar"), ("a-1", "000000.tar"), ("b-0", "000001.tar"))
    ]
    write(tmp_path / "b", ["a-0", "a-1"])
    assert (tmp_path / "b" / "000000.tar").read_bytes() == first


def test_a_writer_that_fails_leaves_the_split_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, ["a-0"])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), ShardWriter(tmp_path) as writer:
        writer.add("b-0", speaker="b", facts={}, arrays={"faces": np.zeros((5, 2, 2, 3), np.uint8)})
        raise RuntimeError("killed")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="without dots"), ShardWriter(tmp_path) as writer:
        writer.add("b.0", speaker="b", facts={}, arrays={})


def test_missing_and_damaged_shards_say_so(tmp_path: Path) -> None:
    with pytest.raises(LipSyncError, match="no prepared clips"):
        load_clips(tmp_path)
    write(tmp_path, ["a-0"])
    shard = tmp_path / "000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000])
    with pytest.raises(LipSyncError, match="copy the shards again"):
        load_clips(tmp_path)
    shard.unlink()
    with pytest.raises(LipSyncError, match="cannot be read"):
        load_clips(tmp_path)
    shard.write_bytes(whole)
    with pytest.raises(LipSyncError, match="none of which gives 40 frames"):
        load_clips(tmp_path, least=40)
    (tmp_path / INDEX).write_text("{}", encoding="utf-8")
    with pytest.raises(LipSyncError, match="cannot be read as an index"):
        load_clips(tmp_path)


def test_clips_from_object_storage_are_those_on_disk(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    write(tmp_path, ["a-0", "a-1", "b-0"], shard_bytes=20_000)
    here, there = load_clips(tmp_path, half=1), load_clips(remote(tmp_path, "shards"), half=1)
    assert [c.name for c in here] == [c.name for c in there] == ["a-1", "b-0"]
    for one, other in zip(here, there, strict=True):
        assert isinstance(other.faces, Fetched) and len(one.faces) == len(other.faces)
        assert torch.equal(one.frames(3, 4), other.frames(3, 4)) and one.first == other.first
        assert torch.equal(one.mels([-3, 0, 14], lead_ms=40), other.mels([-3, 0, 14], lead_ms=40))
    rows = part(there[0].faces, 2, 9)
    assert np.array_equal(rows[1:3], here[0].faces[3:5]) and len(rows) == 7 and len(rows[4:4]) == 0
    with pytest.raises(ValueError, match="neighboring"):
        rows[::2]
    with pytest.raises(LipSyncError, match="no prepared clips"):
        load_clips("memory://nowhere")


def clips(counts: tuple[int, ...] = (40, 60)) -> list[Clip]:
    """Clips whose frame i is all i, and whose mel column j is all j."""
    out = []
    for number, count in enumerate(counts):
        faces = (
            np.arange(count, dtype=np.uint8)[:, None, None, None]
            .repeat(2, 1)
            .repeat(2, 2)
            .repeat(3, 3)
        )
        columns = torch.arange(4.0 * count).expand(80, -1)
        out.append(Clip(str(number), str(number), faces, columns))
    return out


def test_windows_and_their_sound_belong_together_and_references_lie_apart() -> None:
    draw = WindowDraw(
        clips(), features=MelFeatures(lead_ms=40), expert=WAV2LIP_EXPERT, frames=6, far=6
    )
    begins = []
    for seed in range(200):
        sample = draw(np.random.default_rng(seed))
        begin, other = int(sample["target"][0, 0, 0, 0]), int(sample["reference"][0, 0, 0, 0])
        assert abs(begin - other) >= 6
        assert sample["target"][:, 0, 0, 0].tolist() == list(range(begin, begin + 6))
        assert sample["heard"][:, 0, 0, 0].tolist() == [16 * (begin + i) // 5 for i in range(2)]
        if begin > 0:  # before the sound there is silence
            assert sample["sound"][:, 0, 0, 0].tolist() == [
                16 * (begin + i - 1) // 5 for i in range(6)
            ]
        begins.append(begin)
    assert min(begins) == 0 and max(begins) > 50
    with pytest.raises(NoClipsError, match="none of 2 clips has"):
        WindowDraw(clips(), far=40)
    with pytest.raises(TrainingError, match="looks at 5 frames; expected at most the 3"):
        WindowDraw(clips(), expert=WAV2LIP_EXPERT, frames=3)
    # the shortest
    assert WindowDraw(clips((16,)), far=6)(np.random.default_rng(0))["target"].shape == (5, 2, 2, 3)


def test_dubs_are_their_own_reference_beside_a_strangers_sound() -> None:
    stranger = replace(clips((30,))[0], mel=torch.arange(1000.0, 1000 + 4 * 30).expand(80, -1))
    draw = DubDraw(
        clips(),
        voices=[stranger],
        features=MelFeatures(lead_ms=80),
        also=MelFeatures(),
        expert=WAV2LIP_EXPERT,
        frames=6,
        far=6,
        search=3,
        foreign=0.25,
    )
    rng = np.random.default_rng(0)
    samples = [draw(rng) for _ in range(400)]
    talking = [bool(sample["talking"][0]) for sample in samples]
    assert 0.7 < sum(talking) / 400 < 0.8
    for sample, talks in zip(samples, talking, strict=True):
        begin, other = int(sample["target"][0, 0, 0, 0]), int(sample["reference"][0, 0, 0, 0])
        assert (abs(begin - other) >= 6) if talks else (begin == other)
        first = float(sample["also"][0, 0, 0, 0])
        assert first == 16 * begin // 5 if talks else first >= 1000
        assert (
            sample["heard"].shape == (2 + 2 * 3, 1, 80, 16)
            and float(sample["heard"][3, 0, 0, 0]) == first
        )
        assert sample["sound"].shape == (6, 1, 80, 16) and (
            sample["sound"][5, 0, 0, 0] < first + 16
        )
    with pytest.raises(NoClipsError, match="none of 1 clips has 40 frames"):
        DubDraw(
            clips(),
            voices=[stranger],
            features=MelFeatures(),
            expert=WAV2LIP_EXPERT,
            frames=40,
            far=1,
            foreign=0.5,
        )


def batches(loader: Loader, count: int) -> list[dict[str, torch.Tensor]]:
    with loader:
        return [next(loader) for _ in range(count)]


def test_a_loader_goes_on_where_it_was_and_shares_what_one_would_draw() -> None:
    draw = WindowDraw(clips())
    whole = batches(Loader(draw, batch=4, seed=1, threads=3), 6)
    with Loader(draw, batch=4, seed=1) as loader:
        next(loader), next(loader)
        # two were handed out, whatever was made ahead
        state = json.loads(json.dumps(loader.state_dict()))
    resumed = Loader(draw, batch=4, seed=1, threads=1)
    resumed.load_state_dict(state)
    for wanted, got in zip(whole[2:], batches(resumed, 4), strict=True):
        assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    halves = [batches(Loader(draw, batch=4, seed=1, share=Share(rank, 2)), 6) for rank in (0, 1)]
    for wanted, first, second in zip(whole, *halves, strict=True):
        assert all(
            torch.equal(wanted[name], torch.cat([first[name], second[name]])) for name in wanted
        )
    other = batches(Loader(draw, batch=4, seed=2), 1)[0]
    assert not torch.equal(other["sound"], whole[0]["sound"])
    with pytest.raises(ValueError, match="the state is of a loader with"):
        Loader(draw, batch=8, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="multiple"):
        Loader(draw, batch=3, seed=1, share=Share(0, 2))


def test_an_error_of_the_draw_reaches_the_loop() -> None:
    def broken(rng: np.random.Generator) -> dict[str, np.ndarray]:
        raise OSError("the disk is gone")

    with Loader(broken, batch=2, seed=0) as loader, pytest.raises(OSError, match="gone"):
        next(loader)


def test_windows_cut_at_five_frames_are_those_of_the_whole_sound() -> None:
    """What ``preparing.work`` relies on: columns from a multiple of five frames on give the same
    windows."""
    sound = Audio(
        torch.randn(1, 16000 * 6, generator=torch.Generator().manual_seed(0)) * 0.1, 16000
    )
    faces = np.zeros((60, 2, 2, 3), np.uint8)
    whole = Clip("whole", "a", faces, log_mel(sound), first=33)
    cut = Clip(
        "cut",
        "a",
        faces,
        log_mel(sound, first=10 * 16 // 5, count=400).T.contiguous().numpy(),
        first=23,
    )
    frames = list(range(-15, 75))
    for lead in (0, 40):
        assert torch.equal(whole.mels(frames, lead_ms=lead), cut.mels(frames, lead_ms=lead))
