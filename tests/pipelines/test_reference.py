"""Which pictures a person's new mouth is drawn from, and that they are the source's own."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import write_video
from torch import Tensor

from lipsync_core.faces.selection import join_tracks
from lipsync_core.image.affine import ALIGNED, Framing, crop_to_frame
from lipsync_core.image.crop import crop_frames
from lipsync_core.image.landmarks import LIP_LAYOUTS, POINTS
from lipsync_core.media.clip import ImageClip, VideoClip, frame_order, open_clip
from lipsync_core.options import Cut
from lipsync_core.pipelines.reference import Reference, find_references
from lipsync_core.types import FaceTrack, Frames, References, YuvFrames

FPS = Fraction(25)
SIDE, WIDTH, HEIGHT = 80, 200, 160
OPEN = [i % 25 for i in range(60)]  # closed once a second, at 0, 25 and 50


def shot(
    open_clip: list[int], *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH
) -> Tensor:
    """(N,H,W,3) uint8: a face whose mouth is open by so many quarter px, that walks a px a frame to
    the right and back."""
    small = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    ground = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)[0]
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = []
    for i, gap in enumerate(open_clip):
        face = torch.tensor([0.8, 0.6, 0.5])[:, None, None].expand(3, SIDE, SIDE).clone()
        for rise, colour in (
            (4 + gap / 8, (0.7, 0.35, 0.33)),
            (max(gap / 8, 0.5), (0.1, 0.05, 0.05)),
        ):
            inside = ((x - 0.5) / 0.16) ** 2 + ((y - 0.66) * SIDE / rise) ** 2 < 1
            face[:, inside] = torch.tensor(colour)[:, None]
        picture, left = ground.clone(), 40 + walked(i)
        picture[:, 50 : 50 + SIDE, left : left + SIDE] = face
        pictures.append((picture * 255).round().byte().permute(1, 2, 0))
    return torch.stack(pictures)


def walked(i: int) -> int:
    return min(i % 50, 50 - i % 50)


def tracked(count: int, start: int = 0) -> FaceTrack:
    shift = torch.tensor([[40.0 + walked(i), 50.0] for i in range(count)])
    points = torch.tensor([ALIGNED]) * SIDE + shift[:, None]
    boxes = torch.tensor([0.1, 0.0, 0.9, 1.0]) * SIDE + shift.repeat(1, 2)
    return FaceTrack(boxes, points, torch.ones(count, dtype=torch.bool), start, start)


def video(tmp_path: Path, pixels: Tensor, *, pix_fmt: str = "yuv420p") -> VideoClip:
    codec, options = ("libx264", None) if pix_fmt == "yuv420p" else ("ffv1", {})
    return open_clip(
        write_video(tmp_path / "a.mkv", pixels, codec=codec, pix_fmt=pix_fmt, options=options),
        Cut(),
    )


def made(
    footage: VideoClip | ImageClip,
    kind: Reference,
    track: FaceTrack,
    length: int,
    index: Tensor | None = None,
    **options,
) -> References:
    index = torch.arange(length) if index is None else index
    found = find_references(footage, track, kind, length=length, index=index, **options)
    assert found is not None and len(found.index) == len(index)
    return found


def whole_frames(footage: VideoClip, count: int) -> Frames | YuvFrames:
    (frames,) = footage.frames(torch.arange(count), chunk=count)
    return frames


@pytest.mark.parametrize(
    ("size", "pix_fmt"), [((WIDTH, HEIGHT), "yuv420p"), ((151, 133), "yuv444p")]
)
def test_patches_hold_the_sources_own_pixels_in_the_framings_of_generators(
    tmp_path: Path, size, pix_fmt: str
) -> None:
    """Also where a picture has an odd size, and its border cuts the face's surroundings."""
    footage = video(tmp_path, shot(OPEN, width=size[0], height=size[1]), pix_fmt=pix_fmt)
    track, frames = tracked(60), whole_frames(footage, 60)
    assert isinstance(frames, YuvFrames) == (pix_fmt == "yuv420p")
    found = made(footage, "nearest-closed", track, 60)
    shown = [0, 25, 50]
    assert len(found.patches) == 3
    for framing in (Framing(), Framing("box", pads=(0, 10, 0, 0))):
        there = crop_to_frame(track.boxes[shown], track.points[shown], framing, 64)
        here = crop_to_frame(found.boxes, found.points, framing, 64)
        for k, (patch, frame) in enumerate(zip(found.patches, shown, strict=True)):
            assert type(patch) is type(frames) and patch.pixels.dtype == torch.uint8
            source = replace(frames, pixels=frames.pixels[frame : frame + 1])
            wanted = crop_frames(source, there[k : k + 1], 64)
            torch.testing.assert_close(
                crop_frames(patch, here[k : k + 1], 64), wanted, atol=1e-4, rtol=0
            )
            # not a view of a whole frame
            assert patch.pixels.untyped_storage().nbytes() == patch.pixels.nbytes
            assert patch.pixels.nbytes < 0.9 * source.pixels.nbytes


def test_the_nearest_closed_mouth_stands_for_each_output_frame(tmp_path: Path) -> None:
    index = frame_order(60, 130, "pingpong")
    heard: list[int] = []
    found = made(
        video(tmp_path, shot(OPEN)), "nearest-closed", tracked(60), 60, index, on_found=heard.append
    )
    wanted = (torch.tensor([0, 25, 50]) - index[:, None]).abs().min(1).values
    places = torch.tensor([0, 25, 50])[found.index]
    assert torch.equal((places - index).abs(), wanted)
    assert heard == sorted(heard) and heard[-1] == 60
    few = made(video(tmp_path, shot(OPEN)), "nearest-closed", tracked(60), 60, index, most=2)
    assert len(few.patches) == 2 and set(few.index.tolist()) == {0, 1}


def test_the_first_visible_frame_stands_for_all(tmp_path: Path) -> None:
    footage, track = video(tmp_path, shot(OPEN)), tracked(60)
    track.visible[:7] = False
    # starts later than the footage
    late = FaceTrack(track.boxes[5:], track.points[5:], track.visible[5:], 5)
    found = made(footage, "first", late, 60)
    assert len(found.patches) == 1 and found.index.tolist() == [0] * 60
    width = found.boxes[0, 2] - found.boxes[0, 0]
    assert float(width) == pytest.approx(0.8 * SIDE)
    frames = whole_frames(footage, 60)
    there = crop_to_frame(track.boxes[7:8], track.points[7:8], Framing(), 64)
    wanted = crop_frames(replace(frames, pixels=frames.pixels[7:8]), there, 64)
    got = crop_frames(found.patches[0], crop_to_frame(found.boxes, found.points, Framing(), 64), 64)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["first", "nearest-closed"])
def test_every_scene_has_its_own(tmp_path: Path, kind: Reference) -> None:
    """In the second scene all mouths are wider open than in the first, and its first frames are
    nearer to the first's."""
    pixels = torch.cat([shot(OPEN[:30]), shot([20 + i % 3 for i in range(30)], seed=5)])
    track = join_tracks([tracked(30), tracked(30, 30)])
    found = made(video(tmp_path, pixels), kind, track, 60)
    first, second = set(found.index[:30].tolist()), set(found.index[30:].tolist())
    assert first.isdisjoint(second) and first | second == set(range(len(found.patches)))
    if kind == "first":
        assert (first, second) == ({0}, {1})
    alone = made(video(tmp_path, pixels), kind, track, 60, most=1)
    assert len(alone.patches) == 1 and alone.index.tolist() == [0] * 60


@pytest.mark.parametrize("kind", ["first", "nearest-closed"])
def test_nobody_gets_somebody_elses_mouth(kind: Reference) -> None:
    """Of people who share a track, in one scene; the last goes away and comes back."""
    track = tracked(60)
    moved = torch.zeros(60, 1)
    moved[20:] = 80.0  # another person at the other end of the picture
    shift = torch.cat([moved, 0 * moved], 1)
    track.visible[40:44] = False
    shared = FaceTrack(
        track.boxes + shift.repeat(1, 2), track.points + shift[:, None], track.visible
    )
    found = made(ImageClip(shot(OPEN), FPS), kind, shared, 60)
    each = [set(found.index[a:b].tolist()) for a, b in ((0, 20), (20, 40), (44, 60))]
    assert sum(len(part) for part in each) == len(set().union(*each)) == len(found.patches)


@pytest.mark.parametrize("floating", [False, True])
def test_pictures_in_memory(floating: bool) -> None:
    pixels = shot(OPEN) / 255 if floating else shot(OPEN)
    found = made(ImageClip(pixels, FPS), "nearest-closed", tracked(60), 60)
    assert [patch.pixels.dtype for patch in found.patches] == [pixels.dtype] * 3
    patch, box = found.patches[1], found.boxes[1].int()
    source = tracked(60).boxes[25].int()
    there = pixels[25, source[1] : source[3], source[0] : source[2]]
    assert torch.equal(patch.pixels[0, box[1] : box[3], box[0] : box[2]], there)


def test_where_the_frame_itself_is_drawn_from(tmp_path: Path) -> None:
    pictures, track = ImageClip(shot(OPEN), FPS), tracked(60)
    index = torch.arange(60)
    assert find_references(pictures, track, "current", length=60, index=index) is None
    photograph = ImageClip(shot(OPEN[:1]), FPS)
    assert find_references(photograph, tracked(1), "first", length=1, index=index * 0) is None
    unseen = FaceTrack(track.boxes, track.points, torch.zeros(60, dtype=torch.bool))
    assert find_references(pictures, unseen, "nearest-closed", length=60, index=index) is None
    with pytest.raises(ValueError, match="most is 0; expected 1 or more"):
        find_references(pictures, track, "first", length=60, index=index, most=0)


def test_faces_beyond_the_picture_have_patches(tmp_path: Path) -> None:
    track = tracked(60)
    for far in (1000.0, -1000.0):
        beyond = FaceTrack(track.boxes + far, track.points + far, track.visible)
        (patch,) = made(video(tmp_path, shot(OPEN)), "first", beyond, 60).patches
        assert isinstance(patch, YuvFrames) and patch.luma.shape[2:] == (2, 2)


def test_single_frames_come_as_the_file_codes_them(tmp_path: Path) -> None:
    footage = video(tmp_path, shot(OPEN))
    frames, heard = whole_frames(footage, 60), []
    got = list(footage.pick_coded([40, 3, 40, 99], on_frame=lambda: heard.append(1)))
    assert [i for i, _ in got] == [3, 40] == [picture.start for _, picture in got] and len(
        heard
    ) >= 38
    for i, picture in got:
        assert isinstance(picture, YuvFrames) and torch.equal(
            picture.pixels, frames.pixels[i : i + 1]
        )
    memory = list(ImageClip(shot(OPEN), FPS).pick_coded([7]))
    assert torch.equal(memory[0][1].pixels, shot(OPEN)[7:8])


@pytest.mark.parametrize("sure", [True, False])
def test_landmarks_tell_which_mouths_are_closed_where_they_are_sure(sure: bool) -> None:
    """They say the opposite of the picture: closed at 12 and 37."""
    track = tracked(60)
    dense = track.points.mean(1)[:, None].repeat(1, POINTS, 1)
    dense[:, LIP_LAYOUTS[POINTS].eyes[1], 0] += 20
    for _, lower in LIP_LAYOUTS[POINTS].gaps:
        dense[:, lower, 1] += torch.tensor([0.0 if i % 25 == 12 else 9.0 for i in range(60)])
    told = replace(track, dense=dense, dense_scores=torch.full((60,), 0.9 if sure else 0.2))
    pixels = shot(OPEN)
    found = made(ImageClip(pixels, FPS), "nearest-closed", told, 60)
    wanted = [12, 37] if sure else [0, 25, 50]
    for patch, box, frame in zip(found.patches, found.boxes.int(), wanted, strict=True):
        source = track.boxes[frame].int()
        there = pixels[frame, source[1] : source[3], source[0] : source[2]]
        assert torch.equal(patch.pixels[0, box[1] : box[3], box[0] : box[2]], there)
