"""Sound, tracks and pictures that are in memory already, and single frames of a clip."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.dubs import ASTRONAUT, FRESH, clip, pixels, portrait, tone
from helpers.media import level_of, levels, write_video

from lipsync_core import Cut, MediaError, dub
from lipsync_core.audio.ops import mix, pad_or_trim
from lipsync_core.errors import NoFaceError
from lipsync_core.faces.tracking import SMOOTHING_SECONDS
from lipsync_core.media import probe, probe_sound, read_audio, shift_audio
from lipsync_core.media.clip import ImageClip, VideoClip, open_clip
from lipsync_core.pipelines.demo import make_demo_clip
from lipsync_core.pipelines.score import score
from lipsync_core.pipelines.track_faces import Finding, Pace, find_people, select_device
from lipsync_core.types import Audio

CPU = select_device("cpu")


def test_a_sound_in_memory_is_as_good_as_its_file(tmp_path: Path) -> None:
    face = clip(tmp_path / "face.mp4", portrait().expand(8, -1, -1, -1))
    path = tone(tmp_path / "a.wav")
    sound = read_audio(path, rate=None, mono=False)
    from_file = dub(face, path, tmp_path / "file.mp4", finding=FRESH)
    from_memory = dub(face, sound, tmp_path / "memory.mp4", finding=FRESH)
    assert from_file.frames == from_memory.frames == 15
    difference = (pixels(from_file.out).float() - pixels(from_memory.out).float()).abs()
    assert difference.mean() < 0.2  # x264's macroblock tree is not the same every time
    assert probe_sound(from_memory.out).rate == sound.rate
    with pytest.raises(MediaError, match="no sound"):
        dub(face, Audio(torch.zeros(1, 0), 16000), tmp_path / "none.mp4", finding=FRESH)


def test_people_found_before_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face, speech = (
        clip(tmp_path / "face.mp4", portrait().expand(8, -1, -1, -1)),
        tone(tmp_path / "a.wav"),
    )
    people = find_people(open_clip(face, Cut()), FRESH, CPU, stop=100)
    assert len(people[0]) == 1 and people[1] == 8
    wanted = dub(face, speech, tmp_path / "a.mp4", finding=FRESH)
    monkeypatch.setattr("lipsync_core.pipelines.dub_plan.find_people", None)
    heard: list[int] = []
    report = dub(
        face,
        [(speech, people[0][0])],
        tmp_path / "b.mp4",
        people=people,
        on_frames=lambda frames: heard.append(frames.pixels.shape[0]),
    )
    assert (report.frames, report.dubbed, report.faces) == (wanted.frames, wanted.dubbed, 1)
    assert sum(heard) == report.frames
    assert (pixels(report.out).float() - pixels(wanted.out).float()).abs().mean() < 0.2


def test_pictures_in_memory_have_the_people_of_their_file(tmp_path: Path) -> None:
    frames = torch.stack([portrait().roll(2 * i, 1) for i in range(8)])
    path = clip(tmp_path / "face.mp4", frames)
    ((from_file,), _) = find_people(open_clip(path, Cut()), FRESH, CPU, stop=100)
    for held in (frames, frames.float() / 255):
        done: list[int] = []
        ((person,), count) = find_people(
            ImageClip(held, Fraction(25)), FRESH, CPU, stop=100, on_found=done.append
        )
        assert count == 8 and done[-1] == 8 and bool(person.visible.all())
        assert (person.boxes - from_file.boxes).abs().max() < 3


def test_large_pictures_are_searched_at_a_reduced_size() -> None:
    large = torch.nn.functional.interpolate(
        portrait().permute(2, 0, 1)[None].float(), scale_factor=5
    )
    pictures = ImageClip(large.byte().permute(0, 2, 3, 1), Fraction(25))
    ((person,), _) = find_people(pictures, FRESH, CPU, stop=1)
    ((small,), _) = find_people(ImageClip(portrait()[None], Fraction(25)), FRESH, CPU, stop=1)
    assert next(pictures.reduced(1)).pixels.shape == (1, 640, 640, 3)
    assert (person.boxes - 5 * small.boxes).abs().max() < 25  # 5 px of the small one


def test_small_faces_may_be_left_out() -> None:
    pictures = ImageClip(torch.cat([portrait()[None]] * 2), Fraction(25))
    assert len(find_people(pictures, Finding(min_size=60), CPU, stop=2)[0]) == 1
    assert find_people(pictures, Finding(min_size=200), CPU, stop=2)[0] == []


def test_the_pace_is_part_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    path = clip(
        tmp_path / "face.mp4", torch.stack([portrait().roll(3 * (i % 2), 1) for i in range(12)])
    )
    rough = [Pace(1, 0.0), Pace(1, 0.2), Pace(5, 0.0), Pace()]
    found = [
        find_people(open_clip(path, Cut()), Finding(pace=pace), CPU, stop=100)[0][0].boxes
        for pace in rough
    ]
    assert not any(torch.equal(found[0], other) for other in found[1:])
    steps = [(boxes[1:] - boxes[:-1]).abs().mean() for boxes in found]
    assert steps[0] > 2 * steps[1]  # smoothed
    again = [
        find_people(open_clip(path, Cut()), Finding(pace=pace), CPU, stop=100)[0][0].boxes
        for pace in rough
    ]
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    with pytest.raises(ValueError, match="smoothing"):
        find_people(open_clip(path, Cut()), Finding(pace=Pace(5, -1)), CPU, stop=100)
    assert Pace().smoothing == SMOOTHING_SECONDS


@pytest.mark.parametrize("first", [0, 5])
def test_single_frames_are_picked(tmp_path: Path, first: int) -> None:
    path = write_video(tmp_path / "levels.mp4", levels(40))
    footage = VideoClip(path, probe(path), first)
    wanted = [3, 7, 8, 31]
    picked = list(footage.pick([31, 3, 8, 7, 7, 99]))
    assert [number for number, _ in picked] == wanted
    shown = [level_of(picture[None]) for _, picture in picked]
    (everything,) = [torch.cat([piece.pixels for piece in footage.rgb(chunk=40)])]
    assert shown == [level_of(everything[number][None]) for number in wanted]
    assert list(footage.pick([])) == []
    held = ImageClip(everything, footage.fps)
    assert [(n, bool((p == everything[n]).all())) for n, p in held.pick([8, 3])] == [
        (3, True),
        (8, True),
    ]


def test_distant_frames_are_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_core.media.clip._SEEK_GAP", 4)
    path = write_video(tmp_path / "levels.mp4", levels(40))
    footage = VideoClip(path, probe(path))
    assert [n for n, _ in footage.pick([0, 3, 20, 39])] == [0, 3, 20, 39]


def test_sounds_are_mixed_at_the_highest_rate() -> None:
    low, high = (
        Audio(torch.full((1, 800), 0.25), 8000),
        Audio(torch.stack([torch.full((800,), x) for x in (0.5, -0.5)]), 16000),
    )
    both = mix([low, high])
    assert both.rate == 16000 and both.samples.shape == (2, 1600)
    middle = both.samples[:, 300:500]
    assert torch.allclose(middle, torch.tensor([[0.75], [-0.25]]).expand(-1, 200), atol=0.02)
    assert torch.allclose(both.samples[:, 900:1500], torch.tensor(0.25), atol=0.02)
    assert mix([high, high]).samples.abs().max() == 1


def test_a_sound_is_fitted_to_the_sample() -> None:
    sound = Audio(torch.ones(2, 1000), 22050)
    assert pad_or_trim(sound, Fraction(1, 25)).samples.shape == (2, 882)
    longer = pad_or_trim(sound, Fraction(1, 10)).samples
    assert longer.shape == (2, 2205) and longer[:, :1000].all() and not longer[:, 1000:].any()


def test_a_cut_is_scored_with_its_own_sound(talking_head: Path, tmp_path: Path) -> None:
    video = tmp_path / "late.mp4"
    shift_audio(talking_head, video, Fraction(5, 25))
    cut, sound = Cut(Fraction(1, 2), Fraction(9, 2)), read_audio(video, rate=None)
    (own,) = score(video, cut=cut, finding=FRESH).tracks
    assert own.score.offset_frames in (-6, -5)  # of lips that a model drew
    for late in (0, 5):
        part = slice(round((0.5 + late / 25) * sound.rate), round((4.5 + late / 25) * sound.rate))
        given = Audio(sound.samples[:, part], sound.rate)
        (found,) = score(video, given, cut=cut, finding=FRESH).tracks
        assert found.score.offset_frames == own.score.offset_frames + late
        if not late:
            assert abs(found.score.distance - own.score.distance) < 0.02


def test_the_demo_clips(demo_folder: Path) -> None:
    with pytest.raises(ValueError, match="portrait, talking"):
        make_demo_clip(demo_folder, "no-such-speaker")  # type: ignore[arg-type]
    clips = {
        name: make_demo_clip(demo_folder, name)
        for name in ("portrait", "talking", "out of sync", "two people")
    }
    assert [tuple(made.image.shape) for made in clips.values()] == [(214, 174, 3)] * 3 + [
        (214, 348, 3)
    ]
    for name, made in clips.items():
        info = probe(made.video)
        assert (info.width, info.height, info.fps, info.frames) == (
            *made.image.shape[1::-1][:1],
            214,
            25,
            206,
        ), name
    with pytest.raises(MediaError):
        probe_sound(clips["portrait"].video)
    late = clips["out of sync"].audio
    assert not late.samples[:, : late.rate // 5].any()
    written = clips["talking"].video.stat().st_mtime_ns
    assert make_demo_clip(demo_folder, "talking").video.stat().st_mtime_ns == written  # made once
    people, _ = find_people(open_clip(clips["two people"].video, Cut()), FRESH, CPU, stop=1000)
    assert len(people) == 2


def test_nobody_in_pictures_is_an_error_that_says_so() -> None:
    from lipsync_core.faces.selection import select
    from lipsync_core.faces.selector import parse_face

    people, _ = find_people(ImageClip(torch.zeros(3, 64, 64, 3), Fraction(25)), FRESH, CPU, stop=3)
    with pytest.raises(NoFaceError):
        select(people, parse_face("largest"))
    assert ASTRONAUT.exists()
