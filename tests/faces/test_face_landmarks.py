"""The landmark network on frames and tracks: what places its crops, what is smoothed, and where it
is not believed."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import write_video
from torch import Tensor
from torch.nn import functional as F

from lipsync_core.blend.landmark_masks import LAYOUTS, outline_mask
from lipsync_core.faces.landmarks import (
    LandmarkFinder,
    add_dense_points,
    confidence_weights,
    confident_frames,
    fill_missing_points,
    low_confidence_warning,
    smooth_dense,
    to_own_layout,
    unusable_landmarks_warning,
)
from lipsync_core.faces.selection import join_tracks
from lipsync_core.faces.tracking import track_window
from lipsync_core.image.landmarks import (
    INNER_LIPS,
    IRISES,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    MEDIAPIPE_VERTICES,
    MIRRORED,
    OUTER_LIPS,
    POINTS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from lipsync_core.media import read_frames
from lipsync_core.media.clip import ImageClip, open_clip
from lipsync_core.models.face_landmarks import FaceLandmarks, FaceLandmarksConfig
from lipsync_core.options import Cut
from lipsync_core.pipelines.demo import PHOTO
from lipsync_core.pipelines.track_faces import Finding, find_people, reorder_track, track_faces
from lipsync_core.types import Detections, FaceTrack, Frames

COUNT = 12
FACE = torch.tensor([[30.0, 30.0], [60.0, 32.0], [46.0, 48.0], [35.0, 62.0], [58.0, 63.0]])


def network(*, sure: float = 4.0) -> FaceLandmarks:
    """Of small size and random weights, that says ``sure`` (a logit) of everything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = FaceLandmarks(FaceLandmarksConfig(widths=(4, 6, 8, 8, 8), head=4)).eval()
        torch.nn.init.normal_(model.points.weight, std=0.1)
    torch.nn.init.zeros_(model.sure.weight)
    torch.nn.init.constant_(model.sure.bias, sure)
    return model


def finder(**options: float) -> LandmarkFinder:
    return LandmarkFinder(network(**options), precision="float32", version="test")


def clip(count: int = COUNT, *, seed: int = 0) -> Frames:
    noise = torch.rand(count, 3, 12, 14, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, (96, 112), mode="bilinear")
    return Frames((smooth * 255).byte().permute(0, 2, 3, 1))


def face(count: int = COUNT, *, start: int = 0, scene: int = 0, shift: float = 0.0) -> FaceTrack:
    moved = FACE + shift + 0.5 * torch.arange(count)[:, None, None]
    boxes = torch.cat([moved.amin(1) - 12, moved.amax(1) + 12], 1)
    return FaceTrack(boxes, moved, torch.ones(count, dtype=torch.bool), start, scene)


def pieces(frames: Frames, size: int) -> list[Frames]:
    return [
        Frames(part, frames.start + i * size) for i, part in enumerate(frames.pixels.split(size))
    ]


def dense_of(track: FaceTrack) -> Tensor:
    assert track.dense is not None
    return track.dense


@pytest.mark.parametrize("share", [0.04, 0.1])
def test_a_mouth_that_the_frame_cuts_off_is_not_trusted(share: float) -> None:
    """The demo's face, whose middle is so far into the width of a frame."""
    (photo,) = read_frames(PHOTO)
    picture = F.interpolate(photo.pixels.permute(0, 3, 1, 2).float(), scale_factor=1.5)
    height, width = picture.shape[2:]
    wide = torch.full((1, 3, height, 640), 120.0)
    left = round(share * 640 - width / 2)
    begin, end = max(left, 0), min(left + width, 640)
    wide[..., begin:end] = picture[..., begin - left : end - left]
    image = ImageClip(wide.byte().permute(0, 2, 3, 1), Fraction(25))
    (track,), _ = find_people(image, Finding(cache=False), torch.device("cpu"), stop=1)
    assert bool(confident_frames(track).all()) == (share == 0.1)


def test_lips_that_move_move_no_crop() -> None:
    track, look = face(), finder()
    moved = track.points.clone()
    moved[:, 3:] += torch.tensor([7.0, -11.0])
    assert torch.equal(look.maps(track.boxes, track.points), look.maps(track.boxes + 5, moved))
    one, other = (look.find(clip(), track.boxes, points)[0] for points in (track.points, moved))
    assert torch.equal(one, other)


def test_faces_are_found_alike_in_any_company() -> None:
    track, look = face(), finder()
    together, sure = look.find(clip(), track.boxes, track.points)
    assert together.shape == (COUNT, POINTS, 2) and sure.shape == (COUNT,)
    for i in range(COUNT):
        alone = look.find(
            Frames(clip().pixels[i : i + 1]), track.boxes[i : i + 1], track.points[i : i + 1]
        )
        torch.testing.assert_close(alone[0][0], together[i], atol=1e-3, rtol=0)
        torch.testing.assert_close(alone[1][0], sure[i])
    none = look.find(Frames(clip().pixels[:0]), track.boxes[:0], track.points[:0])
    assert none[0].shape == (0, POINTS, 2) and none[1].shape == (0,)


@pytest.mark.parametrize("chunk", [1, 5, COUNT])
def test_chunks_change_nothing(chunk: int) -> None:
    tracks = [face(), face(7, start=4, shift=20.0)]
    tracks[0].visible[3:5] = False
    whole = add_dense_points(tracks, [clip()], finder(), smoothing=2.0)
    parts = add_dense_points(tracks, pieces(clip(), chunk), finder(), smoothing=2.0)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(dense_of(one), dense_of(other), atol=1e-3, rtol=0)
        torch.testing.assert_close(one.dense_scores, other.dense_scores)
    assert not dense_of(whole[0])[3:5].any()
    alone = add_dense_points(tracks[1:], [clip()], finder(), smoothing=2.0)
    torch.testing.assert_close(dense_of(alone[0]), dense_of(whole[1]), atol=1e-3, rtol=0)


def test_tracks_of_larger_frames_get_points_in_their_own_px() -> None:
    scale = (2.0, 3.0)
    stretch = torch.tensor(scale)
    (small,) = add_dense_points([face()], [clip()], finder())
    large = replace(face(), boxes=face().boxes * stretch.repeat(2), points=face().points * stretch)
    (found,) = add_dense_points([large], [clip()], finder(), scale=scale)
    torch.testing.assert_close(dense_of(found), dense_of(small) * stretch, atol=2e-3, rtol=0)


def test_mirroring_twice_is_nothing_and_once_changes_sides() -> None:
    order = torch.tensor(MIRRORED)
    assert (
        torch.equal(order[order], torch.arange(POINTS)) and len(set(MEDIAPIPE_VERTICES)) == POINTS
    )
    for left, right in ((LEFT_EYE, RIGHT_EYE), (LEFT_BROW, RIGHT_BROW)):
        assert set(order[left].tolist()) == set(range(right.start, right.stop))
    for lips in (OUTER_LIPS, INNER_LIPS):
        assert int(order[lips.start]) == lips.start + 10  # the corners
        assert (
            int(order[lips.start + 5]) == lips.start + 5
            and int(order[lips.start + 15]) == lips.start + 15
        )
    assert order[JAW].tolist() == list(range(JAW.stop - 1, JAW.start - 1, -1))
    assert order[IRISES].tolist() == [101, 100]


def test_lips_and_jaw_follow_speech_while_brows_are_calmed() -> None:
    dense = torch.zeros(40, POINTS, 2)
    dense[20:22] = 1.0  # a closure of two frames
    out = smooth_dense(dense, torch.ones(40, dtype=torch.bool), 3.0)
    assert float(out[20:22, OUTER_LIPS.start : JAW.stop].min()) > 0.85
    assert float(out[20:22, LEFT_BROW].max()) < 0.5


def test_nothing_is_smoothed_across_an_absence() -> None:
    dense, visible = torch.zeros(40, POINTS, 2), torch.ones(40, dtype=torch.bool)
    dense[21:] = 50.0
    visible[20] = False
    dense[20] = 999.0
    out = smooth_dense(dense, visible, 3.0)
    torch.testing.assert_close(out[:20], dense[:20])
    torch.testing.assert_close(out[21:], dense[21:], atol=1e-3, rtol=0)


class Doubting(LandmarkFinder):
    """Not sure of the frames in which the picture is dark, and wrong there."""

    def look(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        points, scores = super().look(crops)
        dark = crops.mean((1, 2, 3)) < 0.05
        points[dark] = 1e4
        scores[dark] = 0.1
        return points, scores


def test_what_is_doubted_lies_between_what_is_sure() -> None:
    frames = clip()
    frames.pixels[:] = frames.pixels[:1]
    frames.pixels[4:7] = 0
    still = face()
    still.points[:], still.boxes[:] = still.points[:1].clone(), still.boxes[:1].clone()
    (found,) = add_dense_points([still], [frames], Doubting(network(), precision="float32"))
    dense = dense_of(found)
    torch.testing.assert_close(dense[4:7], dense[:1].expand(3, -1, -1), atol=1e-3, rtol=0)
    assert confident_frames(found).tolist() == [not 4 <= i < 7 for i in range(COUNT)]
    assert low_confidence_warning([found]) is None


def test_a_face_that_is_mostly_doubted_has_no_outline_and_the_report_hears_of_it() -> None:
    (found,) = add_dense_points([face()], [clip()], finder(sure=-4.0))
    assert (
        found.dense is None and found.dense_scores is not None and not confident_frames(found).any()
    )
    said = low_confidence_warning([found])
    assert said is not None and "100%" in said
    assert low_confidence_warning([face()]) is None  # the detector did not run


def test_of_one_person_scenes_without_landmarks_get_the_usual_ones() -> None:
    (known,) = add_dense_points([face()], [clip()], finder())
    turned = replace(
        face(5, start=COUNT, scene=COUNT, shift=9.0), dense_scores=torch.full((5,), 0.1)
    )
    whole = join_tracks([known, turned])
    assert (
        whole.dense_scores is not None
        and confident_frames(whole).tolist() == [True] * COUNT + [False] * 5
    )
    assert torch.equal(dense_of(whole)[:COUNT], dense_of(known))
    torch.testing.assert_close(
        dense_of(whole)[COUNT + 1] - dense_of(whole)[COUNT], torch.full((POINTS, 2), 0.5)
    )
    one_shape = replace(known, dense=dense_of(known)[:1] + 0.5 * torch.arange(COUNT)[:, None, None])
    filled = fill_missing_points([one_shape, turned])[1]
    torch.testing.assert_close(dense_of(filled), dense_of(one_shape)[:5] + 9.0, atol=1e-2, rtol=0)
    unseen = join_tracks([turned, replace(turned, start=30)])
    assert unseen.dense is None and unseen.dense_scores is not None


def test_scores_go_wherever_the_track_goes() -> None:
    scores = torch.linspace(0.1, 1, COUNT)
    track = replace(face(start=2), dense=torch.ones(COUNT, POINTS, 2), dense_scores=scores)
    padded = track_window(track, 0, COUNT + 4)
    assert padded.dense_scores is not None
    assert padded.dense_scores.tolist() == [0, 0, *scores.tolist(), 0, 0]
    shown = reorder_track(track, COUNT + 2, torch.tensor([5, 3, 3]))
    assert shown.dense_scores is not None and torch.equal(shown.dense_scores, scores[[3, 1, 1]])
    with pytest.raises(ValueError, match="dense_scores is"):
        replace(track, dense_scores=torch.ones(COUNT + 1))


def test_our_outline_is_that_of_the_whole_mesh() -> None:
    mesh = torch.rand(2, 478, 2, generator=torch.Generator().manual_seed(1)) * 64
    ours = mesh[:, list(MEDIAPIPE_VERTICES)]
    assert POINTS in LAYOUTS
    for kind in ("mouth", "lower", "face"):
        assert torch.equal(outline_mask(kind, ours, 64), outline_mask(kind, mesh, 64))


class Fixed:
    """Finds the same face everywhere, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, pixels: Tensor) -> list[Detections]:
        self.asked += 1
        track = face(1)
        return [Detections(track.boxes, track.points, torch.ones(1))] * len(pixels)


class Counting(LandmarkFinder):
    asked = 0

    def look(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += 1
        return super().look(crops)


def test_pictures_and_footage_alike_and_stored_with_the_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    pixels = clip(1).pixels.repeat(20, 1, 1, 1)
    (shown,), _ = track_faces(ImageClip(pixels, Fraction(25)), Fixed(), landmarks=finder())
    film = write_video(tmp_path / "a.mkv", pixels, codec="ffv1", pix_fmt="bgr0", options={})
    footage = open_clip(film, Cut())
    look, detector, heard = (
        Counting(network(), precision="float32", version="1"),
        Fixed(),
        list[int](),
    )

    def people(look: LandmarkFinder | None) -> FaceTrack:
        found, count = track_faces(
            footage,
            detector,
            stop=20,
            detector_key=("fixed", "00"),
            landmarks=look,
            on_found=heard.append,
        )
        assert count == 20 and len(found) == 1
        return found[0]

    first = people(look)
    torch.testing.assert_close(dense_of(first), dense_of(shown), atol=0.5, rtol=0)
    times, seen = look.asked, detector.asked
    again = people(look)
    assert (look.asked, detector.asked) == (times, seen) and torch.equal(
        dense_of(again), dense_of(first)
    )
    assert again.dense_scores is not None and first.dense_scores is not None
    assert torch.equal(again.dense_scores, first.dense_scores)
    # the bare tracks are stored as well
    assert people(None).dense is None and detector.asked == seen
    people(Counting(network(), precision="float32", version="2"))
    assert detector.asked == seen and heard == sorted(heard)


def test_frames_that_are_not_sure_are_shown_less_and_their_neighbours_softly() -> None:
    track = replace(face(), dense_scores=torch.ones(len(face().visible)))
    assert confidence_weights(track) is not None and bool((confidence_weights(track) == 1).all())  # type: ignore[union-attr]
    assert confidence_weights(face()) is None
    scores = torch.ones(len(face().visible))
    scores[4:6] = 0.1
    shares = confidence_weights(replace(face(), dense_scores=scores))
    assert shares is not None
    assert shares[4:6].tolist() == [0, 0] and bool(
        ((shares[[3, 6]] > 0) & (shares[[3, 6]] < 1)).all()
    )


def test_a_model_that_moves_lips_says_which_frames_it_leaves() -> None:
    scores = torch.ones(len(face().visible))
    scores[: len(scores) // 4] = 0.1
    doubtful = replace(face(), dense_scores=scores)
    assert low_confidence_warning([doubtful]) is None
    said = low_confidence_warning([doubtful], passed=True)
    assert said is not None and "stays" in said and "mini-2" in said


@pytest.mark.parametrize(("count", "usable"), [(468, True), (98, False)])
def test_given_points_become_ours_where_the_face_is_seen_or_the_report_says_why_not(
    count: int, usable: bool
) -> None:
    mesh = 10 + 80 * torch.rand(1, 478, 2, generator=torch.Generator().manual_seed(2))
    mesh[0, [33, 263, 61, 291]] = torch.tensor([[20.0, 30], [80, 30], [35, 70], [65, 70]])
    seen = face()
    seen = replace(
        seen,
        visible=torch.arange(COUNT) != 1,
        dense=mesh[:, :count].repeat(COUNT, 1, 1).index_fill(0, torch.tensor([1]), 0),
    )
    own, said = to_own_layout(seen), unusable_landmarks_warning([seen, face()])
    assert (own.dense is not None) == usable == (said is None)
    if own.dense is not None:
        assert own.dense.shape == (COUNT, POINTS, 2) and not own.dense[1].any()
        torch.testing.assert_close(own.dense[0, :100], mesh[0, list(MEDIAPIPE_VERTICES[:100])])
        assert to_own_layout(own) is own
    else:
        assert said is not None and "98 landmarks" in said and "bundled network" in said
