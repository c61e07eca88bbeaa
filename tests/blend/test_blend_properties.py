"""What holds of every way to put a mouth back: masks, edges and light together, as a dub calls
them."""

from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest
import torch
from torch import Tensor

from lipsync_core.blend.blender import Blender, FaceCrops, Mouth
from lipsync_core.blend.composite import PixelSource
from lipsync_core.image.affine import ALIGNED, Framing, apply, compose, crop_to_frame, invert
from lipsync_core.image.crop import crop_frames, crop_pictures
from lipsync_core.options import Blend, BlendKind, MaskKind
from lipsync_core.types import AnyFrames, ColourTags, Frames, YuvFrames

SIZE, HEIGHT, WIDTH = 48, 120, 160
KINDS, MASKS = get_args(BlendKind), get_args(MaskKind)
BLENDS = [
    *(Blend(kind=kind) for kind in KINDS),
    *(Blend(mask=mask) for mask in MASKS),
    Blend(colour_match="spread"),
    Blend(colour_match="covariance", kind="feather"),
    Blend(occlusion="compare", feather_px=9, detail=0.5),
]
BENDS = [(0.0, 1.0, 1.0), (0.4, 1.0, 1.0), (-0.3, 1.3, 1.0), (0.1, 0.8, 0.87)]
"""Rotation in radians, scale, and how narrow the face has become by turning away (0.87: 30
degrees)."""


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(
    n: int,
    height: int,
    width: int,
    seed: int,
    *,
    cell: int = 14,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(N,3,h,w) in [0,1], band-limited: nothing in it is finer than about ``cell`` px."""
    coarse = torch.rand(
        n, 3, height // cell + 3, width // cell + 3, generator=rng(seed), dtype=dtype
    )
    return torch.nn.functional.interpolate(
        coarse, (height, width), mode="bicubic", align_corners=True
    ).clamp(0, 1)


def clip(n: int, form: str) -> Frames | YuvFrames:
    picture = smooth(n, HEIGHT, WIDTH, 3)
    if form == "coded":
        codes = 40 + 150 * torch.cat(
            [picture[:, 0].flatten(1), picture[:, 1, ::2, ::2].flatten(1)] * 1, 1
        )
        half = 40 + 150 * picture[:, 2, ::2, ::2].flatten(1)
        pixels = torch.cat([codes, half], 1).view(n, HEIGHT * 3 // 2, WIDTH)
        return YuvFrames(pixels.round().to(torch.uint8), ColourTags(1, 1, 1))
    pixels = picture.permute(0, 2, 3, 1).contiguous()
    return Frames(pixels if form == "float" else (pixels * 255).round().to(torch.uint8))


def person(
    n: int, bend: tuple[float, float, float] = (0.1, 1.0, 1.0), shift: float = 1.7
) -> Tensor:
    """(N,5,2) the points of a face of 64 px that drifts, in frame px."""
    angle, scale, narrow = torch.tensor(bend)
    template = (torch.tensor(ALIGNED) - 0.5) * 64 * scale * torch.stack([narrow, torch.tensor(1.0)])
    turn = torch.stack(
        [torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])]
    )
    middle = torch.tensor([76.3, 61.6]) + shift * torch.arange(n)[:, None]
    return template @ turn + middle[:, None]


def placed(frames: Frames | YuvFrames, points: Tensor, size: int = SIZE) -> FaceCrops:
    maps = crop_to_frame(points.new_zeros(len(points), 4), points, Framing(), size)
    return FaceCrops(maps, apply(invert(maps), points), pixels=crop_frames(frames, maps, size))


def drawn(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return smooth(n, SIZE, SIZE, 8, cell=6, dtype=dtype)


def put(
    frames: AnyFrames,
    made: Tensor,
    faces: FaceCrops,
    blend: Blend,
    *,
    movement: PixelSource | None = None,
    start: int = 0,
) -> AnyFrames:
    blender = Blender(blend, made.shape[-1])
    index, state = torch.arange(start, start + len(made)), blender.start(Fraction(25))
    mask = blender.make_mask(faces, index, state)
    mouth = Mouth(made, () if movement is None else (movement,))
    return blender.composite(frames, mouth, faces, mask, index, state)


def moved(n: int) -> PixelSource:
    size = (n, 2, SIZE, SIZE)
    return PixelSource(
        3 * torch.randn(*size, generator=rng(4)), torch.rand(n, 1, SIZE, SIZE, generator=rng(5))
    )


@pytest.mark.parametrize("form", ["bytes", "float", "coded"])
@pytest.mark.parametrize("movement", [None, moved(3)])
@pytest.mark.parametrize("blend", BLENDS)
def test_strength_0_and_all_outside_the_mask_keep_every_bit(
    form: str, movement, blend: Blend
) -> None:
    before = clip(3, form)
    faces = placed(before, person(3))
    assert torch.equal(
        put(before, drawn(3), faces, replace(blend, strength=0.0), movement=movement).pixels,
        before.pixels,
    )
    after = put(before, drawn(3), faces, blend, movement=movement)
    assert not torch.equal(after.pixels, before.pixels)
    blender = Blender(blend, SIZE)
    mask = blender.make_mask(faces, torch.arange(3), blender.start(Fraction(25)))
    plain = Blender(Blend(kind="feather"), SIZE)
    share = plain.compute_alpha((HEIGHT, WIDTH), faces, mask)
    if isinstance(after, YuvFrames) and isinstance(before, YuvFrames):
        outside = (share == 0)[:, None]
        assert torch.equal(after.luma[outside], before.luma[outside])
        far = (
            torch.nn.functional.max_pool2d(share[:, None], 6, 2, 2)[
                ..., : HEIGHT // 2, : WIDTH // 2
            ]
            == 0
        )
        far = far.expand(-1, 2, -1, -1)
        assert torch.equal(after.chroma[far], before.chroma[far])
    else:
        assert torch.equal(after.pixels[share == 0], before.pixels[share == 0])


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize("blend", BLENDS)
def test_a_perfect_generator_gives_the_source_back(blend: Blend, bend) -> None:
    """At a crop as large as the face, on band-limited pictures, within one level of 255, wherever
    the head turns."""
    before = Frames(
        (smooth(2, HEIGHT, WIDTH, 3, cell=36) * 255)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .contiguous()
    )
    faces = placed(before, person(2, bend), 96)
    assert faces.pixels is not None
    after = put(before, faces.pixels, faces, replace(blend, grain=0.0))
    assert int((after.pixels.int() - before.pixels.int()).abs().max()) <= 1


@pytest.mark.parametrize("bend", BENDS)
def test_nothing_drifts(bend) -> None:
    """A dot that is drawn at one place of the crop lies at one place of the face, to a hundredth of
    a pixel, however far the face went and turned, and where the picture has a dot it stays there.
    """
    n = 12
    before = Frames(torch.zeros(n, HEIGHT, WIDTH, 3))
    points = person(n, bend, shift=1.37)
    faces = placed(before, points, 96)
    template = torch.tensor(ALIGNED) * 96
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    at = template[3:].mean(0)
    dot = (-((x - at[0]).square() + (y - at[1]).square()) / 18).exp().expand(n, 3, 96, 96)
    after = put(before, dot, faces, Blend(kind="feather", detail=0, grain=0)).pixels[..., 0]
    rows, columns = torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5
    total = after.sum((1, 2))
    centre = torch.stack(
        [(after.sum(1) * columns).sum(1) / total, (after.sum(2) * rows).sum(1) / total], 1
    )
    wanted = apply(faces.crop_to_frame, at.expand(n, 1, 2))[:, 0]
    assert float((centre - wanted).norm(dim=1).max()) < 0.02
    # against the face itself: nothing at all for a head that only rolls and comes nearer, little
    # for one that turns away
    error = (
        (wanted - points[:, 3:].mean(1)).norm(dim=1) / (points[:, 1] - points[:, 0]).norm(dim=1)
    ).max()
    assert float(error) < (1e-3 if bend[2] == 1 else 0.04)
    steps = (wanted - points[:, 3:].mean(1)).diff(dim=0)
    assert float(steps.abs().max()) < 1e-3


def mirrored(faces: FaceCrops) -> FaceCrops:
    flip = torch.tensor([[-1.0, 0.0, WIDTH], [0.0, 1.0, 0.0]]).expand(len(faces.points), 2, 3)
    own = torch.tensor([[-1.0, 0.0, SIZE], [0.0, 1.0, 0.0]]).expand(len(faces.points), 2, 3)
    points = apply(own, faces.points)[:, [1, 0, 2, 4, 3]]
    assert faces.pixels is not None
    return FaceCrops(
        compose(compose(flip, faces.crop_to_frame), own), points, pixels=faces.pixels.flip(3)
    )


@pytest.mark.parametrize("blend", BLENDS)
def test_a_mirrored_scene_is_dubbed_alike(blend: Blend) -> None:
    before = clip(2, "float")
    # grain falls where it falls
    faces, plain = placed(before, person(2)), replace(blend, grain=0.0)
    movement = moved(2)
    other = PixelSource(
        movement.offset.flip(3) * torch.tensor([-1.0, 1.0]).view(2, 1, 1), movement.weight.flip(3)
    )
    flipped = Frames(before.pixels.flip(2))
    for here, there in ((None, None), (movement, other)):
        a = put(before, drawn(2), faces, plain, movement=here).pixels.flip(2)
        b = put(flipped, drawn(2).flip(3), mirrored(faces), plain, movement=there).pixels
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@pytest.mark.parametrize("movement", [None, moved(3)])
@pytest.mark.parametrize("blend", BLENDS)
def test_a_batch_is_its_single_frames(blend: Blend, movement) -> None:
    """Where nothing is eased: each face is the first of its stream."""
    before = clip(3, "bytes")
    faces, made = placed(before, person(3)), drawn(3)
    alone = replace(blend, colour_match=None, occlusion="ignore")
    together = put(before, made, faces, alone, movement=movement).pixels
    for i in range(3):
        one = slice(i, i + 1)
        assert faces.pixels is not None
        face = FaceCrops(faces.crop_to_frame[one], faces.points[one], pixels=faces.pixels[one])
        step = None if movement is None else PixelSource(movement.offset[one], movement.weight[one])
        got = put(
            Frames(before.pixels[one], i), made[one], face, alone, movement=step, start=i
        ).pixels
        assert torch.equal(got, together[one])


@pytest.mark.parametrize(
    "blend", [Blend(kind=kind, detail=0, grain=0) for kind in KINDS if kind != "paste"]
)
def test_float64_gradients(blend: Blend) -> None:
    before = Frames(
        smooth(1, 24, 30, 1, cell=5, dtype=torch.float64).permute(0, 2, 3, 1).contiguous() * 0.4
        + 0.3
    )
    points = ((torch.tensor(ALIGNED, dtype=torch.float64) - 0.5) * 16 + torch.tensor([14.6, 12.2]))[
        None
    ]
    maps = crop_to_frame(points.new_zeros(1, 4), points, Framing(), 12)
    faces = FaceCrops(
        maps, apply(invert(maps), points), pixels=crop_pictures(before.pixels, maps, 12)
    )
    made = (smooth(1, 12, 12, 2, cell=4, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: put(before, x, faces, blend).pixels, (made,), fast_mode=True
    )


@pytest.mark.gpu
@pytest.mark.parametrize("movement", [None, moved(3)])
@pytest.mark.parametrize("form", ["bytes", "float", "coded"])
@pytest.mark.parametrize("blend", BLENDS)
def test_a_gpu_dubs_alike(blend: Blend, form: str, movement) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    before = clip(3, form)
    faces = placed(before, person(3))
    here = put(before, drawn(3), faces, blend, movement=movement).pixels.float()
    assert faces.pixels is not None
    there = FaceCrops(faces.crop_to_frame.cuda(), faces.points.cuda(), pixels=faces.pixels.cuda())
    step = None if movement is None else PixelSource(movement.offset.cuda(), movement.weight.cuda())
    frames = replace(before, pixels=before.pixels.cuda())
    got = put(frames, drawn(3).cuda(), there, blend, movement=step).pixels.cpu().float()
    level = 1 if form != "float" else 1 / 255
    off = (got - here).abs()
    assert float(off.max()) <= 2 * level and float((off > 0.5 * level).float().mean()) < 1e-3
