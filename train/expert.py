"""Train a lip-sync expert: which of a clip's sounds belongs to which of its lips?

    python -m train.expert train/configs/expert-teacher.toml SHARDS OUT
    torchrun --nproc-per-node 8 -m train.expert train/configs/expert-paper.toml SHARDS OUT

The first steps use the N-way contrastive loss, the rest the paper's binary cross-entropy on the
cosine. The same command continues a run that was stopped.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lipsync_core.audio.features import MelFeatures
from lipsync_core.models.layers import Stage
from lipsync_core.models.precision import Precision
from lipsync_core.models.sync_expert import (
    WAV2LIP_EXPERT,
    SyncExpert,
    SyncExpertConfig,
    config_for_size,
)
from lipsync_core.training.augment import degrade, disguise, recolor, warp_grid
from lipsync_core.training.clips import FRAMINGS, Clip, speaker_weights
from lipsync_core.training.distributed import World
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Draws, Plan, generator
from lipsync_core.training.losses import contrastive, cosine_bce
from lipsync_core.training.optim import make_schedule
from lipsync_core.training.pictures import grid, mouths
from lipsync_core.training.sync_eval import (
    draw_pairs,
    remove_margin,
    scale_with_margin,
    score_expert_on_clips,
)
from train import harness
from train.harness import Data, Job, Networks

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
NETWORKS = {"teacher": TEACHER, "judge": JUDGE, "wav2lip": WAV2LIP_EXPERT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Attributes:
        network: the layers, see ``NETWORKS``.
        projection: whether teacher and judge end in a linear layer; without it they end in ReLU, as
            the paper's loss needs.
        window: frames that the expert sees.
        size: side of the faces in pixels.
        framing: how crops are cut.
        half: 0 or 1 takes one of two disjoint halves of every speaker's footage.
        contrastive_steps: number of contrastive steps; the rest have the paper's loss.
        among: where contrastive steps take their rivals from, see ``contrastive``.
        apart: least distance of wrong sounds in frames.
        clips: clips of a batch, over all processes.
        windows: windows of each clip.
        stretch: frames of a clip that the windows begin in.
        rate: learning rate.
        schedule: how the rate changes.
        warmup: steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    network: Literal["teacher", "judge", "wav2lip"]
    projection: bool = True
    window: Literal[1, 3, 5] = 5
    size: int = 96
    framing: Literal["aligned", "box"] = "aligned"
    half: Literal[0, 1] | None = None
    contrastive_steps: int
    among: Literal["clip", "batch"] = "clip"
    apart: int = 2
    clips: int = 16
    windows: int = 10
    stretch: int = 30
    rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 50
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    decay: float = 0.99
    judged_clips: int = 48
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        projects = expert_config(self).projection  # or a ValueError for a size that no network has
        if self.contrastive_steps < self.plan.steps and projects:
            raise ValueError(
                f"contrastive_steps is {self.contrastive_steps} of {self.plan.steps}, but with a "
                "projection the cosine may be negative, where the paper's loss has no gradient; "
                "set projection = false, or take contrastive steps alone"
            )
        if self.clips < 1:
            raise ValueError(f"clips is {self.clips}; expected 1 or more")
        if not 2 <= self.windows <= self.stretch + 1:
            raise ValueError(
                f"windows is {self.windows}; expected 2 to stretch + 1 = {self.stretch + 1}"
            )
        if not 1 <= self.apart <= min(self.stretch, 15):
            raise ValueError(
                f"apart is {self.apart}; expected 1 to {min(self.stretch, 15)}, or no sound is "
                "wrong"
            )


def expert_config(settings: Settings) -> SyncExpertConfig:
    """Return the configuration of the expert's network.

    Its sound of 200 ms is centered on its frames: it begins 80, 40 or 0 ms before 1, 3 or 5
    frames.
    """
    features = MelFeatures(lead_ms=(5 - settings.window) * 20)
    network = NETWORKS[settings.network]
    projection = network.projection if settings.projection else 0
    framing = FRAMINGS[settings.framing]
    config = replace(
        network, projection=projection, window=settings.window, features=features, framing=framing
    )
    return config_for_size(config, settings.size)


class Batch(NamedTuple):
    """Windows of k clips.

    Those of a clip may share their frames, which lie in ``faces`` once.
    """

    faces: Tensor  # (k,F,3,S,S), of which only the lower half is filled
    mels: Tensor  # (k,w,1,80,16)
    places: Tensor  # (k,w) where each window begins among the F frames
    starts: Tensor  # (k,w) and in the clip


class Tempered(nn.Module):
    """An expert and the temperature of its training, as one module with averaged gradients."""

    def __init__(self, expert: SyncExpert) -> None:
        super().__init__()
        self.expert = expert
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log())

    def forward(self, mels: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the audio and video embeddings and the temperature."""
        return *self.expert(mels, faces), self.log_temperature.exp().clamp_min(0.02)


def windows_of(clip: Clip, settings: Settings, rng: np.random.Generator) -> Batch:
    """Draw windows of one clip as they are on disk, faces (F,3,C,C) uint8 with margin."""
    w, t, stretch = settings.windows, settings.window, settings.stretch
    begin = int(rng.integers(0, len(clip.faces) - stretch - t + 1))
    choose_clips = torch.from_numpy(np.sort(rng.choice(stretch + 1, w, replace=False)))
    starts = [begin + s for s in choose_clips.tolist()]
    mels = clip.mels(starts, lead_ms=expert_config(settings).features.lead_ms)
    if stretch + t <= w * t:
        return Batch(clip.frames(begin, stretch + t), mels, choose_clips, choose_clips + begin)
    return Batch(
        torch.cat([clip.frames(s, t) for s in starts]),
        mels,
        torch.arange(w) * t,
        choose_clips + begin,
    )


def draw(
    clips: list[Clip], weights: np.ndarray, settings: Settings, step: int, world: World
) -> Batch:
    """Return this process's part of the batch of a step, augmented, on its device.

    Sample i of a step is the same windows for any number of processes.
    """
    count, seed = settings.clips // world.size, settings.plan.seed
    samples = []
    for i in range(world.rank * count, (world.rank + 1) * count):
        rng = np.random.default_rng((seed, step, i))
        samples.append(windows_of(clips[rng.choice(len(clips), p=weights)], settings, rng))
    faces, mels, places, starts = (torch.stack(part) for part in zip(*samples, strict=True))
    noise = generator(seed, step, world.rank, device=world.device)
    seen = augment(faces.to(world.device), settings.size, noise)
    return Batch(seen, disguise(mels.to(world.device), noise), places, starts)


def augment(faces: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Augment faces and erase their upper half.

    Args:
        faces: (k,F,3,C,C) uint8, with a margin of a twelfth on every side.
        size: side of the result in pixels.
        rng: the generator.

    Returns:
        (k,F,3,size,size) float, the upper half 0.
    """
    k, f, _, _, _ = faces.shape
    whole = warp_grid(k, size, round(size * 7 / 6), rng)
    # the expert looks at the lower half alone
    lower = whole[:, size // 2 :].repeat_interleave(f, 0)
    x = scale_with_margin(faces, size).flatten(0, 1)
    x = torch.nn.functional.grid_sample(x, lower, padding_mode="border", align_corners=False)
    x = recolor(degrade(x.view(k, f, 3, size // 2, size), rng), rng)
    return torch.cat([torch.zeros_like(x), x], 3)


Run = harness.Run[Settings, Data, Networks]


def read(job: Job[Settings]) -> Data:
    """Read the clips."""
    settings = job.settings
    harness.check_divisible(settings.clips, "clips", job.world)
    clips = harness.read_clips(
        job,
        settings.size,
        least=settings.stretch + settings.window + 1,
        half=settings.half,
        least_judged=40,
    )
    return Data(*clips)


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the expert with its temperature."""
    settings = job.settings
    model = job.place(Tempered(SyncExpert(expert_config(settings))))
    optimizer = harness.adamw(settings.rate, weight_decay=settings.weight_decay)
    schedule = make_schedule(settings.schedule, settings.plan.steps, warmup=settings.warmup)
    return Networks(
        harness.make_student(job, model, optimizer, schedule=schedule, averaged=model.expert)
    )


def draw_of(run: Run, step: int) -> Batch:
    """Return this process's part of the batch of a step."""
    return draw(run.data.clips, speaker_weights(run.data.clips), run.settings, step, run.world)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the expert."""
    settings, student, device = run.settings, run.student, run.world.device
    k, w = batch.starts.shape
    windows = batch.places[:, :, None] + torch.arange(settings.window)
    faces = batch.faces[torch.arange(k)[:, None, None], windows].flatten(0, 1)
    student.wrapped.train()
    with run.autocast():
        audio, video, temperature = student.wrapped(batch.mels.flatten(0, 1), faces)
    audio, video = audio.view(k, w, -1), video.view(k, w, -1)
    if step < settings.contrastive_steps:
        rows = [run.world.gather(x) for x in (audio, video, batch.starts.to(device))]
        loss = contrastive(*rows, temperature, apart=settings.apart, among=settings.among)
    else:
        pairs = draw_pairs(batch.starts, torch.default_generator, apart=settings.apart)
        sound, labels = (x.to(device) for x in pairs)
        audio = audio.gather(1, sound[..., None].expand_as(audio))
        loss = cosine_bce(audio.flatten(0, 1), video.flatten(0, 1), labels.flatten())
        loss = loss + 0 * temperature  # every parameter has its gradient
    norm = student.learn(loss, step)
    rate = torch.tensor(student.rate(step))
    return {"loss": loss, "gradient": norm, "temperature": temperature, "rate": rate}


def evaluate(run: Run, step: int) -> Evaluation:
    """Evaluate the average on the held-out clips."""
    settings, held_out = run.settings, run.data.held_out
    figures = score_expert_on_clips(run.student.average, held_out, apart=settings.apart)
    faces = [remove_margin(clip.frames(10, 8), settings.size) for clip in held_out[:6]]
    pictures = {
        "held out": grid(torch.stack(faces)),
        "mouths": grid(mouths(torch.stack(faces))),
        "taught": grid(draw_of(run, step).faces[:6, :8]),
    }
    return Evaluation(figures["off_sync"], figures, pictures)


RECIPE = harness.Recipe(
    name="expert",
    settings=Settings,
    network=lambda settings, out: SyncExpert(expert_config(settings)),
    parse=partial(harness.parse_arguments, __doc__),
    read=read,
    build=build,
    batches=lambda run: Draws(partial(draw_of, run)),
    step=step,
    evaluate=evaluate,
)
main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
