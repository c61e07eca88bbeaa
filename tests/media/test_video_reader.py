import gc
import io
import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import torch
from helpers.media import click, level_of, levels, write_sound, write_video

from lipsync_core.errors import MediaError
from lipsync_core.media import probe, read_audio, read_frames
from lipsync_core.media.video_reader import resample_times

RATES = [Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(60)]


def whole(path: Path, **options) -> torch.Tensor:
    return torch.cat([frames.pixels for frames in read_frames(path, **options)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 frames at 25 fps with B-frames and a keyframe every 24."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(
        path, levels(130)[:70].repeat(2, 1, 1, 1)[:130], options={"crf": "0", "g": "24", "bf": "2"}
    )


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_constant_rate_passes_one_to_one(tmp_path: Path, fps: Fraction, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", levels(65), fps=fps)
    info = probe(path)
    assert (info.width, info.height, info.fps, info.still) == (32, 16, fps, False)
    assert info.frames in (65, None) or suffix == ".mkv"
    assert level_of(whole(path)) == list(range(65))


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("tick", [None, 1000, 90_000])
def test_nothing_drifts_or_stutters_over_two_hours(fps: Fraction, tick: int | None) -> None:
    end = int(7200 * fps)
    for begin in (0, end // 2, end - 500):
        times = {
            i: i / fps if tick is None else Fraction(round(i / fps * tick), tick)
            for i in range(begin, begin + 500)
        }
        shown = list(resample_times(((time, 1 / fps, i) for i, time in times.items()), fps))
        assert shown == [(i, i + 1, i) for i in times]


def test_a_variable_rate_is_shown_at_the_right_times(tmp_path: Path) -> None:
    stamps = [Fraction(n, 100) for n in (0, 3, 5, 15, 16, 40, 60)]
    path = write_video(tmp_path / "vfr.mp4", levels(7), fps=Fraction(25), stamps=stamps)
    got = level_of(whole(path, fps=Fraction(25)))
    expected = [max(k for k in range(7) if stamps[k] * 25 < i + Fraction(1, 2)) for i in range(15)]
    assert got[:15] == expected
    assert set(got[15:]) == {6}


def test_another_rate_repeats_or_leaves_out_frames(clip: Path) -> None:
    single = level_of(whole(clip))
    assert level_of(whole(clip, fps=Fraction(50))) == [k for k in single for _ in range(2)]
    halved = level_of(whole(clip, fps=Fraction(25, 2)))
    assert len(halved) == 65
    assert all(abs(a - b) <= 1 for a, b in zip(halved, single[::2], strict=True))


def test_missing_frames_are_repeated(tmp_path: Path) -> None:
    kept = [0, 1, 2, 6, 7, 8, 9]
    path = write_video(
        tmp_path / "gap.mp4", levels(10)[kept], stamps=[Fraction(k, 25) for k in kept]
    )
    assert level_of(whole(path, fps=Fraction(25))) == [0, 1, 2, 2, 2, 2, 6, 7, 8, 9]


@pytest.mark.parametrize("chunk", [1, 2, 7, 32, 130])
def test_chunks_concatenate_to_the_whole(clip: Path, chunk: int) -> None:
    parts = list(read_frames(clip, chunk=chunk))
    assert [part.start for part in parts] == list(range(0, 130, chunk))
    assert all(len(part.pixels) == chunk for part in parts[:-1])
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole(clip))


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 5), (3, 3), (49, 51), (75, 110), (96, 97), (129, 130), (100, 999), (500, None)],
)
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_parts_equal_slices_of_the_whole(
    clip: Path, start: int, stop: int | None, every: int, reverse: bool
) -> None:
    everything = whole(clip)
    wanted = [i for i in range(130)[start:stop] if i % every == 0]
    got: list[int] = []
    for part in read_frames(clip, start=start, stop=stop, every=every, reverse=reverse, chunk=5):
        step = -every if reverse else every
        indices = [part.start + k * step for k in range(len(part.pixels))]
        assert torch.equal(part.pixels, everything[indices])
        got += indices
    assert got == (wanted[::-1] if reverse else wanted)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mpg", ".ts", ".mp4"])
def test_seeking_and_reading_backwards_agree_in_every_container(
    tmp_path: Path, suffix: str
) -> None:
    codec, options = (
        ("mpeg2video", {"g": "12", "b": "2000000"})
        if suffix == ".mpg"
        else ("libx264", {"crf": "0", "g": "24"})
    )
    path = write_video(
        tmp_path / f"a{suffix}",
        levels(70, width=64, height=64).repeat(2, 1, 1, 1),
        codec=codec,
        options=options,
    )
    everything = whole(path)
    assert len(everything) == 140
    assert torch.equal(whole(path, start=88, stop=120), everything[88:120])
    assert torch.equal(whole(path, reverse=True), everything.flip(0))


def test_backwards_holds_no_more_than_its_budget(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipsync_core.media.video_reader._REVERSE_BYTES", 20 * 32 * 16 * 3)
    assert torch.equal(whole(clip, reverse=True, chunk=8), whole(clip).flip(0))


def test_size_scales_the_upright_picture(tmp_path: Path) -> None:
    ramp = (
        torch.linspace(20, 230, 64)
        .to(torch.uint8)[None, None, :, None]
        .expand(3, 32, 64, 3)
        .contiguous()
    )
    path = write_video(tmp_path / "r.mp4", ramp, rotation=90)
    small = whole(path, size=(16, 32))
    assert small.shape == (3, 32, 16, 3)
    full = whole(path).float().reshape(3, 32, 2, 16, 2, 3).mean((2, 4))
    assert (small.float() - full).abs().max() < 4


@pytest.mark.parametrize("degrees", [0, 90, -90, 180])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    image = torch.full((2, 16, 32, 3), 20, dtype=torch.uint8)
    image[:, :8, :16] = 220  # the upper left quarter is bright
    path = write_video(tmp_path / "r.mp4", image, rotation=degrees)
    # PyAV and torch both count counter-clockwise
    upright = torch.rot90(image, degrees // 90, (1, 2))
    assert (probe(path).width, probe(path).height) == (upright.shape[2], upright.shape[1])
    assert (whole(path).float() - upright.float()).abs().max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_by_their_exif_orientation(tmp_path: Path, orientation: int) -> None:
    Image = pytest.importorskip("PIL.Image")
    upright = np.full((32, 64, 3), 20, np.uint8)
    upright[:16, :32, 0] = 220
    upright[16:, 32:, 1] = 220
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright, 1),
        7: np.rot90(upright.swapaxes(0, 1), 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "p.jpg", exif=exif, quality=98, subsampling=0)
    got = whole(tmp_path / "p.jpg")
    assert (probe(tmp_path / "p.jpg").width, probe(tmp_path / "p.jpg").height) == (64, 32)
    assert np.abs(got[0].numpy().astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "turns"),
    [(1, 0, 0, 1, 0), (0, 1, -1, 0, -1), (-1, 0, 0, -1, 2), (0, -1, 1, 0, 1)],
)
def test_videos_are_turned_by_their_display_matrix(
    tmp_path: Path, a: int, b: int, c: int, d: int, turns: int
) -> None:
    stored = torch.full((4, 32, 64, 3), 20, dtype=torch.uint8)
    stored[:, :16, :32, 0] = 220
    path = write_video(tmp_path / "turned.mp4", stored)
    data = bytearray(path.read_bytes())
    # the matrix of version 0 of the track header, ISO/IEC 14496-12, 8.3.2
    at = data.index(b"tkhd") + 4 + 40
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    upright = np.rot90(stored.numpy(), turns, axes=(1, 2))
    assert (probe(path).width, probe(path).height) == (upright.shape[2], upright.shape[1])
    assert np.abs(whole(path).numpy().astype(int) - upright).mean() < 4


def test_a_photo_with_exif_leaves_nothing_for_the_garbage_collector_to_crash_on() -> None:
    photo = Path(skimage.data.__file__).parent / "astronaut.png"
    assert probe(photo).still
    gc.collect()


@pytest.mark.parametrize(("width", "height"), [(33, 17), (31, 16), (1, 1), (32, 19)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    pixels = torch.randint(
        0, 256, (3, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    path = write_video(tmp_path / "odd.mkv", pixels, codec="ffv1", pix_fmt="bgr0", options={})
    assert (probe(path).width, probe(path).height) == (width, height)
    assert torch.equal(whole(path), pixels)


def still(path: Path, image: np.ndarray, pixel_format: str, codec: str) -> Path:
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = image.shape[:2]
    context.pix_fmt, context.time_base = pixel_format, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24")
    frame = frame.reformat(format=pixel_format, threads=1)
    frame.pts = 0
    path.write_bytes(
        b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    )
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a%03d.png", "png", "rgb24"),
        ("b.jpg", "mjpeg", "yuvj444p"),
        ("c: d.webp", "libwebp", "yuv420p"),
    ],
)
def test_stills(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    image = np.full((24, 40, 3), (200, 120, 40), np.uint8)
    path = still(tmp_path / name, image, pixel_format, codec)
    info = probe(path)
    assert (info.width, info.height, info.fps, info.frames, info.still) == (40, 24, 25, 1, True)
    assert info.colour.matrix == 1
    for fps in (None, Fraction(60)):
        pixels = whole(path, fps=fps)
        assert pixels.shape == (1, 24, 40, 3)
        assert np.abs(pixels[0].numpy().astype(int) - image).max() <= 6


def test_transparent_parts_lie_over_black(tmp_path: Path) -> None:
    image = np.full((8, 8, 4), 200, np.uint8)
    image[:, :4, 3], image[:4, 4:, 3], image[4:, 4:, 3] = 0, 255, 128
    pixels = whole(still(tmp_path / "a.png", image, "rgba", "png"))[0]
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:4, 4:] == 200).all()
    assert (pixels[4:, 4:] == 100).all()


def test_10_bits_become_8_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tags = (1, 1, 1, 1)
    path = write_video(
        tmp_path / "d.mkv", levels(5), codec="ffv1", pix_fmt="yuv420p10le", options={}, tags=tags
    )
    warnings: list[str] = []
    pixels = torch.cat(
        [part.pixels for part in read_frames(path, chunk=2, on_warning=warnings.append)]
    )
    assert len(warnings) == 1 and "10-bit" in warnings[0]
    assert not caplog.records  # the caller that asks for the warnings reports them
    list(read_frames(path, chunk=2))
    assert [record.message for record in caplog.records] == warnings
    assert level_of(pixels) == list(range(5))


@pytest.mark.parametrize(("width", "height"), [(33, 16), (32, 17), (33, 17)])
def test_hdr_colours_do_not_depend_on_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    colour = torch.tensor([119, 173, 37], dtype=torch.uint8)
    means = []
    for w, h in ((32, 16), (width, height)):
        path, pixels = tmp_path / f"{w}x{h}.mkv", colour.expand(2, h, w, 3).contiguous()
        write_video(
            path, pixels, codec="ffv1", pix_fmt="yuv420p10le", options={}, tags=(9, 16, 9, 1)
        )
        got = torch.cat([part.pixels for part in read_frames(path)]).float()
        assert got.std((0, 1, 2)).max() < 1
        means.append(got.mean((0, 1, 2)))
    torch.testing.assert_close(means[1], means[0], atol=1.5, rtol=0)


@pytest.mark.parametrize("shade", [40, 128, 220])
def test_alpha_video_is_as_bright_as_without(tmp_path: Path, shade: int) -> None:
    """swscale's fast path, which alpha once fell into, was 1.4 levels darker."""
    pixels = torch.full((2, 16, 32, 3), shade, dtype=torch.uint8)
    path = write_video(tmp_path / "a.mkv", pixels, codec="ffv1", pix_fmt="yuva420p", options={})
    got = torch.cat([part.pixels for part in read_frames(path)]).float()
    assert (got.mean() - shade).abs() < 1


# ITU-R BT.2408: HDR reference white, 203 cd/m2, is the code value 0.58 of PQ and 0.75 of HLG.
@pytest.mark.parametrize(("transfer", "white", "name"), [(16, 0.58, "PQ"), (18, 0.75, "HLG")])
def test_hdr_white_becomes_sdr_white_with_one_warning(
    tmp_path: Path, transfer: int, white: float, name: str
) -> None:
    grey = torch.full((3, 16, 32, 3), round(255 * white), dtype=torch.uint8)
    tags = (9, transfer, 9, 1)
    path = write_video(
        tmp_path / "hdr.mkv", grey, codec="ffv1", pix_fmt="yuv420p10le", options={}, tags=tags
    )
    colour = probe(path).colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.full_range) == (1, 1, 1, False)
    warnings: list[str] = []
    pixels = torch.cat(
        [part.pixels for part in read_frames(path, chunk=2, on_warning=warnings.append)]
    )
    assert len(warnings) == 1 and name in warnings[0]
    assert float(pixels.float().mean()) > 180
    assert int((pixels.amax(-1) - pixels.amin(-1)).max()) <= 2  # grey stays grey


@pytest.mark.parametrize("matrix", [1, 5, 6])
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_of_the_source_are_honoured(
    tmp_path: Path, matrix: int, full: bool
) -> None:
    colours = torch.tensor(
        [[200, 40, 40], [40, 200, 40], [40, 40, 200], [255, 255, 255], [0, 0, 0]], dtype=torch.uint8
    )
    pixels = colours[:, None, None].expand(5, 16, 16, 3).contiguous()
    path = write_video(tmp_path / "m.mp4", pixels, tags=(2, 2, matrix, 2 if full else 1))
    assert probe(path).colour.full_range is full
    assert probe(path).colour.matrix == matrix
    assert (whole(path).int() - pixels.int()).abs().max() <= 3


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", levels(1))
    assert whole(path).shape == (1, 16, 32, 3)
    assert torch.equal(whole(path, reverse=True), whole(path))


def test_a_still_8000_px_wide(tmp_path: Path) -> None:
    path = still(tmp_path / "wide.png", np.zeros((60, 8000, 3), np.uint8), "rgb24", "png")
    assert probe(path).width == 8000
    assert whole(path).shape == (1, 60, 8000, 3)
    assert whole(path, size=(800, 6)).shape == (1, 6, 800, 3)


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    noise = torch.randint(
        0, 256, (60, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    path = write_video(tmp_path / "a.mp4", noise, options={"crf": "20", "g": "10", "bf": "0"})
    data = path.read_bytes()
    front = io.BytesIO(data)
    with (
        av.open(front) as source,
        av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "f.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    warnings: list[str] = []
    got = torch.cat([part.pixels for part in read_frames(cut, on_warning=warnings.append)])
    assert 25 <= len(got) <= 45
    assert torch.equal(got[:25], whole(path)[:25])
    assert any("incomplete" in warning for warning in warnings)
    assert torch.equal(whole(cut, reverse=True), got.flip(0))


def test_damaged_packets_in_the_middle_are_skipped(tmp_path: Path) -> None:
    noise = torch.randint(
        0, 256, (40, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    path = write_video(tmp_path / "a.mp4", noise, options={"crf": "20", "g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    warnings: list[str] = []
    count = sum(len(part.pixels) for part in read_frames(path, on_warning=warnings.append))
    assert 36 <= count <= 40


def test_broken_files_are_media_errors_that_say_what_is_wrong(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", levels(5))
    broken = {
        "missing.mp4": (None, "no such file"),
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"this is not a video\n" * 50, "cannot be opened"),
        "text.txt": (b"this is not a video\n" * 50, "not a media file"),
        "cut.mp4": (video.read_bytes()[:200], "broke off before its index"),
        "text.png": (b"this is not a picture\n" * 50, "text.png"),
        "cut.png": (b"\x89PNG\r\n\x1a\n" + bytes(4), "cut.png"),
    }
    for name, (data, words) in broken.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        for read in (probe, lambda path: list(read_frames(path)), read_audio):
            with pytest.raises(MediaError, match=words) as error:
                read(tmp_path / name)
            assert name in str(error.value)


def test_no_picture_no_sound_and_no_frames_are_media_errors(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "s.wav", click(8000, 0.2, 0.1), 8000)
    with pytest.raises(MediaError, match="holds no picture"):
        probe(sound)
    with pytest.raises(MediaError, match="holds no picture"):
        list(read_frames(sound))
    with pytest.raises(MediaError, match="holds no sound"):
        read_audio(write_video(tmp_path / "v.mp4", levels(3)))
    with av.open(str(tmp_path / "none.mkv"), "w") as out:
        stream = out.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        out.start_encoding()
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match=r"none\.mkv"):
            read(tmp_path / "none.mkv")


def test_wrong_arguments_are_value_errors(clip: Path) -> None:
    for options in (
        {"chunk": 0},
        {"every": 0},
        {"start": -1},
        {"start": 5, "stop": 4},
        {"fps": Fraction(0)},
    ):
        with pytest.raises(ValueError, match="expected"):
            read_frames(clip, **options)


def test_the_rate_of_rounded_time_stamps_is_the_customary_one(tmp_path: Path) -> None:
    stamps = [Fraction(math.floor(1000 * i * Fraction(1001, 30000)), 1000) for i in range(300)]
    path = write_video(
        tmp_path / "ms.mkv", levels(60).repeat(5, 1, 1, 1), fps=Fraction(30000, 1001), stamps=stamps
    )
    assert probe(path).fps == Fraction(30000, 1001)
    assert len(whole(path)) == 300
