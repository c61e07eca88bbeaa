"""The stream: the same however it is cut, lazy, and nothing but the face is touched."""

import gc
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import level_of, levels, write_video
from helpers.streams import COUNT, FPS, close, mini, person, pieces, voice, whole
from torch import Tensor

from lipsync_core.image.affine import ALIGNED
from lipsync_core.media import probe
from lipsync_core.media.clip import VideoClip, clip_frames, frame_order, monotone_runs
from lipsync_core.models.precision import Precision
from lipsync_core.models.wav2lip import MINI, WAV2LIP, Generator
from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.roles import FaceDub
from lipsync_core.pipelines.track_faces import reorder_track
from lipsync_core.runtime.prefetch import prefetch, time_items
from lipsync_core.types import FaceTrack, Frames, YuvFrames


@pytest.fixture(scope="module")
def sync() -> LipSync:
    # in bfloat16 the last bit depends on the size of the batch
    return LipSync(mini(), precision="float32")


@pytest.fixture(scope="module")
def dubbed(sync: LipSync, clip: Tensor) -> Tensor:
    return whole(sync.stream(pieces(clip, COUNT), voice(1), fps=FPS, tracks=[person(20)]))


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_stream_does_not_depend_on_the_chunks(
    sync: LipSync, clip: Tensor, dubbed: Tensor, size: int
) -> None:
    close(whole(sync.stream(pieces(clip, size), voice(1), fps=FPS, tracks=[person(20)])), dubbed)


@pytest.mark.parametrize("size", [1, 5, 32])
def test_a_new_mouth_is_seen_as_much_as_is_said_of_each_frame(
    sync: LipSync, clip: Tensor, dubbed: Tensor, size: int
) -> None:
    shown = torch.ones(COUNT)
    shown[2:5], shown[5] = 0, 0.5
    got = whole(
        sync.render(pieces(clip, size), [FaceDub(voice(1), person(20), opacity=shown)], fps=FPS)
    )
    assert torch.equal(got[2:5], clip[2:5])
    close(got[shown == 1], dubbed[shown == 1])
    between = (clip[5].float() + dubbed[5].float()) / 2
    assert float((got[5].float() - between).abs().max()) <= 1 and not torch.equal(got[5], dubbed[5])


def test_faces_change_and_the_rest_does_not(clip: Tensor, dubbed: Tensor) -> None:
    changed = (dubbed != clip).any(-1)
    assert bool(changed.any(2).any(1).all())  # every frame speaks
    track = person(20)
    for frame, points in zip(changed, track.points, strict=True):
        y, x = frame.nonzero().unbind(1)
        assert y.min() > points[0, 1]  # nothing above the eyes
        assert x.min() > points[:, 0].min() - 40 and x.max() < points[:, 0].max() + 40


def test_the_clip_is_not_written_into(sync: LipSync, clip: Tensor) -> None:
    before = clip.clone()
    whole(sync.stream(pieces(clip, 8), voice(1), fps=FPS, tracks=[person(20, hidden=slice(3, 5))]))
    assert torch.equal(clip, before)


@pytest.mark.parametrize("size", [1, 7, COUNT])
def test_frames_without_the_face_pass_through(
    sync: LipSync, clip: Tensor, dubbed: Tensor, size: int
) -> None:
    track = person(20, hidden=slice(5, 17))
    got = whole(sync.stream(pieces(clip, size), voice(1), fps=FPS, tracks=[track]))
    assert torch.equal(got[5:17], clip[5:17])
    close(got[track.visible], dubbed[track.visible])


def test_a_track_may_begin_late_and_end_early(sync: LipSync, clip: Tensor) -> None:
    got = whole(
        sync.stream(pieces(clip, 6), voice(1), fps=FPS, tracks=[person(20, count=9, start=13)])
    )
    spoke = (got != clip).flatten(1).any(1)
    assert spoke.nonzero()[:, 0].tolist() == list(range(13, 22))


def test_without_tracks_frames_come_back_as_they_are(sync: LipSync, clip: Tensor) -> None:
    chunk = Frames(clip, 0)
    assert next(sync.stream(iter([chunk]), voice(1), fps=FPS, tracks=[])) is chunk


def test_two_people_with_two_voices(sync: LipSync, clip: Tensor) -> None:
    """Each is dubbed as alone: the faces lie apart."""
    left, right = person(5, scale=50), person(115, scale=50)
    first = sync.stream(pieces(clip, 7), voice(1), fps=FPS, tracks=[left])
    both = whole(sync.stream(first, voice(2), fps=FPS, tracks=[right]))
    only_left = whole(sync.stream(pieces(clip, 7), voice(1), fps=FPS, tracks=[left]))
    only_right = whole(sync.stream(pieces(clip, 7), voice(2), fps=FPS, tracks=[right]))
    assert torch.equal(both[:, :, :100], only_left[:, :, :100])
    assert torch.equal(both[:, :, 100:], only_right[:, :, 100:])
    assert not torch.equal(only_left[:, :, :100], clip[:, :, :100])
    swapped = whole(sync.stream(pieces(clip, 7), voice(2), fps=FPS, tracks=[left]))
    assert int((swapped != only_left).flatten(1).any(1).sum()) > COUNT // 2


@pytest.mark.parametrize("size", [1, 5, 32])
def test_a_still_is_the_stream_of_its_frame(sync: LipSync, clip: Tensor, size: int) -> None:
    track = person(20, count=1)
    photo = Frames(clip[:1])
    got = whole(sync.still(photo, voice(1), fps=FPS, tracks=[track], count=11, chunk=size))
    repeated = FaceTrack(
        track.boxes.expand(11, -1), track.points.expand(11, -1, -1), track.visible.expand(11)
    )
    close(
        got,
        whole(
            sync.stream(
                pieces(clip[:1].expand(11, -1, -1, -1), 11), voice(1), fps=FPS, tracks=[repeated]
            )
        ),
    )
    assert torch.equal(photo.pixels, clip[:1])
    assert not torch.equal(got[1:], got[:-1])  # it speaks


def test_a_still_without_a_visible_face_is_shown(sync: LipSync, clip: Tensor) -> None:
    track = person(20, count=1, hidden=slice(0, 1))
    got = whole(sync.still(Frames(clip[:1]), voice(1), fps=FPS, tracks=[track], count=3))
    assert torch.equal(got, clip[:1].expand(3, -1, -1, -1))


@pytest.mark.parametrize(
    "blend", [Blend("box", "paste"), Blend("face", "feather", 0.1, True), Blend("lower")]
)
def test_every_blend_streams(sync: LipSync, clip: Tensor, blend: Blend) -> None:
    other = LipSync(mini(), blend=blend)
    got = [
        whole(other.stream(pieces(clip[:6], n), voice(1), fps=FPS, tracks=[person(20)]))
        for n in (2, 6)
    ]
    close(*got)
    assert not torch.equal(got[0], clip[:6])


def test_float_frames_stay_float(sync: LipSync, clip: Tensor, dubbed: Tensor) -> None:
    (got,) = sync.stream(iter([Frames(clip[:3] / 255)]), voice(1), fps=FPS, tracks=[person(20)])
    assert got.pixels.dtype == torch.float32
    torch.testing.assert_close(got.pixels * 255, dubbed[:3].float(), atol=0.51, rtol=0)


def test_pads_and_lead_override_the_config() -> None:
    assert LipSync(Generator(MINI), lead_ms=120).config.features.lead_ms == 120
    with pytest.raises(ValueError, match="pads apply to box framing alone"):
        LipSync(Generator(MINI), pads=(0, 1, 2, 3))
    with torch.device("meta"):
        public = Generator(WAV2LIP)
    assert public.config.framing.pads == (0, 10, 0, 0)


def test_the_stream_reads_no_further_than_it_must(sync: LipSync, clip: Tensor) -> None:
    read = 0

    def source() -> Iterator[Frames]:
        nonlocal read
        for piece in pieces(clip, 2):
            read += 1
            yield piece

    stream = sync.stream(source(), voice(1), fps=FPS, tracks=[person(20)])
    assert read == 0
    next(stream)
    assert read == 1
    next(stream)
    assert read == 2


# --- the order of frames
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "longer", "wanted"),
    [
        (4, "pingpong", [0, 1, 2, 3, 2, 1, 0, 1, 2]),
        (4, "loop", [0, 1, 2, 3, 0, 1, 2, 3, 0]),
        (4, "hold", [0, 1, 2, 3, 3, 3, 3, 3, 3]),
        (2, "pingpong", [0, 1, 0, 1, 0, 1, 0, 1, 0]),
        (2, "loop", [0, 1, 0, 1, 0, 1, 0, 1, 0]),
        (2, "hold", [0, 1, 1, 1, 1, 1, 1, 1, 1]),
        (1, "pingpong", [0] * 9),
        (1, "loop", [0] * 9),
        (1, "hold", [0] * 9),
        (12, "pingpong", [*range(9)]),
        (9, "trim", [*range(9)]),
    ],
)
def test_order(length: int, longer, wanted: list[int]) -> None:
    assert frame_order(length, 9, longer).tolist() == wanted


def luma(stream: Iterator[Frames | YuvFrames]) -> Tensor:
    """(N,H,W) of coded frames, on the scale of RGB."""
    coded = list(stream)
    assert all(isinstance(chunk, YuvFrames) for chunk in coded)
    assert [chunk.start for chunk in coded] == [
        sum(len(c.pixels) for c in coded[:i]) for i in range(len(coded))
    ]
    return (
        torch.cat([chunk.luma[:, 0] for chunk in coded if isinstance(chunk, YuvFrames)])
        .sub(16.0)
        .mul(255 / 219)
    )


@pytest.mark.parametrize("longer", ["pingpong", "loop", "hold"])
@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_footage_shows_its_frames_in_that_order(tmp_path: Path, longer, length: int) -> None:
    path = write_video(tmp_path / "a.mp4", levels(25))
    footage = VideoClip(path, probe(path), first=3, stop=3 + length)
    order = frame_order(length, 47, longer)
    assert level_of(luma(footage.frames(order, chunk=8))) == (order + 3).tolist()


def test_a_clip_is_read_whole_in_part_and_in_any_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", levels(25))
    clip = VideoClip(path, probe(path))
    assert level_of(luma(clip.coded(chunk=8))) == list(range(25))
    for order in (list(range(11)), [7, 7, 7, 3, 2, 1, 2, 3, 20, 20, 5, 0, 0]):
        chunks = list(clip.frames(torch.tensor(order), chunk=2))
        assert level_of(luma(iter(chunks))) == order
        starts = torch.tensor([0, *(len(chunk.pixels) for chunk in chunks[:-1])]).cumsum(0)
        assert [chunk.start for chunk in chunks] == starts.tolist()


@pytest.mark.parametrize(
    ("order", "runs"),
    [
        ([0, 1, 2, 1, 0, 1], [[0, 1, 2], [1], [0, 1]]),  # the turning frames are read forwards
        ([0, 1, 2, 0, 1], [[0, 1, 2], [0, 1]]),
        ([0, 1, 1, 1], [[0, 1], [1, 1]]),
        ([3, 3, 2, 1, 5], [[3], [3], [2, 1], [5]]),
        ([], []),
    ],
)
def test_orders_fall_into_runs(order: list[int], runs: list[list[int]]) -> None:
    assert [run.tolist() for run in monotone_runs(torch.tensor(order))] == runs


def test_a_track_follows_the_order_of_its_frames() -> None:
    track = person(20, count=6, start=2, hidden=slice(4, 5))
    index = frame_order(9, 20, "pingpong")
    got = reorder_track(track, 9, index)
    assert got.start == 0 and len(got.visible) == 20
    for shown, source in enumerate(index.tolist()):
        seen = 2 <= source < 8 and source != 6
        assert bool(got.visible[shown]) == seen
        if seen:
            assert torch.equal(got.points[shown], track.points[source - 2])


def test_cuts_fall_on_the_nearest_frame() -> None:
    assert clip_frames(Fraction(1), Fraction(2), Fraction(30000, 1001)) == (30, 60)
    assert clip_frames(Fraction(0), None, FPS) == (0, None)
    assert clip_frames(Fraction(1, 50), Fraction(3, 50), FPS) == (1, 2)  # half a frame rounds up


# --- stages that overlap
# -------------------------------------------------------------------------------------------


def test_ahead_keeps_the_order_and_works_in_another_thread() -> None:
    threads = set()

    def source() -> Iterator[int]:
        for i in range(50):
            threads.add(threading.get_ident())
            yield i

    assert list(prefetch(source(), depth=3)) == list(range(50))
    assert threads.isdisjoint({threading.get_ident()})
    assert list(prefetch(iter([]))) == []


def test_ahead_stays_within_its_depth() -> None:
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    stream = prefetch(source(), depth=2)
    for taken in range(1, 20):
        next(stream)
        assert made <= taken + 3  # two wait in the queue, one in the maker's hand
    stream.close()


def test_ahead_passes_an_exception_on() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    stream = prefetch(source())
    assert next(stream) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_ahead_closes_the_source() -> None:
    closed = threading.Event()
    running = threading.active_count()

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    stream = prefetch(source(), depth=1)
    assert next(stream) == 0
    stream.close()
    assert closed.is_set() and threading.active_count() == running


def test_an_abandoned_pipeline_of_stages_closes_the_source() -> None:
    closed = threading.Event()
    running = threading.active_count()

    def source() -> Iterator[int]:
        try:
            yield from range(1, 1000)
        finally:
            closed.set()

    seconds: list[float] = []
    stages = prefetch(time_items(prefetch(time_items(source(), seconds.append)), seconds.append))
    assert next(stages) == 1
    stages.close()
    gc.collect()
    assert closed.wait(5) and threading.active_count() == running


def test_timed_tells_the_time_of_every_item() -> None:
    seconds: list[float] = []
    assert list(time_items(iter([3, 4]), seconds.append)) == [3, 4]
    assert len(seconds) >= 2 and all(0 <= s < 5 for s in seconds)


def test_own_pixels_and_crops_agree_where_both_have_the_same_resolution(clip: Tensor) -> None:
    face = clip[:, :96, 40:136]  # the frame is the crop, so that nothing can come from beyond it
    points = (torch.tensor([ALIGNED]) * 96).expand(COUNT, -1, -1)
    boxes = torch.cat([points.amin(1), points.amax(1)], 1)
    track = FaceTrack(boxes, points, torch.ones(COUNT, dtype=torch.bool))

    def stream(own: bool) -> Tensor:
        blend = Blend(own_pixels=own, kind="feather", detail=0, grain=0)
        sync = LipSync(mini(), blend=blend, precision="float32")
        return whole(sync.stream(pieces(face, 16), voice(1), fps=FPS, tracks=[track]))

    own, enlarged = stream(True), stream(False)
    off = (own.int() - enlarged.int()).abs()
    # the seam of the halves: one mixes two rows there, the other what they are made of
    off[:, 47:49] = 0
    # pixels are moved by cubic interpolation there, by linear here
    assert (own != face).any() and off.max() <= 6 and off.float().mean() < 0.1


def test_bfloat16_is_close_to_float32(clip: Tensor) -> None:
    def stream(precision: Precision) -> Tensor:
        sync = LipSync(mini(), precision=precision)
        return whole(
            sync.stream(pieces(clip[:4], 4), voice(1), fps=FPS, tracks=[person(20, count=4)])
        )

    exact, rough = stream("float32"), stream("bfloat16")
    off = (exact.int() - rough.int()).abs().float()
    assert off.max() > 0 and off.mean() < 0.2
    assert any(torch.equal(stream("auto"), one) for one in (exact, rough))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float16"):
        LipSync(mini(), precision="float16")  # type: ignore[arg-type]


def test_bfloat16_wants_float32_weights(clip: Tensor) -> None:
    with pytest.raises(ValueError, match="float32"):
        LipSync(mini().half(), precision="bfloat16")
    whole(
        LipSync(mini().half()).stream(
            pieces(clip[:4], 4), voice(1), fps=FPS, tracks=[person(20, count=4)]
        )
    )
