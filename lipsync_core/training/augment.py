"""Random changes of faces and sound, on batches, with explicit random generators.

A generator must live on the device of the batch it is used with. There is one draw per
clip: every frame of a clip, target and reference alike, gets the same colors and the same
warp.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator as Rng
from torch import Tensor

from ..image.yuv import LUMA


def uniform(n: int, low: float, high: float, rng: Rng) -> Tensor:
    """Draw (n,) numbers uniformly from [low, high)."""
    return torch.rand(n, generator=rng, device=rng.device) * (high - low) + low


def normal(shape: tuple[int, ...], rng: Rng) -> Tensor:
    """Draw numbers of mean 0 and standard deviation 1."""
    return torch.randn(shape, generator=rng, device=rng.device)


def warp_grid(n: int, size: int, full: int, rng: Rng, *, strength: float = 1.0) -> Tensor:
    """Draw sampling grids of small affine maps, half of them mirrored.

    Args:
        n: number of grids.
        size: side of the crop that is sampled, in pixels.
        full: side of the larger crop that holds it in its middle, in pixels.
        rng: the generator; its device is the grids' device.
        strength: 1 gives up to 6 degrees, 6 % scale, 2.5 % aspect and 3 px of shift.

    Returns:
        (n, size, size, 2) grids for ``grid_sample`` over the larger crop.
    """
    angle = uniform(n, -6, 6, rng) * strength * math.pi / 180
    zoom = 1 + uniform(n, -0.06, 0.06, rng) * strength
    aspect = 1 + uniform(n, -0.025, 0.025, rng) * strength
    mirror = torch.where(uniform(n, 0, 1, rng) < 0.5, -1.0, 1.0)
    ratio = size / full
    shift = (torch.rand(n, 2, generator=rng, device=rng.device) * 2 - 1) * 3 * strength * 2 / full
    cos, sin = angle.cos() * zoom * ratio, angle.sin() * zoom * ratio
    rows = torch.stack(
        [cos * aspect * mirror, -sin, shift[:, 0], sin * aspect * mirror, cos, shift[:, 1]], 1
    )
    return F.affine_grid(rows.view(n, 2, 3), [n, 3, size, size], align_corners=False)


def elsewhere(grid: Tensor, rng: Rng) -> Tensor:
    """Move sampling grids as if the heads were held differently.

    Args:
        grid: (K,F,S,S,2) sampling grids of K clips.
        rng: one turn, scale and shift per clip, of standard deviation 2.5 degrees, 3 % and 2 %
            of the side.

    Returns:
        Grids of the same shape.
    """
    k = grid.shape[0]
    angle, zoom = normal((k,), rng) * 2.5 * math.pi / 180, 1 + normal((k,), rng) * 0.03
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    turn = torch.stack([cos, sin, -sin, cos], 1).view(k, 1, 1, 2, 2)
    return grid @ turn + (normal((k, 2), rng) * 0.036)[:, None, None, None]


def grimace(grid: Tensor, frames: int, rng: Rng) -> Tensor:
    """Bend sampling grids of aligned crops so that mouths and chins move at random.

    This makes photographs move, so that a network can unlearn what moves.

    Args:
        grid: (K*frames,S,S,2) sampling grids of K clips.
        frames: frames of each clip.
        rng: draws up to about 8 % of the crop up and down and 15 % in width.

    Returns:
        Grids of the same shape.
    """
    count = grid.shape[0] // frames
    wander = normal((count, 2, 2 + frames // 3), rng) * uniform(count, 0, 1, rng).view(-1, 1, 1)
    wander = F.interpolate(wander, size=frames, mode="linear", align_corners=True).clamp(-2, 2)
    down, wide = wander.permute(1, 0, 2).reshape(2, -1, 1, 1)
    x, y = grid.unbind(-1)
    # centered between the lips and the chin
    near = torch.exp(-((x / 0.4).square() + ((y - 0.35) / 0.3).square()))
    return torch.stack([x * (1 + 0.08 * wide * near), y - 0.08 * down * near], -1)


def recolor(faces: Tensor, rng: Rng) -> Tensor:
    """Change the colors of clips, with one draw for each of the K clips.

    Draws gamma, gain per channel, saturation, contrast and hue. All but the gamma is linear,
    hence one 3x3 matrix and one offset per clip.

    Args:
        faces: (K,N,3,S,S) in [0,1].
        rng: the generator, on the device of the faces.

    Returns:
        Faces of the same shape in [0,1].
    """
    k = faces.shape[0]

    def draw(low: float, high: float) -> Tensor:
        return uniform(k, low, high, rng)[:, None, None]

    gamma = draw(-0.45, 0.45).exp()[..., None, None]
    gain = torch.diag_embed(1 + (torch.rand(k, 3, generator=rng, device=rng.device) - 0.5) * 0.3)
    gray = torch.tensor(LUMA, device=faces.device).expand(3, 3)
    turn = _hue_turn(draw(-0.35, 0.35)) * draw(0.4, 1.4)
    color = (turn @ (torch.eye(3, device=faces.device) - gray) + gray) @ gain
    contrast = draw(0.7, 1.3)
    x = faces.clamp(1e-4, 1) ** gamma
    middle = (color @ x.mean((1, 3, 4))[..., None]).mean(1, keepdim=True)
    offset = (1 - contrast) * middle + draw(-0.08, 0.08)
    x = (contrast * color)[:, None] @ x.flatten(3) + offset[:, None]
    return x.view_as(faces).clamp(0, 1)


def _hue_turn(angle: Tensor) -> Tensor:
    """Return (K,3,3) rotations about the gray axis by (K,1,1) radians.

    Rodrigues' formula with the axis (1,1,1)/sqrt 3.
    """
    rows = [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]
    cross = torch.tensor(rows, device=angle.device) / math.sqrt(3)
    return (
        angle.cos() * torch.eye(3, device=angle.device)
        + angle.sin() * cross
        + (1 - angle.cos()) / 3
    )


def degrade(faces: Tensor, rng: Rng) -> Tensor:
    """Take detail from half of the clips and add noise to a third of them.

    Args:
        faces: (K,N,3,H,W) in [0,1]; those that lose detail are scaled down by up to 2.2 and up
            again.
        rng: the generator, on the device of the faces.

    Returns:
        Faces of the same shape in [0,1].
    """
    k, n, _, h, w = faces.shape
    out = faces.clone()
    # once: every one would wait for a GPU
    draws = torch.rand((k, 4), generator=rng, device=rng.device).tolist()
    for i, (soft, much, grainy, grain) in enumerate(draws):
        if soft < 0.5:
            factor = 1 + 1.2 * much
            small = (int(h / factor), int(w / factor))
            shrunk = F.interpolate(faces[i], size=small, mode="bilinear", antialias=True)
            out[i] = F.interpolate(shrunk, size=(h, w), mode="bilinear")
        if grainy < 0.33:
            out[i] += normal((n, 3, h, w), rng) * (0.04 * grain)
    return out.clamp(0, 1)


def disturb(faces: Tensor, rng: Rng) -> Tensor:
    """Move, mirror, recolor and blur the faces that an expert sees while a generator learns.

    An expert that sees the bare output of a generator can be fooled by blots that no face has.
    What passes under all of these changes is a mouth.

    Args:
        faces: (K,N,3,S,S) in [0,1].
        rng: the generator, on the device of the faces.

    Returns:
        Faces of the same shape in [0,1].
    """
    k, n, _, size, _ = faces.shape
    # bfloat16 would shift pixels by up to a quarter
    with torch.autocast(faces.device.type, enabled=False):
        grid = warp_grid(k, size, size, rng).repeat_interleave(n, 0)
        shifted = F.grid_sample(
            faces.float().flatten(0, 1), grid, padding_mode="border", align_corners=False
        )
        return degrade(recolor(shifted.view(faces.shape), rng), rng)


def disguise(mels: Tensor, rng: Rng) -> Tensor:
    """Change log-mel windows to another voice and other acoustics, with one draw for each clip.

    The scale has 8/100 units per decibel. Pitch and formants: the band axis is stretched by up
    to 12 %. Equalizer: a smooth curve of up to 8 dB. Gain: up to 12 dB. Noise: colored, at a
    level anywhere below -35 dB.

    Args:
        mels: (K,N,1,B,T) windows of K clips in [-4,4].
        rng: the generator, on the device of the windows.

    Returns:
        Windows of the same shape in [-4,4].
    """
    k, n, _, bands, steps = mels.shape
    x = mels.reshape(k, n, bands, steps)
    stretch = (uniform(k, -0.12, 0.12, rng)).exp()
    band = (
        ((torch.arange(bands, device=mels.device) + 0.5)[None] * stretch[:, None])
        .div(bands)
        .mul(2)
        .sub(1)
    )  # (k, bands)
    grid = torch.stack([torch.zeros_like(band), band], -1)[:, :, None]  # (k, bands, 1, 2)
    flat = x.permute(0, 1, 3, 2).reshape(k, n * steps, bands, 1)
    x = F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view(
        k, n, steps, bands
    )
    curve = F.interpolate(
        normal((k, 1, 6), rng) * 0.35, size=bands, mode="linear", align_corners=True
    )
    gain = uniform(k, -0.96, 0.96, rng).view(k, 1, 1, 1)
    x = x + curve[:, :, None] + gain
    color = F.interpolate(
        normal((k, 1, 5), rng) * 0.5, size=bands, mode="linear", align_corners=True
    )
    level = uniform(k, -6.0, 0.6, rng).view(k, 1, 1, 1) + color[:, :, None]
    noise = level + normal((k, n, steps, bands), rng) * 0.15
    decibel = 100 / 8 * math.log(10) / 20  # scale units -> nepers
    x = torch.logaddexp(2 * x * decibel, 2 * noise * decibel) / (2 * decibel)
    return x.clamp(-4, 4).permute(0, 1, 3, 2).reshape(k, n, 1, bands, steps)
