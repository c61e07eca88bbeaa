"""Photos of every kind, the shape of pictures, interlaced and transparent ones."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import levels, write_video
from PIL import Image

from lipsync_core.errors import MediaError
from lipsync_core.media import VideoWriter, probe, read_frames
from lipsync_core.media.clip import Cut, open_clip
from lipsync_core.media.hdr import HLG, PQ, to_bt709
from lipsync_core.types import Frames, VideoInfo, size_of


def whole(path: Path, warnings: list[str] | None = None) -> torch.Tensor:
    on_warning = ([] if warnings is None else warnings).append
    return torch.cat([part.pixels for part in read_frames(path, on_warning=on_warning)])


def marked(height: int = 32, width: int = 64) -> np.ndarray:
    """Dark, with a bright upper left quarter and a middling lower left one."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[: height // 2, : width // 2] = 220
    image[height // 2 :, : width // 2] = 120
    return image


@pytest.mark.parametrize(
    ("name", "form", "options"),
    [
        ("a.jpg", "JPEG", {}),
        ("shot%03d.jpg", "JPEG", {"progressive": True}),
        ("a.avif", "AVIF", {}),
        ("named.jpg", "AVIF", {}),
        ("a.gif", "GIF", {}),
        ("a.webp", "WEBP", {}),
        ("one.webp", "WEBP", {"save_all": True}),
        ("a.png", "PNG", {"save_all": True}),
        ("a.tga", "TGA", {}),
    ],
)
def test_a_single_picture_of_any_kind_is_a_photo_without_a_warning(
    tmp_path: Path, name: str, form: str, options: dict[str, bool]
) -> None:
    Image.init()
    if form == "AVIF" and form not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    Image.fromarray(marked()).save(tmp_path / name, form, **options)
    info, warnings = probe(tmp_path / name), list[str]()
    pixels = whole(tmp_path / name, warnings)
    assert (info.still, info.fps, info.frames, len(pixels), warnings) == (True, 25, 1, 1, [])
    assert np.abs(pixels[0].numpy().astype(int) - marked()).mean() < 8


def box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def inner_box(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind) - 4
    return data[at : at + struct.unpack(">I", data[at : at + 4])[0]]


def tiled_avif(path: Path, image: np.ndarray, columns: int = 2) -> Path:
    """``image`` as a grid of tiles, ISO/IEC 23008-12, 6.6.2.3, the form of photos of phones."""
    height, width = image.shape[0], image.shape[1] // columns
    tiles = []
    for part in np.split(image, columns, axis=1):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(part)).save(file, "AVIF", quality=95)
        tiles.append(file.getvalue())
    numbers = range(2, columns + 2)
    data = [inner_box(tile, b"mdat")[8:] for tile in tiles]
    whole = full_box(b"ispe", struct.pack(">II", width * columns, height))
    one = full_box(b"ispe", struct.pack(">II", width, height))
    shared = [inner_box(tiles[0], kind) for kind in (b"av1C", b"pixi")]
    uses = [struct.pack(">HBBB", 1, 2, 1, 4)]
    uses += [struct.pack(">HBBBB", number, 3, 2, 0x83, 4) for number in numbers]
    kinds = [(1, b"grid", 0), *((number, b"av01", 1) for number in numbers)]
    items = [
        full_box(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", version=2, flags=hidden)
        for number, kind, hidden in kinds
    ]

    def head(start: int) -> bytes:
        places = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, 8)]
        for number, part in zip(numbers, data, strict=True):
            places.append(struct.pack(">HHHHII", number, 0, 0, 1, start, len(part)))
            start += len(part)
        count = struct.pack(">H", columns + 1)
        meta = full_box(
            b"meta",
            full_box(b"hdlr", struct.pack(">I4s3I", 0, b"pict", 0, 0, 0), b"\0"),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", b"\x44\0", count, *places, version=1),
            full_box(b"iinf", count, *items),
            full_box(b"iref", box(b"dimg", struct.pack(f">HH{columns}H", 1, columns, *numbers))),
            box(
                b"iprp",
                box(b"ipco", whole, one, *shared),
                full_box(b"ipma", struct.pack(">I", columns + 1), *uses),
            ),
            box(b"idat", struct.pack(">4BHH", 0, 0, 0, columns - 1, width * columns, height)),
        )
        return box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + meta

    path.write_bytes(head(len(head(0)) + 8) + box(b"mdat", *data))
    return path


def test_a_photo_in_tiles_is_read_whole_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    image = marked(128, 256)
    path = tiled_avif(tmp_path / "a.avif", image)
    info, (picture,) = probe(path), whole(path)
    assert (info.width, info.height, info.still, info.fps) == (256, 128, True, 25)
    assert np.abs(picture.numpy().astype(int) - image).mean() < 4

    def refuse(*_: object, **__: object) -> None:
        raise OSError("cannot identify image file")

    monkeypatch.setattr(Image, "open", refuse)  # as for HEIC without pillow-heif
    with pytest.raises(MediaError, match=r"a\.avif.*tiles.*pillow-heif.*JPEG"):
        probe(path)


@pytest.mark.parametrize(
    ("suffix", "milliseconds", "fps"),
    [(".webp", 40, 25), (".webp", 100, 10), (".png", 40, 25), (".gif", 500, 2)],
)
def test_animations_have_the_rate_of_their_pictures(
    tmp_path: Path, suffix: str, milliseconds: int, fps: int
) -> None:
    images = [Image.fromarray(image.numpy()) for image in levels(6, width=64)]
    path = tmp_path / f"a{suffix}"
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, lossless=True
    )
    info = probe(path)
    assert (info.still, info.fps, info.frames) == (False, fps, 6)
    got = whole(path).float().mean((1, 2, 3))
    assert (got - levels(6).float().mean((1, 2, 3))).abs().max() < 2


def test_a_damaged_animated_webp_is_named(tmp_path: Path) -> None:
    images = [Image.fromarray(marked()), Image.fromarray(255 - marked())]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:])
    data = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "cut.webp").write_bytes(data[:40])
    with pytest.raises(MediaError, match=r"cut\.webp"):
        probe(tmp_path / "cut.webp")


@pytest.mark.parametrize("rotation", [0, 90])
def test_the_shape_of_pixels_is_kept_from_file_to_file(tmp_path: Path, rotation: int) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(rotation)
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(stream.encode(None))
    info = probe(path)
    assert info.pixel_aspect == (Fraction(3, 4) if rotation else Fraction(4, 3))
    with VideoWriter(tmp_path / "out.mp4", info) as writer:
        for part in read_frames(path):
            writer.write(part)
    assert probe(tmp_path / "out.mp4").pixel_aspect == info.pixel_aspect
    clip = open_clip(path, Cut())
    small = next(iter(clip.reduced(1))).pixels
    height, width = small.shape[1:3]
    assert abs(width / height - float(info.width * info.pixel_aspect / info.height)) < 0.03
    assert clip.scale == (info.width / width, info.height / height)


# rows (a, b, c, d) of the display matrix, ISO/IEC 14496-12, 8.3.2, and what they do to the stored
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: image[::-1, ::-1].swapaxes(0, 1)),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    ],
)
def test_mirrored_and_turned_videos_are_shown_as_their_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, torch.from_numpy(marked())[None].repeat(2, 1, 1, 1))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    expected = shown(marked())
    assert (probe(path).height, probe(path).width) == expected.shape[:2]
    assert np.abs(whole(path)[0].numpy().astype(int) - expected).mean() < 4


def two_pictures(path: Path, default: int | None) -> Path:
    """A small and a large picture track; ``default``: which one is flagged."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", 25) for _ in range(2)]
        for stream, side in zip(streams, (32, 96), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        for i, stream in enumerate(streams):
            stream.disposition = int(default == i)
        for _ in range(2):
            for stream in streams:
                out.mux(stream.encode(av.VideoFrame(stream.width, stream.height, "yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("default", "width"), [(None, 96), (0, 32), (1, 96)])
def test_the_default_or_the_largest_picture_is_taken(
    tmp_path: Path, default: int | None, width: int
) -> None:
    assert probe(two_pictures(tmp_path / "a.mkv", default)).width == width


def interlaced(path: Path, count: int = 8) -> Path:
    """A white bar that moves 8 px a field, top field first."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25, options={"flags": "+ildct+ilme", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(count):
            image = np.zeros((64, 96, 3), np.uint8)
            for field in range(2):
                at = 8 + 8 * ((2 * i + field) % 9)
                image[field::2, at : at + 12] = 255
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_interlaced_pictures_are_deinterlaced_with_one_note(tmp_path: Path) -> None:
    path, warnings = interlaced(tmp_path / "a.mp4"), list[str]()
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    pixels = whole(path, warnings).float()
    assert len(pixels) == 8 and len(warnings) == 1 and "interlaced" in warnings[0]
    combs = (pixels[:, 1:] - pixels[:, :-1]).abs().mean()
    assert combs < 4  # 20 before


def transparent(path: Path) -> Path:
    image = np.full((32, 32, 4), 200, np.uint8)
    image[:, :16, 3] = 0
    image[:, 16:, 3] = 255
    if path.suffix in {".mov", ".webm"}:
        name, layout = ("qtrle", "argb") if path.suffix == ".mov" else ("libvpx-vp9", "yuva420p")
        with av.open(str(path), "w") as out:
            stream = out.add_stream(name, 25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, layout
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(image, "rgba").reformat(format=layout)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    elif path.suffix == ".gif":
        Image.fromarray(image).save(path, disposal=2)
    else:
        Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", "a.mov", "a.webm"])
def test_transparent_pictures_say_over_what_they_are_laid(tmp_path: Path, name: str) -> None:
    warnings: list[str] = []
    whole(transparent(tmp_path / name), warnings)
    assert len(warnings) == 1 and "transparen" in warnings[0] and "black" in warnings[0]


@pytest.mark.parametrize("start", [0, 70])
def test_a_picture_that_changes_its_size_is_fitted_into_the_first(
    tmp_path: Path, start: int
) -> None:
    path, warnings = tmp_path / "a.webm", list[str]()  # as browsers record a phone that is turned
    with av.open(str(path), "w") as file:
        track = file.add_stream("libvpx", 25)
        track.width, track.height, track.pix_fmt = 64, 32, "yuv420p"
        for first, (width, height) in ((0, (64, 32)), (60, (32, 64))):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), "rgb24")
            packets = []
            for index in range(60):
                frame.pts, frame.time_base = first + index, Fraction(1, 25)
                packets += encoder.encode(frame.reformat(format="yuv420p"))
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = track
                file.mux(packet)
    parts = read_frames(path, start=start, on_warning=warnings.append)
    pixels = torch.cat([part.pixels for part in parts]).float().mean(dim=(1, 3))
    assert pixels.shape == (120 - start, 64)
    assert (pixels[-1, 26:38] > 190).all() and (pixels[-1, :22] < 10).all()  # 16 px wide, with bars
    assert (pixels[0] > 190).all() == (start == 0)
    assert len(warnings) == 1 and "from 64x32 to 32x64" in warnings[0]


def test_an_alpha_channel_without_transparent_parts_is_no_warning(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 4), 255, np.uint8)).save(tmp_path / "a.png")
    warnings: list[str] = []
    whole(tmp_path / "a.png", warnings)
    assert warnings == []


def test_square_pixels_are_written_as_before(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", VideoInfo(32, 16, Fraction(25), None)) as writer:
        writer.write(Frames(levels(2)))
    assert probe(tmp_path / "a.mp4").pixel_aspect == 1


# ITU-R BT.2408: HDR reference white, 203 cd/m2, is the code value 0.58 of PQ and 0.75 of HLG
@pytest.mark.parametrize(("transfer", "white"), [(PQ, 0.58), (HLG, 0.75)])
def test_hdr_colours_follow_the_standards(transfer: int, white: float) -> None:
    grey = np.full((3, 1, 2), round(65535 * white), np.uint16)
    assert (to_bt709(grey, transfer, wide=True) >= 253).all()
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None, None].repeat(3, 0)
    shown = to_bt709(ramp, transfer, wide=True).astype(int)
    assert (np.diff(shown[0]) >= 0).all() and shown[0, 0, 0] == 0 and shown[0, 0, -1] == 255
    assert np.ptp(shown, axis=0).max() <= 1  # grey stays grey


def test_standard_colours_of_bt2020_keep_their_light() -> None:
    grey = np.full((3, 1, 1), 128 * 257, np.uint16)
    assert (to_bt709(grey, 14, wide=True) == 128).all()
    red = np.array([200, 40, 40], np.uint16).reshape(3, 1, 1) * 257
    shown = to_bt709(red, 14, wide=True).reshape(-1)
    assert shown[0] > 210 and shown[1] < 40  # the same red lies further out in the smaller gamut


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((400, 300), 128, (128, 96)),
        ((300, 400), 128, (96, 128)),
        ((401, 299), 128, (128, 96)),
        ((64, 48), 128, (64, 48)),
        ((64, 48), None, (64, 48)),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".mp4"])
def test_pictures_are_scaled_to_a_longest_side(
    tmp_path: Path,
    suffix: str,
    size: tuple[int, int],
    side: int | None,
    expected: tuple[int, int],
) -> None:
    width, height = (size[0] // 2 * 2, size[1] // 2 * 2) if suffix == ".mp4" else size
    path, image = tmp_path / f"a{suffix}", marked(height, width)
    if suffix == ".jpg":
        Image.fromarray(image).save(path)
    else:
        write_video(path, torch.from_numpy(image)[None])
    clip = open_clip(path, Cut(max_side=side))
    assert clip.size == expected
    for part in (*clip.coded(chunk=1), *clip.frames(torch.tensor([0])), *clip.rgb(chunk=1)):
        assert size_of(part) == (expected[1], expected[0])
    (_, picture), *_ = clip.pick([0])
    assert np.abs(picture.numpy().astype(int) - marked(expected[1], expected[0])).mean() < 4


@pytest.mark.parametrize(
    ("width", "height", "large"), [(4096, 2160, False), (4098, 64, True), (64, 4098, True)]
)
def test_h264_beyond_what_players_show_is_warned_about(
    tmp_path: Path, width: int, height: int, large: bool
) -> None:
    warnings: list[str] = []
    info = VideoInfo(width, height, Fraction(25), None)
    writer = VideoWriter(tmp_path / "a.mp4", info, on_warning=warnings.append)
    with pytest.raises(KeyError), writer:
        raise KeyError
    assert [("--max-side" in warning) for warning in warnings] == [True] * large
