"""Masks from label probabilities, and the parser that gives them, on pictures whose labels are
known."""

from typing import get_args

import pytest
import torch
from helpers.golden import uniform
from helpers.networks import small
from torch import Tensor

from lipsync_core.blend.parser_masks import LABELS, find_occluders, parser_mask
from lipsync_core.faces.parser import PORTRAIT, FaceParser
from lipsync_core.image.affine import ALIGNED, Framing, crop_to_frame
from lipsync_core.image.crop import crop_pictures
from lipsync_core.models.face_parsing import FaceParsingConfig
from lipsync_core.options import MaskKind
from lipsync_core.types import Frames

SIZE = 64
KINDS = get_args(MaskKind)
POINTS = torch.tensor([ALIGNED]) * SIZE
FLIPPED = [1, 0, 2, 4, 3]
Box = tuple[int, int, int, int]


def scene(**boxes: Box) -> Tensor:
    """(1,19,S,S) a face on a background, then each label in its box (xyxy)."""
    labels = torch.zeros(SIZE, SIZE, dtype=torch.long)
    face: dict[str, Box] = {
        "skin": (5, 2, 59, 58),
        "nose": (28, 20, 36, 32),
        "mouth": (24, 40, 40, 46),
    }
    for name, (x0, y0, x1, y1) in (face | boxes).items():
        labels[y0:y1, x0:x1] = LABELS.index(name)
    return torch.nn.functional.one_hot(labels, len(LABELS)).permute(2, 0, 1)[None].float()


def noise(n: int, side: int = SIZE) -> Tensor:
    return (4 * torch.randn(n, 19, side, side, generator=torch.Generator().manual_seed(2))).softmax(
        1
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("feather", [0.0, 0.08, 0.3])
def test_values_and_borders(kind: MaskKind, feather: float) -> None:
    for given in (scene(), noise(2), noise(2, 24)):
        mask, hidden = (
            parser_mask(kind, given, SIZE, feather=feather),
            find_occluders(given, POINTS, SIZE, feather=feather),
        )
        for plane in (mask, hidden):
            assert (
                plane.shape == (len(given), 1, SIZE, SIZE)
                and 0 <= float(plane.min()) <= float(plane.max()) <= 1
            )
        border = torch.cat([mask[..., 0], mask[..., -1], mask[..., 0, :], mask[..., -1, :]], -1)
        assert not feather or not border.any()


def test_each_kind_shows_its_labels_and_softens_inside() -> None:
    given = scene(right_eye=(12, 12, 22, 18), hair=(5, 0, 59, 8))
    skin, eye, nose, hair, beyond = (48, 44), (17, 15), (32, 26), (32, 4), (2, 30)
    for kind, wanted in (
        ("mouth", "10000"),
        ("lower", "10100"),
        ("face", "11100"),
        ("box", "11111"),
    ):
        hard = parser_mask(kind, given, SIZE, feather=0)[0, 0]
        assert (
            "".join(str(int(hard[y, x])) for x, y in (skin, eye, nose, hair, beyond)) == wanted
        ), kind
        soft = parser_mask(kind, given, SIZE)[0, 0]
        # edges are sought in cells of 4 px, so that half a cell of blur remains
        assert float(soft[40:44, 46:50].min()) > 0.95 and float((soft * (1 - hard)).max()) < 0.2
    assert not parser_mask("mouth", given, SIZE)[0, 0, 59:].any()  # the neck and all below the chin


def test_what_lies_before_the_mouth_is_found() -> None:
    # the background beside and below a face hides nothing
    assert float(find_occluders(scene(), POINTS, SIZE).max()) == 0
    hand = find_occluders(scene(background=(24, 36, 40, 50)), POINTS, SIZE)[0, 0]
    assert float(hand[37:49, 25:39].min()) > 0.95 and float(hand[:20].max()) < 0.05
    for label in ("hair", "cloth", "hat"):
        strand = find_occluders(scene(**{label: (40, 20, 48, 60)}), POINTS, SIZE)[0, 0]
        assert float(strand[24:56, 41:47].min()) > 0.95 and float(strand[:, :28].max()) < 0.05, (
            label
        )
    for label in ("neck", "lower_lip", "glasses", "necklace"):
        assert float(find_occluders(scene(**{label: (24, 36, 40, 50)}), POINTS, SIZE).max()) == 0, (
            label
        )
    hard = find_occluders(scene(background=(24, 36, 40, 52)), POINTS, SIZE, feather=0)[0, 0]
    assert (
        set(hard.unique().tolist()) == {0.0, 1.0} and bool(hard[44, 32]) and not bool(hard[20, 32])
    )


def test_dense_points_say_where_the_face_is_too() -> None:
    dense = torch.zeros(1, 68, 2)
    dense[:, :17] = torch.stack(
        [torch.linspace(5, 59, 17), 58 - 0.05 * (torch.linspace(5, 59, 17) - 32) ** 2], -1
    )
    dense[:, 17:27] = torch.stack([torch.linspace(5, 59, 10), torch.full((10,), 4.0)], -1)
    assert float(find_occluders(scene(), dense, SIZE)[0, 0, 12:48, 12:52].max()) < 0.05
    hand = find_occluders(scene(background=(24, 36, 40, 50)), dense, SIZE)[0, 0]
    assert float(hand[37:49, 25:39].min()) > 0.95


def test_mirrors_and_batches() -> None:
    given = noise(3)
    points = POINTS + torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(4))
    mirrored = points[:, FLIPPED] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIZE), 0.0])
    for kind in KINDS:
        mask = parser_mask(kind, given, SIZE)
        torch.testing.assert_close(
            parser_mask(kind, given.flip(3), SIZE), mask.flip(3), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            torch.cat([parser_mask(kind, one[None], SIZE) for one in given]), mask
        )
    hidden = find_occluders(given, points, SIZE)
    torch.testing.assert_close(
        find_occluders(given.flip(3), mirrored, SIZE), hidden.flip(3), atol=1e-4, rtol=0
    )
    each = [
        find_occluders(one[None], own[None], SIZE) for one, own in zip(given, points, strict=True)
    ]
    torch.testing.assert_close(torch.cat(each), hidden, atol=1e-6, rtol=0)


def test_gradients_of_masks() -> None:
    given = noise(1, 8).double().requires_grad_()
    points = (POINTS / SIZE * 16).double()
    assert torch.autograd.gradcheck(lambda p: parser_mask("face", p, 16), given, fast_mode=True)
    assert torch.autograd.gradcheck(lambda p: find_occluders(p, points, 16), given, fast_mode=True)


def test_wrong_probabilities_and_kinds_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"probabilities are \(1, 18, 4, 4\); expected \(N,19,h,w\)"
    ):
        parser_mask("mouth", torch.zeros(1, 18, 4, 4), SIZE)
    with pytest.raises(ValueError, match="mask is 'chin'"):
        parser_mask("chin", noise(1), SIZE)  # type: ignore[arg-type]


def test_there_are_as_many_labels_as_channels() -> None:
    assert len(LABELS) == FaceParsingConfig().labels == len(set(LABELS))


def test_crops_are_parsed_as_the_network_does() -> None:
    pixels = uniform(5, (10, 3, 64, 64))
    wanted = small()(pixels).softmax(1)
    got = FaceParser(small(), precision="float32").crops(pixels)  # more than are parsed at once
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)
    assert not got.requires_grad
    torch.testing.assert_close(got.sum(1), torch.ones(10, 64, 64))
    reduced = FaceParser(small(), side=32, precision="float32").crops(pixels[:2], size=20)
    assert reduced.shape == (2, 19, 20, 20)
    single = FaceParser(small(), precision="float32").crops(pixels[7:8])
    torch.testing.assert_close(single, got[7:8], atol=1e-5, rtol=0)


def test_faces_in_frames_are_looked_at_as_portraits() -> None:
    """Where the wanted crop is the portrait itself, both ways agree; a smaller crop shows its part
    of it."""
    frames = Frames(uniform(6, (2, 90, 120, 3)))
    placed = crop_to_frame(torch.zeros(2, 4), torch.tensor([ALIGNED] * 2) * 40 + 35, PORTRAIT, 64)
    points = torch.tensor([ALIGNED] * 2) * 40 + 35
    parser = FaceParser(small(), precision="float32")
    whole = parser.faces(frames, points, placed, 64)
    torch.testing.assert_close(
        whole, parser.crops(crop_pictures(frames.pixels, placed, 64)), atol=1e-4, rtol=0
    )
    inner = crop_to_frame(torch.zeros(2, 4), points, Framing(), 64)
    part = parser.faces(frames, points, inner, 64)
    # 2.4 of 4 eye distances; the crop's upper edge lies 0.473 - 0.6 * 0.2 of the portrait below its
    # own
    corner = (0.2 * 64, (0.5 - 0.6 * (0.20 + 0.0455)) * 64)
    x, y = round(corner[0] + 0.6 * 32), round(corner[1] + 0.6 * 32)
    assert (
        float(
            (
                part[:, :, 31:33, 31:33].mean((2, 3))
                - whole[:, :, y - 1 : y + 1, x - 1 : x + 1].mean((2, 3))
            )
            .abs()
            .max()
        )
        < 0.05
    )


def test_a_side_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="side is 16 px; expected at least 32"):
        FaceParser(small(), side=16)
