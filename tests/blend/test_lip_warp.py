"""Lips and jaws of real pictures, moved to a wanted shape: geometry, pixels, and a model that does
it in the stream."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.lips import FPS, PRIOR, SIZE, face, lip_warp, noise
from helpers.streams import close, pieces, voice, whole
from torch import Tensor

from lipsync_core.blend.lip_warp import (
    LipMove,
    LipRange,
    measure_range,
    move_lips,
    paint_inside,
    paint_mouth_inside,
    place_lips,
    raise_range,
    scale_shape,
    spline,
)
from lipsync_core.image.affine import crop_to_frame
from lipsync_core.image.landmarks import (
    INNER_LIPS,
    IRISES,
    JAW,
    MEDIAPIPE_VERTICES,
    NOSE_BRIDGE,
    OUTER_LIPS,
    lip_shapes,
)
from lipsync_core.image.yuv import to_rgb
from lipsync_core.models.face_landmarks import FaceLandmarks
from lipsync_core.models.lip_warp import LipWarp, LipWarpConfig
from lipsync_core.models.weights import load_talking_face, read_header, save_model
from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.roles import FaceDub, GeneratorCache
from lipsync_core.types import Audio, ColourTags, FaceTrack, Frames, References, YuvFrames

COUNT, HEIGHT, WIDTH = 11, 96, 176


def turned(points: Tensor, *, angle: float = 0.2, scale: float = 0.9) -> Tensor:
    """Points (N,K,2) of a head that lies otherwise in the crop."""
    turn = scale * torch.tensor([[torch.tensor(angle).cos(), -torch.tensor(angle).sin()]]).repeat(
        2, 1
    )
    turn[1] = turn[0, [1, 0]] * torch.tensor([-1.0, 1.0])
    return (points - SIZE / 2) @ turn.T + SIZE / 2 + torch.tensor([2.0, -1.0])


# ---- geometry


@pytest.mark.parametrize("wanted", [(0.02, 0.62, 0.85), (0.20, 0.58, 0.95), (0.10, 0.68, 0.90)])
def test_lips_get_the_opening_width_and_jaw_that_are_wanted(
    wanted: tuple[float, float, float],
) -> None:
    source = face(0.08)
    for target in (face(0.15), turned(face(0.01))):
        got = lip_shapes(place_lips(source, target, torch.tensor([wanted])))[0]
        assert float(got[0]) == pytest.approx(wanted[0], abs=0.015)
        assert float(got[1]) == pytest.approx(wanted[1], abs=0.01)
        assert float(got[2]) == pytest.approx(wanted[2], abs=0.03)


def test_a_mouth_that_is_as_wanted_already_stays_where_it_is() -> None:
    source = face(0.1)
    move = move_lips(source, source, lip_shapes(source), SIZE)
    assert float((move.points - source).abs().max()) < 0.02
    assert (
        float(move.offset[..., 2:-2, 2:-2].abs().max()) < 0.1
        and float(move.opened.abs().max()) < 1e-5
    )
    picture = noise(1, SIZE, SIZE)
    assert float((move.warp(picture) - picture)[..., 2:-2, 2:-2].abs().max()) < 0.02


def test_nothing_of_the_old_lips_is_looked_at() -> None:
    """Whatever the frame's own mouth does, the drawn lips are the same to the bit; the jaw's line
    may be its own."""
    source, target, wanted = face(0.05), turned(face(0.12)), torch.tensor([[0.15, 0.6, 0.9]])
    before = place_lips(source, target, wanted)
    shuffled = target.clone()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled[:, :40] = target[:, order] + 5 * torch.randn(
        1, 40, 2, generator=torch.Generator().manual_seed(2)
    )
    assert torch.equal(place_lips(source, shuffled, wanted), before)
    assert torch.equal(
        move_lips(source, shuffled, wanted, SIZE).offset,
        move_lips(source, target, wanted, SIZE).offset,
    )


def test_how_far_the_old_jaw_hangs_moves_no_lip() -> None:
    source, target, wanted = face(0.05), face(0.02), torch.tensor([[0.15, 0.6, 0.9]])
    hanging = target.clone()
    # the chin most, the ears not
    hanging[:, JAW, 1] += torch.linspace(-1, 1, 21).square().neg().add(1) * 6
    before, after = place_lips(source, target, wanted), place_lips(source, hanging, wanted)
    assert torch.equal(after[:, : INNER_LIPS.stop], before[:, : INNER_LIPS.stop])
    chin = JAW.start + 10
    # nor the chin itself
    torch.testing.assert_close(after[:, chin], before[:, chin], atol=1e-3, rtol=0)


def test_moving_mouth_points_moves_no_crop() -> None:
    framing = LipWarpConfig().framing
    points = torch.tensor([[[30.0, 30.0], [60.0, 32.0], [46.0, 48.0], [35.0, 62.0], [58.0, 63.0]]])
    other = points.clone()
    other[:, 3:] += torch.tensor([9.0, 14.0])
    boxes = torch.tensor([[20.0, 10.0, 70.0, 80.0]])
    here, there = (
        crop_to_frame(boxes, points, framing, SIZE),
        crop_to_frame(boxes + 7, other, framing, SIZE),
    )
    assert torch.equal(here, there)


def test_closed_lips_stay_closed() -> None:
    source = face(0.0)
    move = move_lips(source, turned(source), lip_shapes(source), SIZE)
    assert float(lip_shapes(move.points)[0, 0]) < 0.01
    assert bool(torch.isfinite(move.offset).all())  # points that lie upon each other tear nothing
    _, alpha = paint_mouth_inside(noise(1, SIZE, SIZE), move)
    assert not alpha.any()


def test_splines_meet_their_control_points_and_are_plain_where_the_points_are() -> None:
    generator = torch.Generator().manual_seed(4)
    axis = torch.tensor([9.0, 25.0, 39.0, 55.0])
    to = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, 16, 2)
    source = to + 1.5 * torch.randn(1, 16, 2, generator=generator)
    field = spline(to, source, SIZE, smooth=0)
    for k, (x, y) in enumerate(to[0].tolist()):
        around = field[0, :, int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].mean((1, 2))
        # it is computed every few px
        torch.testing.assert_close(around, source[0, k], atol=0.25, rtol=0)
    shifted = spline(to, to + torch.tensor([2.0, -3.0]), SIZE, smooth=0)
    here = torch.stack(
        torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="xy")
    )
    inside = (shifted[0] - here)[:, 2:-2, 2:-2]
    torch.testing.assert_close(
        inside, torch.tensor([2.0, -3.0])[:, None, None].expand_as(inside), atol=0.02, rtol=0
    )


def test_a_batch_is_its_singles() -> None:
    source = torch.cat([face(0.02), face(0.1), turned(face(0.2))])
    target = torch.cat([turned(face(0.1)), face(0.0), face(0.05)])
    wanted = torch.tensor([[0.2, 0.6, 0.9], [0.0, 0.66, 0.85], [0.1, 0.55, 0.88]])
    pictures = noise(3, SIZE, SIZE)
    together = move_lips(source, target, wanted, SIZE)
    made = paint_inside(together.warp(pictures), together)
    for i in range(3):
        one = slice(i, i + 1)
        alone = move_lips(source[one], target[one], wanted[one], SIZE)
        torch.testing.assert_close(alone.offset, together.offset[one], atol=1e-2, rtol=0)
        torch.testing.assert_close(
            paint_inside(alone.warp(pictures[one]), alone), made[one], atol=5e-3, rtol=0
        )


# ---- what the picture does not have


def moved(opening: float, wanted: float) -> tuple[Tensor, LipMove]:
    source = face(opening)
    move = move_lips(
        source, source, lip_shapes(source) + torch.tensor([[wanted - opening, 0, 0]]), SIZE
    )
    return move.warp(noise(1, SIZE, SIZE)), move


def test_paint_is_where_a_mouth_was_closed_and_opens() -> None:
    faces, move = moved(0.0, 0.2)
    made, (_, alpha) = paint_inside(faces, move), paint_mouth_inside(faces, move)
    assert float(alpha.max()) == 1
    changed = (made - faces).abs().amax(1) > 1e-6
    inner = move.points[0, INNER_LIPS]
    rows, columns = changed[0].nonzero().float().unbind(1)
    low, high = inner.amin(0) - 2, inner.amax(0) + 2
    assert bool(
        (columns >= low[0]).all()
        & (columns <= high[0]).all()
        & (rows >= low[1]).all()
        & (rows <= high[1]).all()
    )
    assert torch.equal(paint_inside(faces, move, share=torch.zeros(1, 1, 1, 1)), faces)


def test_lips_part_in_the_middle_and_hold_together_in_the_corners() -> None:
    source = face(0.0)
    (points,) = place_lips(source, source, lip_shapes(source) + torch.tensor([[0.15, 0, 0]]))
    inner, outer = points[INNER_LIPS, 1], points[OUTER_LIPS, 1]
    gaps = inner[1:10] - inner[11:].flip(0)
    assert float(gaps[0]) < 0.5 * float(gaps[4]) and float(gaps[8]) < 0.5 * float(gaps[4])
    assert float(gaps.min()) >= 0
    before = source[0, OUTER_LIPS, 1] - source[0, INNER_LIPS, 1]
    thickness = (outer - inner)[[5, 15]] / before[[5, 15]]
    assert bool((thickness > 0.6).all() & (thickness < 1.2).all())


@pytest.mark.parametrize("skin", [(0.35, 0.22, 0.16), (0.85, 0.65, 0.55)])
def test_teeth_hang_from_above_in_a_mouth_that_is_open_enough(
    skin: tuple[float, float, float],
) -> None:
    source, faces = face(0.0), torch.tensor(skin)[None, :, None, None].expand(1, 3, SIZE, SIZE)
    brightest: list[float] = []
    for opening in (0.03, 0.2):
        move = move_lips(source, source, lip_shapes(source) + torch.tensor([[opening, 0, 0]]), SIZE)
        paint, alpha = paint_mouth_inside(faces, move)
        shown = (paint.mean(1) * (alpha[:, 0] > 0.99))[0]
        assert bool((shown.nonzero()[:, 0] > 0).all())
        brightest.append(float(shown.max()) / (sum(skin) / 3))
    rows = shown.amax(1)[shown.amax(1) > 0]
    assert float(rows[: len(rows) // 2].max()) > 1.5 * float(rows[len(rows) // 2 :].max())
    assert brightest[0] < 0.5 < 0.7 < brightest[1]


@pytest.mark.parametrize(("opening", "wanted"), [(0.2, 0.2), (0.2, 0.1), (0.1, 0.2)])
def test_an_open_mouth_shows_its_own_inside(opening: float, wanted: float) -> None:
    faces, move = moved(opening, wanted)
    torch.testing.assert_close(paint_inside(faces, move), faces, atol=1e-3, rtol=0)


def test_a_person_is_measured_where_they_speak() -> None:
    said = torch.rand(200, 3, generator=torch.Generator().manual_seed(5)) * torch.tensor(
        [0.2, 0.1, 0.1]
    )
    shapes = said + torch.tensor([0.02, 0.62, 0.8])
    own = measure_range(shapes, PRIOR)
    assert float(own.neutral[0]) == pytest.approx(0.02 + 0.2 * 0.05, abs=0.01)
    assert bool((own.spread <= 1.6 * PRIOR.spread + 1e-6).all()) and float(own.spread[0]) > float(
        PRIOR.spread[0]
    )


def test_a_photograph_is_taken_for_a_closed_mouth_of_usual_range() -> None:
    smile = torch.tensor([[0.15, 0.7, 0.9]])
    own = measure_range(smile, PRIOR)
    assert torch.equal(own.spread, PRIOR.spread)
    assert float(own.neutral[0]) == pytest.approx(0.01) and float(own.neutral[2]) < 0.9


def test_wanted_shapes_are_likely_ones() -> None:
    got = scale_shape(torch.tensor([[0.0, 0.0, 0.0], [-50.0, 0.0, 0.0], [50.0, 0.0, 0.0]]), PRIOR)
    assert (
        torch.equal(got[0], PRIOR.neutral)
        and float(got[1, 0]) == 0
        and 0.1 < float(got[2, 0]) < 0.3
    )


@pytest.fixture(scope="module")
def sync() -> LipSync:
    return LipSync(lip_warp(), precision="float32")


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return (
        (noise(COUNT, HEIGHT, WIDTH, seed=5).permute(0, 2, 3, 1) * 255).to(torch.uint8).contiguous()
    )


def person(x: float, *, count: int = COUNT, dense: bool = True, opening: float = 0.05) -> FaceTrack:
    """A person who drifts to the right, with the landmarks of ``face`` or none."""
    t = torch.arange(count, dtype=torch.float32)[:, None, None]
    drift = torch.cat([0.5 * t, (t / 3).sin()], -1) + torch.tensor([x, 10.0])
    marks = (
        torch.cat([face(opening + 0.02 * float((k / 2).sin()), size=70) for k in t.flatten()])
        + drift
    )
    points = torch.stack(
        [
            marks[:, IRISES.start],
            marks[:, IRISES.stop - 1],
            marks[:, NOSE_BRIDGE.stop - 1],
            marks[:, 0],
            marks[:, 10],
        ],
        1,
    )
    boxes = torch.cat([points.amin(1) - 12, points.amax(1) + 12], 1)
    return FaceTrack(
        boxes, points, torch.ones(count, dtype=torch.bool), dense=marks if dense else None
    )


def roles(
    track: FaceTrack, clip: Tensor, *, seed: int = 1, references: bool = False, **more: Tensor
) -> list[FaceDub]:
    """One who speaks; ``references``: out of the pictures 2 and 7 by turns."""
    look = None
    if references:
        chosen = [2, 7]
        patches = tuple(Frames(clip[i : i + 1]) for i in chosen)
        dense = None if track.dense is None else track.dense[chosen]
        index = torch.arange(COUNT) // 3 % 2
        look = References(patches, track.boxes[chosen], track.points[chosen], index, dense)
    return [FaceDub(voice(seed), track, references=look, **more)]


def spoken(sync: LipSync, clip: Tensor, size: int, who: list[FaceDub]) -> Tensor:
    return whole(sync.render(pieces(clip, size), who, fps=FPS))


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_the_stream_does_not_depend_on_the_chunks(
    sync: LipSync, clip: Tensor, dense: bool, references: bool
) -> None:
    track = person(20, dense=dense)
    wanted = spoken(sync, clip, COUNT, roles(track, clip, references=references and dense))
    for size in (1, 4):
        got = spoken(sync, clip, size, roles(track, clip, references=references and dense))
        off = (got.int() - wanted.int()).abs()
        assert float((off > 1).float().mean()) < 1e-4 and int(off.max()) <= 3
    changed = (wanted != clip).any(-1)
    assert bool(changed.flatten(1).any(1).all())  # every frame speaks
    assert not changed[:, :30].any() and not changed[:, :, 130:].any()  # with the mouth alone


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("dense", [torch.rand(COUNT, 98, 2), torch.full((COUNT, 106, 2), 50.0)])
def test_landmarks_that_show_no_lips_are_found_by_the_model(
    sync: LipSync, clip: Tensor, references: bool, dense: Tensor
) -> None:
    """As where there are none: those of an unknown layout, or all in one place."""
    bare = person(20, dense=False)
    other = replace(bare, dense=dense)
    got = [
        spoken(sync, clip, 4, roles(track, clip, references=references)) for track in (bare, other)
    ]
    assert torch.equal(*got) and not torch.equal(got[0], clip)


def mesh_of(own: Tensor, count: int) -> Tensor:
    """(N,count,2): a mesh whose vertices are our points where it has them."""
    mesh = torch.zeros(len(own), 478, 2)
    mesh[:, list(MEDIAPIPE_VERTICES)] = own
    return mesh[:, :count]


@pytest.mark.parametrize("count", [468, 478])
@pytest.mark.parametrize("references", [False, True])
def test_lips_are_taken_from_a_given_mesh(
    sync: LipSync, clip: Tensor, monkeypatch: pytest.MonkeyPatch, count: int, references: bool
) -> None:
    monkeypatch.setattr(FaceLandmarks, "forward", None)  # the bundled network has nothing to do
    track = person(20)
    assert track.dense is not None
    meshed = replace(track, dense=mesh_of(track.dense, count))
    got, wanted = (
        spoken(sync, clip, 4, roles(one, clip, references=references)) for one in (meshed, track)
    )
    assert torch.equal(got, wanted) and not torch.equal(got, clip)


def test_a_still_is_the_stream_of_its_frame(sync: LipSync, clip: Tensor) -> None:
    for dense in (True, False):
        track, photo = person(20, count=1, dense=dense), Frames(clip[:1])
        got = whole(sync.still(photo, voice(1), fps=FPS, tracks=[track], count=9, chunk=4))
        marks = None if track.dense is None else track.dense.expand(9, -1, -1)
        repeated = FaceTrack(
            track.boxes.expand(9, -1),
            track.points.expand(9, -1, -1),
            track.visible.expand(9),
            dense=marks,
        )
        frames = pieces(clip[:1].expand(9, -1, -1, -1), 9)
        close(got, whole(sync.stream(frames, voice(1), fps=FPS, tracks=[repeated])))
        assert not torch.equal(got[1:], got[:-1])  # it speaks


def test_two_faces_speak_as_each_alone(sync: LipSync, clip: Tensor) -> None:
    left, right = person(0), person(88)
    both = spoken(sync, clip, 4, roles(left, clip) + roles(right, clip, seed=2))
    alone = (
        spoken(sync, clip, 4, roles(left, clip)),
        spoken(sync, clip, 4, roles(right, clip, seed=2)),
    )
    close(both[:, :, :80], alone[0][:, :, :80])
    close(both[:, :, 96:], alone[1][:, :, 96:])
    assert not torch.equal(alone[0][:, :, :80], clip[:, :, :80]) and not torch.equal(
        both[:, :, 96:], clip[:, :, 96:]
    )


def test_who_does_not_speak_closes_their_mouth(sync: LipSync, clip: Tensor) -> None:
    """Silence that closes: the sound does not matter, the lips are those of the neutral mouth."""
    quiet = torch.zeros(COUNT)
    one, other = (
        spoken(sync, clip, 4, roles(person(20), clip, seed=seed, speech_weight=quiet))
        for seed in (1, 2)
    )
    assert torch.equal(one, other) and not torch.equal(one, clip)
    half = torch.cat([torch.ones(5), torch.zeros(COUNT - 5)])
    mixed = spoken(sync, clip, 4, roles(person(20), clip, speech_weight=half))
    close(mixed[5:], one[5:])
    close(mixed[:5], spoken(sync, clip, 4, roles(person(20), clip))[:5])


def test_drawings_are_recalled(
    sync: LipSync, clip: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = GeneratorCache()
    who = [replace(role, cache=kept) for role in roles(person(20), clip)]
    wanted = spoken(sync, clip, 4, who)
    assert len(kept) == 3 and [
        planes.shape for planes in map(kept.get, [0], [0], [4]) if planes is not None
    ] == [(4, 3, 1, 1)]
    other = LipSync(lip_warp(), blend=Blend("lower", "feather"), precision="float32")
    fresh = spoken(other, clip, 4, roles(person(20), clip))
    monkeypatch.setattr(LipWarp, "draw", None)  # nothing may be heard now
    assert torch.equal(spoken(sync, clip, 4, who), wanted)
    assert torch.equal(spoken(other, clip, 4, who), fresh)


def test_crops_that_are_enlarged_speak_too(clip: Tensor) -> None:
    crops = LipSync(lip_warp(), blend=Blend(own_pixels=False), precision="float32")
    for references in (False, True):
        got = [
            spoken(crops, clip, size, roles(person(20), clip, references=references))
            for size in (4, COUNT)
        ]
        close(*got)
        assert not torch.equal(got[0], clip)


def test_coded_frames_speak_as_rgb_does(sync: LipSync, clip: Tensor) -> None:
    luma = clip[..., 1].contiguous()
    chroma = torch.full((COUNT, HEIGHT // 2, WIDTH), 128, dtype=torch.uint8)
    coded = YuvFrames(torch.cat([luma, chroma], 1), ColourTags(matrix=6))
    half = torch.nn.functional.interpolate(coded.chroma.float(), (HEIGHT, WIDTH))
    rgb = to_rgb(torch.cat([coded.luma.float(), half], 1), coded.colour).permute(0, 2, 3, 1)

    def parts(frames: YuvFrames | Frames) -> Iterator[YuvFrames | Frames]:
        yield frames

    told = [
        torch.cat(
            [
                piece.pixels
                for piece in sync.stream(parts(frames), voice(1), fps=FPS, tracks=[person(20)])
            ]
        )
        for frames in (coded, Frames(rgb.clamp(0, 1).contiguous()))
    ]
    out = YuvFrames(told[0], coded.colour)
    chroma_out = torch.nn.functional.interpolate(out.chroma.float(), (HEIGHT, WIDTH))
    seen = (
        to_rgb(torch.cat([out.luma.float(), chroma_out], 1), out.colour)
        .permute(0, 2, 3, 1)
        .clamp(0, 1)
    )
    off = (seen.mean(-1) - told[1].mean(-1)).abs()
    assert float(off.mean()) < 0.004 and float((off > 0.06).float().mean()) < 0.005
    assert not torch.equal(told[0], coded.pixels)


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    model = lip_warp()
    save_model(model, tmp_path / "lips.safetensors", licence="none", source="a test")
    again = load_talking_face(tmp_path / "lips.safetensors")
    assert isinstance(again, LipWarp) and again.config == model.config
    assert read_header(tmp_path / "lips.safetensors").kind == "lip_warp"
    sound = Audio(torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1, 16000)
    windows = model.config.features.windows(sound, FPS, 0, 5)
    assert torch.equal(again.draw(windows, []), model.draw(windows, []))
    faces = noise(5, SIZE, SIZE, seed=3)
    with torch.inference_mode():
        made = model(windows, faces, faces[:1])
    assert made.shape == faces.shape and bool(torch.isfinite(made).all())


def test_half_precision_is_for_other_models(clip: Tensor) -> None:
    """Places of a fraction of a px, and shapes in eye distances, have no room in eight bits."""
    low = LipSync(lip_warp(), precision="bfloat16")
    assert {weight.dtype for weight in low.model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="auto, float32 or bfloat16"):
        LipSync(lip_warp(), precision="float16")  # type: ignore[arg-type]
    assert low.lip_range(person(20, dense=False)).neutral.device.type == "cpu"


def test_lips_move_as_far_as_speakers_do_where_the_voice_is_unsure() -> None:
    own = LipRange(torch.tensor([0.0, 0.6, 0.8]), torch.tensor([0.05, 0.03, 0.04]))
    sure = torch.stack([torch.linspace(0.3, 3.8, 50)] * 3, 1)  # spreads by 1.0
    torch.testing.assert_close(raise_range(own, sure).spread, own.spread, rtol=0.02, atol=0)
    unsure = torch.stack([torch.linspace(1.0, 3.4, 50)] * 3, 1)  # spreads by 0.7
    raised = raise_range(own, unsure)
    assert 1.3 < float(raised.spread[0] / own.spread[0]) < 1.6 and torch.equal(
        raised.neutral, own.neutral
    )
    still = raise_range(own, torch.full((50, 3), 1.5))  # no more than so far
    torch.testing.assert_close(still.spread, own.spread * 1.6)
    assert raise_range(own, unsure[:10]) is own and raise_range(own, torch.zeros(50, 3)) is own
