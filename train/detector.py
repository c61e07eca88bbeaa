"""Train the `mini` face detector on what prepare_detection.py packed.

Continues from its own checkpoint.

python -m train.detector runs/faces.safetensors runs/detector --steps 2700
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lipsync_core.models.face_detector import FaceDetector, FaceDetectorConfig
from lipsync_core.models.precision import autocast_training
from lipsync_core.models.weights import save_model
from lipsync_core.training.checkpoints import Progress, resume, save_state
from lipsync_core.training.distributed import World
from lipsync_core.training.face_detection import (
    Draw,
    Picture,
    assign,
    detection_losses,
    mosaic,
    picture,
)
from lipsync_core.training.optim import update_ema, warmup_cosine
from train.empty_pictures import read_empty_pictures
from train.harness import choose_precision

WEIGHTS = {"score": 1.0, "box": 1.0, "edges": 2.0, "points": 6.0}
# (side of a canvas, canvases): about the same number of pixels each; the largest teaches faces up
# to 500 px
SHAPES = ((256, 32), (256, 32), (320, 20), (512, 8), (512, 8))
PEAK_RATE, WEIGHT_DECAY, EMA, CHECKPOINT_STEPS = 4e-3, 0.02, 0.998, 200
# Added to the score's bias in the exported file, so that 0.7, the default of every detector here,
# is a good place to cut: it is what was 0.88. On val rows the least sure face had 0.92 and the
# surest other thing less than 0.7; lamps and letters in pictures without faces went up to 0.9.
CALIBRATION = -1.15
LICENCE = "Apache-2.0"
SOURCE = (
    "trained by train/detector.py on pictures that YuNet labeled: US Congress portraits, GRID and "
    "other clips"
)
# how often a group of pictures is drawn: a person's long series counts little beside many people's
# portraits
GROUP_WEIGHTS = {
    "portraits": 12.0,
    "korean": 1.0,
    "obama": 1.0,
    "old": 1.0,
    "stock": 1.0,
    "train/grid_s1": 0.7,
}
OTHER_WEIGHT = 0.4


def load_pictures(path: Path) -> Draw:
    """Load the pictures that prepare_detection.py packed, and those without faces."""
    data = load_file(path)
    with safe_open(path, "pt") as file:
        names = file.metadata()["groups"].split(",")
    groups: list[list[Picture]] = [[] for _ in names]
    start = 0
    for i, (h, w) in enumerate(data["shapes"].tolist()):
        pixels = (
            data["pixels"][start : start + h * w * 3].view(h, w, 3).permute(2, 0, 1).contiguous()
        )
        mine = data["owner"] == i
        groups[int(data["groups"][i])].append(
            picture(pixels, data["boxes"][mine], data["points"][mine])
        )
        start += h * w * 3
    weights = torch.tensor([GROUP_WEIGHTS.get(name, OTHER_WEIGHT) for name in names])
    return Draw(tuple(map(tuple, groups)), weights, empty_pictures())


def empty_pictures() -> tuple[Picture, ...]:
    """Return the pictures without faces."""
    # five more are kept back for evaluate_detector.py
    found = read_empty_pictures(most_px=768, leave_out={"coffee.png"})
    boxes, points = torch.zeros(0, 4), torch.zeros(0, 5, 2)
    return tuple(picture(pixels, boxes, points) for pixels in found)


def export(model: FaceDetector, path: Path) -> None:
    """Write the weights of a detector, with its scores calibrated."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.score[1].bias += CALIBRATION
    save_model(model, path, licence=LICENCE, source=SOURCE, dtype=torch.float16)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument(
        "--until", type=int, help="stop after this step, to be continued by the next call"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    choose_precision("auto", World())
    draw = load_pictures(args.faces)
    model = FaceDetector(FaceDetectorConfig()).to(memory_format=torch.channels_last).train()
    average = FaceDetector(FaceDetectorConfig())
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(args.steps))
    parts = {"model": model, "average": average, "optimiser": optimizer, "schedule": schedule}
    first = resume(args.out / "checkpoint.pt", parts).step
    if first == 0:
        average.load_state_dict(model.state_dict())

    last = min(args.steps, args.until or args.steps)
    for step in range(first, last):
        start = time.monotonic()
        # a generator per step: a run that was interrupted draws what it would have drawn
        rng = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        size, count = SHAPES[int(torch.randint(len(SHAPES), (), generator=rng))]
        images, truth = mosaic(draw, count=count, size=size, rng=rng)
        # bfloat16 and channels_last: four times as fast on CPUs with AMX
        with autocast_training(images.device):
            cells = model(images.contiguous(memory_format=torch.channels_last))
        terms = detection_losses(cells, truth, assign(truth, height=size, width=size))
        optimizer.zero_grad(set_to_none=True)
        sum(WEIGHTS[k] * v for k, v in terms.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        update_ema(average, model, step, decay=EMA)
        if step % 20 == 0:
            row = {k: round(v.item(), 4) for k, v in terms.items()}
            with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(
                    json.dumps({"step": step, "seconds": round(time.monotonic() - start, 2)} | row)
                    + "\n"
                )
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == last:
            save_state(args.out / "checkpoint.pt", Progress(step + 1), parts)
            export(average, args.out / "face_detector.safetensors")


if __name__ == "__main__":
    main()
