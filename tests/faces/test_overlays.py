"""Captions and logos over faces are found, taken out and laid over the finished frames again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.streams import FPS, mini, moving_clip, person, pieces, voice, whole
from torch import Tensor
from torch.nn import functional as F

from lipsync_core import Cut
from lipsync_core.blend.overlays import OverlayCover, fill_overlays, lay_overlays
from lipsync_core.faces.overlays import OverlaySearch, covered_frames
from lipsync_core.faces.selection import join_tracks
from lipsync_core.faces.tracking import track_window
from lipsync_core.media.clip import open_clip
from lipsync_core.pipelines.demo import make_demo_clip
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.track_cache import load_tracks, store_tracks
from lipsync_core.pipelines.track_faces import Finding, find_people, reorder_track
from lipsync_core.types import ColourTags, FaceTrack, Frames, Overlays, YuvFrames

SIDE, COUNT = 96, 56
FIRST, STOP = 11, 43  # frames that show the caption


def moving_face(*, moving: bool) -> tuple[Tensor, FaceTrack]:
    """(N,H,W,3) uint8 a face full of sharp stripes that sways, or does not, and its track."""
    sway = (torch.arange(COUNT) * 0.9).sin() * (4 if moving else 0)
    x = torch.arange(SIDE)[None] - sway[:, None]
    row = 128 + 40 * (x * 0.8).sin().sign() * ((x > 20) & (x < 76))
    pixels = row[:, None, :, None].expand(COUNT, SIDE, SIDE, 3).to(torch.uint8).contiguous()
    box = torch.tensor([16.0, 8.0, 80.0, 84.0]).repeat(COUNT, 1)
    box[:, ::2] += sway[:, None]
    places = torch.tensor([[30.0, 34], [66, 34], [48, 50], [38, 66], [58, 66]])
    points = places + torch.stack([sway, 0 * sway], 1)[:, None]
    return pixels, FaceTrack(box, points, torch.ones(COUNT, dtype=torch.bool))


def letters(pixels: Tensor) -> Tensor:
    """(H,W) bool: where the caption is, which is drawn into ``pixels``."""
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for left in range(22, 74, 8):
        where[60:74, left : left + 3] = True
        where[60:63, left : left + 6] = True
    outline = F.max_pool2d(where[None].float(), 3, 1, 1)[0] > 0
    pixels[FIRST:STOP, outline] = 5
    pixels[FIRST:STOP, where] = 250
    return where


def search(pixels: Tensor, track: FaceTrack, *, chunk: int = 10) -> FaceTrack:
    finder = OverlaySearch([track], (1.0, 1.0), 25.0)
    for start in range(0, len(pixels), chunk):
        finder.add(Frames(pixels[start : start + chunk], start))
    (found,) = finder.finish([track])
    return found


@pytest.mark.parametrize("chunk", [7, 10])
def test_a_caption_is_found_in_its_frames_and_only_there(chunk: int) -> None:
    pixels, track = moving_face(moving=True)
    where = letters(pixels)
    found = search(pixels, track, chunk=chunk)
    assert covered_frames(found).nonzero()[:, 0].tolist() == list(range(FIRST, STOP))
    ((x0, y0, x1, y1),) = found.overlays.places.int().unique(dim=0).tolist()
    mask = F.pad(found.overlays.masks[0], (x0, SIDE - x1, y0, SIDE - y1))
    assert float(mask[where].mean()) > 0.95
    assert float(mask[:52].max()) == 0


@pytest.mark.parametrize("moving", [True, False])
def test_a_face_without_a_caption_has_none(moving: bool) -> None:
    """Also not one that keeps still, whose own edges stay where they are."""
    pixels, track = moving_face(moving=moving)
    assert search(pixels, track).overlays is None


def test_the_line_between_the_lips_of_a_face_that_sways_is_no_caption(demo_folder: Path) -> None:
    """It keeps its place, because the face moves along it."""
    video = make_demo_clip(demo_folder, "portrait").video
    (track,), _ = find_people(
        open_clip(video, Cut()), Finding(cache=False), torch.device("cpu"), stop=60
    )
    assert track.overlays is None and track.visible.all()


def overlay(count: int, size: tuple[int, int], part: tuple[slice, slice]) -> Overlays:
    mask = torch.zeros(size)
    mask[part] = 1
    place = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    return Overlays(torch.zeros(count, dtype=torch.int64), (mask,), place)


@pytest.mark.parametrize("coded", [False, True])
def test_an_overlay_is_laid_over_what_changed_and_nothing_else_differs(coded: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (1, 60, 48) if coded else (1, 40, 48, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    frames = YuvFrames(pixels, ColourTags()) if coded else Frames(pixels)
    cover = OverlayCover(overlay(1, (40, 48), (slice(20, 24), slice(8, 40)))).at(
        torch.zeros(1, dtype=torch.int64), (40, 48)
    )
    clean = fill_overlays(frames, cover)
    assert not torch.equal(clean.pixels[:, 20:24, 8:40], pixels[:, 20:24, 8:40])
    done = replace(clean, pixels=clean.pixels.clone())
    done.pixels[:, 10:30, 20:30] = 255 - done.pixels[:, 10:30, 20:30]
    out = lay_overlays(frames, clean, done, cover).pixels
    same = torch.ones(40, 48, dtype=torch.bool)
    same[10:30, 20:30] = False
    assert torch.equal(out[:, :40][:, same], pixels[:, :40][:, same])
    assert torch.equal(out[:, 21:23, 20:30], pixels[:, 21:23, 20:30])
    assert torch.equal(out[:, 11:15, 20:30], done.pixels[:, 11:15, 20:30])


def test_a_dub_keeps_the_pixels_of_a_caption() -> None:
    """And none of them shows elsewhere: what is drawn from is the face without it."""
    pixels, face = moving_clip()[:3], person(50.0, count=3)
    height, width = pixels.shape[1:3]
    part = (slice(60, 66), slice(60, 110))
    marked = pixels.clone()
    marked[:, part[0], part[1]] = 255
    covered = replace(face, overlays=overlay(len(pixels), (height, width), part))
    sync = LipSync(mini())
    sound = voice(1)
    plain = whole(sync.stream(pieces(marked, 8), sound, fps=FPS, tracks=[face]))
    kept = whole(sync.stream(pieces(marked, 8), sound, fps=FPS, tracks=[covered]))
    inner = (slice(61, 65), slice(61, 109))
    assert (plain[:, inner[0], inner[1]] != 255).any()
    assert (kept[:, inner[0], inner[1]] == 255).all()


def test_overlays_go_with_their_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through windows, orders of frames, joins and the cache."""
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    face = person(50.0, count=5)
    index = torch.tensor([-1, 0, 0, 1, -1])
    masks = (torch.zeros(2, 2), torch.ones(2, 2))
    face = replace(face, overlays=Overlays(index, masks, torch.zeros(2, 4)), pixel_aspect=2.0)
    assert track_window(face, -1, 4).overlays.index.tolist() == [-1, -1, 0, 0]
    assert reorder_track(face, 5, torch.tensor([3, 1])).overlays.index.tolist() == [1, 0]
    later = replace(face, start=5, scene=5)
    joined = join_tracks([face, later])
    assert joined.overlays.index.tolist() == [-1, 0, 0, 1, -1, -1, 2, 2, 3, -1]
    assert len(joined.overlays.masks) == 4 and joined.pixel_aspect == 2.0
    store_tracks("key", [person(20.0, count=3), face], 5)
    plain, back = load_tracks("key")[0]
    assert plain.overlays is None
    assert back.overlays.index.tolist() == index.tolist()
    assert torch.equal(back.overlays.masks[1], masks[1])
