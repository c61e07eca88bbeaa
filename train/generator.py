"""Train the generator `mini`: redraw the lower half of a face from sound, taught by a frozen expert.

    python -m train.generator SHARDS OUT --teacher RUN/last.pt [--steps 5000]

Each step sees two kinds of clips: talking ones (rebuild the frames: L1, gradients, sync) and foreign ones, photographs or
other footage with somebody else's sound (no truth: sync, and L1 that is weak at the mouth).
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_core.losses import discriminator_loss, perceptual_loss
from lipsync_core.metrics.sync import SEARCH, offset_and_confidence, offset_curve
from lipsync_core.models.generator import MINI, Generator, moved
from lipsync_core.models.layers import Stage
from lipsync_core.models.quality_discriminator import QualityDiscriminator, QualityDiscriminatorConfig
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.training.augment import degrade, disguise, grimace, recolour, warp_grid
from lipsync_core.training.checkpoints import Progress, resume, save_state
from lipsync_core.training.clips import Clip, load_clips, speaker_weights
from lipsync_core.training.descent import warmup_cosine
from lipsync_core.training.sync import embed, middle
from train.expert import trained

FRAMES, WINDOW = 7, 5  # frames of a clip in a step; the expert judges every window of WINDOW among them, together
FAR, APART = 5, 3  # a reference is at least FAR frames away, a rival sound APART
WEIGHTS = {
    "l1": 20.0,
    "gradient": 10.0,
    "sync": 0.2,
    "bend": 0.5,
    "foreign_l1": 12.0,
    "foreign_gradient": 3.0,
    "foreign_sync": 0.3,
    "photograph": 0.1,
}
# Looks at patches of about 30 px: whether they could be of a photograph. Without it the expert is paid in dark blots.
DISCRIMINATOR = QualityDiscriminatorConfig(
    blocks=(
        (Stage(32, 5, stride=(2, 2), padding=2),),
        (Stage(64, stride=(2, 2)),),
        (Stage(96, stride=(2, 2)), Stage(96)),
    ),
    slope=0.2,
)


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A clip, and what the expert hears at each of its frames and SEARCH before and after: (N+2*SEARCH, D)."""

    clip: Clip
    heard: Tensor


@dataclass
class Batch:
    target: Tensor  # (k,F,3,96,96)
    reference: Tensor  # (k,F,3,96,96)
    mels: Tensor  # (k,F,1,80,16) one window per frame, for the generator
    heard: Tensor  # (k,F-4+2*SEARCH,D) the expert's vectors of the sound from SEARCH frames before the clip on
    talking: Tensor  # (k,) bool: the target shows that sound
    photo: Tensor  # (k,) bool: the target is one picture


@torch.inference_mode()
def lessons(clips: list[Clip], expert: SyncExpert) -> list[Lesson]:
    """The expert is frozen and hears the sound as it is: once is enough."""
    found = []
    for clip in clips:
        mels = clip.mels(list(range(-SEARCH, len(clip.faces) + SEARCH)))
        with torch.autocast("cpu", torch.bfloat16):
            found.append(Lesson(clip, torch.cat([expert.embed_audio(part) for part in mels.split(256)])))
    return found


def draw(
    taught: list[Lesson],
    weights: np.ndarray,
    photos: np.ndarray,
    rng: np.random.Generator,
    *,
    talking: int,
    foreign: int,
) -> Batch:
    def stretch(clip: Clip) -> int:
        return int(rng.integers(0, len(clip.faces) - FRAMES + 1))

    targets, references, mels, heard, photo = [], [], [], [], []
    for n, i in enumerate(rng.choice(len(taught), talking + foreign, p=weights)):
        clip, begin = taught[i].clip, stretch(taught[i].clip)
        mels.append(clip.mels(list(range(begin, begin + FRAMES)), lead_ms=MINI.features.lead_ms))
        heard.append(taught[i].heard[begin : begin + FRAMES - WINDOW + 1 + 2 * SEARCH])
        photo.append(n >= talking and n % 2 == 1)
        if n < talking:
            targets.append(clip.frames(begin, FRAMES))
            far = [j for j in range(len(clip.faces) - FRAMES + 1) if abs(j - begin) >= FAR]
            references.append(clip.frames(int(rng.choice(far)), FRAMES))
        else:
            if photo[-1]:
                picture = torch.from_numpy(np.array(photos[rng.integers(len(photos))])).permute(2, 0, 1)
                targets.append(picture.expand(FRAMES, -1, -1, -1))
            else:
                other = taught[rng.choice(len(taught), p=weights)].clip
                targets.append(other.frames(stretch(other), FRAMES))
            references.append(targets[-1])  # as in use: the frame is its own reference
    stacked = [torch.stack(part) for part in (targets, references, mels, heard)]
    return Batch(*stacked, torch.arange(talking + foreign) < talking, torch.tensor(photo))


def augment(batch: Batch, rng: torch.Generator) -> Batch:
    k, w, _, full, _ = batch.target.shape
    both = torch.cat([batch.target, batch.reference], 1)
    grid = warp_grid(k, 96, full, rng)[:, None].repeat(1, w, 1, 1, 1)
    grid[batch.photo] = grimace(grid[batch.photo].flatten(0, 1), w, rng).unflatten(0, (-1, w))
    grid = grid.repeat(1, 2, 1, 1, 1).flatten(0, 1)  # the reference as the target
    faces = F.grid_sample(both.flatten(0, 1).float().mul_(1 / 255), grid, padding_mode="border", align_corners=False)
    faces = recolour(faces.view(k, 2 * w, 3, 96, 96), rng)
    faces[~batch.talking] = degrade(faces[~batch.talking], rng)  # not where the truth is learnt from
    # the generator hears the voice disguised; the expert, who must judge sharply, hears it as it is
    return Batch(faces[:, :w], faces[:, w:], disguise(batch.mels, rng), batch.heard, batch.talking, batch.photo)


def slopes(d: Tensor) -> Tensor:
    """Mean size of the horizontal and vertical differences; of an error, what blur leaves in it."""
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def mouth(size: int) -> Tensor:
    """(1,1,S/2,S): 1 over the mouth and the jaw's middle, falling to 0 well inside the lower half of an aligned crop."""
    y = (torch.arange(size // 2) + 0.5)[:, None] / size + 0.5
    x = (torch.arange(size) + 0.5)[None] / size
    radius = (((x - 0.5) / 0.27) ** 2 + ((y - 0.70) / 0.20) ** 2).sqrt()
    return ((1 - radius) * 4).clamp(0, 1)[None, None]


def sync_loss(expert: SyncExpert, faces: Tensor, heard: Tensor) -> Tensor:
    """(k,) cross-entropy of finding the right shift of faces (k,F,3,96,96) among all, by the expert's mean verdict on
    their windows; shifts under APART do not count as wrong."""
    k, frames = faces.shape[:2]
    count = frames - WINDOW + 1
    windows = faces[:, torch.arange(count)[:, None] + torch.arange(WINDOW)].flatten(0, 1)
    video = expert.embed_video(windows).view(k, count, -1)
    rivals = heard.unfold(1, count, 1)  # (k, 2*SEARCH+1, D, count)
    logits = torch.einsum("ksdc,kcd->ks", rivals, video) / (count * 0.1)
    off = (torch.arange(2 * SEARCH + 1) - SEARCH).abs()
    logits = logits.masked_fill((off > 0) & (off < APART), float("-inf"))
    return F.cross_entropy(logits, torch.full((k,), SEARCH), reduction="none")


def disturbed(faces: Tensor, rng: torch.Generator) -> Tensor:
    """Faces (k,F,3,96,96) as the expert saw them in its own training: moved, mirrored, recoloured, blurred. Shown the
    bare output it can be fooled by blots that no face has; what must hold under all of these is a mouth."""
    k, w, _, size, _ = faces.shape
    grid = warp_grid(k, size, size, rng).repeat_interleave(w, 0)
    shifted = F.grid_sample(faces.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return degrade(recolour(shifted.view_as(faces), rng), rng)


def losses(
    model: Generator, expert: SyncExpert, critic: QualityDiscriminator, batch: Batch, rng: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """The generator's terms, and what it made (k*F,3,96,96)."""
    k, w = batch.target.shape[:2]
    mels, target, reference = (x.flatten(0, 1) for x in (batch.mels, batch.target, batch.reference))
    target, reference = (x.contiguous(memory_format=torch.channels_last) for x in (target, reference))
    drawn = model.draw(mels, model.encode(target, reference))
    made = moved(drawn, target, reference)
    # The expert's pull at paint counts over the mouth alone: elsewhere it is pleased by dark blots that no augmentation rules
    # out. The flow may follow it anywhere.
    at = mouth(96)
    painted = [drawn[:, :3], drawn[:, 5:]]
    colour, mask = (x * at + x.detach() * (1 - at) for x in painted)
    pulled = moved(torch.cat([colour, drawn[:, 3:5], mask], 1), target, reference)
    sync = sync_loss(expert, disturbed(pulled.view(k, w, 3, 96, 96), rng), batch.heard)
    talks = batch.talking
    d = (made - target)[:, :, 48:].view(k, w, 3, 48, 96)
    flow = drawn[:, 3:5].tanh()
    terms = {
        "l1": d[talks].abs().mean(),
        "gradient": slopes(d[talks]),
        "sync": sync[talks].mean(),
        "bend": slopes(flow),
        "foreign_l1": (d[~talks].abs() * (1 - 0.9 * at)).mean(),
        "foreign_gradient": slopes(d[~talks] * (1 - 0.7 * at)),
        "foreign_sync": sync[~talks].mean(),
        "photograph": perceptual_loss(critic(made).float()),
    }
    return terms, made


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
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--talking", type=int, default=4)
    parser.add_argument("--foreign", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(2)
    clips = load_clips(args.shards / "train", least=2 * (FAR + FRAMES))
    weights = speaker_weights(clips)
    photos = np.load(args.shards / "portraits.npy", mmap_mode="r")
    held_out = load_clips(args.shards / "val", least=65)
    held_out = [c for c in held_out if c.speaker != "s1"] + [c for c in held_out if c.speaker == "s1"][:6]
    expert = trained(args.teacher).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    model = Generator(MINI).to(memory_format=torch.channels_last)
    # the teacher's ear already tells visemes apart, and hears the same windows
    heard = {k: v for k, v in expert.audio_encoder.state_dict().items() if k in model.audio_encoder.state_dict()}
    model.audio_encoder.load_state_dict(heard, strict=False)
    torch.nn.init.zeros_(model.output_block[-1].weight)  # begin as a copy of the reference
    with torch.no_grad():
        model.output_block[-1].bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 2]))
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(args.steps))
    critic = QualityDiscriminator(DISCRIMINATOR).to(memory_format=torch.channels_last)
    critic_optimiser = torch.optim.AdamW(critic.parameters(), lr=args.lr / 4, betas=(0.5, 0.99), weight_decay=1e-3)
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    parts |= {"critic": critic, "critic_optimiser": critic_optimiser}
    step = resume(args.out / "last.pt", parts).step
    taught = lessons(clips, expert)
    print(f"{len(clips)} clips, {len(photos)} photos, {len(held_out)} held out, from step {step}", flush=True)
    while step < args.steps:
        rng, noise = np.random.default_rng((2, step)), torch.Generator().manual_seed(step)
        began = time.time()
        batch = augment(draw(taught, weights, photos, rng, talking=args.talking, foreign=args.foreign), noise)
        loaded = time.time() - began
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            critic.requires_grad_(False)
            terms, made = losses(model, expert, critic, batch, noise)
        total = sum(WEIGHTS[name] * term for name, term in terms.items())
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        critic.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            real, fake = critic(batch.target.flatten(0, 1)).float(), critic(made.detach()).float()
        verdict = discriminator_loss(real, fake)
        critic_optimiser.zero_grad()
        (verdict["real"] + verdict["fake"]).backward()
        critic_optimiser.step()
        terms |= {f"critic_{name}": term for name, term in verdict.items()}
        step += 1
        if step % 10 == 0:
            text = " ".join(f"{name} {term.item():.4f}" for name, term in terms.items())
            print(f"{step} {text} {loaded:.2f}+{time.time() - began - loaded:.2f} s", flush=True)
        if step % 200 == 0 or step == args.steps:
            save_state(args.out / "last.pt", Progress(step), parts)
            average.eval()
            for speaker, text in evaluate(average.module, expert, held_out).items():
                print(step, speaker, text, flush=True)
            from PIL import Image

            Image.fromarray(sheet(average.module, held_out[3:8])).save(args.out / f"{step:05d}.png")


if __name__ == "__main__":
    main()
