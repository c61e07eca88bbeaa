"""Train the baseline Speech2Vid: L1 alone.

    python -m train.baselines.speech2vid train/configs/speech2vid.toml SHARDS OUT

As LipGAN's authors compared it: beside stills of the person the network sees the upper half of the
frame that it redraws. The shards must hold the sound itself, as those of train.prepare do. The same
command goes on where a run was stopped.
"""

import copy
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lipsync_core.models.baselines.speech2vid import SPEECH2VID, Speech2Vid, Speech2VidConfig
from lipsync_core.models.precision import Precision
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.distributed import join_processes
from lipsync_core.training.loading import Batch, WindowDraw
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan, seed_step
from lipsync_core.training.losses import reconstruction
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A named run. A batch, over all ranks, is ``batch`` frames. ``references``: stills of the
    person, neighbours that begin at least ``far`` frames away (in use, the frame itself stands for
    all of them); as many neighbouring frames are redrawn beside them. ``thinner``: what the width
    of every layer is divided by, for small machines; 1 as published. ``decay``: of the moving
    average that is judged and exported; 0: none.

    Batch, rate, and the distance of the still are the third-party Keras version's (Adam's default
    there), which neither clips gradients nor averages weights.
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
                f"references {self.references}, batch {self.batch}; wanted 1 or more, and a batch "
                "that is a multiple"
            )


def generator_config(settings: Settings) -> Speech2VidConfig:
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


def load_trained(state: Path) -> Speech2Vid:
    """The network of a run's checkpoint, last.pt or best.pt: the average that was judged."""
    model = Speech2Vid(generator_config(load_settings(state.parent, Settings)))
    load_state(state, {"average": model})
    return model


def main(argv: list[str] | None = None) -> None:
    args = make_parser(__doc__).parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = read_settings(args.run, Settings)
    plan, config = settings.plan, generator_config(settings)
    with join_processes(args.device) as world:
        if world.is_main:
            save_settings(args.out, settings, recipe="speech2vid")
            keep_arguments(args)
        windows = settings.batch // settings.references
        check_divisible(windows, f"times {settings.references} frames", world)
        least = settings.references + 2 * settings.far
        clips, strangers = read_clips(args.shards, settings.framing, config.size, least=least)
        strangers = choose_clips(strangers, settings.judged_clips)
        judge = read_expert(args.judge).to(world.device)

        seed_step(plan.seed)
        model = Speech2Vid(config).to(world.device, memory_format=torch.channels_last)
        average = copy.deepcopy(model).eval()
        optimiser = torch.optim.Adam(model.parameters(), settings.rate)
        together = world.wrap(model)
        draw = WindowDraw(
            clips, features=config.features, frames=settings.references, far=settings.far
        )
        loader = make_loader(draw, batch=windows, seed=plan.seed, world=world)
        bfloat16 = choose_precision(settings.precision, world)

        def learn(batch: Batch, step: int) -> dict[str, Tensor]:
            sound = batch["sound"].to(world.device).flatten(0, 1)
            target, reference = (
                crop_batch(batch[name], config.size, world.device)
                for name in ("target", "reference")
            )
            # (B*K,3*K,S,S)
            stills = reference.flatten(1, 2).repeat_interleave(settings.references, 0)
            flat = target.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            together.train()
            with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                made = together(sound, flat, stills).float()
            loss = reconstruction(made, flat)
            norm = step_optimizer(loss, optimiser, rate=settings.rate, clip_norm=settings.clip_norm)
            update_ema(average, model, step, decay=settings.decay)
            return {"l1": loss, "gradient": norm}

        def evaluate(step: int) -> Evaluation:
            return score_generator(average, strangers, judge)

        parts = {"model": model, "average": average, "optimiser": optimiser}
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
