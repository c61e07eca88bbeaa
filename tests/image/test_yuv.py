"""Coded frames: their colours, and that a dub leaves alone what it does not redraw."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.golden import build
from helpers.media import write_video

from lipsync_core.blend.composite import Patch, PixelSource, composite
from lipsync_core.image.affine import ALIGNED, translation
from lipsync_core.image.yuv import MATRICES, from_rgb, to_rgb
from lipsync_core.media import VideoWriter, probe, read_coded, read_frames
from lipsync_core.models.wav2lip import MINI, Generator
from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.types import Audio, ColourTags, FaceTrack, Frames, YuvFrames

BT709 = ColourTags(1, 1, 1)


def smooth(n: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """(N,H,W,3) uint8 without edges, which 4:2:0 would blur."""
    noise = torch.rand(n, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    pixels = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(
        0.05, 0.95
    )
    return (pixels.permute(0, 2, 3, 1) * 255).to(torch.uint8)


def coded(path: Path, pixels: torch.Tensor, **options) -> YuvFrames:
    write_video(path, pixels, **options)
    (frames,) = read_coded(path)
    assert isinstance(frames, YuvFrames)
    return frames


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(MATRICES))
def test_colours_come_back(matrix: int, full_range: bool) -> None:
    colour = ColourTags(1, 1, matrix, full_range)
    rgb = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(to_rgb(from_rgb(rgb, colour), colour), rgb, atol=1e-5, rtol=0)


def test_codes_of_known_colours() -> None:
    # ITU-R BT.709-6 table 3 and section 3.5: white is 235, black 16, chroma 128; pure blue has the
    # most blue chroma
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0]]).T[None, :, None]
    got = from_rgb(colours, BT709)[0, :, 0].T
    wanted = torch.tensor(
        [[235.0, 128, 128], [16, 128, 128], [31.81, 240, 117.73], [62.56, 102.34, 240]]
    )
    torch.testing.assert_close(got, wanted, atol=0.5, rtol=0)


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="matrix code is 2"):
        to_rgb(torch.zeros(1, 3, 1, 1), ColourTags())


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (5, 6, 5, 1), (1, 1, 1, 2)])
def test_reading_coded_frames_and_rgb_agree(
    tmp_path: Path, tags: tuple[int, int, int, int]
) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(3), tags=tags)
    assert (frames.colour.matrix, frames.colour.full_range) == (tags[2], tags[3] == 2)
    chroma = torch.nn.functional.interpolate(frames.chroma.float(), scale_factor=2, mode="bilinear")
    got = (
        to_rgb(torch.cat([frames.luma.float(), chroma], 1), frames.colour).permute(0, 2, 3, 1) * 255
    )
    (wanted,) = read_frames(tmp_path / "a.mp4")
    # of the rest, most is how chroma is enlarged
    assert (got - wanted.pixels.float()).abs().mean() < 1.5


def test_odd_sizes_and_deep_colours_come_as_rgb(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", smooth(2, 33, 48), codec="ffv1", pix_fmt="yuv420p", options={})
    write_video(tmp_path / "b.mkv", smooth(2), codec="ffv1", pix_fmt="yuv444p", options={})
    for name in ("a.mkv", "b.mkv"):
        assert all(isinstance(frames, Frames) for frames in read_coded(tmp_path / name))


def test_coded_frames_are_written_as_they_are(tmp_path: Path) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(4), tags=(1, 1, 1, 1))
    info = probe(tmp_path / "a.mp4")
    # crf 0 is lossless
    with VideoWriter(tmp_path / "b.mkv", info, crf=0, codec="libx264") as writer:
        writer.write(frames)
    (again,) = read_coded(tmp_path / "b.mkv")
    assert torch.equal(again.pixels, frames.pixels)


def test_coded_frames_are_converted_where_the_output_is_not_coded_so(tmp_path: Path) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(4), tags=(5, 6, 5, 1))
    (wanted,) = read_frames(tmp_path / "a.mp4")
    for suffix, codec, colour in ((".mkv", "ffv1", BT709), (".mp4", "libx264", BT709)):
        info = probe(tmp_path / "a.mp4")
        info = type(info)(info.width, info.height, info.fps, None, colour)
        with VideoWriter(tmp_path / f"c{suffix}", info, crf=1, codec=codec) as writer:
            writer.write(frames)
        (again,) = read_frames(tmp_path / f"c{suffix}")
        assert (again.pixels.float() - wanted.pixels.float()).abs().mean() < 1.5


def masked(
    frames: YuvFrames, generated: torch.Tensor, movement: PixelSource | None = None
) -> YuvFrames:
    """``generated`` over luma 48..80 x 28..60."""
    mask = torch.zeros(2, 1, 48, 48)
    mask[:, :, 8:40, 8:40] = 1
    place = translation(torch.tensor([[40.0, 20.0]] * 2))
    return composite(frames, Patch(generated, mask, place, () if movement is None else (movement,)))


def plain(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb)[None, :, None, None].expand(2, 3, 48, 48)


def test_what_no_mask_covers_keeps_its_codes(tmp_path: Path) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(2), tags=(1, 1, 1, 1))
    generated = plain(0.9, 0.2, 0.1)
    out = masked(frames, generated)
    luma, chroma = out.luma != frames.luma, (out.chroma != frames.chroma).any(1)
    assert (
        luma[:, 0, 30:58, 50:78].float().mean() > 0.9
        and chroma[:, 15:29, 25:39].float().mean() > 0.9
    )
    luma[:, :, 27:61, 47:81] = False
    chroma[:, 13:31, 23:41] = False
    assert not luma.any() and not chroma.any()
    got = torch.stack([out.luma[0, 0, 44, 64], *out.chroma[0, :, 22, 32]]).float()
    torch.testing.assert_close(got, from_rgb(generated[:1], BT709)[0, :, 0, 0].round())


def test_pixels_moved_by_nothing_stay(tmp_path: Path) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(2), tags=(1, 1, 1, 1))
    out = masked(
        frames,
        plain(0.9, 0.2, 0.1),
        PixelSource(torch.zeros(2, 2, 48, 48), torch.ones(2, 1, 48, 48)),
    )
    assert (out.pixels.int() - frames.pixels.int()).abs().max() <= 1  # the interpolation's rounding


@pytest.mark.parametrize(("rgb", "channel"), [((0.0, 0.0, 1.0), 0), ((1.0, 0.0, 0.0), 1)])
def test_full_range_chroma_ends_at_255(
    tmp_path: Path, rgb: tuple[float, float, float], channel: int
) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(2), tags=(1, 1, 1, 2))
    assert frames.colour.full_range
    assert masked(frames, plain(*rgb)).chroma[0, channel, 22, 32] == 255  # 255.5 by the formula


def test_colours_hold_where_their_code_changes_on_the_way(tmp_path: Path) -> None:
    times = [Fraction(i, 25) for i in range(20)]
    write_video(tmp_path / "a.ts", smooth(10), tags=(1, 1, 1, 1), stamps=times[:10])
    write_video(tmp_path / "b.ts", smooth(10), tags=(5, 6, 5, 2), stamps=times[10:])
    path = tmp_path / "c.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    read = [
        frames
        for frames in read_coded(path, fps=Fraction(25), chunk=1)
        if isinstance(frames, YuvFrames)
    ]
    assert len(read) >= 18 and {frames.colour.matrix for frames in read} == {1}
    for k in (2, len(read) - 2):
        chroma = torch.nn.functional.interpolate(
            read[k].chroma.float(), scale_factor=2, mode="bilinear"
        )
        rgb = (
            to_rgb(torch.cat([read[k].luma.float(), chroma], 1), read[k].colour)[0].permute(1, 2, 0)
            * 255
        )
        off = (rgb[None] - smooth(10).float()).abs().flatten(1).mean(1)
        assert off.min() < 2  # one of the pictures that were written


def test_coded_and_rgb_frames_speak_alike(tmp_path: Path) -> None:
    frames = coded(tmp_path / "a.mp4", smooth(5, 160, 192), tags=(1, 1, 1, 1))
    (rgb,) = read_frames(tmp_path / "a.mp4")
    points = (torch.tensor([ALIGNED]) * 96 + torch.tensor([40.0, 30.0])).expand(5, -1, -1)
    boxes = torch.cat([points.amin(1), points.amax(1)], 1)
    track = FaceTrack(boxes, points, torch.ones(5, dtype=torch.bool))
    voice = Audio(torch.randn(1, 6400, generator=torch.Generator().manual_seed(2)) * 0.2, 16000)
    model = build(Generator, MINI)
    assert isinstance(model, Generator)
    # fine detail is borrowed of luma there, of three colours here; clipped colours differ, too
    sync = LipSync(model, precision="float32", blend=Blend(kind="feather", detail=0, grain=0))
    (spoken,) = sync.stream([frames], voice, fps=Fraction(25), tracks=[track])
    (wanted,) = sync.stream([rgb], voice, fps=Fraction(25), tracks=[track])
    assert isinstance(spoken, YuvFrames) and spoken.colour == frames.colour
    luma = from_rgb(wanted.pixels.permute(0, 3, 1, 2) / 255, BT709)[:, :1]
    off = (spoken.luma.float() - luma).abs()
    assert (
        (spoken.luma != frames.luma).float().mean() > 0.02 and off.mean() < 0.6 and off.max() < 12
    )
