"""Train the generator `mini`: redraw the lower half of a face from sound, taught by a frozen expert.

    python -m train.generator SHARDS OUT --teacher RUN/last.pt [--steps 4000]

Each step sees two kinds of clips: talking ones (rebuild the frame: L1, gradients, sync) and photographs with somebody
else's sound (no truth: sync, and L1 that is weak at the mouth).
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_core.models.generator import MINI, Generator, moved
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.training.augment import degrade, disguise, recolour, warp_grid
from lipsync_core.training.clips import Clip, load_clips, speaker_weights
from lipsync_core.training.loop import load_state, save_state, warmup_cosine
from lipsync_core.training.sync import SHIFTS, embed, middle, offset_and_confidence, offset_curve
from train.expert import TEACHER

WINDOW, FAR, APART = 5, 5, 3  # frames judged together; a reference is at least FAR frames away, a rival sound APART
WEIGHTS = {
    "l1": 12.0,
    "gradient": 8.0,
    "sync": 0.15,
    "bend": 1.0,
    "still_l1": 12.0,
    "still_gradient": 4.0,
    "still_sync": 0.05,
}


@dataclasses.dataclass
class Batch:
    target: Tensor  # (k,5,3,96,96)
    reference: Tensor  # (k,5,3,96,96)
    mels: Tensor  # (k,5,1,80,16) one window per frame, for the generator
    sounds: Tensor  # (k,2*SHIFTS+1,1,80,16) the expert's windows at every shift; the middle one is right
    talking: Tensor  # (k,) bool: the target shows that sound


def draw(
    clips: list[Clip], weights: np.ndarray, photos: np.ndarray, rng: np.random.Generator, *, talking: int, still: int
):
    targets, references, mels, sounds = [], [], [], []
    lead = MINI.features.lead_ms
    for n, i in enumerate(rng.choice(len(clips), talking + still, p=weights)):
        clip = clips[i]
        begin = int(rng.integers(0, len(clip.faces) - WINDOW + 1))
        frames = list(range(begin, begin + WINDOW))
        mels.append(clip.mels(frames, lead_ms=lead))
        sounds.append(clip.mels([begin + s for s in range(-SHIFTS, SHIFTS + 1)]))
        if n < talking:
            targets.append(clip.frames(begin, WINDOW))
            far = [j for j in range(len(clip.faces) - WINDOW + 1) if abs(j - begin) >= FAR]
            references.append(clip.frames(int(rng.choice(far)), WINDOW))
        else:
            photo = torch.from_numpy(np.array(photos[rng.integers(len(photos))])).permute(2, 0, 1)
            targets.append(photo.expand(WINDOW, -1, -1, -1))
            references.append(photo.expand(WINDOW, -1, -1, -1))
    return Batch(
        torch.stack(targets),
        torch.stack(references),
        torch.stack(mels),
        torch.stack(sounds),
        torch.arange(talking + still) < talking,
    )


def augment(batch: Batch, rng: torch.Generator) -> Batch:
    k, w, _, full, _ = batch.target.shape
    both = torch.cat([batch.target, batch.reference], 1)
    grid = warp_grid(k, 96, full, rng).repeat_interleave(2 * w, 0)
    faces = F.grid_sample(both.flatten(0, 1).float() / 255, grid, padding_mode="border", align_corners=False)
    faces = recolour(faces.view(k, 2 * w, 3, 96, 96), rng)
    # the generator hears the voice disguised; the expert, who must judge sharply, hears it as it is
    return Batch(faces[:, :w], faces[:, w:], disguise(batch.mels, rng), batch.sounds, batch.talking)


def gradient_l1(x: Tensor, y: Tensor) -> Tensor:
    """L1 between the pictures' horizontal and vertical differences: what blur removes."""
    d = x - y
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def outside_mouth(size: int) -> Tensor:
    """(1,1,S/2,S) weight that is 0.3 over the mouth and jaw and 1 at the crop's lower corners and sides."""
    y = (torch.arange(size // 2) + 0.5)[:, None] / size + 0.5
    x = (torch.arange(size) + 0.5)[None] / size
    radius = ((x - 0.5) / 0.33) ** 2 + ((y - 0.70) / 0.26) ** 2
    return ((radius - 1) * 3).clamp(0.3, 1)[None, None]


def sync_terms(expert: SyncExpert, faces: Tensor, sounds: Tensor) -> Tensor:
    """(k,) cross-entropy of finding the right shift among all, by the expert; those under APART frames off do not count."""
    video = expert.embed_video(faces)
    with torch.no_grad():
        audio = expert.embed_audio(sounds.flatten(0, 1)).view(*sounds.shape[:2], -1)
    logits = (audio @ video[:, :, None])[..., 0] / 0.1
    off = (torch.arange(2 * SHIFTS + 1) - SHIFTS).abs()
    rivals = logits.masked_fill((off > 0) & (off < APART), float("-inf"))
    return F.cross_entropy(rivals, torch.full((len(faces),), SHIFTS), reduction="none")


def disturbed(faces: Tensor, rng: torch.Generator) -> Tensor:
    """Faces (k,5,3,96,96) as the expert saw them in its own training: moved, mirrored, recoloured, blurred. Shown the
    bare output it can be fooled by blots that no face has; what must hold under all of these is a mouth."""
    k, w, _, size, _ = faces.shape
    grid = warp_grid(k, size, size, rng).repeat_interleave(w, 0)
    moved = F.grid_sample(faces.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return degrade(recolour(moved.view_as(faces), rng), rng)


def losses(model: Generator, expert: SyncExpert, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
    k, w = batch.target.shape[:2]
    flat = [x.flatten(0, 1) for x in (batch.mels, batch.target, batch.reference)]
    flat = [flat[0], *(x.contiguous(memory_format=torch.channels_last) for x in flat[1:])]
    planes: list[Tensor] = []
    hook = model.output_block.register_forward_hook(lambda *call: planes.append(call[-1]))
    made = model(*flat).view(k, w, 3, 96, 96)
    hook.remove()
    (drawn,) = planes
    drawn = drawn[:, :, -48:].float()
    # The expert pulls at the flow alone. Where it may paint, it is pleased by dark blots beside the mouth that no augmentation
    # rules out; paint is learnt from true frames.
    pulled = moved(torch.cat([drawn[:, :3].detach(), drawn[:, 3:5], drawn[:, 5:].detach()], 1), flat[1], flat[2])
    sync = sync_terms(expert, disturbed(pulled.view_as(made), rng), batch.sounds)
    talks = batch.talking
    new, old = made[talks][..., 48:, :].flatten(0, 1), batch.target[talks][..., 48:, :].flatten(0, 1)
    terms = {"l1": (new - old).abs().mean(), "gradient": gradient_l1(new, old), "sync": sync[talks].mean()}
    flow = drawn[:, 3:5].tanh()
    terms["bend"] = (flow[..., 1:] - flow[..., :-1]).abs().mean() + (flow[..., 1:, :] - flow[..., :-1, :]).abs().mean()
    if not talks.all():
        new, old = made[~talks][..., 48:, :].flatten(0, 1), batch.target[~talks][..., 48:, :].flatten(0, 1)
        terms["still_l1"] = ((new - old).abs() * outside_mouth(96)).mean()
        terms["still_gradient"] = gradient_l1(new, old)
        terms["still_sync"] = sync[~talks].mean()
    return terms


@torch.inference_mode()
def evaluate(model: Generator, expert: SyncExpert, clips: list[Clip]) -> dict[str, str]:
    """By speaker: PSNR of the lower half against copying the reference, and the expert's verdict on dubs."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for i, clip in enumerate(clips):
        n = min(len(clip.faces), 75)
        faces = middle(clip.frames(0, n)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            far = faces.roll(n // 2, 0)
            rebuilt = model(clip.mels(list(range(n)), lead_ms=MINI.features.lead_ms), faces, far)
            other = next(c for c in clips[i + 1 :] + clips if c.speaker != clip.speaker)
            dubbed = model(other.mels(list(range(n)), lead_ms=MINI.features.lead_ms), faces, faces)
        psnr = [-10 * ((x - faces)[:, :, 48:] ** 2).mean().log10().item() for x in (rebuilt, far)]
        curve = offset_curve(*embed(expert, dubbed.float(), other.mels(list(range(n)))))
        found.setdefault(clip.speaker, []).append((*psnr, *offset_and_confidence(curve)))
    return {
        speaker: "psnr {:.2f} copy {:.2f} dub ok {:.2f} conf {:.3f}".format(
            *np.mean([(p, c, abs(o) <= 1, conf) for p, c, o, conf in rows], 0)
        )
        for speaker, rows in found.items()
    }


def sheet(model: Generator, clips: list[Clip]) -> np.ndarray:
    """Rows of reference, dubbed and source faces, for a look."""
    rows = []
    for clip in clips:
        index = [10, 16, 22, 28, 34, 40, 46, 52]
        faces = torch.cat([middle(clip.frames(i, 1)) for i in index])
        far = middle(clip.frames(60, 1)).expand(len(index), -1, -1, -1)
        with torch.inference_mode():
            made = model(clip.mels(index, lead_ms=MINI.features.lead_ms), faces, far)
        rows += [torch.cat(list(x), 2) for x in (made.float(), faces)]
    return (torch.cat(rows, 1).permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--talking", type=int, default=12)
    parser.add_argument("--still", type=int, default=4)
    parser.add_argument("--sync-from", type=int, default=0, help="first step with the sync terms")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", choices=["flow", "paint"], default="flow")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(2)
    clips = load_clips(args.shards / "train", least=2 * FAR + 2 * WINDOW)
    weights = speaker_weights(clips)
    photos = np.load(args.shards / "portraits.npy", mmap_mode="r")
    held_out = load_clips(args.shards / "val", least=65)
    held_out = [c for c in held_out if c.speaker != "s1"] + [c for c in held_out if c.speaker == "s1"][:6]
    expert = SyncExpert(TEACHER).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    load_state(args.teacher, {"model": expert})
    model = Generator(dataclasses.replace(MINI, output=args.output)).to(memory_format=torch.channels_last)
    # the teacher's ear already tells visemes apart, and hears the same windows
    heard = {k: v for k, v in expert.audio_encoder.state_dict().items() if k in model.audio_encoder.state_dict()}
    model.audio_encoder.load_state_dict(heard, strict=False)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(args.steps))
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    step = load_state(args.out / "last.pt", parts)
    print(f"{len(clips)} clips, {len(photos)} photos, {len(held_out)} held out, from step {step}", flush=True)
    while step < args.steps:
        rng, noise = np.random.default_rng((2, step)), torch.Generator().manual_seed(step)
        began = time.time()
        batch = augment(draw(clips, weights, photos, rng, talking=args.talking, still=args.still), noise)
        loaded = time.time() - began
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            terms = losses(model, expert, batch, noise)
        strength = float(np.clip((step - args.sync_from) / 100, 0, 1))
        total = sum(WEIGHTS[name] * (strength if "sync" in name else 1) * term for name, term in terms.items())
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        step += 1
        if step % 10 == 0:
            text = " ".join(f"{name} {term.item():.4f}" for name, term in terms.items())
            print(f"{step} {text} {loaded:.2f}+{time.time() - began - loaded:.2f} s", flush=True)
        if step % 200 == 0 or step == args.steps:
            save_state(args.out / "last.pt", step, parts)
            average.eval()
            for speaker, text in evaluate(average.module, expert, held_out).items():
                print(step, speaker, text, flush=True)
            from PIL import Image

            Image.fromarray(sheet(average.module, held_out[3:8])).save(args.out / f"{step:05d}.png")


if __name__ == "__main__":
    main()
