"""Train the facial landmarks on what prepare_landmarks.py packed.

Continues from its own checkpoint.

python -m train.landmarks runs/faces.safetensors runs/landmarks --steps 3000
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lipsync_core.image.affine import apply, fit_similarity, invert, unit_maps
from lipsync_core.image.landmarks import (
    INNER_LIPS,
    IRISES,
    MIRRORED,
    NOSE_BRIDGE,
    OUTER_LIPS,
    POINTS,
)
from lipsync_core.models.face_landmarks import EYES_AND_NOSE, FaceLandmarks, FaceLandmarksConfig
from lipsync_core.models.weights import save_model
from lipsync_core.training.checkpoints import Progress, resume, save_state
from lipsync_core.training.optim import update_ema, warmup_cosine
from train.empty_pictures import read_empty_pictures

BATCH, PEAK_RATE, WEIGHT_DECAY, EMA, CHECKPOINT_STEPS = 64, 3e-3, 0.02, 0.998, 100
NEGATIVES = 8  # of a batch: no face, or one that is far from the middle
LICENCE = "Apache-2.0"
SOURCE = (
    "trained by train/landmarks.py on faces that MediaPipe's attention mesh labeled: US Congress "
    "portraits, GRID and other clips"
)
# How often a person's faces are drawn: as often as the square root of their number, but portraits
# are a thousand people.
PORTRAITS_SHARE = 0.45
LIPS_WEIGHT, GAP_WEIGHT, SURE_WEIGHT = 2.0, 2.0, 0.05
# (lower, upper) inner lip points whose distance is how far the mouth is open
GAPS = ((23, 37), (24, 36), (25, 35), (26, 34), (27, 33))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Faces and other pictures to draw batches from.

    Attributes:
        crops: (K,3,S,S) uint8 faces.
        points: (K,102,2) their points in crop px.
        weights: (K,) how likely each is drawn.
        empty: pictures without faces, (3,H,W) uint8 each.
    """

    crops: Tensor
    points: Tensor
    weights: Tensor
    empty: list[Tensor]


def load_pool(path: Path) -> Pool:
    """Load the faces that prepare_landmarks.py packed, and pictures without faces."""
    data = load_file(path)
    with safe_open(path, "pt") as file:
        people = file.metadata()["people"].split(",")
    counts = torch.bincount(data["owners"], minlength=len(people)).float()
    shares = counts.sqrt()
    if "portraits" in people:
        at = people.index("portraits")
        shares[at] = 0
        shares = shares / shares.sum() * (1 - PORTRAITS_SHARE)
        shares[at] = PORTRAITS_SHARE
    empty = read_empty_pictures(most_px=512, leave_out={"chessboard_GRAY.png", "logo.png"})
    return Pool(data["crops"], data["points"], (shares / counts)[data["owners"]], empty)


def uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Draw ``count`` numbers in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=rng)


def crop_maps(points: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Draw the places of crops: where a detector would put them, turned, scaled and shifted.

    The detector errs, and one crop in five is turned by up to 60 degrees.

    Args:
        points: (N,102,2) in px of the kept crops.
        size: side of the result in pixels.
        rng: the generator.

    Returns:
        (N,2,3) maps from crops of ``size`` px to the kept ones.
    """
    count = len(points)
    anchors = torch.cat([points[:, IRISES], points[:, NOSE_BRIDGE.stop - 1 : NOSE_BRIDGE.stop]], 1)
    eyes = (anchors[:, 0] - anchors[:, 1]).norm(dim=1)
    anchors = anchors + torch.randn(anchors.shape, generator=rng) * (0.06 * eyes)[:, None, None]
    template = (torch.tensor(EYES_AND_NOSE) * size).expand_as(anchors)
    maps = fit_similarity(template, anchors)
    turn = torch.randn(count, generator=rng) * math.radians(7)
    far = torch.rand(count, generator=rng) < 0.2
    turn = torch.where(far, uniform(count, -math.pi / 3, math.pi / 3, rng), turn)
    scale = (torch.randn(count, generator=rng) * 0.09).clamp(-0.3, 0.3).exp()
    cos, sin = turn.cos() * scale, turn.sin() * scale
    linear = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    middle = size / 2
    shift = torch.randn(count, 2, generator=rng) * (0.03 * size)
    offset = middle + shift - (linear @ torch.full((count, 2, 1), middle))[..., 0]
    around = torch.cat([linear, offset[..., None]], 2)
    return torch.cat(
        [maps[..., :2] @ around[..., :2], maps[..., :2] @ around[..., 2:] + maps[..., 2:]], 2
    )


def degrade(crops: Tensor, rng: torch.Generator) -> Tensor:
    """Return crops (N,3,S,S) in [0,1] as other cameras, lights and files would have them."""
    count, _, size, _ = crops.shape

    def each(low: float, high: float) -> Tensor:
        return uniform(count, low, high, rng)[:, None, None, None]

    gray = crops.mean(1, keepdim=True)
    saturation = torch.where(each(0, 1) < 0.12, torch.zeros(()), each(0.4, 1.5))
    crops = (gray + (crops - gray) * saturation).clamp(1e-3, 1) ** each(-0.6, 0.6).exp()
    gains = 1 + 0.1 * torch.randn(count, 3, 1, 1, generator=rng)
    crops = torch.addcmul(each(-0.1, 0.1), crops, gains * each(0.6, 1.4))
    ramp = torch.linspace(-1, 1, size)  # light from one side
    side = each(-0.35, 0.35) * ramp[None, None, None] + each(-0.2, 0.2) * ramp[None, None, :, None]
    crops = crops * (1 + side)
    for i in range(count):
        kind = float(torch.rand((), generator=rng))
        if kind < 0.3:  # small faces, and what compression leaves of them
            low = int(uniform(1, 0.22, 0.75, rng) * size)
            small = F.interpolate(crops[i : i + 1], (low, low), mode="bilinear", antialias=True)
            if kind < 0.1:
                small = (
                    F.interpolate(
                        F.avg_pool2d(small, 2, ceil_mode=True), (low, low), mode="nearest"
                    )
                    * 0.5
                    + small * 0.5
                )
            crops[i : i + 1] = F.interpolate(small, (size, size), mode="bilinear")
        elif kind < 0.4:  # motion
            length = 2 * int(torch.randint(1, 4, (), generator=rng)) + 1
            flat = torch.rand((), generator=rng) < 0.5
            window, pad = (
                ((1, length), (0, length // 2)) if flat else ((length, 1), (length // 2, 0))
            )
            crops[i : i + 1] = F.avg_pool2d(
                crops[i : i + 1], window, 1, pad, count_include_pad=False
            )
    noise = torch.randn(8, 3, size, size, generator=rng)[torch.arange(count) % 8]
    return crops.addcmul_(noise, each(0, 0.06)).clamp_(0, 1)


def cover(crops: Tensor, points: Tensor, rng: torch.Generator) -> Tensor:
    """Put things in front of some faces, in place.

    Args:
        crops: (N,3,S,S) in [0,1], changed in place.
        points: (N,102,2) in crop px.
        rng: the generator.

    Returns:
        (N,) 1 where the lips can still be seen.
    """
    count, _, size, _ = crops.shape
    seen = torch.ones(count)
    axis = torch.arange(size) + 0.5
    for i in range(count):
        if float(torch.rand((), generator=rng)) > 0.25:
            continue
        center = torch.rand(2, generator=rng) * size
        radius, length = (
            float(uniform(1, 0.05, 0.2, rng)) * size,
            float(uniform(1, 0.0, 0.6, rng)) * size,
        )
        angle = float(uniform(1, 0, math.tau, rng))
        along = torch.tensor([math.cos(angle), math.sin(angle)])
        # a rod with round ends
        offset = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) - center
        share = (offset @ along).clamp(0, length)
        inside = (offset - share[..., None] * along).norm(dim=-1) < radius
        other = crops[int(torch.randint(count, (), generator=rng))].roll(
            (size // 3, size // 4), (1, 2)
        )
        plain = torch.rand(3, 1, 1, generator=rng).expand_as(other)
        fill = other if float(torch.rand((), generator=rng)) < 0.6 else plain
        crops[i] = torch.where(inside, fill, crops[i])
        lips = points[i, OUTER_LIPS].round().long().clamp(0, size - 1)
        seen[i] = float(inside[lips[:, 1], lips[:, 0]].float().mean() < 0.35)
    return seen


def without_faces(pool: Pool, count: int, size: int, rng: torch.Generator) -> Tensor:
    """Draw pictures of other things, and corners of crops in which a face is cut.

    Args:
        pool: the pictures.
        count: number of pictures.
        size: side of the result in pixels.
        rng: the generator.

    Returns:
        (count,3,size,size) in [0,1].
    """
    out = torch.zeros(count, 3, size, size)
    for i in range(count):
        if i % 2 and pool.empty:
            picture = pool.empty[int(torch.randint(len(pool.empty), (), generator=rng))]
            side = min(picture.shape[1:])
        else:
            picture = pool.crops[int(torch.randint(len(pool.crops), (), generator=rng))]
            side = 100
        y, x = (int(torch.randint(n - side + 1, (), generator=rng)) for n in picture.shape[1:])
        if side == 100:  # a corner: the face's middle is at the crop's edge or beyond
            y, x = (
                0 if y < (n - side) / 2 else n - side
                for y, n in zip((y, x), picture.shape[1:], strict=True)
            )
        part = picture[None, :, y : y + side, x : x + side].float() / 255
        out[i : i + 1] = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return out


def draw(pool: Pool, count: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch.

    Args:
        pool: the pictures.
        count: number of crops N.
        size: side of the crops in pixels.
        rng: the generator.

    Returns:
        Crops (N,3,size,size), points (N,102,2) in crop px, and (N,) 1 where there is a face whose
        lips can be seen.
    """
    chosen = torch.multinomial(pool.weights, count - NEGATIVES, replacement=True, generator=rng)
    points, kept = pool.points[chosen], pool.crops[chosen].float() / 255
    side = kept.shape[-1]
    maps = crop_maps(points, size, rng)
    squares = unit_maps(maps, [(side, side)] * len(maps), [(size, size)] * len(maps))
    grid = F.affine_grid(squares, [len(maps), 3, size, size], align_corners=False)
    crops = F.grid_sample(kept, grid, padding_mode="border", align_corners=False)
    points = apply(invert(maps), points)
    mirrored = torch.rand(len(chosen), generator=rng) < 0.5
    crops[mirrored] = crops[mirrored].flip(3)
    flipped = torch.stack([size - points[..., 0], points[..., 1]], -1)[:, list(MIRRORED)]
    points = torch.where(mirrored[:, None, None], flipped, points)
    crops = torch.cat([crops, without_faces(pool, NEGATIVES, size, rng)])
    crops = degrade(crops, rng)
    points = torch.cat([points, torch.zeros(NEGATIVES, POINTS, 2)])
    seen = cover(crops, points, rng)
    seen[-NEGATIVES:] = 0
    return crops, points, seen


def losses(found: Tensor, logits: Tensor, points: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Return the losses of points and of certainty.

    Covered lips are guessed from the rest of the face, and count less.

    Args:
        found: (N,102,2) points.
        logits: (N,) of the certainty that the lips can be seen.
        points: (N,102,2) true points, 0 where there is no face.
        seen: (N,) 1 where the lips can be seen.

    Returns:
        ``distance`` of the points in distances of the eyes, ``gap`` between upper and lower lip,
        and ``sure``, () each.
    """
    # covered lips are guessed by the rest of the face; other pictures have none
    real = points.abs().sum((1, 2)) > 0
    eyes = (points[real][:, IRISES.start] - points[real][:, IRISES.stop - 1]).norm(dim=1)[
        :, None, None
    ]
    off = (found[real] - points[real]) / eyes.clamp_min(1)
    weight = torch.ones(POINTS)
    weight[OUTER_LIPS] = weight[INNER_LIPS] = LIPS_WEIGHT
    share = torch.where(seen[real] > 0, 1.0, 0.3)[:, None, None]
    distance = (
        F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.02, reduction="none")
        * share
        * weight[:, None]
    ).mean()
    lower, upper = (list(side) for side in zip(*GAPS, strict=True))
    gaps = off[:, lower] - off[:, upper]
    gap = (
        F.smooth_l1_loss(gaps, torch.zeros_like(gaps), beta=0.01, reduction="none") * share
    ).mean()
    sure = F.binary_cross_entropy_with_logits(logits, seen)
    return {"distance": distance, "gap": GAP_WEIGHT * gap, "sure": SURE_WEIGHT * sure}


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument(
        "--until", type=int, help="stop after this step, to be continued by the next call"
    )
    parser.add_argument(
        "--minutes", type=float, help="stop after so long, to be continued by the next call"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pool, config = load_pool(args.faces), FaceLandmarksConfig()
    model = FaceLandmarks(config).to(memory_format=torch.channels_last).train()
    average = FaceLandmarks(config)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(args.steps))
    parts = {"model": model, "average": average, "optimiser": optimizer, "schedule": schedule}
    first = resume(args.out / "checkpoint.pt", parts).step
    if first == 0:
        with torch.no_grad():  # begin from the mean face
            mean = FaceLandmarks(config).points.bias.new_tensor(mean_face(pool, config.size))
            model.points.bias.copy_(mean)
            model.points.weight.mul_(0.1)
        average.load_state_dict(model.state_dict())

    began = time.monotonic()
    for step in range(first, min(args.steps, args.until or args.steps)):
        start = time.monotonic()
        # a generator per step: a run that was interrupted draws what it would have drawn
        rng = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        crops, points, seen = draw(pool, BATCH, config.size, rng)
        drawn = time.monotonic()
        terms = losses(*model(crops.contiguous(memory_format=torch.channels_last)), points, seen)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_ema(average, model, step, decay=EMA)
        if step % 20 == 0:
            row = {k: round(v.item(), 5) for k, v in terms.items()}
            row |= {
                "step": step,
                "drawing": round(drawn - start, 2),
                "seconds": round(time.monotonic() - start, 2),
            }
            with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        enough = args.minutes is not None and time.monotonic() - began > 60 * args.minutes
        if (
            (step + 1) % CHECKPOINT_STEPS == 0
            or step + 1 == min(args.steps, args.until or args.steps)
            or enough
        ):
            save_state(args.out / "checkpoint.pt", Progress(step + 1), parts)
            save_model(
                average,
                args.out / "face_landmarks.safetensors",
                licence=LICENCE,
                source=SOURCE,
                dtype=torch.float16,
            )
        if enough:
            return


def mean_face(pool: Pool, size: int) -> list[float]:
    """Return the mean of faces in crops of ``size`` px, in units of the network's last layer."""
    points = pool.points[:: max(1, len(pool.points) // 500)]
    anchors = torch.cat([points[:, IRISES], points[:, NOSE_BRIDGE.stop - 1 : NOSE_BRIDGE.stop]], 1)
    maps = fit_similarity(anchors, (torch.tensor(EYES_AND_NOSE) * size).expand_as(anchors))
    return (apply(maps, points).mean(0) / size - 0.5).flatten().tolist()


if __name__ == "__main__":
    main()
