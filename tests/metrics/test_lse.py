"""The reference protocol against the reference's own numbers (lse.npz, syncnet_tracking.npz), and
its rules one by one."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, integers
from torch import Tensor

from lipsync_core.image.crop import resize_bytes
from lipsync_core.metrics.lse import (
    ReferenceScore,
    ReferenceTrack,
    crop_regions,
    crop_track,
    find_reference_tracks,
    measure_lse,
    score_reference_tracks,
    score_whole_frame,
)
from lipsync_core.metrics.sync_embedder import BATCH, embed_lips, embed_sound
from lipsync_core.models.syncnet import WINDOW, SyncNet, SyncNetConfig
from lipsync_core.types import Audio, Detections, Frames, SyncScore

SCORES = np.load(REFERENCE / "lse.npz")
TRACKS = np.load(REFERENCE / "syncnet_tracking.npz")
SMALL = SyncNetConfig(lip=(2, 2, 2, 2, 2, 4), audio=(2, 2, 2, 2, 2, 4), hidden=4, embedding=8)


@pytest.fixture(scope="module")
def syncnet() -> SyncNet:
    return build(SyncNet, SMALL)  # type: ignore[return-value]


def speech(frames: float) -> Audio:
    samples = torch.randn(round(640 * frames), generator=torch.Generator().manual_seed(5)) * 0.1
    return Audio(samples[None], 16000)


def footage(count: int, *, height: int = 60, width: int = 80, chunk: int = 32) -> Iterator[Frames]:
    pixels = integers(3, (count, height, width, 3))
    for start in range(0, count, chunk):
        yield Frames(pixels[start : start + chunk], start)


def same(a: SyncScore, b: SyncScore) -> bool:
    alike = torch.equal(a.curve, b.curve) and torch.equal(a.frame_confidence, b.frame_confidence)
    return alike and a.offset_frames == b.offset_frames and a.distance == b.distance


# ---- the score of embeddings


def embeddings(count: int, shift: int, noise: float) -> tuple[Tensor, Tensor]:
    base = np.random.RandomState(601).standard_normal((80, 1024)).astype(np.float32)
    drift = np.random.RandomState(700 + count + shift).standard_normal((count, 1024))
    sound = base[np.clip(np.arange(20, 20 + count) + shift, 0, 79)] + noise * drift
    return torch.from_numpy(base[20 : 20 + count]), torch.from_numpy(sound.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "count", "shift", "noise"),
    [("a", 60, 3, 0.5), ("b", 60, -4, 0.8), ("c", 9, 0, 0.3), ("d", 40, 20, 0.5)],
)
def test_scores_agree_with_the_reference(name: str, count: int, shift: int, noise: float) -> None:
    score = measure_lse(*embeddings(count, shift, noise))
    assert (
        score.offset_frames == int(SCORES[f"{name}_offset"])
        and score.offset_ms == score.offset_frames * 40
    )
    assert score.distance == pytest.approx(float(SCORES[f"{name}_mindist"]), abs=1e-4)
    assert score.confidence == pytest.approx(float(SCORES[f"{name}_conf"]), abs=1e-4)
    torch.testing.assert_close(
        score.curve, torch.from_numpy(SCORES[f"{name}_mdist"]), atol=1e-4, rtol=0
    )
    frame_confidence = torch.from_numpy(SCORES[f"{name}_fconfm"])
    torch.testing.assert_close(score.frame_confidence, frame_confidence, atol=1e-4, rtol=0)
    assert score.scorer == "syncnet" and score.search_frames == 15


def test_long_clips_are_scored_as_short_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    lip, sound = (torch.randn(2050, 8, generator=generator) for _ in "ab")
    score = measure_lse(lip, sound)
    for j in (0, 15, 17, 30):
        padded = torch.cat((torch.zeros(15, 8), sound, torch.zeros(15, 8)))[j : j + 2050]
        wanted = (lip - padded + 1e-6).norm(dim=1).mean()
        torch.testing.assert_close(score.curve[j], wanted)


def test_lips_and_sound_must_be_of_the_same_frames() -> None:
    with pytest.raises(ValueError, match=r"lip is \(3, 4\), sound \(2, 4\)"):
        measure_lse(torch.zeros(3, 4), torch.zeros(2, 4))


# ---- whole frames


@pytest.mark.parametrize("frames", range(13))
def test_the_last_window_is_dropped(syncnet: SyncNet, frames: int) -> None:
    score = score_whole_frame(footage(frames), speech(20), syncnet)
    assert score.frame_confidence.shape[0] == max(0, frames - 5)
    if frames < 6:
        assert score.offset_frames is None and "shorter than 6 frames" in str(score.reason)
        assert bool(score.curve.isnan().all())


@pytest.mark.parametrize(
    ("sound", "windows"), [(0, 0), (0.5, 0), (5.99, 0), (6, 1), (8.9, 3), (39.99, 34), (41, 35)]
)
def test_the_shorter_of_picture_and_sound_counts(
    syncnet: SyncNet, sound: float, windows: int
) -> None:
    score = score_whole_frame(footage(40), speech(sound), syncnet)
    assert score.frame_confidence.shape[0] == windows and (score.reason is None) == (windows > 0)


def test_the_score_is_that_of_its_windows(syncnet: SyncNet) -> None:
    (clip,) = footage(50, chunk=50)
    resized = torch.stack(
        [torch.from_numpy(cv2.resize(frame.numpy(), (224, 224))) for frame in clip.pixels]
    ).permute(0, 3, 1, 2)
    lips = embed_lips(syncnet, resized.float() / 255)[:45]
    sound = embed_sound(syncnet, speech(52), 0, 45)
    got, wanted = score_whole_frame([clip], speech(52), syncnet), measure_lse(lips, sound)
    torch.testing.assert_close(got.curve, wanted.curve, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(got.frame_confidence, wanted.frame_confidence, atol=2e-3, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 7, 32])
def test_chunks_change_nothing(syncnet: SyncNet, chunk: int) -> None:
    whole = score_whole_frame(footage(60, chunk=60), speech(58), syncnet)
    assert same(score_whole_frame(footage(60, chunk=chunk), speech(58), syncnet), whole)


def test_pictures_are_not_kept(syncnet: SyncNet) -> None:
    score = ReferenceScore(syncnet, speech(120))
    kept: list[int] = []
    for chunk in footage(140, height=224, width=224, chunk=16):
        score.update(chunk.pixels)
        kept.append(
            sum(v.untyped_storage().nbytes() for v in vars(score).values() if isinstance(v, Tensor))
        )
    assert max(kept) < (
        BATCH + WINDOW + 16
    ) * 224 * 224 * 3 and score.compute().frame_confidence.shape == (115,)


# ---- OpenCV's bilinear


@pytest.mark.parametrize(
    "size", [(160, 160), (288, 360), (448, 448), (61, 701), (224, 224), (96, 90)]
)
def test_bytes_are_resized_as_opencv_does(size: tuple[int, int]) -> None:
    pixels = integers(7, (2, *size, 3))
    wanted = torch.stack([torch.from_numpy(cv2.resize(p.numpy(), (224, 224))) for p in pixels])
    assert torch.equal(resize_bytes(pixels, (224, 224)), wanted)
    assert torch.equal(resize_bytes(pixels.float() / 255, (224, 224)), wanted)


def test_a_given_step_wins_over_the_ratio_of_sizes() -> None:
    pixels = integers(8, (1, 101, 203, 3))
    wanted = cv2.resize(pixels[0].numpy(), (0, 0), fx=0.25, fy=0.25)
    assert torch.equal(
        resize_bytes(pixels, wanted.shape[:2], step=(4, 4))[0], torch.from_numpy(wanted)
    )


# ---- tracks


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        torch.tensor(boxes).view(-1, 4), torch.zeros(len(boxes), 5, 2), torch.ones(len(boxes))
    )


def golden_detections() -> list[Detections]:
    frames, boxes = TRACKS["det_frame"], torch.from_numpy(TRACKS["det_bbox"])
    return [
        Detections(b, b.new_zeros(len(b), 5, 2), b.new_ones(len(b)))
        for b in (boxes[torch.from_numpy(frames == i)] for i in range(int(frames.max()) + 1))
    ]


def test_tracks_agree_with_the_reference() -> None:
    tracks = find_reference_tracks(golden_detections())
    assert len(tracks) == 2
    for i, track in enumerate(tracks):
        frames = TRACKS[f"t{i}_frame"]
        assert (track.first_frame, track.last_frame, len(track.boxes)) == (
            frames[0],
            frames[-1],
            len(frames),
        )
        wanted = torch.from_numpy(TRACKS[f"t{i}_bbox"]).double()
        torch.testing.assert_close(track.boxes[::10], wanted, atol=1e-3, rtol=0)
        for column, name in enumerate("xys"):
            wanted = torch.from_numpy(TRACKS[f"t{i}_{name}"]).double()
            torch.testing.assert_close(track.squares[::10, column], wanted, atol=1e-3, rtol=0)
        assert torch.equal(crop_regions(track), torch.from_numpy(TRACKS[f"t{i}_crop"]))


def test_a_cut_ends_a_track_and_short_shots_have_none() -> None:
    cuts = torch.zeros(260, dtype=torch.bool)
    cuts[[0, 120]] = True  # a cut at the first frame is none
    spans = [
        (t.first_frame, t.last_frame) for t in find_reference_tracks(golden_detections(), cuts)
    ]
    assert spans and all(last < 120 or first >= 120 for first, last in spans)
    cuts[99] = True  # shots of 99, 21 and 140 frames
    assert {first for first, _ in spans if first >= 120} == {
        t.first_frame for t in find_reference_tracks(golden_detections(), cuts)
    }


FACE, NONE = found((50, 50, 160, 150)), found()


@pytest.mark.parametrize(
    ("detections", "spans"),
    [
        ([FACE] * 100, []),  # four seconds give no score
        ([FACE] * 101, [(0, 100)]),
        ([FACE] * 60 + [NONE] * 24 + [FACE] * 60, [(0, 143)]),
        ([FACE] * 101 + [NONE] * 25 + [FACE] * 101, [(0, 100), (126, 226)]),
        ([FACE] * 60 + [found((100, 50, 210, 150))] * 60, []),  # overlaps by 0.375
        ([NONE] * 5 + [FACE] * 101 + [NONE] * 9, [(5, 105)]),
        ([found((50, 50, 150, 150))] * 120, []),  # 100 px are not more than 100
        ([found((50, 50, 160, 150), (300, 50, 420, 150))] * 120, [(0, 119), (0, 119)]),
        ([], []),
    ],
)
def test_rules_of_tracking(detections: list[Detections], spans: list[tuple[int, int]]) -> None:
    assert [(t.first_frame, t.last_frame) for t in find_reference_tracks(detections)] == spans


def reference_crop(frame: np.ndarray, region: list[int]) -> np.ndarray:
    """As the spec words it: pad all of the frame, cut, stretch."""
    pad, top, bottom, left, right = region
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), "constant", constant_values=110)
    return cv2.resize(padded[top:bottom, left:right], (224, 224))


def test_crops_are_those_of_the_padded_frame() -> None:
    box = torch.tensor([[30.0, -10.0, 150.0, 120.0]]).double().expand(12, 4)
    squares = torch.tensor(
        [[90.0, 55.0, 65.0], [10.0, 5.0, 60.5], [158.7, 118.2, 52.3], [-15.0, 60.0, 55.0]]
    ).double()
    track = ReferenceTrack(3, box, squares.repeat(3, 1))
    clip = list(footage(20, height=120, width=160, chunk=7))
    frames = torch.cat([chunk.pixels for chunk in clip])
    crops = list(crop_track(clip, track))
    assert [c.start for c in crops] == [3, 7, 14] and sum(c.pixels.shape[0] for c in crops) == 12
    got = torch.cat([c.pixels for c in crops])
    for i, region in enumerate(crop_regions(track).tolist()):
        wanted = reference_crop(frames[3 + i].numpy(), region)
        assert torch.equal(got[i], torch.from_numpy(wanted)), i
    floats = [Frames(chunk.pixels.float() / 255, chunk.start) for chunk in clip]
    assert torch.equal(torch.cat([c.pixels for c in crop_track(floats, track)]), got)


def test_a_face_outside_the_frame_is_grey() -> None:  # where the public script stops with an error
    box = torch.zeros(1, 4).double()
    for x, y in ((-400.0, 60.0), (700.0, 60.0), (80.0, -300.0), (80.0, 500.0)):
        track = ReferenceTrack(0, box, torch.tensor([[x, y, 55.0]]).double())
        (crop,) = crop_track(footage(1, height=120, width=160), track)
        assert bool((crop.pixels == 110).all())


def test_tracks_are_scored_with_their_own_sound_in_one_pass(syncnet: SyncNet) -> None:
    box = torch.tensor([[10.0, 10.0, 50.0, 50.0]]).double()
    early = ReferenceTrack(
        0, box.expand(30, 4), torch.tensor([[30.0, 30.0, 20.0]]).double().expand(30, 3)
    )
    late = replace(early, first_frame=20, squares=early.squares + 7)
    audio = speech(60)
    both = score_reference_tracks(footage(60, chunk=8), audio, [early, late], syncnet)
    for track, score in zip((early, late), both, strict=True):
        crops = torch.cat([c.pixels for c in crop_track(footage(60), track)])
        stretch = Audio(
            audio.samples[:, 640 * track.first_frame : 640 * (track.last_frame + 1)], 16000
        )
        assert same(score_whole_frame([Frames(crops)], stretch, syncnet), score)
        assert score.frame_confidence.shape[0] == 25
    assert not same(*both)
    (mute,) = score_reference_tracks(footage(60), speech(18), [late], syncnet)
    assert mute.offset_frames is None and mute.reason


def test_missing_frames_are_noticed(syncnet: SyncNet) -> None:
    box = torch.zeros(30, 4).double()
    track = ReferenceTrack(0, box, torch.tensor([[30.0, 30.0, 20.0]]).double().expand(30, 3))
    with pytest.raises(ValueError, match="the clip has 29 frames"):
        score_reference_tracks(footage(29), speech(60), [track], syncnet)
    with pytest.raises(ValueError, match="frames 16 follow frame 7"):
        score_reference_tracks(list(footage(40, chunk=8))[::2], speech(60), [track], syncnet)
