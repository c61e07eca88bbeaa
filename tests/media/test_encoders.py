"""Any encoder that FFmpeg has gets frames that it takes, and quality means the same in all."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from typer.testing import CliRunner

from lipsync_core.cli.main import app
from lipsync_core.errors import MediaError
from lipsync_core.media import VideoWriter, read_frames, shift_audio
from lipsync_core.media.encoders import check_encoder, choose_encoder
from lipsync_core.types import Audio, Frames, VideoInfo

_WIDTH, _HEIGHT = 258, 130


def ramps(count: int) -> torch.Tensor:
    """Ramps with some noise, (N,H,W,3) uint8."""
    x, y = torch.linspace(30, 220, _WIDTH), torch.linspace(0, 1, _HEIGHT)[:, None]
    image = torch.stack([x + 0 * y, 40 + 170 * y + 0 * x, 230 - x * y], -1)
    noise = torch.rand(count, _HEIGHT, _WIDTH, 1, generator=torch.Generator().manual_seed(0))
    return (image + 4 * noise).to(torch.uint8)


def written(path: Path, codec: str, **options) -> tuple[int, float, list[str]]:
    """(bytes, mean error, warnings) of a file."""
    frames, warnings = ramps(3), list[str]()
    info = VideoInfo(_WIDTH, _HEIGHT, Fraction(25), None)
    with VideoWriter(path, info, codec=codec, on_warning=warnings.append, **options) as out:
        out.write(Frames(frames))
    back = torch.cat([part.pixels for part in read_frames(path, on_warning=lambda _: None)])
    return path.stat().st_size, float((back.float() - frames.float()).abs().mean()), warnings


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("prores_ks", ".mov"), ("dnxhd", ".mov"), ("mjpeg", ".mkv"), ("qtrle", ".mov")),
        *(("ffv1", ".mkv"), ("libx265", ".mp4"), ("libvpx", ".webm"), ("mpeg4", ".mp4")),
    ],
)
def test_an_encoder_gets_a_pixel_format_that_it_takes(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    _, error, warnings = written(tmp_path / f"a{suffix}", codec)
    assert error < 4 and not warnings


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libsvtav1", ".mp4"), ("libvpx-vp9", ".webm"), ("libvpx", ".webm"), ("mjpeg", ".mkv")],
)
def test_a_lower_crf_is_larger_and_better(tmp_path: Path, codec: str, suffix: str) -> None:
    small, rough, _ = written(tmp_path / f"a{suffix}", codec, crf=50)
    large, fine, _ = written(tmp_path / f"b{suffix}", codec, crf=10)
    assert large > small and fine < rough


def test_nvenc_gets_its_own_name_of_quality() -> None:
    options = choose_encoder(".mp4", "h264_nvenc", 21, "p5").options
    assert options == {"rc": "vbr", "cq": "21", "b": "0", "preset": "p5"}


def test_an_encoder_without_quality_says_so(tmp_path: Path) -> None:
    *_, warnings = written(tmp_path / "a.mov", "prores_ks", crf=30, preset="slow")
    assert [words.split("; ")[0] for words in warnings] == [
        "a.mov: the encoder prores_ks has no crf",
        "a.mov: the encoder prores_ks has no presets",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("aac", 18, "veryfast"), "aac encodes audio; expected a picture encoder"),
        (("gif", 18, "veryfast"), "takes frames as rgb8"),
        ((None, -5, "veryfast"), "expected 0 .best. to 51"),
        ((None, 52, "veryfast"), "expected 0 .best. to 51"),
        (("libvpx-vp9", 64, "veryfast"), "expected 0 .best. to 63"),
        ((None, 18, "fastest"), "'fastest' is not a preset .* ultrafast"),
        (("libsvtav1", 18, "slow"), "'slow' is not a preset"),
    ],
)
def test_wrong_options_are_named(options: tuple[str | None, float, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_encoder(".mkv", *options)


@pytest.mark.parametrize(
    ("suffix", "codec", "words"),
    [
        (".mp4", "no_such_codec", "no encoder 'no_such_codec'"),
        (".mp4", "prores_ks", "another codec or suffix"),
        (".webm", "libx264", "another codec or suffix"),
        (".mp4", "h264_qsv", "needs an Intel GPU|no encoder"),
    ],
)
def test_what_cannot_be_encoded_here_is_a_media_error(suffix: str, codec: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        check_encoder(suffix, codec, 18, "veryfast")


@pytest.mark.parametrize("wrong", [["--codec", "aac"], ["--preset", "fastest"], ["--crf", "-5"]])
def test_wrong_options_are_usage_errors_before_anything_is_loaded(
    tmp_path: Path, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    face, voice = tmp_path / "a.mp4", tmp_path / "a.wav"
    face.write_bytes(b"no video"), voice.write_bytes(b"no sound")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["dub", str(face), str(voice), *wrong])
    assert result.exit_code == 2 or isinstance(result.exception, ValueError)  # ``main`` exits by 2


def test_hevc_has_the_tag_under_which_apple_players_show_it(tmp_path: Path) -> None:
    path, stream = tmp_path / "a.mp4", tmp_path / "a.ts"
    written(path, "libx265")
    _as_transport_stream(path, stream)
    shift_audio(stream, tmp_path / "b.mov", Fraction(0), audio=Audio(torch.zeros(1, 8000), 8000))
    for out in (path, tmp_path / "b.mov"):
        assert b"hvc1" in out.read_bytes() and b"hev1" not in out.read_bytes()


def _as_transport_stream(path: Path, out: Path) -> None:
    with av.open(str(path)) as reader, av.open(str(out), "w") as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
