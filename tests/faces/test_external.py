"""Tracks from faces that another detector found."""

from dataclasses import replace
from fractions import Fraction

import pytest
import skimage.data
import torch
from torch import Tensor

from lipsync_core.faces.detector_mini import MiniDetector
from lipsync_core.faces.detector_s3fd import canonical_points
from lipsync_core.faces.external import (
    find_points_in_boxes,
    five_points_from_mesh,
    tracks_from_boxes,
)
from lipsync_core.faces.selection import select
from lipsync_core.faces.selector import parse_face
from lipsync_core.faces.tracking import link_detections, track_window
from lipsync_core.models.face_detector import FaceDetector
from lipsync_core.models.weights import load_model
from lipsync_core.pipelines.track_faces import reorder_track
from lipsync_core.types import Detections

FPS = Fraction(25)
NO_BOXES = torch.zeros(0, 4)


@pytest.fixture(scope="module")
def mini() -> MiniDetector:
    model = load_model("face_detector", kind="face_detector")
    assert isinstance(model, FaceDetector)
    return MiniDetector(model)


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut())


def boxes(*corners: float) -> Tensor:
    """(F,4) boxes of 40 x 50 px at x = each of ``corners``."""
    return torch.tensor([[x, 10, x + 40, 60] for x in corners]).float()


def test_a_photo_and_a_short_batch_keep_every_box() -> None:
    (one,) = tracks_from_boxes([boxes(5)], fps=FPS, frames=1)
    assert one.visible.tolist() == [True] and torch.equal(one.boxes, boxes(5))
    brief = [boxes(5), boxes(5, 100), NO_BOXES, boxes(6), boxes(6), boxes(6), boxes(6), boxes(200)]
    found = tracks_from_boxes(brief, fps=FPS, frames=8, smoothing_s=0)
    spans = [(t.start, len(t.visible)) for t in found]
    assert spans == [(0, 7), (1, 1), (7, 1)]  # the one frame without is filled
    detections = [
        (i, Detections(b, canonical_points(b), torch.ones(len(b)))) for i, b in enumerate(brief)
    ]
    # a detector's would be taken for false alarms
    assert len(link_detections(detections, cuts=(), max_gap=25, smoothing=0)) == 1


def test_motion_cuts_and_points_come_through() -> None:
    clip = [boxes(5 + i) for i in range(60)]
    points = [canonical_points(b) + 1 for b in clip]
    first, second = tracks_from_boxes(clip, fps=FPS, points=points, cuts=(30,))
    assert (first.start, len(first.visible), second.start, second.scene) == (0, 30, 30, 30)
    torch.testing.assert_close(
        torch.cat([first.boxes, second.boxes]), torch.cat(clip), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        torch.cat([first.points, second.points]), torch.cat(points), atol=1e-3, rtol=0
    )


def test_dense_points_go_wherever_the_track_goes() -> None:
    """Found, joined over a frame without a face, smoothed, cut, padded, arranged and chosen: every
    time with the points."""
    clip = [boxes(5 + i) if i != 20 else NO_BOXES for i in range(60)]
    mesh = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(1)) * 40
    dense = [mesh + i if len(b) else torch.zeros(0, 68, 2) for i, b in enumerate(clip)]
    wanted = mesh + torch.arange(60.0)[:, None, None]
    first, second = tracks_from_boxes(clip, fps=FPS, dense=dense, cuts=(30,))
    assert first.dense is not None and second.dense is not None
    torch.testing.assert_close(torch.cat([first.dense, second.dense]), wanted, atol=1e-3, rtol=0)
    whole = select([first, second], parse_face("largest"))
    assert whole.dense is not None and torch.equal(
        whole.dense, torch.cat([first.dense, second.dense])
    )
    padded = track_window(second, 25, 40)
    assert (
        padded.dense is not None
        and not padded.dense[:5].any()
        and torch.equal(padded.dense[5:35], second.dense)
    )
    index = torch.tensor([3, 2, 1, 1, 59])
    shown = reorder_track(whole, 60, index)
    assert shown.dense is not None and torch.equal(shown.dense, whole.dense[index])
    with pytest.raises(ValueError, match="expected all of one layout, or none"):
        select([first, replace(second, dense=None)], parse_face("largest"))
    (bare,) = tracks_from_boxes(clip, fps=FPS)
    assert bare.dense is None


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ([torch.zeros(1, 68, 2)], "dense points for 1 frames and boxes for 2"),
        ([torch.zeros(1, 68, 2), torch.zeros(1, 106, 2)], "one K for all"),
        ([torch.zeros(1, 68, 2), torch.zeros(2, 68, 2)], r"frame 1 are \(2, 68, 2\)"),
        ([torch.zeros(1, 68, 3)] * 2, "frame 0"),
        ([torch.full((1, 68, 2), torch.nan)] * 2, "expected finite"),
    ],
)
def test_dense_points_that_do_not_go_with_the_boxes_are_refused(
    dense: list[Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tracks_from_boxes([boxes(5), boxes(6)], fps=FPS, dense=dense)


def test_jitter_is_smoothed_by_the_time_that_is_asked_for() -> None:
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)).tolist()
    clip = [boxes(50 + v) for v in noise]
    (rough,) = tracks_from_boxes(clip, fps=FPS, smoothing_s=0)
    (calm,) = tracks_from_boxes(clip, fps=FPS)
    assert torch.equal(rough.boxes, torch.cat(clip))
    assert float(calm.boxes[:, 0].diff().std()) < 0.3 * float(rough.boxes[:, 0].diff().std())


def test_boxes_of_one_frame_are_no_boxes_of_a_clip() -> None:
    with pytest.raises(
        ValueError, match="boxes for 1 frames, and the clip has 250; expected boxes for each frame"
    ):
        tracks_from_boxes([boxes(5)], fps=FPS, frames=250)
    with pytest.raises(ValueError, match="points for 2 frames and boxes for 1"):
        tracks_from_boxes([boxes(5)], fps=FPS, points=[torch.zeros(1, 5, 2)] * 2)


@pytest.mark.parametrize(
    "wrong",
    [
        [[5.0, 5, 5, 9]],
        [[5.0, 9, 9, 5]],
        [[0.0, 0, float("nan"), 9]],
        [[0.0, 0, float("inf"), 9]],
        [[1.0, 2, 3]],
    ],
)
def test_impossible_boxes_are_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"boxes of frame 1 are .* expected"):
        tracks_from_boxes([boxes(5), torch.tensor(wrong)], fps=FPS)


def test_points_that_do_not_go_with_the_boxes_are_refused() -> None:
    for wrong in (torch.zeros(2, 5, 2), torch.full((1, 5, 2), float("nan"))):
        with pytest.raises(ValueError, match=r"points of frame 0 .* expected finite \(1,5,2\)"):
            tracks_from_boxes([boxes(5)], fps=FPS, points=[wrong])
    with pytest.raises(ValueError, match=r"smoothing_s is -1"):
        tracks_from_boxes([boxes(5)], fps=FPS, smoothing_s=-1)


def test_the_face_in_a_box_has_the_detectors_points(astronaut: Tensor, mini: MiniDetector) -> None:
    """Whatever way the box was drawn; where there is no face, the usual points. An enlarged picture
    gives the same."""
    (seen,) = mini.detect(astronaut[None])
    x0, y0, x1, y1 = seen.boxes[0].tolist()
    w, h = x1 - x0, y1 - y0
    drawn = torch.tensor(
        [
            [x0, y0, x1, y1],
            [x0 + 0.15 * w, y0 + 0.15 * h, x1 - 0.1 * w, y1],
            [x0 - 0.4 * w, y0 - 0.4 * h, x1 + 0.5 * w, y1 + 0.3 * h],
            [330, 330, 430, 440],
        ]
    )
    eyes = float((seen.points[0, 0] - seen.points[0, 1]).norm())
    for zoom in (1, 3):
        large = astronaut.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
        points = find_points_in_boxes(large, drawn * zoom, mini) / zoom
        assert float((points[:3] - seen.points[0]).norm(dim=2).max()) < 0.15 * eyes
        torch.testing.assert_close(points[3], canonical_points(drawn)[3])
    assert find_points_in_boxes(astronaut, NO_BOXES, mini).shape == (0, 5, 2)


def test_a_neighbours_face_is_not_taken(astronaut: Tensor, mini: MiniDetector) -> None:
    (seen,) = mini.detect(astronaut[None])
    beside = seen.boxes[:1] + torch.tensor([1.2, 0, 1.2, 0]) * (seen.boxes[0, 2] - seen.boxes[0, 0])
    torch.testing.assert_close(
        find_points_in_boxes(astronaut, beside, mini), canonical_points(beside)
    )


def test_usual_points_are_near_those_of_a_face_and_of_whole_numbers_too(
    astronaut: Tensor, mini: MiniDetector
) -> None:
    (seen,) = mini.detect(astronaut[None])
    (person,) = tracks_from_boxes([seen.boxes[:1].long()], fps=FPS)
    off = (person.points[0] - seen.points[0]).norm(dim=1)
    assert float(off.max()) < 0.12 * float(seen.boxes[0, 2] - seen.boxes[0, 0])


@pytest.mark.parametrize("count", [468, 478])
def test_five_points_of_a_mesh(count: int) -> None:
    mesh = torch.zeros(count, 2)
    mesh[[33, 133, 362, 263]] = torch.tensor([[10.0, 20], [20, 22], [40, 22], [50, 20]])
    mesh[[1, 61, 291]] = torch.tensor([[30.0, 40], [18, 55], [42, 56]])
    assert five_points_from_mesh(mesh).tolist() == [
        [15, 21],
        [45, 21],
        [30, 40],
        [18, 55],
        [42, 56],
    ]
    with pytest.raises(ValueError, match=r"\(68, 2\); expected MediaPipe's face mesh"):
        five_points_from_mesh(torch.zeros(68, 2))
