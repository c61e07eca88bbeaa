"""How far open mouths are, on drawn ones, and which frames are chosen for it."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lipsync_core.faces.mouth_openness import find_closed_frames, measure_openness, nearest_index

SIZE = 96
SKIN, LIPS, BEARD = (0.8, 0.6, 0.5), (0.7, 0.35, 0.33), (0.25, 0.18, 0.14)
CAVITY, TEETH = (0.08, 0.03, 0.03), (0.75, 0.72, 0.65)
FPS = Fraction(25)


def face(
    gap: float, *, inside: tuple[float, ...] = CAVITY, dark: float = 1.0, beard: bool = False
) -> Tensor:
    """(3,S,S) skin with lips, ``dark`` times as light as usual, whose opening is ``gap`` of the
    side high; a closed mouth keeps a dark line."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    colours = torch.tensor([dark * v for v in SKIN])[:, None, None].expand(3, SIZE, SIZE).clone()
    if beard:
        colours[:, (y > 0.5) & ((x - 0.5) ** 2 / 0.16 + (y - 0.66) ** 2 / 0.0225 > 0.25)] = (
            torch.tensor(BEARD)[:, None]
        )
    across = ((x - 0.5) / 0.16) ** 2
    for height, colour in (
        (0.05 + gap / 2, [dark * v for v in LIPS]),
        (gap / 2, inside),
        (0.006, CAVITY),
    ):
        if height > 0:
            colours[:, across + ((y - 0.66) / height) ** 2 < 1] = torch.tensor(colour)[:, None]
    return colours


@pytest.mark.parametrize("inside", [CAVITY, TEETH])
@pytest.mark.parametrize("beard", [False, True])
@pytest.mark.parametrize("dark", [1.0, 0.3])
def test_open_mouths_have_more_than_closed_ones(
    inside: tuple[float, ...], beard: bool, dark: float
) -> None:
    faces = torch.stack(
        [face(gap, inside=inside, dark=dark, beard=beard) for gap in (0, 0.04, 0.1)]
    )
    closed, parted, wide = measure_openness(faces).tolist()
    assert 0 <= closed < 0.75 * min(parted, wide)
    assert parted < wide or inside == TEETH  # of teeth, how many there are hardly counts


def test_the_strength_and_the_colour_of_the_light_do_not_matter() -> None:
    faces = torch.stack([face(0), face(0.03), face(0.08, inside=TEETH)])
    lit = faces * torch.tensor([0.6, 0.45, 0.3])[:, None, None]
    torch.testing.assert_close(measure_openness(lit), measure_openness(faces), atol=1e-5, rtol=1e-4)


def test_a_batch_is_its_single_faces_and_sizes_agree() -> None:
    faces = torch.stack([face(gap) for gap in (0, 0.03, 0.08)])
    torch.testing.assert_close(
        torch.cat([measure_openness(one[None]) for one in faces]), measure_openness(faces)
    )
    small = torch.nn.functional.avg_pool2d(faces, 2)
    torch.testing.assert_close(
        measure_openness(small), measure_openness(faces), atol=0.05, rtol=0.2
    )


def test_openness_has_its_gradient() -> None:
    faces = torch.stack([face(0.05)]).double().requires_grad_()
    (slope,) = torch.autograd.grad(measure_openness(faces).sum(), faces)
    assert slope.isfinite().all() and slope.abs().sum() > 0


def test_closed_frames_lie_in_each_stretch_that_has_some() -> None:
    time = torch.arange(100)
    values = 1 - torch.cos(time / 25 * 2 * torch.pi)  # closed once a second
    values[60:90] += 3  # but for a while open throughout
    chosen = find_closed_frames(values, torch.ones(100, dtype=torch.bool), fps=FPS, most=9)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and values[chosen].max() < 0.5
    assert not ((chosen >= 60) & (chosen < 90)).any() and {0, 25, 50} <= set(chosen.tolist())


@pytest.mark.parametrize("most", [1, 3, 7])
def test_at_most_so_many_and_spread_over_the_clip(most: int) -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    chosen = find_closed_frames(values, torch.ones(1000, dtype=torch.bool), fps=FPS, most=most)
    assert len(chosen) == most and values[chosen].max() < 0.1
    slots = chosen * most // 1000
    assert slots.tolist() == list(range(most))


def test_invisible_frames_are_not_chosen_and_somebody_seen_is() -> None:
    values, visible = torch.full((50,), torch.nan), torch.zeros(50, dtype=torch.bool)
    assert find_closed_frames(values, visible, fps=FPS, most=4).tolist() == []
    visible[31], values[31] = True, 7.0
    assert find_closed_frames(values, visible, fps=FPS, most=4).tolist() == [31]
    visible[40:45] = True
    values[40:45] = 7
    assert set(find_closed_frames(values, visible, fps=FPS, most=64).tolist()) <= {
        31,
        *range(40, 45),
    }
    with pytest.raises(ValueError, match="most is 0; expected 1 or more"):
        find_closed_frames(values, visible, fps=FPS, most=0)


def test_the_nearest_in_time() -> None:
    chosen = torch.tensor([3, 10, 11])
    index = torch.tensor([0, 3, 6, 7, 10, 99, 6])  # there and back, as a picture that turns round
    assert nearest_index(chosen, index).tolist() == [0, 0, 0, 1, 1, 2, 0]
    assert nearest_index(torch.tensor([5]), index).tolist() == [0] * 7
    assert nearest_index(torch.tensor([2, 4]), torch.tensor([3])).tolist() == [
        0
    ]  # of two, the earlier
