"""What frames leave for the next ones: the same however a stream is cut, calm where nothing
happens, quick where lips move."""

from fractions import Fraction

import pytest
import torch
from helpers.faces import face as dense_face
from helpers.golden import build
from helpers.occluders import occluder, pasted
from helpers.streams import (
    COUNT,
    FPS,
    HEIGHT,
    WIDTH,
    close,
    mini,
    opacities,
    person,
    pieces,
    voice,
    whole,
)
from torch import Tensor

from lipsync_core.blend.blender import Blender, BlendState, FaceCrops
from lipsync_core.blend.smoothing import Smoother, follows_previous, smooth, stabilize
from lipsync_core.faces.parser import FaceParser
from lipsync_core.models.face_parsing import FaceParsing, FaceParsingConfig
from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.restore import Restorer, restored
from lipsync_core.pipelines.roles import FaceDub
from lipsync_core.types import FaceTrack, Frames, References

BLENDS = [
    Blend(steady=0.8),
    Blend(steady=0.5, own_pixels=False),
    Blend(occlusion="compare"),
    Blend("face", "feather", colour_match="covariance"),
    Blend("lower", colour_match="spread", occlusion="compare", steady=1.0),
]


def spoken(
    clip: Tensor,
    blend: Blend,
    role: FaceDub,
    size: int = COUNT,
    *,
    parser: FaceParser | None = None,
) -> Tensor:
    sync = LipSync(mini(), blend=blend, precision="float32", parser=parser)
    return whole(sync.render(pieces(clip, size), [role], fps=FPS))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [1, 7])
def test_the_stream_does_not_depend_on_the_chunks(clip: Tensor, blend: Blend, size: int) -> None:
    role = FaceDub(voice(1), person(20, hidden=slice(9, 12)))
    got = spoken(clip, blend, role, size)
    close(got, spoken(clip, blend, role))
    assert torch.equal(got[9:12], clip[9:12]) and (got != clip).flatten(1).any(1).sum() == COUNT - 3


def test_frames_are_linked_to_those_before() -> None:
    index = torch.tensor([4, 5, 9, 10])
    assert follows_previous(index, 3).tolist() == [True, True, False, True]
    assert (
        follows_previous(index, None).tolist()
        == follows_previous(index, 8).tolist()
        == [False, True, False, True]
    )


def test_what_is_eased_goes_a_part_of_the_way() -> None:
    values, keep = torch.tensor([[0.0], [1.0], [1.0], [0.0]]), torch.full((4, 1), 0.5)
    assert smooth(values, None, keep).flatten().tolist() == [0, 0.5, 0.75, 0.375]
    assert smooth(values, torch.ones(1, 1), keep, attack_instant=True).flatten().tolist() == [
        0.5,
        1,
        1,
        0.5,
    ]
    halves = smooth(values[:2], None, keep[:2])
    assert torch.equal(
        torch.cat([halves, smooth(values[2:], halves[-1:], keep[2:])]), smooth(values, None, keep)
    )
    step, index = torch.tensor([[0.0], [1.0], [1.0]]), torch.arange(3)
    slow, fast = (Smoother(0.2, Fraction(fps)).update(step, index) for fps in (25, 50))
    torch.testing.assert_close(slow[1], fast[2])  # as much in the same time
    assert slow[0] == 0


def test_trembling_goes_and_lips_are_not_smeared() -> None:
    count = 40
    noise = 0.008 * torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    face = 0.5 + noise
    face[20:, :, 24:36, 12:36] -= 0.4  # a mouth opens at once
    follows = follows_previous(torch.arange(count), None)
    calm = stabilize(face, None, follows, strength=0.8)
    assert float(calm[5:20].diff(dim=0).abs().mean()) < 0.5 * float(
        face[5:20].diff(dim=0).abs().mean()
    )
    opened = calm[20, :, 28:32, 18:30] - face[20, :, 28:32, 18:30]
    assert float(opened.abs().max()) < 0.005  # the first frame shows it whole
    assert torch.equal(stabilize(face, None, follows, strength=0.0), face)
    alone = stabilize(face, face[:1], torch.zeros(count, dtype=torch.bool), strength=0.8)
    assert torch.equal(alone, face)  # frames that follow nothing stay


def own_pictures(clip: Tensor, track: FaceTrack) -> References:
    return References(
        tuple(Frames(picture[None]) for picture in clip),
        track.boxes,
        track.points,
        torch.arange(len(clip)),
    )


@pytest.mark.parametrize("own", [True, False])
def test_a_frame_that_is_its_own_reference_is_drawn_as_ever(clip: Tensor, own: bool) -> None:
    track, blend = person(20), Blend(kind="feather", own_pixels=own)
    got = spoken(clip, blend, FaceDub(voice(1), track, references=own_pictures(clip, track)))
    # the upper half is always the frame's own
    below = int(track.points[:, 2, 1].max()) + 13 if own else 0
    close(got[:, below:], spoken(clip, blend, FaceDub(voice(1), track))[:, below:])


@pytest.mark.parametrize("own", [True, False])
def test_a_mouth_is_drawn_from_its_reference(clip: Tensor, own: bool) -> None:
    """From the first frame; whatever the frames themselves show under the mask is gone."""
    track = person(20)
    first = References(
        (Frames(clip[:1]),), track.boxes[:1], track.points[:1], torch.zeros(COUNT, dtype=torch.long)
    )
    role, blend = (
        FaceDub(voice(1), track, references=first),
        Blend(kind="feather", own_pixels=own, detail=0, grain=0),
    )
    sync = LipSync(mini(), blend=blend, precision="float32")
    chunks = list(sync.render(pieces(clip, 9), [role], fps=FPS, opacity=True))
    got, masks = whole(iter(chunks)), opacities(iter(chunks))
    close(spoken(clip, blend, role, 4), got)
    outside = masks == 0
    assert torch.equal(got[outside], clip[outside])
    other = clip.clone()
    inside = masks > 0.999
    assert inside.flatten(1).any(1).all()
    other[inside] = 0  # another mouth in the clip, not in the reference
    again = spoken(other, blend, role)
    below = int(track.points[:, 2, 1].max()) + 13  # the upper half is the frame's own
    assert int((again.int() - got.int()).abs()[:, below:][inside[:, below:]].max()) <= 1


@pytest.mark.parametrize("own", [True, False])
def test_who_does_not_speak_shows_the_references_mouth(clip: Tensor, own: bool) -> None:
    still = clip[:1].expand(COUNT, -1, -1, -1)
    place = person(20, count=1)
    track = FaceTrack(
        place.boxes.expand(COUNT, -1),
        place.points.expand(COUNT, -1, -1),
        place.visible.expand(COUNT),
    )
    speaking = torch.ones(COUNT)
    speaking[10:20], speaking[20] = 0, 0.5
    look = References(
        (Frames(clip[:1]),), place.boxes, place.points, torch.zeros(COUNT, dtype=torch.long)
    )
    blend = Blend(own_pixels=own, detail=0, grain=0)
    got = spoken(still, blend, FaceDub(voice(1), track, speech_weight=speaking, references=look))
    off = (got.int() - still.int()).abs().flatten(1).amax(1)
    rest = off[10:20]
    # the crop's own interpolation, where it is enlarged
    assert int(rest.max()) <= (1 if own else 6)
    assert 2 * int(rest.max()) < int(off[20]) and int(off[:10].min()) > 3 * int(rest.max())


def test_what_comes_before_the_face_stays(clip: Tensor) -> None:
    """A microphone in frames 12 to 24, before a face drawn here: its pixels are those of the clip,
    bit for bit."""
    base = _face(clip.shape[1:3])
    track = person(60, scale=90, count=1)
    track = FaceTrack(
        track.boxes.expand(30, -1), track.points.expand(30, -1, -1), track.visible.expand(30)
    )
    frames = base.expand(30, -1, -1, -1).clone()
    colour, cover = occluder("microphone", frames[12:24], track.points[12:24], torch.zeros(12, 2))
    frames[12:24] = pasted(frames[12:24], colour, cover)
    seen = (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    role = FaceDub(voice(1), track)
    kept, drawn_over = (spoken(seen, Blend(occlusion=kind), role) for kind in ("compare", "ignore"))
    core = cover[:, 0] > 0.99
    changed, spoilt = (
        (x[12:24] != seen[12:24]).any(-1)[core].float().mean() for x in (kept, drawn_over)
    )
    assert float(changed) < 0.05 < 0.2 < float(spoilt)
    close(kept[:12], drawn_over[:12])  # nothing else is different before
    assert not torch.equal(kept[24], drawn_over[24])  # the mouth comes back softly


def test_a_restored_face_leaves_what_comes_before_it_alone() -> None:
    base = _face((HEIGHT, WIDTH))
    place = person(60, scale=90, count=1)
    track = FaceTrack(
        place.boxes.expand(6, -1), place.points.expand(6, -1, -1), place.visible.expand(6)
    )
    frames = base.expand(6, -1, -1, -1).clone()
    colour, cover = occluder("microphone", frames, track.points, torch.zeros(6, 2))
    frames = pasted(frames, colour, cover)
    before = Frames((frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8))
    clear = References(
        (Frames(base.permute(0, 2, 3, 1)),),
        place.boxes,
        place.points,
        torch.zeros(1, dtype=torch.long),
    )
    core = cover[:, 0] > 0.99
    spoilt: list[float] = []
    for kind in ("ignore", "compare"):
        blend = Blend(occlusion=kind, detail=0, grain=0)
        # darkens all that it is shown
        restorer = Restorer(lambda faces: faces * 0.5, "a toy", "ours", blend)
        (after,) = restored([before], [track], restorer=restorer, clear=[clear], fps=FPS)
        spoilt.append(float((after.pixels != before.pixels).any(-1)[core].float().mean()))
        assert not torch.equal(after.pixels, before.pixels)
    assert spoilt[1] < 0.1 < 0.3 < spoilt[0]


def test_of_a_photograph_the_mouth_alone_moves(clip: Tensor) -> None:
    role = FaceDub(voice(1), person(20, count=1))
    sync, photo = LipSync(mini(), precision="float32"), [Frames(clip[:1])]
    chunks = list(sync.render(photo, [role], fps=FPS, still=11, chunk=4, opacity=True))
    got, masks = whole(iter(chunks)), opacities(iter(chunks))
    photo = clip[:1].expand(11, -1, -1, -1)
    assert torch.equal(got[masks == 0], photo[masks == 0])
    assert (
        torch.equal(masks, masks[:1].expand(11, -1, -1))
        and 0 < float((masks > 0).float().mean()) < 0.2
    )
    assert (got != photo).flatten(1).any(1).all()


def _face(size: tuple[int, int]) -> Tensor:
    """(1,3,H,W) skin with eyes and red lips where ``person(60, scale=90)`` has them."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    points = person(60, scale=90, count=1).points[0]
    picture = torch.tensor([0.78, 0.58, 0.48]).view(3, 1, 1).expand(3, *size).clone()
    picture = picture * (1 - 0.1 * ((x - points[2, 0]) / 60).square().clamp(0, 1))
    for at in points[:2]:
        picture[:, ((x - at[0]) / 7).square() + ((y - at[1]) / 4).square() < 1] = 0.15
    mouth = points[3:].mean(0)
    lips = ((x - mouth[0]) / 15).square() + ((y - mouth[1]) / 5).square() < 1
    picture[:, lips] = torch.tensor([0.62, 0.28, 0.28])[:, None]
    return picture[None]


def test_dense_points_shape_the_mask_and_do_not_tremble() -> None:
    count, size = 12, 64
    points = (dense_face(68) * 1.0).expand(count, -1, -1)
    shaky = points + 0.8 * torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(3))
    five = torch.tensor([[20.0, 16], [44, 16], [32, 30], [24, 42], [40, 42]]).expand(count, 5, 2)
    maps, index = torch.eye(2, 3).expand(count, 2, 3), torch.arange(count)
    blender = Blender(Blend("face"), size)

    def shape(state: BlendState, part: slice, dense: Tensor | None = None) -> Tensor:
        faces = FaceCrops(maps[part], five[part], dense)
        return blender.make_mask(faces, index[part], state).shape

    every, state = slice(None), blender.start(FPS)
    plain, calm = (shape(blender.start(FPS), every, dense) for dense in (None, points))
    assert float((plain - calm).abs().mean()) > 0.02  # another outline
    smoothed = shape(state, every, shaky)
    raw = torch.cat([shape(blender.start(FPS), slice(0, 1), p[None]) for p in shaky])
    assert float(smoothed.diff(dim=0).abs().mean()) < 0.6 * float(raw.diff(dim=0).abs().mean())
    assert state.mask.last is not None and torch.equal(state.mask.last, smoothed[-1:])


def test_a_parser_keeps_the_mask_to_what_it_knows(clip: Tensor) -> None:
    network = build(FaceParsing, FaceParsingConfig())
    assert isinstance(network, FaceParsing)
    parser, role = (
        FaceParser(network, side=64, precision="float32"),
        FaceDub(voice(1), person(20, count=6)),
    )
    with pytest.raises(
        ValueError,
        match="occlusion is 'parse' and there is no parser; give one, or choose 'compare'",
    ):
        LipSync(mini(), blend=Blend(occlusion="parse"))
    some = clip[:6]
    shares: list[Tensor] = []
    for blend in (Blend(), Blend(occlusion="parse")):
        sync = LipSync(mini(), blend=blend, precision="float32", parser=parser)
        shares.append(opacities(sync.render(pieces(some, 6), [role], fps=FPS, opacity=True)))
    whole_mask, parsed = shares
    assert whole_mask.shape == parsed.shape == (6, HEIGHT, WIDTH)
    assert bool((parsed <= whole_mask + 1e-6).all()) and float(parsed.sum()) < 0.9 * float(
        whole_mask.sum()
    )
    a, b = (spoken(some, Blend(occlusion="parse"), role, size, parser=parser) for size in (2, 6))
    close(a, b)
