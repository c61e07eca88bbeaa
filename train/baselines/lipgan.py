"""Train the baseline LipGAN: L1, and a discriminator that judges whether face and sound agree.

    python -m train.baselines.lipgan train/configs/lipgan-pretrain.toml SHARDS runs/pretrain
    python -m train.baselines.lipgan train/configs/lipgan.toml SHARDS runs/lipgan
        --start runs/pretrain/best.pt

The shards must hold the sound itself, as those of train.prepare do. The same command continues a
run that was stopped.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lipsync_core.errors import TrainingError
from lipsync_core.models.baselines.lipgan import (
    LIPGAN,
    LIPGAN_BASIC,
    LipGAN,
    LipGANConfig,
    LipGANStage,
)
from lipsync_core.models.baselines.lipgan_discriminator import (
    LipGANDiscriminator,
    LipGANDiscriminatorConfig,
)
from lipsync_core.models.precision import Precision
from lipsync_core.models.weights import load_talking_face
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.loading import Batch, Loader, WindowDraw
from lipsync_core.training.loop import Plan
from lipsync_core.training.losses import margin_loss, reconstruction
from lipsync_core.training.optim import step_optimizer
from train import harness
from train.expert_weights import read_expert
from train.harness import Data, Job, Networks
from train.wav2lip import out_of_sync


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Adam has the public code's rate; that code neither clips gradients nor averages weights.

    Attributes:
        network: the layers.
        thinner: divides the channels of every layer, for small machines; 1 as published.
        framing: how crops are cut.
        batch: frames of a batch, over all processes.
        far: least distance of a frame and its reference, in frames.
        contrastive_weight: weight of the discriminator's verdict; 0: no discriminator, as the
            generator is pre-trained.
        rate: learning rate.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported; 0: none.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    network: Literal["lipgan", "lipgan-basic"] = "lipgan"
    thinner: Literal[1, 2, 4, 8, 16] = 1
    framing: Literal["aligned", "box"] = "aligned"
    batch: int = 96
    far: int = 6
    contrastive_weight: float = 0.01
    rate: float = 1e-4
    clip_norm: float = 1.0
    decay: float = 0.999
    judged_clips: int = 12
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        if self.contrastive_weight < 0:
            raise ValueError(f"contrastive_weight is {self.contrastive_weight}; expected 0 or more")


Run = harness.Run[Settings, Data, Networks]


def generator_config(settings: Settings) -> LipGANConfig:
    """Return the configuration of the generator."""
    config = LIPGAN if settings.network == "lipgan" else LIPGAN_BASIC
    return replace(
        config,
        face=_thinner(config.face, settings.thinner),
        audio=_thinner(config.audio, settings.thinner),
        decoder=_thinner(config.decoder, settings.thinner),
        framing=FRAMINGS[settings.framing],
    )


def critic_config(settings: Settings) -> LipGANDiscriminatorConfig:
    """Return the configuration of the discriminator."""
    config = LipGANDiscriminatorConfig(framing=generator_config(settings).framing)
    return replace(
        config,
        face=_thinner(config.face, settings.thinner),
        audio=_thinner(config.audio, settings.thinner),
    )


def _thinner(stages: tuple[LipGANStage, ...], by: int) -> tuple[LipGANStage, ...]:
    return tuple(replace(stage, channels=stage.channels // by) for stage in stages)


def begin_with(model: LipGAN, name: str) -> None:
    """Give a generator the weights of another.

    Args:
        model: the generator, changed in place.
        name: a run's checkpoint (RUN/best.pt) or a weights file.

    Raises:
        TrainingError: they are of another network.
    """
    path = Path(name)
    start = RECIPE.load_trained(path) if path.suffix == ".pt" else load_talking_face(name)
    try:
        model.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise TrainingError(
            f"{name} holds another network than this run's; set network, or start from another: "
            f"{error}"
        ) from error


def read(job: Job[Settings]) -> Data:
    """Read the clips and the judge."""
    args, settings, size = job.args, job.settings, generator_config(job.settings).size
    harness.check_divisible(
        settings.batch,
        "frames",
        job.world,
        least=2 if settings.contrastive_weight else 1,
        beside=", and two for each where the discriminator gets other clips' sound",
    )
    clips = harness.read_clips(job, size, least=1 + 2 * settings.far)
    return Data(*clips, read_expert(args.judge).to(job.world.device))


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the generator and, if its verdict counts, the discriminator."""
    settings = job.settings
    model = LipGAN(generator_config(settings))
    if job.args.start:
        begin_with(model, job.args.start)
    optimizer = partial(torch.optim.Adam, lr=settings.rate)
    student = harness.make_student(job, job.place(model), optimizer)
    if not settings.contrastive_weight:
        return Networks(student)
    critic = job.place(LipGANDiscriminator(critic_config(settings)))
    return Networks(student, {"critic": harness.make_opponent(job, critic, optimizer)})


def load_batches(run: Run) -> Loader:
    """Return the batches of frames, each with another of the same clip."""
    features = generator_config(run.settings).features
    draw = WindowDraw(run.data.clips, features=features, frames=1, far=run.settings.far)
    return harness.load_batches(run, draw, run.settings.batch)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the generator, after one of the discriminator, as in the public code."""
    settings, student, device = run.settings, run.student, run.world.device
    sound = batch["sound"].to(device).flatten(0, 1)
    target, reference = (
        harness.crop_batch(batch[name], student.average.config.size, device)
        .flatten(0, 1)
        .contiguous(memory_format=torch.channels_last)
        for name in ("target", "reference")
    )
    student.wrapped.train()
    with run.autocast():
        made = student.wrapped(sound, target, reference).float()
    terms = {"l1": reconstruction(made, target)}
    loss = terms["l1"]
    if settings.contrastive_weight:
        terms |= judge_faces(run, target, made, sound)
        loss = loss + settings.contrastive_weight * terms["contrastive"]
    return terms | {"loss": loss, "gradient": student.learn(loss, step)}


def judge_faces(run: Run, target: Tensor, made: Tensor, sound: Tensor) -> dict[str, Tensor]:
    """Take one step of the discriminator, and judge the generated faces.

    Args:
        run: the run.
        target: true faces (N,3,S,S).
        made: generated faces (N,3,S,S).
        sound: their sound (N,1,H,W).

    Returns:
        The discriminator's loss and its verdict on the generated faces, () each.
    """
    critic = run.networks.opponents["critic"]
    critic.model.requires_grad_(True)
    faces, beside = out_of_sync(target, made, sound)
    with run.autocast():
        audio, video = critic.wrapped(torch.cat([sound, beside]), torch.cat([target, faces]))
    agree = (torch.arange(len(audio), device=audio.device) < len(target)).float()
    loss = margin_loss(audio, video, agree)
    rate, clip_norm = run.settings.rate, run.settings.clip_norm
    step_optimizer(loss, critic.optimizer, rate=rate, clip_norm=clip_norm)
    critic.model.requires_grad_(False)
    with run.autocast():
        audio, video = critic.model(sound, made)
    return {"critic": loss, "contrastive": margin_loss(audio, video, torch.ones_like(audio[:, 0]))}


START = {"help": "whose generator training begins with: RUN/best.pt or a weights file"}
RECIPE = harness.Recipe(
    name="lipgan",
    settings=Settings,
    network=lambda settings, out: LipGAN(generator_config(settings)),
    parse=partial(harness.parse_arguments, __doc__, judge=harness.JUDGE, start=START),
    read=read,
    build=build,
    batches=load_batches,
    step=step,
)


main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
