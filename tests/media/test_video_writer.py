import ast
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import click, click_time, levels, write_sound, write_video

import lipsync_core
from lipsync_core.errors import MediaError
from lipsync_core.media import AudioSource, VideoWriter, probe, read_audio, read_frames
from lipsync_core.types import Audio, ColourTags, Frames, VideoInfo

INFO = VideoInfo(32, 16, Fraction(25), None)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (count, height, width, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def smooth(count: int, height: int, width: int) -> torch.Tensor:
    """Colour ramps, which 4:2:0 can hold."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    image = torch.stack([40 + 170 * x, 40 + 170 * y, 200 - 150 * x * y], -1)
    return (image[None] + torch.arange(count)[:, None, None, None]).round().to(torch.uint8)


def written(
    path: Path, info: VideoInfo, pixels: torch.Tensor, audio: AudioSource | None = None, **options
) -> Path:
    with VideoWriter(path, info, audio, **options) as out:
        for at in range(0, len(pixels), 7):
            out.write(Frames(pixels[at : at + 7], at))
    return path


def whole(path: Path) -> torch.Tensor:
    return torch.cat([part.pixels for part in read_frames(path)])


@pytest.mark.parametrize("codec", ["libx264rgb", "ffv1"])
def test_lossless_codecs_give_back_every_bit(tmp_path: Path, codec: str) -> None:
    pixels = noise(9, 18, 34)
    info = VideoInfo(34, 18, Fraction(30000, 1001), None)
    path = written(tmp_path / "a.mkv", info, pixels, codec=codec, crf=0)
    assert torch.equal(whole(path), pixels)
    assert probe(path).fps == info.fps


@pytest.mark.parametrize("matrix", [1, 5, 6])
@pytest.mark.parametrize("full", [False, True])
def test_colour_tags_are_kept_and_used(tmp_path: Path, matrix: int, full: bool) -> None:
    tags = ColourTags(
        primaries=matrix, transfer=1 if matrix == 1 else 6, matrix=matrix, full_range=full
    )
    pixels = smooth(5, 32, 48)
    path = written(tmp_path / "a.mp4", VideoInfo(48, 32, Fraction(25), None, tags), pixels, crf=0)
    assert probe(path).colour == tags
    assert (whole(path).int() - pixels.int()).abs().float().mean() < 1.5


def test_untagged_stays_untagged_in_both_definitions(tmp_path: Path) -> None:
    for height, width in ((32, 48), (720, 32)):
        pixels = smooth(2, height, width)
        path = written(
            tmp_path / f"{height}.mp4", VideoInfo(width, height, Fraction(25), None), pixels, crf=0
        )
        assert probe(path).colour == ColourTags()
        assert (whole(path).int() - pixels.int()).abs().float().mean() < 1.5


@pytest.mark.parametrize(("width", "height"), [(33, 17), (32, 17), (33, 16), (1, 1)])
def test_odd_sizes_are_padded_by_the_edge(tmp_path: Path, width: int, height: int) -> None:
    pixels = smooth(4, height, width)
    warnings: list[str] = []
    info = VideoInfo(width, height, Fraction(25), None)
    path = written(tmp_path / "odd.mp4", info, pixels, crf=0, on_warning=warnings.append)
    got = whole(path)
    assert got.shape == (4, height + height % 2, width + width % 2, 3)
    assert (got[:, :height, :width].int() - pixels.int()).abs().float().mean() < 3
    assert (got[:, -1].int() - got[:, height - 1].int()).abs().max() <= 6
    assert len(warnings) == 1 and "odd" in warnings[0]
    kept = written(tmp_path / "odd.mkv", info, pixels, codec="ffv1")
    assert torch.equal(whole(kept), pixels)


def test_float_frames_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    pixels = noise(3, 16, 32)
    path = written(tmp_path / "a.mkv", INFO, pixels.float() / 255, codec="ffv1")
    assert torch.equal(whole(path), pixels)


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(25), Fraction(60), Fraction(1350, 61)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_every_container_and_rate(tmp_path: Path, fps: Fraction, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", VideoInfo(32, 16, fps, None), levels(30))
    info = probe(path)
    assert (info.width, info.height) == (32, 16)
    assert abs(info.fps - fps) < (
        Fraction(1, 10**6) if suffix in {".mp4", ".mov"} else Fraction(1, 4)
    )
    assert len(whole(path)) == 30


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_metadata_is_kept(tmp_path: Path, suffix: str) -> None:
    said = {"comment": "The picture is generated.", "lipsync_model": "mini 0.1"}
    path = written(tmp_path / f"a{suffix}", INFO, levels(3), metadata=said)
    with av.open(str(path)) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
    assert said.items() <= kept.items()


def test_mp4_can_be_played_before_it_has_arrived(tmp_path: Path) -> None:
    data = written(tmp_path / "a.mp4", INFO, levels(3)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_an_existing_file_is_only_touched_when_allowed_and_when_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(MediaError, match="exists already"):
        VideoWriter(path, INFO)
    assert path.read_bytes() == b"precious"
    with VideoWriter(path, INFO, overwrite=True) as out:
        out.write(Frames(levels(40)))
        assert path.read_bytes() == b"precious"
    assert len(whole(path)) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_file_can_replace_its_own_source(tmp_path: Path) -> None:
    path = write_sound(
        tmp_path / "a.mp4", click(48000, 1.0, 0.5), 48000, codec="aac", picture_frames=25
    )
    with VideoWriter(path, INFO, AudioSource(path), overwrite=True) as out:
        out.write(Frames(levels(25)))
    assert abs(click_time(read_audio(path).samples, 16000) - 0.5) <= 0.001
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("frames", [0, 60])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, error: type[BaseException], frames: int
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    sound = AudioSource(write_sound(tmp_path / "a.wav", click(8000, 2.0, 1.0), 8000))
    with pytest.raises(error), VideoWriter(target / "a.mp4", INFO, sound) as out:
        if frames:
            out.write(Frames(levels(frames)))
        raise error
    assert not list(target.iterdir())


def test_a_writer_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    face = write_video(tmp_path / "silent.mp4", levels(3))
    for options in (
        {"codec": "no_such_codec"},
        {"audio": AudioSource(face)},
        {"audio": AudioSource(tmp_path / "missing.wav")},
        {"extra_tracks_from": tmp_path / "missing.mp4"},
    ):
        with pytest.raises(MediaError):
            VideoWriter(target / "a.mp4", INFO, **options)
    with (
        pytest.raises(MediaError, match="no frame was written"),
        VideoWriter(target / "a.mp4", INFO),
    ):
        pass
    assert not list(target.iterdir())


def test_bad_targets_are_media_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    for name, words in [
        ("nowhere/a.mp4", "does not exist"),
        ("file/a.mp4", "does not exist"),
        ("a.xyz", "use .mp4"),
        ("a", "use .mp4"),
        ("folder.mp4", "exists already"),
    ]:
        with pytest.raises(MediaError, match=words):
            VideoWriter(tmp_path / name, INFO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="expected 32x16"),
        VideoWriter(tmp_path / "a.mp4", INFO) as out,
    ):
        out.write(Frames(levels(2, width=64)))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def many_tracks(tmp_path: Path) -> Path:
    """A picture, two sound tracks of AAC, one of PCM, and a text track, in Matroska."""
    path = tmp_path / "many.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sounds = [
            out.add_stream(codec, 48000, layout="mono") for codec in ("aac", "aac", "pcm_s16le")
        ]
        sounds[1].metadata["language"] = "fra"
        text = out.add_mux_stream("subrip")
        for _ in range(50):
            out.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(video.encode(None))
        for at, sound in zip((0.5, 1.0, 1.5), sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(click(48000, 2.0, at)), "fltp", "mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            out.mux([*sound.encode(frame), *sound.encode(None)])
        packet = av.Packet(b"hello")
        packet.stream, packet.pts, packet.dts, packet.duration = text, 500, 500, 400
        packet.time_base = Fraction(1, 1000)
        out.mux(packet)
    return path


def test_further_tracks_are_kept_where_the_container_allows(
    tmp_path: Path, many_tracks: Path
) -> None:
    speech = AudioSource(Audio(torch.from_numpy(click(16000, 2.0, 0.2)), 16000))
    info = VideoInfo(32, 16, Fraction(25), None)
    for suffix, kept, dropped in (
        (".mkv", ["aac", "aac", "pcm_s16le", "srt"], 0),
        (".mp4", ["aac", "aac"], 2),
    ):
        warnings: list[str] = []
        path = tmp_path / f"out{suffix}"
        written(
            path,
            info,
            levels(50),
            speech,
            extra_tracks_from=many_tracks,
            on_warning=warnings.append,
        )
        with av.open(str(path)) as container:
            assert [stream.codec_context.name for stream in container.streams][1:] == kept
            assert container.streams.audio[1].language == "fra"
            second = list(container.decode(container.streams.audio[1]))
        begin = float(second[0].time)
        samples = torch.from_numpy(np.concatenate([frame.to_ndarray() for frame in second], 1))
        assert abs(begin + click_time(samples, 48000) - 1.0) <= 0.001
        assert abs(click_time(read_audio(path).samples, 16000) - 0.2) <= 0.001
        assert len(warnings) == dropped and all("dropped" in warning for warning in warnings)


def test_further_tracks_of_a_cut(tmp_path: Path, many_tracks: Path) -> None:
    path = tmp_path / "out.mp4"
    written(path, INFO, levels(25), extra_tracks_from=many_tracks, extra_start=Fraction(2, 5))
    assert abs(click_time(read_audio(path, rate=48000).samples, 48000) - 0.6) <= 0.001


def test_only_the_media_package_imports_av() -> None:
    root = Path(lipsync_core.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            )
            if any(name.split(".")[0] == "av" for name in names):
                assert path.parent == root / "media", path


def test_a_repeatable_picture_is_the_same_every_time(tmp_path: Path) -> None:
    """With the macroblock tree, a quarter of the files of one clip differed; here it is off, which
    the file says."""
    pixels = noise(12, 64, 80)
    info = VideoInfo(80, 64, Fraction(25), None)
    first, second = (
        written(tmp_path / f"{i}.mp4", info, pixels, repeatable=True) for i in range(2)
    )
    assert torch.equal(whole(first), whole(second))
    assert b"mbtree=0" in first.read_bytes()
    assert b"mbtree=1" in written(tmp_path / "plain.mp4", info, pixels).read_bytes()


@pytest.mark.parametrize("kind", ["memory", ".wav", ".m4a"])
def test_sound_lasts_as_long_as_the_picture(tmp_path: Path, kind: str) -> None:
    voice = click(48000, 0.49, 0.2)
    source = Audio(torch.from_numpy(voice), 48000)
    if kind != "memory":
        codec = {".wav": "pcm_s16le", ".m4a": "aac"}[kind]
        source = write_sound(tmp_path / f"voice{kind}", voice, 48000, codec=codec)
    path = written(tmp_path / "a.mp4", INFO, levels(13), AudioSource(source))
    with av.open(str(path)) as file:
        lengths = [stream.duration * stream.time_base for stream in file.streams]
    assert lengths[0] == Fraction(13, 25)  # parts that are joined do not drift
    assert abs(lengths[1] - lengths[0]) < Fraction(1024, 48000)


def test_two_runs_that_write_the_same_file_do_not_hurt_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, INFO) as first:
        first.write(Frames(levels(3)))
        with VideoWriter(path, INFO) as second:
            second.write(Frames(levels(5)))
        with pytest.raises(MediaError, match="exists already"):
            VideoWriter(path, INFO)
        path.unlink()
        first.write(Frames(levels(4)))
    assert len(whole(path)) == 7
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (128, 64)), (Fraction(3, 4), (96, 86))]
)
def test_pixels_are_squared_where_their_shape_cannot_be_kept(
    tmp_path: Path, aspect: Fraction, size: tuple[int, int]
) -> None:
    warnings, path = list[str](), tmp_path / "a.webm"
    info = VideoInfo(96, 64, Fraction(25), None, pixel_aspect=aspect)
    with VideoWriter(path, info, on_warning=warnings.append) as out:
        out.write(Frames(levels(3, width=96, height=64)))
    written = probe(path)
    assert (written.width, written.height, written.pixel_aspect) == (*size, 1)
    assert len(warnings) == 1 and f"{size[0]}x{size[1]}" in warnings[0]
