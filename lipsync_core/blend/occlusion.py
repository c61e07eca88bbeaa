"""What lies before a face, found by comparing it with a crop of the same person in which nothing
did.

Measured on 85 clips of some ten people who speak, with the first frame as the reference: 0.03 % of
the frames have more than 2 % of the mouth's mask wrongly covered (3.6 % once light from the side
has changed by 20 %). Of drawn things before the mouth it covers 99 % (microphones, a scarf), 93 %
(a hand) and 79 % (strands of hair); hands and strands less in other footage, 80 and 68 %. It cannot
find what has the colours of what lies near: a dark thing on a dark beard or a shaded face, a hand
of quite the face's colour where lips are pale or the picture grey; nor less than about 3 % of the
crop. Faces that turn to a profile may be taken for covered, and all of them are where the reference
is blurred or covered itself: ``pick_clearest``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.crop import sample_affine
from ..image.yuv import LUMA
from .landmark_masks import LAYOUTS

_CELLS = 32  # a side, at most, in which faces are compared: 3 px of a crop of 96 px

# Corners of both eyes and of the mouth in the layouts of ``outlines``.
_EYES = {
    68: (36, 39, 42, 45),
    102: (61, 65, 69, 73),
    106: (35, 39, 89, 93),
    468: (33, 133, 362, 263),
    478: (33, 133, 362, 263),
}
_LIPS = {68: (48, 54), 102: (0, 10), 106: (52, 61), 468: (61, 291), 478: (61, 291)}

# All numbers below were chosen on the footage named above. Cells down and across that something of
# the face may have moved: a turning head's nose and cheeks, and below the nose what a falling jaw
# takes along; less where a mouth is seen to be gone.
_MOVED, _JAW, _STILL = (3, 3), (5, 3), (2, 2)
# How much a cell may differ in luma, red - green and yellow - blue, in units of the face's luma,
# and by how much it then surely does. Where a mouth is gone, 0.45 of it, for hands are of nearly
# the face's own colour.
_SAME, _OTHER = (0.06, 0.035, 0.035), (0.16, 0.09, 0.09)
_EAGER = 0.45
# brighter than this a channel says only that there was at least so much light
_CLIPPED = (0.94, 0.98)
_GROWTH = 14  # cells that a cover is followed from where it is surely one
# a cover's part of the crop: a frame that is wrongly suspected has mostly less than 0.02
_LEAST = (0.02, 0.04)
_ABOVE = (0.25, 0.5)  # of the upper half covered: this is no thing before the mouth

# Lips are redder than the skin round them, in (red - green) / luma. Of what the reference has, 99.8
# % of the halves of mouths that speak keep 0.31, and 99 % of those that a drawn hand covers 0.09 at
# most. Lips that are 0.04 redder say nothing.
_LEFT, _RED = (0.18, 0.32), (0.04, 0.08)
_REDDEST = 12  # of 72 even places on half a mouth


@torch.no_grad()
def find_occlusion(
    pixels: Tensor, reference: Tensor, points: Tensor, size: int, *, feather: float | Tensor = 0.08
) -> Tensor:
    """(N,1,size,size) in [0,1]: how much something before the face covers it, of crops ``pixels``
    (N,3,S,S), RGB in [0,1], against ``reference`` (N,3,S,S) or (1,3,S,S), crops of the same person
    in the same framing in which nothing covered it. ``points`` (N,5,2) or dense ones (N,K,2)
    (``outlines.LAYOUTS``): crop px of ``pixels``.

    1 up to the edge of the cover, then down to 0 over ``feather``, one or (N,) of them, a part of
    the crop's side; 0 for no soft edge. Each face is judged alone. Not differentiable. Raises
    ValueError for other shapes.

    A cell is covered where the reference shows nothing like it nearby, whatever the light. Such
    cells count where they lie, or lead to others that lie, on the face beside the lips, so that an
    opening mouth is none. Where the lips' red is gone, smaller differences count, and lips
    themselves. Where the upper half of the face differs as much, or where lips are seen that the
    reference has not, there is no verdict: 0.
    """
    _check(pixels, reference, points)
    found, doubt = _judged(pixels, reference, points)
    return _softened(found * (1 - doubt), size, feather)


@torch.no_grad()
def pick_clearest(pixels: Tensor, points: Tensor) -> Tensor:
    """() which of some crops ``pixels`` (N,3,S,S) of one person to compare with, from 0: that which
    is covered least by the others, and they by it. ``points`` as in ``find_occlusion``. Eight crops,
    spread over a clip, take as long as 64 faces.

    The first frame alone may show a hand: then all others would differ from it."""
    _check(pixels, pixels, points)
    n = len(pixels)
    each = torch.arange(n, device=pixels.device)
    now, then = each.repeat(n), each.repeat_interleave(n)
    found, doubt = _judged(pixels[now], pixels[then], points[now])
    apart = (found + doubt).mean((1, 2, 3)).view(n, n)
    return (apart + apart.T).sum(1).argmin()


def _judged(pixels: Tensor, reference: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """(N,1,C,C) in [0,1] how surely each cell is covered, and (N,1,1,1) how little that is worth."""
    side = pixels.shape[3]
    cells = min(_CELLS, side)
    face = _placed(points, side, cells)
    now, then = _levelled(_celled(pixels, cells), _celled(reference, cells), face)
    gone = _lips_gone(now, then, face)
    safe = torch.where(face.jaw, _unlike(now, then, _JAW), _unlike(now, then, _MOVED))
    odd = safe + (_unlike(now, then, _STILL, share=_EAGER) - safe).clamp_min(0) * gone
    seeds = odd * (face.beside + (face.below - face.beside) * gone)
    seeds = seeds * _ramp(F.avg_pool2d(seeds, 3, 1, 1), (0.2, 0.35))  # one cell alone is none
    odd = odd.maximum(_ramp(then.red - _most(now.red, _MOVED), (0.05, 0.1)) * face.mouth * gone)
    found = seeds
    for _ in range(_GROWTH):
        found = torch.minimum(odd, _most(found, (1, 1)))
    above = (safe * face.above).sum((1, 2, 3)) / face.above.sum((1, 2, 3)).clamp_min(1e-6)
    trusted = (1 - _ramp(above, _ABOVE))[:, None, None, None]
    # the reference is covered
    trusted = trusted * (1 - _lips_gone(then, now, face).amax((1, 2, 3), keepdim=True))
    return found * _ramp(found.mean((1, 2, 3), keepdim=True), _LEAST), 1 - trusted


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """Where things are, in [0,1] (N,1,C,C): the face ``below`` the eyes, of it what lies ``beside``
    the lips, wherever they move; the face ``above`` the nose's tip; the ``mouth``. ``jaw``: bool,
    what moves when it falls. ``across``: -1 on the picture's left of the mouth's middle, 1 on its
    right. ``skin`` above the nose's tip, ``cheeks`` and ``lips`` (N,2,3): maps to even places on
    them (``crop.sample_affine``)."""

    below: Tensor
    beside: Tensor
    above: Tensor
    mouth: Tensor
    jaw: Tensor
    across: Tensor
    skin: Tensor
    cheeks: Tensor
    lips: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Colours (N,3,C,C): luma, red - green and yellow - blue. ``red`` (N,1,C,C) of it in units of
    luma. ``clipped`` (N,1,C,C) in [0,1]: how surely there was more light than a picture holds."""

    colour: Tensor
    red: Tensor
    clipped: Tensor


def _placed(points: Tensor, side: int, cells: int) -> _Face:
    """Units: the line from the eyes to the mouth, from the middle of the mouth; x across, y down."""
    eyes, mouth = _ends(points)
    down = mouth - eyes
    length = down.norm(dim=1, keepdim=True).clamp_min(1e-6)
    unit = down / length
    across = torch.stack([unit[:, 1], -unit[:, 0]], 1)
    axis = (torch.arange(cells, device=points.device, dtype=points.dtype) + 0.5) * (side / cells)
    away = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) - mouth[:, None, None]
    x, y = (
        (away * way[:, None, None]).sum(-1)[:, None] / length[:, None, None]
        for way in (across, unit)
    )

    def ellipse(middle: float, wide: float, high: float) -> Tensor:
        return (6 * (1 - (x / wide).square() - ((y - middle) / high).square())).clamp(0, 1)

    def patch(middle: float, wide: float, high: float) -> Tensor:
        centre = (mouth + middle * down) * (2 / side) - 1
        return torch.stack(
            [across * wide * length * (2 / side), unit * high * length * (2 / side), centre], 2
        )

    own = ellipse(-0.25, 0.70, 0.85)
    below = own * (4 * (y + 0.75)).clamp(0, 1)
    return _Face(
        below=below,
        beside=below * (1 - ellipse(0.12, 0.50, 0.38)),
        above=own * (4 * (-0.45 - y)).clamp(0, 1),
        mouth=ellipse(0.05, 0.36, 0.25),
        jaw=y > -0.05,
        across=(6 * x).clamp(-1, 1),
        skin=patch(-0.75, 0.62, 0.30),
        cheeks=patch(-0.15, 0.60, 0.50),
        lips=patch(0.05, 0.30, 0.20),
    )


def _ends(points: Tensor) -> tuple[Tensor, Tensor]:
    """(N,2) between the eyes, and the middle of the mouth."""
    count = points.shape[1]
    if count == 5:
        return points[:, :2].mean(1), points[:, 3:].mean(1)
    eyes, lips = (torch.tensor(rows[count], device=points.device) for rows in (_EYES, _LIPS))
    return points[:, eyes].mean(1), points[:, lips].mean(1)


def _levelled(now: Tensor, then: Tensor, face: _Face) -> tuple[_Look, _Look]:
    """Both in units of the face's luma, ``now`` (N,3,C,C) in the light of ``then``. Medians, for
    hair may lie before the eyes."""
    is_, was = (_even(planes, face.skin) for planes in (now, then))
    gain = (was / is_.clamp_min(0.02)).median(2).values.clamp(0.5, 2)[:, :, None, None]
    luma = _luma(was).median(1).values.clamp_min(0.05)[:, None, None, None]
    return _look(now, gain / luma), _look(then, 1 / luma)


def _look(planes: Tensor, gain: Tensor) -> _Look:
    bright = planes.amax(1, keepdim=True)
    r, g, b = (planes * gain).unbind(1)
    luma = _luma(planes * gain)
    colour = torch.stack([luma, r - g, (r + g) / 2 - b], 1)
    red = (r - g) / luma.clamp_min(0.25)  # what is darker has no colour to speak of
    return _Look(colour, red[:, None], _ramp(bright, _CLIPPED).expand(len(colour), -1, -1, -1))


def _unlike(now: _Look, then: _Look, reach: tuple[int, int], *, share: float = 1.0) -> Tensor:
    """(N,1,C,C) in [0,1]: how surely the reference shows nothing like a cell within ``reach``;
    ``share`` of the usual difference is enough."""
    brighter = now.colour - _most(then.colour, reach)
    darker = -_most(-then.colour, reach) - now.colour
    known, knew = 1 - now.clipped, 1 - _most(then.clipped, (1, 1))
    luma = torch.maximum(brighter[:, :1] * knew, darker[:, :1] * known)
    chroma = torch.maximum(brighter[:, 1:], darker[:, 1:]) * known * knew
    same, other = (
        share * now.colour.new_tensor(limits)[:, None, None] for limits in (_SAME, _OTHER)
    )
    return (
        ((torch.cat([luma, chroma], 1) - same) / (other - same)).amax(1, keepdim=True).clamp(0, 1)
    )


def _lips_gone(now: _Look, then: _Look, face: _Face) -> Tensor:
    """(N,1,C,C) in [0,1]: how surely the lips that the reference shows are not seen, on either side
    of the mouth."""
    is_, was = _redness(now, face), _redness(then, face)
    sides = (1 - _ramp(is_ / was.clamp_min(1e-3), _LEFT)) * _ramp(was, _RED)
    left, right = sides.T[..., None, None, None]
    return left + (right - left) * (face.across + 1) / 2


def _redness(look: _Look, face: _Face) -> Tensor:
    """(N,2) how much redder than the cheeks the reddest places are of the left and the right half
    of the mouth."""
    halves = _even(look.red, face.lips).view(-1, 12, 2, 6).transpose(1, 2).flatten(2)
    cheeks = _even(look.red, face.cheeks).flatten(1).median(1).values
    return halves.topk(_REDDEST, 2).values.mean(2) - cheeks[:, None]


def _softened(found: Tensor, size: int, feather: float | Tensor) -> Tensor:
    """(N,1,size,size) 1 where cells are ``found`` (N,1,C,C), then down to 0, by the exact distance
    to the nearest."""
    cells = found.shape[3]
    reach = cells if isinstance(feather, Tensor) else min(cells, int(feather * cells) + 2)
    # how many cells farther away one seems: none where it is surely found, 0.5 where that is as
    # likely as not
    doubt = 0.5 * (1 - found) / found.clamp_min(1e-3)
    far = (_nearest(_nearest(doubt.square(), reach).mT, reach).mT.sqrt() - 0.5) / cells
    if isinstance(feather, Tensor):
        # a pixel, which is as good as hard
        feather = feather.clamp_min(1 / size)[:, None, None, None]
    elif feather <= 0:
        return (F.interpolate(far, (size, size), mode="bilinear") <= 0).to(far.dtype)
    x = F.interpolate(1 - far / feather, (size, size), mode="bilinear").clamp_(0, 1)
    # new memory for whole planes took half of all the time
    return x.square().mul_(x.mul_(-2).add_(3))


def _nearest(squares: Tensor, reach: int) -> Tensor:
    """Along each row the least of ``squares`` and how far, squared, each lies within ``reach``."""
    length = squares.shape[3]
    padded = F.pad(squares, (reach, reach), value=torch.inf)
    for step in range(1, reach + 1):
        beside = torch.minimum(
            padded[..., reach - step :][..., :length], padded[..., reach + step :][..., :length]
        )
        squares = torch.minimum(squares, beside + step * step)
    return squares


def _celled(pixels: Tensor, cells: int) -> Tensor:
    side = pixels.shape[3]
    if side % cells == 0:
        # thrice as quick as ``avg_pool2d`` on a CPU
        rows = pixels.unflatten(2, (cells, -1)).mean(3)
        return rows.unflatten(3, (cells, -1)).mean(4)
    return F.interpolate(pixels, (cells, cells), mode="bilinear", antialias=True)


def _even(planes: Tensor, patch: Tensor) -> Tensor:
    """(N,C,144) what ``planes`` show at even places of ``patch``."""
    return sample_affine(planes.expand(len(patch), -1, -1, -1), patch, (12, 12)).flatten(2)


def _luma(planes: Tensor) -> Tensor:
    """(N,...) of RGB (N,3,...)."""
    return torch.einsum("nc...,c->n...", planes, planes.new_tensor(LUMA))


def _most(planes: Tensor, reach: tuple[int, int]) -> Tensor:
    """The largest within ``reach`` cells (down, across) to each side: pieces of it, which is ten
    times as quick as torch's ``max_pool2d`` on a CPU."""
    down, across = reach
    planes = F.pad(planes, (across, across, down, down), value=-torch.inf)
    for axis, most in ((2, 2 * down + 1), (3, 2 * across + 1)):
        have = 1
        while have < most:
            step = min(have, most - have)
            length = planes.shape[axis] - step
            planes = torch.maximum(
                planes.narrow(axis, 0, length), planes.narrow(axis, step, length)
            )
            have += step
    return planes


def _ramp(values: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return ((values - low) / (high - low)).clamp(0, 1)


def _check(pixels: Tensor, reference: Tensor, points: Tensor) -> None:
    n, side = pixels.shape[0], pixels.shape[-1]
    if pixels.shape != (n, 3, side, side) or side < 16:
        raise ValueError(f"pixels are {tuple(pixels.shape)}; wanted (N,3,S,S), S at least 16")
    if reference.shape[1:] != pixels.shape[1:] or len(reference) not in (1, n):
        raise ValueError(
            f"reference is {tuple(reference.shape)}; wanted {tuple(pixels.shape)} or one for all"
        )
    if (
        points.ndim != 3
        or len(points) != n
        or points.shape[2] != 2
        or points.shape[1] not in (5, *LAYOUTS)
    ):
        known = ", ".join(f"({n},{count},2)" for count in (5, *LAYOUTS))
        raise ValueError(f"points are {tuple(points.shape)}; wanted one of {known}")
