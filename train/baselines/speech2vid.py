"""Train the baseline Speech2Vid: L1 alone.

    python -m train.baselines.speech2vid train/configs/speech2vid.toml SHARDS OUT

As LipGAN's authors compared it: beside stills of the person the network sees the upper half of the
frame that it redraws. The shards must hold the sound itself, as those of train.prepare do. The same
command continues a run that was stopped.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lipsync_core.models.baselines.speech2vid import SPEECH2VID, Speech2Vid, Speech2VidConfig
from lipsync_core.models.precision import Precision
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.loading import Batch, Loader, WindowDraw
from lipsync_core.training.loop import Plan
from lipsync_core.training.losses import reconstruction
from train import harness
from train.expert_weights import read_expert
from train.harness import Data, Job, Networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Batch, rate, and the distance of the still are those of the third-party Keras version (Adam's
    default there), which neither clips gradients nor averages weights.

    Attributes:
        references: stills of the person, neighbors in the clip; as many neighboring frames are
            redrawn. In use, the frame itself stands for all of them.
        thinner: divides the width of every layer, for small machines; 1 as published.
        framing: how crops are cut.
        batch: frames of a batch, over all processes.
        far: least distance of the frames and the stills, in frames.
        rate: learning rate.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported; 0: none.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    references: int = 1
    thinner: Literal[1, 2, 4, 8, 16] = 1
    framing: Literal["aligned", "box"] = "aligned"
    batch: int = 64
    far: int = 6
    rate: float = 1e-3
    clip_norm: float = 1.0
    decay: float = 0.999
    judged_clips: int = 12
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        if self.references < 1 or self.batch < 1 or self.batch % self.references:
            raise ValueError(
                f"references {self.references}, batch {self.batch}; expected 1 or more, and a "
                "batch that is a multiple"
            )


Run = harness.Run[Settings, Data, Networks]


def generator_config(settings: Settings) -> Speech2VidConfig:
    """Return the configuration of the generator."""
    whole, by = SPEECH2VID, settings.thinner
    return replace(
        whole,
        audio=tuple(width // by for width in whole.audio),
        face=tuple(width // by for width in whole.face),
        hidden=whole.hidden // by,
        embedding=whole.embedding // by,
        decoder=tuple(width // by for width in whole.decoder),
        references=settings.references,
        framing=FRAMINGS[settings.framing],
    )


def read(job: Job[Settings]) -> Data:
    """Read the clips and the judge."""
    args, settings, size = job.args, job.settings, generator_config(job.settings).size
    windows = settings.batch // settings.references
    harness.check_divisible(windows, f"times {settings.references} frames", job.world)
    clips = harness.read_clips(job, size, least=settings.references + 2 * settings.far)
    return Data(*clips, read_expert(args.judge).to(job.world.device))


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the generator."""
    model = job.place(Speech2Vid(generator_config(job.settings)))
    optimizer = partial(torch.optim.Adam, lr=job.settings.rate)
    return Networks(harness.make_student(job, model, optimizer))


def load_batches(run: Run) -> Loader:
    """Return the batches of frames and stills of their person."""
    settings = run.settings
    draw = WindowDraw(
        run.data.clips,
        features=generator_config(settings).features,
        frames=settings.references,
        far=settings.far,
    )
    return harness.load_batches(run, draw, settings.batch // settings.references)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the generator."""
    student, device = run.student, run.world.device
    sound = batch["sound"].to(device).flatten(0, 1)
    target, reference = (
        harness.crop_batch(batch[name], student.average.config.size, device)
        for name in ("target", "reference")
    )
    # (B*K,3*K,S,S)
    stills = reference.flatten(1, 2).repeat_interleave(run.settings.references, 0)
    flat = target.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    student.wrapped.train()
    with run.autocast():
        made = student.wrapped(sound, flat, stills).float()
    loss = reconstruction(made, flat)
    return {"l1": loss, "gradient": student.learn(loss, step)}


RECIPE = harness.Recipe(
    name="speech2vid",
    settings=Settings,
    network=lambda settings, out: Speech2Vid(generator_config(settings)),
    parse=partial(harness.parse_arguments, __doc__, judge=harness.JUDGE),
    read=read,
    build=build,
    batches=load_batches,
    step=step,
)


main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
