"""Names, progress, memory and videos: the part that knows ComfyUI."""

import gc
import os
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_host import (
    Cancelled,
    ExecutionBlocker,
    Host,
    OutOfMemory,
    VideoComponents,
    VideoFromComponents,
    VideoFromFile,
    VideoFromNewFile,
)
from loading import Pack


@pytest.fixture
def side(pack: Pack) -> ModuleType:
    return pack.part("lipsync_nodes.host")


@pytest.fixture
def videos(pack: Pack) -> ModuleType:
    return pack.part("lipsync_nodes.videos")


# ---- names

ESCAPES = [
    *(
        "../secret.mp4",
        "..\\secret.mp4",
        "sub/../../secret.mp4",
        "..",
        ".",
        "",
        "/etc/passwd",
        "\\\\server\\share\\a.mp4",
    ),
    *(
        "//server/share/a.mp4",
        "C:\\secret.mp4",
        "c:secret.mp4",
        "a\0.mp4",
        "/dev/zero",
        "../secret.mp4 [output]",
        "sub",
    ),
]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_leads_nowhere_else(side: ModuleType, host: Host, pack: Pack, name: str) -> None:
    (host.base / "secret.mp4").write_bytes(b"secret")
    (host.base / "input" / "sub").mkdir()
    with pytest.raises(pack.part("lipsync_core.errors").MediaError, match="ComfyUI"):
        side.input_file(name)


@pytest.mark.parametrize("name", ESCAPES)
def test_a_folder_leads_nowhere_else(side: ModuleType, host: Host, pack: Pack, name: str) -> None:
    (host.base / "secret.mp4").write_bytes(b"secret")
    with pytest.raises(pack.part("lipsync_core.errors").MediaError, match=r"ComfyUI|no video"):
        side.videos_in(name)


@pytest.mark.parametrize("name", ESCAPES)
def test_a_model_is_one_of_the_list(side: ModuleType, host: Host, pack: Pack, name: str) -> None:
    (host.base / "models" / "secret.mp4").write_bytes(b"secret")
    with pytest.raises(pack.part("lipsync_core.errors").WeightsError, match="has no file"):
        side.model_file(name)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_leads_nowhere_else(side: ModuleType, host: Host, pack: Pack) -> None:
    errors = pack.part("lipsync_core.errors")
    (host.base / "elsewhere").mkdir()
    (host.base / "elsewhere" / "a.mp4").write_bytes(b"secret")
    (host.base / "input" / "link.mp4").symlink_to(host.base / "elsewhere" / "a.mp4")
    (host.base / "input" / "folder").symlink_to(host.base / "elsewhere")
    for name in ("link.mp4", "folder/a.mp4"):
        with pytest.raises(errors.MediaError, match="does not lie"):
            side.input_file(name)
    with pytest.raises(errors.MediaError, match="does not lie"):
        side.videos_in("folder")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_to_elsewhere_is_not_offered_and_spoils_no_folder(
    side: ModuleType, host: Host
) -> None:
    inputs, elsewhere = host.base / "input", host.base / "elsewhere"
    for folder in (inputs / "takes", elsewhere):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"x")
    for name in ("link.mp4", "takes/link.mp4"):
        (inputs / name).symlink_to(elsewhere / "a.mp4")
    (inputs / "near.mp4").symlink_to(inputs / "takes" / "a.mp4")
    (inputs / "round.mp4").symlink_to(inputs / "round.mp4")
    (inputs / "folder").symlink_to(elsewhere)
    assert (
        side.input_names(["video"])
        == ["near.mp4"]
        == [path.name for path in side.videos_in("(input folder)")]
    )
    assert side.input_file("near.mp4").name == "a.mp4"
    assert [path.name for path in side.videos_in("takes")] == ["a.mp4"]
    assert side.video_folders() == ["demo", "(input folder)", "takes"]


def test_plain_names_are_found(side: ModuleType, host: Host) -> None:
    for place in ("input/a b (1).mp4", "input/sub/b.mp4", "output/c.mp4", "temp/d.mp4"):
        (host.base / place).parent.mkdir(exist_ok=True)
        (host.base / place).write_bytes(b"x")
    found = [
        side.input_file(name).name
        for name in ("a b (1).mp4", "sub/b.mp4", "c.mp4 [output]", "d.mp4 [temp]")
    ]
    assert found == ["a b (1).mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert [path.name for path in side.videos_in("sub")] == ["b.mp4"]
    assert side.input_names(["video"]) == ["a b (1).mp4"]


def test_the_users_model_folders_stay(side: ModuleType, host: Host) -> None:
    import folder_paths

    folder_paths.folder_names_and_paths["lipsync"] = (["/elsewhere"], {".bin"})
    side.register_model_folders()
    folders, suffixes = folder_paths.folder_names_and_paths["lipsync"]
    assert folders == [str(host.base / "models" / "lipsync"), "/elsewhere"]
    assert suffixes == {".bin", ".safetensors", ".pth", ".pt"}


# ---- progress


def test_the_stages_fill_one_bar(side: ModuleType, host: Host) -> None:
    progress = side.Progress({"find": 1, "dub": 3})
    for stage, done, total in [
        ("find", 0, 10),
        ("find", 10, 10),
        ("dub", 5, 10),
        ("other", 1, 1),
        ("dub", 10, 10),
    ]:
        progress(stage, done, total)
    assert [value for value, _, _ in host.bar] == [0, 250, 625, 625, 1000]
    assert {total for _, total, _ in host.bar} == {1000}


def test_a_bar_never_goes_back_and_bears_unknown_totals(side: ModuleType, host: Host) -> None:
    progress = side.Progress({"find": 1, "dub": 1})
    for stage, done, total in [("dub", 1, 2), ("find", 1, 2), ("dub", 1, None), ("dub", 3, 2)]:
        progress(stage, done, total)
    values = [value for value, _, _ in host.bar]
    assert values == sorted(values) and values[-1] == 1000


def test_every_step_asks_whether_to_go_on(side: ModuleType, host: Host, pack: Pack) -> None:
    progress = side.Progress({"dub": 1})
    progress("dub", 1, 4)
    host.cancel_at = host.questions + 1
    with pytest.raises(Cancelled):
        progress("dub", 2, 4)
    with pytest.raises(Cancelled):
        progress.show(pack.part("lipsync_core.types").Frames(torch.zeros(1, 2, 2, 3)))


def test_previews_are_small_and_seldom(side: ModuleType, host: Host, pack: Pack) -> None:
    types = pack.part("lipsync_core.types")
    progress = side.Progress({"dub": 1})
    red = torch.zeros(2, 1200, 1600, 3, dtype=torch.uint8)
    red[1, ..., 0] = 200
    for _ in range(3):
        progress.show(types.Frames(red))
    ((_, _, (kind, picture, most)),) = host.bar
    assert (kind, most) == ("JPEG", 512)
    assert max(picture.size) <= 1024 and picture.getpixel((5, 5)) == (200, 0, 0)


def test_coded_frames_have_previews_too(side: ModuleType, host: Host, pack: Pack) -> None:
    types = pack.part("lipsync_core.types")
    pixels = torch.full((1, 32 * 3 // 2, 48), 128, dtype=torch.uint8)
    pixels[:, :32] = 235  # white
    side.Progress({"dub": 1}).show(types.YuvFrames(pixels, types.ColourTags(1, 1, 1)))
    ((_, _, (_, picture, _)),) = host.bar
    assert picture.size == (24, 16) and picture.getpixel((3, 3)) == (255, 255, 255)


# ---- memory


def test_what_does_not_fit_is_refused_with_the_figures(
    side: ModuleType, host: Host, pack: Pack
) -> None:
    host.free_bytes = 2_000_000_000
    side.refuse_unless_fits(1_000_000, "a mask", "take a VIDEO")
    with pytest.raises(
        pack.part("lipsync_core.errors").LipSyncError,
        match=r"7\.5 GB.*2\.0 GB are free; take a VIDEO",
    ):
        side.refuse_unless_fits(7_500_000_000, "a mask", "take a VIDEO")


def test_a_batch_is_halved_until_it_fits(side: ModuleType) -> None:
    tried: list[int] = []

    def run(batch: int) -> str:
        tried.append(batch)
        if batch > 2:
            raise OutOfMemory
        return "done"

    assert side.halving(9, run) == "done" and tried == [9, 4, 2]

    def never(batch: int) -> str:
        raise OutOfMemory

    with pytest.raises(OutOfMemory):
        side.halving(4, never)


def test_a_blocked_output_says_why(side: ModuleType) -> None:
    blocked = side.blocked("no mask")
    assert isinstance(blocked, ExecutionBlocker) and blocked.message == "no mask"


# ---- videos


@pytest.mark.parametrize("kind", [VideoFromFile, VideoFromNewFile])
def test_a_file_is_read_where_it_lies(
    videos: ModuleType, clip: Callable[..., Path], kind: type
) -> None:
    path = clip()
    whole = videos.video_source(kind(str(path)))
    assert (whole.path, whole.start, whole.end, whole.sound) == (
        path,
        0,
        None,
        path,
    ) and whole.untouched
    part = videos.video_source(kind(str(path), start_time=0.2, duration=0.4))
    assert (part.start, part.end) == (Fraction(1, 5), Fraction(3, 5)) and not part.untouched
    last = videos.video_source(kind(str(path), start_time=-0.4))
    assert (last.start, last.end) == (Fraction(3, 5), None)


def test_a_video_in_memory_is_written_once_and_whole(
    videos: ModuleType, host: Host, pack: Pack, speech: dict[str, Any]
) -> None:
    images = torch.rand(3, 17, 21, 3, generator=torch.manual_seed(0))
    video = VideoFromComponents(VideoComponents(images, Fraction(30000, 1001), speech))
    source = videos.video_source(video)
    assert videos.video_source(video) is source
    assert source.path.parent == host.base / "temp" and not source.untouched
    read = list(pack.part("lipsync_core.media").read_frames(source.path))
    assert torch.equal(
        torch.cat([piece.pixels for piece in read]), (images * 255).round().to(torch.uint8)
    )
    assert pack.part("lipsync_core.media").probe(source.path).fps == Fraction(30000, 1001)
    assert torch.equal(source.audio().samples, speech["waveform"][0])
    del video
    gc.collect()
    assert not source.path.exists()


def test_a_video_in_a_buffer_is_written_once(
    videos: ModuleType, host: Host, clip: Callable[..., Path]
) -> None:
    content = clip().read_bytes()
    video = VideoFromFile(BytesIO(content), start_time=0.2, duration=0.2)
    source = videos.video_source(video)
    assert source.path.read_bytes() == content and (source.start, source.end) == (
        Fraction(1, 5),
        Fraction(2, 5),
    )
    assert videos.video_source(video).path == source.path
    assert len(host.temporary()) == 1


def test_images_become_a_file_for_a_while(videos: ModuleType, host: Host, pack: Pack) -> None:
    with videos.media_source(torch.zeros(4, 16, 16, 3), 12.5) as source:
        info = pack.part("lipsync_core.media").probe(source.path)
        assert (info.frames, info.fps, source.sound) == (4, Fraction(25, 2), None)
    assert host.temporary() == []


def test_a_cancelled_write_leaves_nothing(videos: ModuleType, host: Host) -> None:
    host.cancel_at = 2
    with pytest.raises(Cancelled), videos.media_source(torch.zeros(40, 16, 16, 3), 25.0):
        pass
    assert host.temporary() == []


def test_the_sound_of_a_part_is_cut_with_it(videos: ModuleType, clip: Callable[..., Path]) -> None:
    path = clip()
    whole = videos.video_source(VideoFromFile(str(path))).audio().samples
    part = videos.video_source(VideoFromFile(str(path), start_time=0.2, duration=0.6)).audio(
        Fraction(1, 10), Fraction(1, 2)
    )
    assert torch.equal(part.samples, whole[:, 4800:11200])


def test_a_silent_video_says_so(videos: ModuleType, pack: Pack) -> None:
    video = VideoFromComponents(VideoComponents(torch.zeros(1, 16, 16, 3), Fraction(25)))
    with pytest.raises(pack.part("lipsync_core.errors").MediaError, match="no sound"):
        videos.video_source(video).audio()
