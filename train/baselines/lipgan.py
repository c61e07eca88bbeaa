"""Train the baseline LipGAN: L1, and a discriminator that learns beside the generator whether face
and sound agree.

    python -m train.baselines.lipgan train/configs/lipgan-pretrain.toml SHARDS runs/pretrain
    python -m train.baselines.lipgan train/configs/lipgan.toml SHARDS runs/lipgan \\
        --start runs/pretrain/best.pt

The shards must hold the sound itself, as those of train.prepare do. The same command goes on where
a run was stopped.
"""

import copy
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

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
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.distributed import join_processes
from lipsync_core.training.loading import Batch, WindowDraw
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan, seed_step
from lipsync_core.training.losses import margin_loss, reconstruction
from lipsync_core.training.optim import step_optimizer, update_ema
from lipsync_core.training.settings import load_settings, read_settings, save_settings
from lipsync_core.training.validation import choose_clips, score_generator
from train.expert_weights import read_expert
from train.harness import (
    check_divisible,
    choose_precision,
    crop_batch,
    keep_arguments,
    make_loader,
    make_parser,
    read_clips,
    run_command,
    run_training,
)
from train.wav2lip import out_of_sync


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A named run. A batch, over all ranks, is ``batch`` frames, each beside one at least ``far``
    frames away, and Adam has the public code's rate; that code neither clips gradients nor averages
    weights.

    ``thinner``: what the channels of every layer are divided by, for small machines; 1 as
    published. ``contrastive_weight``: of the discriminator's verdict; 0: no discriminator, as the
    generator is pre-trained. ``decay``: of the moving average that is judged and exported; 0: none.
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
            raise ValueError(f"contrastive_weight is {self.contrastive_weight}; wanted 0 or more")


def generator_config(settings: Settings) -> LipGANConfig:
    config = LIPGAN if settings.network == "lipgan" else LIPGAN_BASIC
    return replace(
        config,
        face=_thinner(config.face, settings.thinner),
        audio=_thinner(config.audio, settings.thinner),
        decoder=_thinner(config.decoder, settings.thinner),
        framing=FRAMINGS[settings.framing],
    )


def critic_config(settings: Settings) -> LipGANDiscriminatorConfig:
    config = LipGANDiscriminatorConfig(framing=generator_config(settings).framing)
    return replace(
        config,
        face=_thinner(config.face, settings.thinner),
        audio=_thinner(config.audio, settings.thinner),
    )


def _thinner(stages: tuple[LipGANStage, ...], by: int) -> tuple[LipGANStage, ...]:
    return tuple(replace(stage, channels=stage.channels // by) for stage in stages)


def load_trained(state: Path) -> LipGAN:
    """The generator of a run's checkpoint, last.pt or best.pt: the average that was judged."""
    model = LipGAN(generator_config(load_settings(state.parent, Settings)))
    load_state(state, {"average": model})
    return model


def begin_with(model: LipGAN, name: str) -> None:
    """Give ``model`` the weights of a run's checkpoint (RUN/best.pt) or of a weights file;
    TrainingError for those of another network.
    """
    path = Path(name)
    start = load_trained(path) if path.suffix == ".pt" else load_talking_face(name)
    try:
        model.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise TrainingError(
            f"{name} holds another network than this run's; set network, or start from another: "
            f"{error}"
        ) from error


def main(argv: list[str] | None = None) -> None:
    options = make_parser(__doc__)
    options.add_argument(
        "--start", help="whose generator training begins with: RUN/best.pt or a weights file"
    )
    args = options.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = read_settings(args.run, Settings)
    plan, config = settings.plan, generator_config(settings)
    with join_processes(args.device) as world:
        if world.is_main:
            save_settings(args.out, settings, recipe="lipgan")
            keep_arguments(args)
        beside = ", and two for each where the discriminator gets other clips' sound"
        check_divisible(
            settings.batch,
            "frames",
            world,
            least=2 if settings.contrastive_weight else 1,
            beside=beside,
        )
        clips, strangers = read_clips(
            args.shards, settings.framing, config.size, least=1 + 2 * settings.far
        )
        strangers = choose_clips(strangers, settings.judged_clips)
        judge = read_expert(args.judge).to(world.device)

        seed_step(plan.seed)
        model = LipGAN(config)
        if args.start:
            begin_with(model, args.start)
        model.to(world.device, memory_format=torch.channels_last)
        average = copy.deepcopy(model).eval()
        critic = LipGANDiscriminator(critic_config(settings))
        critic.to(world.device, memory_format=torch.channels_last)

        def optimiser(of: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.Adam(of.parameters(), settings.rate)

        parts = {"model": model, "average": average, "optimiser": optimiser(model)}
        if settings.contrastive_weight:
            parts |= {"critic": critic, "critic_optimiser": optimiser(critic)}
        together = world.wrap(model)
        discriminate = world.wrap(critic) if settings.contrastive_weight else critic
        draw = WindowDraw(clips, features=config.features, frames=1, far=settings.far)
        loader = make_loader(draw, batch=settings.batch, seed=plan.seed, world=world)
        bfloat16 = choose_precision(settings.precision, world)

        def learn(batch: Batch, step: int) -> dict[str, Tensor]:
            sound = batch["sound"].to(world.device).flatten(0, 1)
            target, reference = (
                crop_batch(batch[name], config.size, world.device)
                .flatten(0, 1)
                .contiguous(memory_format=torch.channels_last)
                for name in ("target", "reference")
            )
            together.train()
            with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                made = together(sound, target, reference).float()
            terms = {"l1": reconstruction(made, target)}
            loss = terms["l1"]
            if settings.contrastive_weight:  # the discriminator learns first, as in the public code
                critic.requires_grad_(True)
                faces, beside = out_of_sync(target, made, sound)
                with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                    audio, video = discriminate(
                        torch.cat([sound, beside]), torch.cat([target, faces])
                    )
                agree = (torch.arange(len(audio), device=audio.device) < len(target)).float()
                terms["critic"] = margin_loss(audio, video, agree)
                step_optimizer(
                    terms["critic"],
                    parts["critic_optimiser"],
                    rate=settings.rate,
                    clip_norm=settings.clip_norm,
                )
                critic.requires_grad_(False)
                with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                    audio, video = critic(sound, made)
                terms["contrastive"] = margin_loss(audio, video, torch.ones_like(audio[:, 0]))
                loss = loss + settings.contrastive_weight * terms["contrastive"]
            norm = step_optimizer(
                loss, parts["optimiser"], rate=settings.rate, clip_norm=settings.clip_norm
            )
            update_ema(average, model, step, decay=settings.decay)
            return terms | {"loss": loss, "gradient": norm}

        def evaluate(step: int) -> Evaluation:
            return score_generator(average, strangers, judge)

        about = (
            f"{len(clips)} clips, {len(strangers)} held out, {world.size} processes on "
            f"{world.device}"
        )
        done = run_training(
            learn,
            loader,
            plan=plan,
            parts=parts,
            evaluate=evaluate,
            out=args.out,
            world=world,
            about=about,
        )
    if not done:
        sys.exit(1)  # what waits for this run must not begin


if __name__ == "__main__":
    run_command(main)
