"""Numbered faces, contact sheets and masks."""

import pytest
import torch
from torch import Tensor

from lipsync_core.errors import NoFaceError
from lipsync_core.faces.selection import rows_by_scene, select
from lipsync_core.faces.selector import FaceSelector
from lipsync_core.image.affine import ALIGNED
from lipsync_core.pipelines.preview import (
    choose_sheet_frames,
    draw_face_masks,
    draw_numbers,
    draw_overview,
    number_faces,
    tile_pictures,
)
from lipsync_core.types import FaceTrack, Frames


def person(
    x: float,
    y: float,
    side: float,
    start: int,
    count: int,
    *,
    scene: int = 0,
    hidden: range = range(0),
) -> FaceTrack:
    """A still upright face whose box begins at x, y, away in the clip frames ``hidden``."""
    box = torch.tensor([x, y, x + side, y + side], dtype=torch.float32)
    visible = torch.ones(count, dtype=torch.bool)
    visible[[i - start for i in hidden]] = False
    points = box[:2] + torch.tensor(ALIGNED) * side
    return FaceTrack(box.repeat(count, 1), points.repeat(count, 1, 1), visible, start, scene)


def noise(height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 160), (1080, 1920), (2160, 3840)])
def test_box_and_number_are_drawn_and_the_rest_stays(height: int, width: int) -> None:
    picture = noise(height, width)
    side = height // 4
    boxes = torch.tensor([[width / 4, height / 2, width / 4 + side, height / 2 + side]])
    drawn = draw_numbers(picture, boxes, [3])
    assert drawn.shape == (height, width, 3) and drawn.dtype == torch.uint8
    changed = (drawn != picture).any(2)
    rows_changed = changed.any(1).nonzero()[:, 0]
    assert (
        11 <= int(rows_changed[-1] - rows_changed[0]) - side <= max(24, height // 5)
    )  # a number's height beyond the box
    columns = changed.any(0).nonzero()[:, 0]
    line = max(1, round(min(height, width) / 300))
    assert int(columns[0]) == width // 4 - line and int(columns[-1]) == width // 4 + side - 1 + line
    # the face itself stays visible
    assert not changed[height // 2 + side // 2, width // 4 + side // 2]
    paper = (drawn == torch.tensor([255, 214, 0], dtype=torch.uint8)).all(2)
    assert int(paper.sum()) > 100


def test_numbers_differ_and_floats_are_drawn_alike() -> None:
    picture, box = noise(120, 160), torch.tensor([[40.0, 60, 80, 100]])
    one, two = draw_numbers(picture, box, [1]), draw_numbers(picture, box, ["2"])
    assert not torch.equal(one, two)
    assert torch.equal(draw_numbers(picture / 255, box, [1]), one)
    assert torch.equal(draw_numbers(picture, box[:0], []), picture)


def test_boxes_beyond_the_picture_are_drawn_at_its_edge() -> None:
    boxes = torch.tensor(
        [[-1e9, -1e9, 1e9, 1e9], [-50, -50, -10, -10], [90, 60, 130, 70], [20.2, 20.2, 20.3, 20.3]]
    )
    drawn = draw_numbers(torch.zeros(64, 100, 3), boxes, [0, 1, 2, 3])
    assert drawn.shape == (64, 100, 3) and bool(drawn.any())


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 labels for 2 boxes"):
        draw_numbers(noise(64, 64), torch.zeros(2, 4), [1])
    with pytest.raises(ValueError, match=r"expected \(H,W,3\) and \(F,4\)"):
        draw_numbers(noise(64, 64)[None], torch.zeros(0, 4), [])


def test_numbers_are_those_that_an_index_counts() -> None:
    """The second from the left in the first scene is away for a while; after the cut they are
    counted again."""
    tracks = [
        person(300, 10, 20, 0, 50, hidden=range(10, 20)),
        person(400, 10, 20, 0, 50),
        person(100, 10, 20, 5, 45),
        person(200, 10, 20, 50, 10, scene=50),
        person(0, 0, 9, 0, 5, hidden=range(5)),
    ]
    assert [len(row) for row in rows_by_scene(tracks)] == [3, 1]
    assert (
        number_faces(tracks, 0)[1] == [1, 2]
        and number_faces(tracks, 15)[1] == [0, 2]
        and number_faces(tracks, 55)[1] == [0]
    )
    assert number_faces(tracks, 99)[0].shape == (0, 4)
    for frame in (0, 15, 30, 55):
        for box, number in zip(*number_faces(tracks, frame), strict=True):
            chosen = select(tracks, FaceSelector("index", index=number))
            assert torch.equal(chosen.boxes[frame - chosen.start], box)
    with pytest.raises(NoFaceError, match="the face 3; 4 found in 2 scenes"):
        select(tracks, FaceSelector("index", index=3))


def test_the_sheet_shows_the_most_people() -> None:
    tracks = [person(0, 0, 9, 0, 100), person(20, 0, 9, 30, 3), person(20, 0, 9, 90, 10)]
    assert choose_sheet_frames(tracks, 100, most=4) == [0, 30, 50, 90]
    assert len(choose_sheet_frames([], 1000)) == 16 and choose_sheet_frames([], 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="count 0"):
        choose_sheet_frames([], 0)


def test_an_overview_is_the_numbered_frames_side_by_side() -> None:
    tracks = [person(20, 20, 20, 0, 6)]
    clip = [noise(60, 100), noise(60, 100) // 2, noise(60, 100) // 3]
    sheet = draw_overview(
        [Frames(torch.stack(clip[:2]), 0), Frames(clip[2][None], 5)], tracks, count=3, width=200
    )
    assert sheet.shape == (120, 200, 3) and sheet.dtype == torch.uint8
    box = tracks[0].boxes[:1]
    wanted = [draw_numbers(picture, box, [0]) for picture in clip]
    assert torch.equal(sheet[:60, :100], wanted[0]) and torch.equal(sheet[:60, 100:], wanted[1])
    assert torch.equal(sheet[60:, :100], wanted[2]) and not sheet[60:, 100:].any()
    small = draw_overview(
        [Frames(torch.full((1, 64, 256, 3), 0.5), 3)],
        [person(128, 16, 32, 0, 6)],
        count=1,
        width=128,
    )
    assert small.shape == (32, 128, 3)
    yellow = (small == torch.tensor([255, 214, 0], dtype=torch.uint8)).all(2).nonzero()
    # the box is reduced with its frame
    assert int(yellow[:, 1].min()) >= 64 and int(yellow[:, 1].max()) <= 80
    with pytest.raises(ValueError, match="no frames"):
        draw_overview([], tracks, count=0)


def test_a_contact_sheet_is_in_reading_order() -> None:
    tiles = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 2, 3, 3)
    sheet = tile_pictures(tiles, columns=2)
    assert sheet.shape == (6, 6, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2], [3, 4], [5, 0]]


def test_masks_cover_the_visible_faces_and_nothing_else() -> None:
    tracks = [person(10, 10, 40, 0, 4, hidden=range(2, 3)), person(60, 20, 30, 1, 2)]
    masks = draw_face_masks(tracks, start=0, count=5, height=70, width=100)
    assert masks.shape == (5, 70, 100) and masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    centres = masks[:, 30, 30].tolist(), masks[:, 35, 75].tolist()
    assert centres == ([1, 1, 0, 1, 0], [0, 1, 1, 0, 0])
    assert not masks[4].any() and not masks[1, :, 52:60].any()
    for x, y in (tracks[0].points[0]).long().tolist():
        assert masks[0, y, x] == 1
    assert 0.4 < float(masks[0].sum()) / 40**2 < 0.9
    later = draw_face_masks(tracks, start=1, count=2, height=70, width=100)
    assert torch.equal(later, masks[1:3])


def test_masks_of_faces_half_outside_and_of_absurd_size_stay_in_the_frame() -> None:
    whole = draw_face_masks([person(20, 20, 40, 0, 1)], start=0, count=1, height=80, width=80)
    half = draw_face_masks([person(-20, -20, 40, 0, 1)], start=0, count=1, height=40, width=40)
    assert half.any()
    torch.testing.assert_close(half[0, :20, :20], whole[0, 40:60, 40:60])
    giant = draw_face_masks([person(-5e8, -5e8, 1e9, 0, 1)], start=0, count=1, height=8, width=9)
    assert giant.shape == (1, 8, 9) and bool(giant.all())
    beside = draw_face_masks([person(500, 500, 40, 0, 1)], start=0, count=1, height=40, width=40)
    assert not beside.any()
