"""What lets another blend of the same clip be quick, and says where it changes the picture."""

import pytest
import torch
from helpers.streams import FPS, HEIGHT, WIDTH, mini, opacities, person, pieces, voice, whole
from torch import Tensor

from lipsync_core.options import Blend
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.roles import FaceDub, GeneratorCache
from lipsync_core.types import FaceTrack

COUNT = 19  # two chunks and a part of one
TRACKS = [person(10, count=COUNT), person(100, count=COUNT, hidden=slice(4, 9))]
BLENDS = [
    Blend(strength=0.4),
    Blend("lower", "paste"),
    Blend("face", feather=0.02),
    Blend(colour_match="spread"),
    Blend(own_pixels=False),
]


@pytest.fixture(scope="module")
def clip() -> Tensor:
    noise = torch.rand(COUNT, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(6))
    return (noise * 255).to(torch.uint8)


def spoken(
    clip: Tensor, blend: Blend, drawings: GeneratorCache | None, tracks: list[FaceTrack] = TRACKS
) -> Tensor:
    sync = LipSync(mini(), blend=blend, precision="float32")
    return whole(sync.stream(pieces(clip, 8), voice(1), fps=FPS, tracks=tracks, drawings=drawings))


@pytest.fixture(scope="module")
def drawings(clip: Tensor) -> GeneratorCache:
    """What a dub with the usual blend has left."""
    cache = GeneratorCache()
    spoken(clip, Blend(), cache)
    return cache


@pytest.mark.parametrize("blend", BLENDS)
def test_drawings_serve_every_blend(
    clip: Tensor, drawings: GeneratorCache, blend: Blend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = spoken(clip, blend, None)
    # nothing may be drawn now
    monkeypatch.setattr("lipsync_core.models.wav2lip.Generator.draw", None)
    assert torch.equal(spoken(clip, blend, drawings), wanted)


def test_drawings_keep_within_their_room(clip: Tensor) -> None:
    # sixteen faces in float32: of the six chunks three fit
    drawings = GeneratorCache(most_bytes=2 * 8 * 6 * 48 * 96 * 4)
    wanted = spoken(clip, Blend(), drawings)
    assert len(drawings) == 3
    assert torch.equal(spoken(clip, Blend(), drawings), wanted)


def test_a_still_picture_has_drawings_too(clip: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    (frame,) = pieces(clip[:1], 1)
    track = person(10, count=1)

    def shown(blend: Blend, drawings: GeneratorCache | None) -> Tensor:
        sync = LipSync(mini(), blend=blend, precision="float32")
        return whole(
            sync.still(
                frame, voice(1), fps=FPS, tracks=[track], count=20, chunk=8, drawings=drawings
            )
        )

    drawings = GeneratorCache()
    shown(Blend(), drawings)
    wanted = shown(Blend("face"), None)
    monkeypatch.setattr("lipsync_core.models.wav2lip.Generator.draw", None)
    assert torch.equal(shown(Blend("face"), drawings), wanted)


def test_strength_0_keeps_every_bit_and_half_lies_between(clip: Tensor) -> None:
    source, full = clip.float(), spoken(clip, Blend(), None).float()
    assert torch.equal(spoken(clip, Blend(strength=0), None), clip)
    half = spoken(clip, Blend(strength=0.5), None).float()
    assert (half - (source + full) / 2).abs().max() <= 1.5  # two roundings, and people who overlap
    assert (full - source).abs().max() > 20


def test_strength_of_a_hard_edge_keeps_the_edge_hard(clip: Tensor) -> None:
    source, full = clip.float(), spoken(clip, Blend(kind="paste"), None, TRACKS[:1]).float()
    half = spoken(clip, Blend(kind="paste", strength=0.5), None, TRACKS[:1]).float()
    assert (half - (source + full) / 2).abs().max() <= 1


@pytest.mark.parametrize("strength", [-0.1, 1.01])
def test_other_strengths_are_refused(clip: Tensor, strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        spoken(clip, Blend(strength=strength), None)


@pytest.mark.parametrize("blend", [Blend(), Blend("lower", "paste"), Blend("face", strength=0.5)])
def test_the_mask_covers_just_what_changes(clip: Tensor, blend: Blend) -> None:
    sync = LipSync(mini(), blend=blend, precision="float32")
    faces = [FaceDub(voice(1), track) for track in TRACKS]
    masks = opacities(sync.render(pieces(clip, 10), faces, fps=FPS, opacity=True))
    assert masks.shape == (COUNT, HEIGHT, WIDTH) and masks.min() == 0
    assert masks.max() == pytest.approx(blend.strength, abs=1e-4)
    changed = (spoken(clip, blend, None) != clip).any(-1)
    assert not (changed & (masks == 0)).any()
    covered = masks > 0.2
    assert changed[covered].float().mean() > 0.9  # noise is seldom drawn as it was
    assert not masks[4:9, :, 130:].any()  # the second person is away then
