"""Train a lip-sync expert: which of a clip's sounds belongs to which of its lips?

    python -m train.expert SHARDS OUT --role teacher|judge [--steps 900]

The teacher guides the generator, the judge scores it: other seed, other half of every speaker, other shape.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from lipsync_core.losses import contrastive
from lipsync_core.models.layers import Stage
from lipsync_core.models.sync_expert import SyncExpert, SyncExpertConfig
from lipsync_core.training.augment import degrade, disguise, recolour, warp_grid
from lipsync_core.training.clips import Clip, load_clips, speaker_weights
from lipsync_core.training.loop import load_state, save_state, warmup_cosine
from lipsync_core.training.sync import offsets_found

_DOWN = (2, 2)
TEACHER = SyncExpertConfig(
    face=(
        Stage(32, 5, stride=_DOWN, padding=2),
        Stage(48, stride=(1, 2), residuals=1),
        Stage(96, stride=_DOWN, residuals=1),
        Stage(160, stride=_DOWN, residuals=1),
        Stage(256, stride=_DOWN, residuals=1),
        Stage(256, padding=0),
    ),
    audio=(
        Stage(24, residuals=1),
        Stage(48, stride=(3, 1), residuals=1),
        Stage(96, stride=(3, 3), residuals=1),
        Stage(160, stride=(3, 2), residuals=1),
        Stage(256, padding=0),
    ),
    projection=192,
)
JUDGE = SyncExpertConfig(
    face=(
        Stage(24, 3, stride=_DOWN),
        Stage(40, stride=(1, 2), residuals=2),
        Stage(80, stride=_DOWN, residuals=2),
        Stage(144, stride=_DOWN, residuals=2),
        Stage(224, stride=_DOWN, residuals=1),
        Stage(288, padding=0),
    ),
    audio=(
        Stage(16, residuals=2),
        Stage(40, stride=(3, 1), residuals=2),
        Stage(80, stride=(3, 3), residuals=2),
        Stage(144, stride=(3, 2), residuals=2),
        Stage(288, padding=0),
    ),
    projection=160,
)
CONFIGS = {"teacher": TEACHER, "judge": JUDGE}


def draw(clips: list[Clip], weights: np.ndarray, rng: np.random.Generator, *, k: int, w: int):
    """Windows of k clips: the stretches faces (k,F,3,C,C) uint8, mels (k,w,1,80,16), and starts (k,w) within the stretch."""
    span = 3 * w
    faces, mels, starts = [], [], []
    for i in rng.choice(len(clips), k, p=weights):
        begin = int(rng.integers(0, len(clips[i].faces) - span - 4))
        chosen = np.sort(rng.choice(span + 1, w, replace=False))
        faces.append(clips[i].frames(begin, span + 5))
        mels.append(clips[i].mels([begin + int(s) for s in chosen]))
        starts.append(torch.from_numpy(chosen))
    return torch.stack(faces), torch.stack(mels), torch.stack(starts)


def augment(faces: torch.Tensor, mels: torch.Tensor, rng: torch.Generator):
    """faces (k,F,3,C,C) uint8 -> (k,F,3,96,96) float, of which only the lower half is filled; mels keep their shape."""
    k, f, _, full, _ = faces.shape
    grid = warp_grid(k, 96, full, rng)[:, 48:].repeat_interleave(f, 0)  # the expert looks at the lower half alone
    x = faces.flatten(0, 1).float().mul_(1 / 255)
    x = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    x = recolour(degrade(x.view(k, f, 3, 48, 96), rng), rng)
    return torch.cat([torch.zeros_like(x), x], 3), disguise(mels, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--role", choices=CONFIGS, default="teacher")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speakers", default="", help="comma-separated; all by default")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    seed = list(CONFIGS).index(args.role)
    torch.manual_seed(seed)
    clips = load_clips(args.shards / "train", half=seed, least=36)
    if args.speakers:
        clips = [c for c in clips if c.speaker in args.speakers.split(",")]
    weights = speaker_weights(clips)
    held_out = load_clips(args.shards / "val", least=40)
    model = SyncExpert(CONFIGS[args.role]).to(memory_format=torch.channels_last)
    log_temperature = torch.nn.Parameter(torch.tensor(0.1).log())
    optimiser = torch.optim.AdamW([*model.parameters(), log_temperature], lr=args.lr, weight_decay=1e-3)
    total = args.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(total, warmup=50))
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
    step = load_state(args.out / "last.pt", parts, {"log_temperature": log_temperature})
    print(f"{len(clips)} clips, {len(held_out)} held out, from step {step}", flush=True)
    while step < total:
        rng, noise = np.random.default_rng((seed, step)), torch.Generator().manual_seed(seed * 1_000_003 + step)
        began = time.time()
        faces, mels, starts = draw(clips, weights, rng, k=args.clips, w=args.windows)
        faces, mels = augment(faces, mels, noise)
        windows = faces[
            torch.arange(args.clips)[:, None, None], starts[:, :, None] + torch.arange(5)
        ]  # (k,w,5,3,96,96)
        loaded = time.time() - began
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            audio, video = model(mels.flatten(0, 1), windows.flatten(0, 1))
        k, w = starts.shape
        loss = contrastive(audio.view(k, w, -1), video.view(k, w, -1), starts, log_temperature.exp().clamp_min(0.02))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        step += 1
        if step % 10 == 0:
            print(
                f"{step} loss {loss.item():.3f} t {log_temperature.exp().item():.3f} "
                f"{loaded:.2f}+{time.time() - began - loaded:.2f} s",
                flush=True,
            )
        if step % 100 == 0 or step == total:
            save_state(args.out / "last.pt", step, parts, {"log_temperature": log_temperature})
            found = offsets_found(model.eval(), held_out)
            print(
                step,
                {
                    s: f"{np.mean([abs(o) <= 1 for o, _ in v]):.2f} of {len(v)} conf {np.mean([c for _, c in v]):.3f}"
                    for s, v in found.items()
                },
                flush=True,
            )


if __name__ == "__main__":
    main()
