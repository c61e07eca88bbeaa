"""People over time and scene cuts, on made-up scenes whose truth is known."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lipsync_core.faces import tracking
from lipsync_core.faces.shot_boundaries import CutState, find_cuts
from lipsync_core.faces.tracking import detect_tracks, link_detections, smooth_values, track_window
from lipsync_core.types import Detections, FaceTrack, Frames

SECOND = 25


def face(x: float, y: float, size: float) -> Tensor:
    """Box (4,) of a face centred at x, y."""
    return torch.tensor([x - size / 2, y - size / 2, x + size / 2, y + size / 2])


def found(*boxes: Tensor) -> Detections:
    stacked = torch.stack(boxes) if boxes else torch.zeros(0, 4)
    places = torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])
    points = stacked[:, None, :2] + places * (stacked[:, 2:] - stacked[:, :2])[:, None]
    return Detections(stacked, points, torch.ones(len(boxes)))


def centres(person: FaceTrack) -> Tensor:
    return (person.boxes[:, :2] + person.boxes[:, 2:]) / 2


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Association


def test_linear_motion_comes_through_exactly_with_gaps_between_runs() -> None:
    """Seen on every fifth frame, moving and growing steadily: every frame, also the first and last,
    is exact."""
    runs = [(i, found(face(100 + 3 * i, 80 - i, 50 + 0.5 * i))) for i in range(0, 61, 5)]
    (person,) = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    wanted = torch.stack([face(100 + 3 * i, 80 - i, 50 + 0.5 * i) for i in range(61)])
    assert person.start == 0 and person.visible.all()
    torch.testing.assert_close(person.boxes, wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(person.points, found(*wanted).points, atol=1e-3, rtol=0)


def test_crossing_people_keep_their_names() -> None:
    """Two people walk past each other; while one hides the other, the detector sees only the one in
    front."""
    runs: list[tuple[int, Detections]] = []
    for i in range(0, 101, 5):
        front, behind = face(100 + 4 * i, 100, 60), face(500 - 4 * i, 104, 54)
        hidden = abs((100 + 4 * i) - (500 - 4 * i)) < 40
        runs.append((i, found(front) if hidden else found(behind, front)))
    a, b = sorted(
        link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3),
        key=lambda t: float(t.boxes[0, 0]),
    )
    assert len(a.visible) == len(b.visible) == 101 and a.visible.all() and b.visible.all()
    torch.testing.assert_close(centres(a)[:, 0], 100.0 + 4 * torch.arange(101), atol=0.5, rtol=0)
    torch.testing.assert_close(centres(b)[:, 0], 500.0 - 4 * torch.arange(101), atol=0.5, rtol=0)


def test_people_enter_and_leave() -> None:
    runs: list[tuple[int, Detections]] = []
    for i in range(0, 201, 5):
        there = [face(100, 100, 60)] if i <= 120 else []
        runs.append((i, found(*there, *([face(400, 100, 60)] if i >= 80 else []))))
    first, second = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    assert (first.start, len(first.visible)) == (0, 121) and first.visible.all()
    assert (second.start, len(second.visible)) == (80, 121) and second.visible.all()


def test_many_people_stay_apart() -> None:
    """Forty faces in a grid, all swaying by more than half the distance to their neighbours."""
    grid = [(100.0 * (i % 8), 100.0 * (i // 8)) for i in range(40)]
    runs: list[tuple[int, Detections]] = []
    for i in range(0, 101, 5):
        sway = 60 * torch.sin(torch.tensor(i / 15.0)).item()
        order = torch.randperm(40, generator=torch.Generator().manual_seed(i)).tolist()
        runs.append((i, found(*(face(grid[k][0] + sway, grid[k][1], 50) for k in order))))
    tracks = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=0)
    assert len(tracks) == 40 and all(len(t.visible) == 101 for t in tracks)
    moved = torch.stack([centres(t)[-1] - centres(t)[0] for t in tracks])
    torch.testing.assert_close(moved, moved[:1].expand(40, 2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("missing", "filled"), [(SECOND - 1, True), (SECOND, True), (SECOND + 1, False)]
)
def test_gaps_are_filled_up_to_a_second(missing: int, filled: bool) -> None:
    """The same person in the same place, before and after ``missing`` frames without a face."""
    back = 40 + missing
    runs = [
        (i, found(face(100, 100, 60)) if i < 40 or i >= back else found()) for i in range(back + 40)
    ]
    (person,) = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    assert (
        bool(person.visible[40:back].all()) is filled
        and bool(person.visible[40:back].any()) is filled
    )
    assert person.visible[:40].all() and person.visible[back:].all()
    torch.testing.assert_close(
        person.boxes[person.visible], face(100, 100, 60).expand(int(person.visible.sum()), 4)
    )


def test_nothing_is_smoothed_across_a_long_gap() -> None:
    runs = [
        (i, found(face(100 if i < 40 else 120, 100, 60)) if i < 40 or i >= 80 else found())
        for i in range(120)
    ]
    (person,) = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    torch.testing.assert_close(centres(person)[:40, 0], torch.full((40,), 100.0))
    torch.testing.assert_close(centres(person)[80:, 0], torch.full((40,), 120.0))


def test_somebody_elsewhere_after_a_gap_is_somebody_else() -> None:
    runs = [
        (i, found(face(100 if i < 40 else 250, 100, 60)) if i < 40 or i >= 80 else found())
        for i in range(120)
    ]
    assert [
        (t.start, len(t.visible))
        for t in link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    ] == [(0, 40), (80, 40)]


def test_a_cut_begins_new_tracks_and_is_not_smoothed_across() -> None:
    """The face hardly moves at the cut, so that nothing but the cut parts the two."""
    runs = [(i, found(face(100 if i < 50 else 110, 100, 60))) for i in range(100)]
    before, after = link_detections(runs, cuts=[50], max_gap=SECOND, smoothing=3)
    assert (before.start, len(before.visible), before.scene) == (0, 50, 0)
    assert (after.start, len(after.visible), after.scene) == (50, 50, 50)
    torch.testing.assert_close(centres(before)[:, 0], torch.full((50,), 100.0))
    torch.testing.assert_close(centres(after)[:, 0], torch.full((50,), 110.0))


def test_false_alarms_are_dropped_but_not_in_short_scenes() -> None:
    steady = face(100, 100, 60)
    alarm = {20: face(300, 50, 40), 25: face(301, 51, 40), 95: face(500, 50, 40)}
    runs = [(i, found(steady, *([alarm[i]] if i in alarm else []))) for i in range(0, 100, 5)]
    assert len(link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)) == 1
    assert (
        len(link_detections(runs[:1], cuts=[], max_gap=SECOND, smoothing=3)) == 1
    )  # a photo: one run
    dense = [(i, found(steady, *([face(300, 50, 40)] if 20 <= i < 25 else []))) for i in range(100)]
    # five sightings, but a fifth of a second
    assert len(link_detections(dense, cuts=[], max_gap=SECOND, smoothing=3)) == 1


def test_no_faces_no_tracks() -> None:
    assert (
        link_detections([(i, found()) for i in range(10)], cuts=[], max_gap=SECOND, smoothing=3)
        == []
    )
    assert link_detections([], cuts=[], max_gap=SECOND, smoothing=3) == []


# Smoothing


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 60])
def test_smoother_leaves_constant_and_linear_motion_alone_at_any_length(count: int) -> None:
    time = torch.arange(count, dtype=torch.float32)[:, None]
    motion = torch.cat([torch.full_like(time, 7.0), 500 - 3 * time], 1)
    torch.testing.assert_close(smooth_values(motion, 3.0), motion, atol=1e-3, rtol=0)


def test_smoother_takes_noise_and_neither_lags_nor_shrinks() -> None:
    """A nod of 1 Hz at 25 fps and 20 px, under 2 px of jitter."""
    time = torch.arange(250)
    nod = (20 * torch.sin(2 * torch.pi * time / 25))[:, None]
    smoothed = smooth_values(nod + 2 * noise(0, 250, 1), 3.0)
    error = (smoothed - nod)[:, 0]
    assert error[10:-10].square().mean().sqrt() < 1.0  # half of the jitter at most
    assert error.square().mean().sqrt() < 1.3  # with the ends, where only one side helps
    clean = smooth_values(nod, 3.0)[:, 0]
    assert 0.97 < float(clean[25:225].max()) / 20 <= 1.0
    shifts = torch.tensor(
        [float((clean[50:200] * nod[50 + s : 200 + s, 0]).sum()) for s in range(-3, 4)]
    )
    assert int(shifts.argmax()) == 3  # no lag


def test_smoother_has_no_direction() -> None:
    jitter = noise(1, 40, 3)
    torch.testing.assert_close(
        smooth_values(jitter.flip(0), 2.5).flip(0), smooth_values(jitter, 2.5), atol=1e-5, rtol=0
    )


def test_smoothed_tracks_are_steadier_than_what_was_found() -> None:
    shake = noise(2, 100, 2)
    runs = [
        (i, found(face(100 + float(shake[i, 0]), 100 + float(shake[i, 1]), 60))) for i in range(100)
    ]
    (raw,) = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=0)
    (calm,) = link_detections(runs, cuts=[], max_gap=SECOND, smoothing=3)
    assert centres(calm).diff(dim=0).std() < 0.15 * centres(raw).diff(dim=0).std()


# Windows


def test_windows_cut_and_pad() -> None:
    (person,) = link_detections(
        [(i, found(face(i, 0, 9))) for i in range(10, 20)], cuts=[], max_gap=SECOND, smoothing=0
    )
    whole = track_window(person, 0, 30)
    assert whole.visible.nonzero()[:, 0].tolist() == list(range(10, 20))
    for size in (1, 2, 7, 32):
        parts = [track_window(person, start, min(size, 30 - start)) for start in range(0, 30, size)]
        assert [p.start for p in parts] == list(range(0, 30, size))
        for name in ("boxes", "points", "visible"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))


# Scene cuts and detection on a film


def backdrop(seed: int) -> Tensor:
    """A soft random picture (90,160,3) in [0,1]."""
    coarse = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(seed))
    return (
        F.interpolate(coarse, (90, 160), mode="bicubic", align_corners=False)[0]
        .permute(1, 2, 0)
        .clamp(0, 1)
    )


def film(seed: int, count: int, *, start: float = 40, speed: float = 0.5) -> Tensor:
    """A white square of 20 px that walks over a backdrop, with camera noise: (N,90,160,3) uint8."""
    frames = (backdrop(seed) * 0.6).expand(count, -1, -1, -1).clone()
    for i in range(count):
        x = round(start + speed * i)
        frames[i, 30:50, x : x + 20] = 1.0
    return ((frames + 0.01 * noise(seed, *frames.shape)).clamp(0, 1) * 255).round().to(torch.uint8)


def cuts_of(pixels: Tensor, chunk: int = 1000) -> list[int]:
    state: CutState | None = None
    answers: list[Tensor] = []
    for part in pixels.split(chunk):
        cuts, state = find_cuts(part, state)
        answers.append(cuts)
    return torch.cat(answers).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("chunk", [1, 2, 7, 32, 1000])
def test_cuts_are_found_in_chunks_of_any_size(chunk: int) -> None:
    pixels = torch.cat([film(1, 30), film(2, 40), film(3, 20)])
    assert cuts_of(pixels, chunk) == [30, 70]
    assert cuts_of(pixels.float() / 255, chunk) == [30, 70]


@pytest.mark.parametrize("light", ["bright", "white", "black", "dim"])
def test_flashes_and_dropouts_are_no_cuts(light: str) -> None:
    pixels = film(1, 40).float() / 255
    shown = {
        "bright": pixels * 2 + 0.2,
        "white": pixels * 0 + 1,
        "black": pixels * 0,
        "dim": pixels * 0.3,
    }[light]
    pixels[20:23] = shown[20:23].clamp(max=1)
    assert cuts_of(pixels) == []


def test_a_cut_through_black_is_found_where_the_new_scene_shows() -> None:
    assert cuts_of(torch.cat([film(1, 20), film(1, 5) * 0, film(2, 20)])) == [25]


def test_motion_is_no_cut() -> None:
    assert cuts_of(film(1, 40, start=5, speed=3)) == []
    wide = F.interpolate(backdrop(4).permute(2, 0, 1)[None], (90, 480), mode="bilinear")[0].permute(
        1, 2, 0
    )
    # 2.5 % of the width a frame
    pan = torch.stack([wide[:, 4 * i : 4 * i + 160] for i in range(80)])
    assert cuts_of(pan.clamp(0, 1)) == []


class WhiteSquares:
    """Finds the white square of ``film`` and counts the pictures that it was shown."""

    def __init__(self) -> None:
        self.pictures = 0

    def detect(self, pixels: Tensor) -> list[Detections]:
        self.pictures += len(pixels)
        answers: list[Detections] = []
        for white in (pixels > 240).all(3):
            rows, columns = white.any(1).nonzero()[:, 0], white.any(0).nonzero()[:, 0]
            if len(rows) == 0:
                answers.append(found())
                continue
            edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            answers.append(found(torch.stack(edges).float()))
        return answers


@pytest.mark.parametrize("chunk", [1, 2, 7, 32, 1000])
def test_a_film_with_cuts_becomes_tracks(chunk: int) -> None:
    """The square is where it is, in source pixels, on every frame up to each cut, though few frames
    are looked at."""
    pixels = torch.cat([film(1, 33), film(2, 41, start=90, speed=-1), film(3, 2, start=10)])
    detector = WhiteSquares()
    parts = [Frames(part, i * chunk) for i, part in enumerate(pixels.split(chunk))]
    tracks = detect_tracks(parts, detector, scale=(4.0, 3.0), every=5, fps=Fraction(25))
    assert [(t.start, len(t.visible), t.scene) for t in tracks] == [
        (0, 33, 0),
        (33, 41, 33),
        (74, 2, 74),
    ]
    assert detector.pictures == 7 + 1 + 9 + 1 + 1  # every fifth and the last of each scene
    wanted = 90 - torch.arange(41.0)
    torch.testing.assert_close(tracks[1].boxes[:, 0], 4 * wanted, atol=0.05, rtol=0)
    torch.testing.assert_close(tracks[1].boxes[:, 3], torch.full((41,), 150.0), atol=0.05, rtol=0)


def test_tracks_do_not_depend_on_the_chunks() -> None:
    pixels = torch.cat([film(5, 40, speed=1.3), film(6, 23)])
    runs = [
        detect_tracks(
            [Frames(part, i * chunk) for i, part in enumerate(pixels.split(chunk))],
            WhiteSquares(),
            scale=2.0,
            every=4,
            fps=Fraction(30000, 1001),
        )
        for chunk in (1, 2, 7, 32, len(pixels))
    ]
    for tracks in runs[1:]:
        for got, wanted in zip(tracks, runs[0], strict=True):
            assert torch.equal(got.boxes, wanted.boxes) and torch.equal(got.visible, wanted.visible)


def test_no_frames_and_nonsense_steps() -> None:
    assert detect_tracks([], WhiteSquares(), scale=1.0, every=5, fps=Fraction(25)) == []
    with pytest.raises(ValueError, match="every is 0"):
        detect_tracks([], WhiteSquares(), scale=1.0, every=0, fps=Fraction(25))


def test_long_tracks_are_smoothed_as_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(101, 14, generator=torch.Generator().manual_seed(2))
    whole = smooth_values(values, 3.0)
    monkeypatch.setattr(tracking, "_SMOOTHED_AT_ONCE", 7)
    torch.testing.assert_close(smooth_values(values, 3.0), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fps", [Fraction(1, 2), 2, 3, 4, Fraction(24000, 1001), 25, 60])
@pytest.mark.parametrize("every", [5, 30])
def test_faces_are_followed_at_any_frame_rate(fps: Fraction, every: int) -> None:
    """No absence is made of the time between two runs, however few frames a second has."""
    tracks = detect_tracks(
        [Frames(film(1, 40), 0)], WhiteSquares(), scale=1.0, every=every, fps=Fraction(fps)
    )
    assert [(t.start, len(t.visible)) for t in tracks] == [(0, 40)] and tracks[0].visible.all()


def test_slow_footage_is_looked_at_as_often_in_seconds() -> None:
    for fps, pictures in ((4, 40), (12, 21), (25, 9)):
        detector = WhiteSquares()
        detect_tracks([Frames(film(1, 40), 0)], detector, scale=1.0, every=5, fps=Fraction(fps))
        assert detector.pictures == pictures


def followed(pixels: Tensor, *, again: Tensor | None = None) -> list[FaceTrack]:
    """Tracks of a film of which ``again`` is seen where a detector found no face."""
    shown = pixels if again is None else again
    return detect_tracks(
        [Frames(part, i * 10) for i, part in enumerate(pixels.split(10))],
        WhiteSquares(),
        scale=1.0,
        every=5,
        fps=Fraction(25),
        pictures=lambda frames: [(i, shown[i]) for i in frames],
    )


def visible_frames(tracks: list[FaceTrack]) -> list[int]:
    seen = [track.start + track.visible.nonzero()[:, 0] for track in tracks]
    return torch.cat(seen).tolist()


@pytest.mark.parametrize("level", [0, 89, 235])
@pytest.mark.parametrize("span", [(21, 23), (16, 28), (17, 40)])
def test_frames_without_a_picture_show_no_face(level: int, span: tuple[int, int]) -> None:
    """However short a dip to black, grey or white is, and wherever runs of the detector are."""
    first, stop = span
    pixels = film(1, 60)
    pixels[first:stop] = level
    assert visible_frames(followed(pixels)) == [*range(first), *range(stop, 60)]


@pytest.mark.parametrize("edge", range(20, 25))
def test_a_track_begins_and_ends_at_the_frame(edge: int) -> None:
    """The face goes or comes between two runs, in front of the same backdrop."""
    without = film(1, 60)
    without[:] = without[:, :, :20].repeat(1, 1, 8, 1)
    pixels = film(1, 60, speed=0)
    leaves = torch.where(torch.arange(60)[:, None, None, None] < edge, pixels, without)
    assert visible_frames(followed(leaves)) == list(range(edge))
    assert visible_frames(followed(leaves.flip(0))) == list(range(60 - edge, 60))


def test_gaps_are_filled_where_the_picture_looks_like_the_face() -> None:
    """For twelve frames the detector misses the face, in six of which another picture is there."""
    whole = film(1, 60, speed=0)
    missed, shown = whole.clone(), whole.clone()
    missed[22:34] = (whole[22:34] * 0.9).byte()
    shown[26:32] = whole[26:32].flip(1)
    assert visible_frames(followed(missed, again=shown)) == [*range(26), *range(32, 60)]
    assert visible_frames(followed(missed, again=missed)) == list(range(60))
