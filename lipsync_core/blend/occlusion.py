"""What lies before a face, found by comparing it with a crop of the same person in which nothing did."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import sample

# How a face is seen here: at most this many cells a side (3 px of a crop of 96 px).
_CELLS = 32
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

# Corners of both eyes and of the mouth in the layouts of ``outlines.LAYOUTS``.
_EYES = {68: (36, 39, 42, 45), 106: (35, 39, 89, 93), 468: (33, 133, 362, 263), 478: (33, 133, 362, 263)}
_MOUTH = {68: (48, 54), 106: (52, 61), 468: (61, 291), 478: (61, 291)}

_MOVED, _JAW = (3, 3), (5, 3)  # cells: as far from its place, each way, a face may show what the reference shows
_SAME, _OTHER = (0.06, 0.035, 0.035), (0.16, 0.09, 0.09)
_GROWTH = 14  # steps of one cell


def compared(pixels: Tensor, reference: Tensor, points: Tensor, size: int, *, feather: float | Tensor = 0.08) -> Tensor:
    cells = min(_CELLS, size)
    face = _Face(points, size, cells)
    now, then = _levelled(_celled(pixels, cells), _celled(reference, cells), face)
    gone = _lips_gone(now, then, face)
    safe, eager = _unlike(now, then, face), _unlike(now, then, face, strict=_STRICT, jaw=_EAGER, moved=_EAGER)
    odd = safe + (eager - safe).clamp_min(0) * gone
    back = ((then[:, 3:] - _most(now[:, 3:], (3, 2)) - 0.05) / 0.05).clamp(0, 1) * face.mouth * gone
    seeds = odd * (face.seeds + (face.own * face.below_eyes - face.seeds) * gone)
    seeds = ((F.avg_pool2d(seeds, 3, 1, 1) - 0.2) / 0.15).clamp(0, 1) * seeds
    odd = odd.maximum(back)
    found = seeds
    for _ in range(_GROWTH):
        found = torch.minimum(odd, F.max_pool2d(found, 3, 1, 1))
    area = found.sum((1, 2, 3)) * (32 / cells) ** 2
    enough = ((area - _AREA[0]) / (_AREA[1] - _AREA[0])).clamp(0, 1)[:, None, None, None]
    if LOG is not None:
        LOG.append(area)
    found = found * enough
    upper = (safe * face.upper).sum((1, 2, 3)) / face.upper.sum((1, 2, 3)).clamp_min(1)
    trust = ((_UPPER_MOST - upper) / (_UPPER_MOST / 2)).clamp(0, 1)[:, None, None, None]
    return _widened(found * trust, feather, size)


_STRICT = 0.45
_EAGER = (2, 2)
LOG = None
_AREA = (0, 1e-6)
_LEFT = (0.28, 0.40)
_UPPER_MOST = 0.5


class _Face:
    def __init__(self, points, size, cells):
        if points.shape[1] == 5:
            eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
        else:
            eyes, mouth = (
                points[:, list(_EYES[points.shape[1]])].mean(1),
                points[:, list(_MOUTH[points.shape[1]])].mean(1),
            )
        down = mouth - eyes
        length = down.norm(dim=1).clamp_min(1e-6)[:, None, None]
        axis = (torch.arange(cells, device=points.device, dtype=points.dtype) + 0.5) * (size / cells)
        away = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) - mouth[:, None, None]
        unit = down[:, None, None] / length[..., None]
        self.y = y = (away * unit).sum(-1) / length
        self.x = x = (away[..., 0] * unit[..., 1] - away[..., 1] * unit[..., 0]) / length

        # patch: x in [-.5,.5], y in [-.8,-.3] of the line, mapped to unit square [-1,1]
        unit_, cross = unit[:, 0, 0], torch.stack([unit[:, 0, 0, 1], -unit[:, 0, 0, 0]], -1)
        half = 2 / size

        def patch(y, h):
            return torch.stack(
                [cross * 0.5 * length[:, 0] * half, unit_ * h * length[:, 0] * half, (mouth + y * down) * half - 1], -1
            )

        self.patch, self.cheeks = patch(-0.75, 0.3), patch(-0.45, 0.25)

        def ellipse(cx_y, rx, ry, sharp=6):
            return (sharp * (1 - (x / rx).square() - ((y - cx_y) / ry).square())).clamp(0, 1)[:, None]

        own = ellipse(-0.25, 0.70, 0.85)
        lips = ellipse(0.12, 0.50, 0.38)
        below_eyes = (4 * (y + 0.75)).clamp(0, 1)[:, None]
        self.own, self.below_eyes = own, below_eyes
        self.seeds = own * (1 - lips) * below_eyes
        self.upper = own * (4 * (-0.45 - y)).clamp(0, 1)[:, None]
        self.mouth = ellipse(0.05, 0.36, 0.25)


def _celled(pixels, cells):
    return F.adaptive_avg_pool2d(pixels, cells)


def _levelled(now, then, face):
    size = now.shape[-1]
    was, is_ = (
        sample(
            z,
            face.patch.expand(len(z), 2, 3) if 0 else face.patch[: len(z)] if len(z) == len(face.patch) else face.patch,
            (6, 12),
        )
        if len(z) == len(face.patch)
        else sample(z.expand(len(face.patch), -1, -1, -1), face.patch, (6, 12))
        for z in (then, now)
    )
    gain = (was / is_.clamp_min(0.02)).flatten(2).median(2).values.clamp(0.5, 2)[:, :, None, None]
    luma = (
        (was * was.new_tensor(_LUMA)[:, None, None])
        .sum(1)
        .flatten(1)
        .median(1)
        .values.clamp_min(0.05)[:, None, None, None]
    )
    return _opponent(now * gain / luma), _opponent(then / luma)


def _opponent(z):
    r, g, b = z.unbind(1)
    luma = (z * z.new_tensor(_LUMA)[:, None, None]).sum(1)
    return torch.stack([luma, r - g, (r + g) / 2 - b, (r - g) / luma.clamp_min(0.25)], 1)


def _most(z, k):
    return F.max_pool2d(z, (2 * k[0] + 1, 2 * k[1] + 1), 1, k)


def _unlike(now, then, face, strict=1.0, jaw=None, moved=None):
    now, then = now[:, :3], then[:, :3]

    def beyond(k):
        return torch.maximum(now - _most(then, k), -_most(-then, k) - now)

    jaw, moved = jaw or _JAW, moved or _MOVED
    d = torch.where(face.y[:, None] > -0.05, beyond(jaw), beyond(moved))
    same, other = (now.new_tensor(v)[:, None, None] * strict for v in (_SAME, _OTHER))
    return ((d - same) / (other - same)).amax(1, keepdim=True).clamp(0, 1)


def _lips_gone(now, then, face):
    (a, b), (c, d) = _reds(now, face), _reds(then, face)

    def half(is_, was):
        share = is_ / was.clamp_min(1e-3)
        return ((_LEFT[1] - share) / (_LEFT[1] - _LEFT[0])).clamp(0, 1) * ((was - 0.04) / 0.04).clamp(0, 1)

    left, right = half(a, c)[:, None, None, None], half(b, d)[:, None, None, None]
    return left + (right - left) * (0.5 + 3 * face.x[:, None]).clamp(0, 1)


def _reds(z, face):
    red = z[:, 3:]
    cheeks = sample(red.expand(len(face.patch), -1, -1, -1), face.cheeks, (6, 12)).flatten(1).median(1).values
    out = []
    for sgn in (-1, 1):
        w = face.mouth * (sgn * face.x[:, None] > 0)
        out.append((red * w - (1 - w)).flatten(1).topk(6).values.mean(1) - cheeks)
    return out


def _widened(found, feather, size):
    cells = found.shape[-1]
    p = found[:, 0]
    g = (0.5 * (1 - p) / p.clamp_min(1e-3)).square()
    axis = torch.arange(cells, device=p.device, dtype=p.dtype)
    apart = (axis[:, None] - axis).square()
    g = (g[:, :, None, :] + apart).amin(-1)  # (N,row,column)
    g = (g.mT[:, :, None, :] + apart).amin(-1).mT
    far = (g.sqrt() - 0.5)[:, None] * (size / cells)
    far = F.interpolate(far, (size, size), mode="bilinear")
    if isinstance(feather, Tensor):
        feather = feather.clamp_min(1 / size)[:, None, None, None]
    elif feather <= 0:
        return (far <= 0).to(found.dtype)
    x = (1 - far / (feather * size)).clamp(0, 1)
    return x * x * (3 - 2 * x)
