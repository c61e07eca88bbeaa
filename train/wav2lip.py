"""Train a generator against a frozen lip-sync expert, with or without a visual-quality
discriminator.

    python -m train.wav2lip train/configs/wav2lip-gan.toml SHARDS OUT --expert runs/expert/best.pt
    torchrun --nproc-per-node 8 -m train.wav2lip train/configs/wav2lip-gan.toml SHARDS OUT --expert
    runs/expert/best.pt

L = (1 - sync_weight - quality_weight) L1 + sync_weight E_sync + quality_weight L_gen, as in the
paper. The same command goes on where a run was stopped.
"""

import argparse
import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lipsync_core.audio.features import MelFeatures
from lipsync_core.errors import TrainingError
from lipsync_core.models.precision import Precision
from lipsync_core.models.quality_discriminator import (
    WAV2LIP_DISCRIMINATOR,
    QualityDiscriminator,
    config_for_size,
)
from lipsync_core.models.sync_expert import SyncExpert, SyncExpertConfig
from lipsync_core.models.wav2lip import (
    LARGER,
    MINI,
    WAV2LIP,
    Generator,
    GeneratorConfig,
    init_as_copy,
)
from lipsync_core.models.weights import load_talking_face
from lipsync_core.training.augment import disguise, recolour, warp_grid
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.distributed import World, join_processes
from lipsync_core.training.loading import Batch, WindowDraw
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan, generator, seed_step
from lipsync_core.training.losses import cosine_bce, perceptual_loss, reconstruction, sync_loss
from lipsync_core.training.optim import make_schedule, step_optimizer, update_ema
from lipsync_core.training.settings import load_settings, read_settings, save_settings
from lipsync_core.training.sync_eval import resize_faces, scale_with_margin
from lipsync_core.training.validation import choose_clips, score_generator
from train.expert_weights import read_expert
from train.harness import (
    OTHER_CROPS,
    check_divisible,
    check_framings,
    choose_precision,
    crop_batch,
    init_audio_encoder_from_expert,
    keep_arguments,
    make_loader,
    make_parser,
    read_clips,
    run_command,
    run_training,
    train_critic,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    A batch, over all ranks, is ``windows`` windows of ``frames`` frames.

    Reference windows begin at least ``far`` frames away. ``augmented``: colours, small warps and
    voices are varied; the paper and its code vary nothing.

    ``sync_below``: E_sync counts only from the first evaluation on in which it is below that (the
    public code: 0.75; 0 at first, and forgotten when a run is resumed, which this one does not).
    ``expert_statistics``: of its batch norms, ``running`` as a frozen network has them, or
    ``batch``, as the public code runs it by omission; its figures differ much (0.72 against 1.05 on
    one batch). Held out they are taken of one clip, not of 16, so thresholds are near the public
    code's alone. ``expert_learns``: not frozen but taught on generated faces, as LipGAN's
    discriminator is. ``experts_ear``: the audio encoder begins as the expert's, which tells visemes
    apart already (layers of one shape; ``mini`` has the shapes of train.expert's teacher).
    ``quality_weight`` 0: no discriminator. ``decay``: of the moving average that is judged and
    exported; 0: none.
    """

    network: Literal["wav2lip", "mini"] = "wav2lip"
    experts_ear: bool = False
    size: Literal[96, 192, 256, 384] = 96
    framing: Literal["aligned", "box"] = "aligned"
    windows: int = 16
    frames: int = 5
    far: int = 1
    augmented: bool = True
    sync_weight: float = 0.03
    sync_below: float | None = None
    quality_weight: float = 0.0
    expert_statistics: Literal["running", "batch"] = "running"
    expert_learns: bool = False
    rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["cosine", "constant"] = "constant"
    warmup: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    decay: float = 0.999
    judged_clips: int = 12
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        if min(self.windows, self.frames, self.far) < 1:
            raise ValueError(
                f"windows {self.windows}, frames {self.frames}, far {self.far}; wanted 1 or more"
            )
        weights = self.sync_weight, self.quality_weight
        if min(weights) < 0 or sum(weights) >= 1:
            raise ValueError(
                f"sync_weight, quality_weight are {weights}; wanted 0 or more, and less than 1 "
                "together"
            )
        if self.expert_learns and self.expert_statistics == "batch":
            raise ValueError(
                "an expert that learns has running statistics of its own; "
                'set expert_statistics = "running"'
            )
        if self.network == "mini" and self.size != 96:
            raise ValueError(f"mini draws 96 px, not {self.size}; take the network wav2lip")


def generator_config(settings: Settings) -> GeneratorConfig:
    if settings.network == "mini":
        return replace(MINI, framing=FRAMINGS[settings.framing])
    # 40 ms: what the public code pairs in training (and its inference does not)
    classic = replace(WAV2LIP, features=MelFeatures(lead_ms=40))
    return replace(
        classic if settings.size == 96 else LARGER[settings.size],
        framing=FRAMINGS[settings.framing],
    )


def load_trained(state: Path) -> Generator:
    """The generator of a run's checkpoint, last.pt or best.pt: the average that was judged."""
    model = Generator(generator_config(load_settings(state.parent, Settings)))
    load_state(state, {"average": model})
    return model


class Switch:
    """Whether E_sync counts yet."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def state_dict(self) -> dict[str, bool]:
        return {"on": self.on}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        self.on = state["on"]


def varied(
    batch: Batch, sound: Tensor, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops (B,F,C,C,3) uint8 with margin and sound (B,F,1,80,16) -> target and reference
    (B,F,3,size,size), both in the same other light and a little turned, and the sound in another
    voice.
    """
    both = torch.cat(
        [batch[name].to(sound.device, non_blocking=True) for name in ("target", "reference")], 1
    )
    b, f = batch["target"].shape[:2]
    both = scale_with_margin(both.permute(0, 1, 4, 2, 3), size)
    at = warp_grid(b, size, round(size * 7 / 6), rng).repeat_interleave(2 * f, 0)
    both = nn.functional.grid_sample(
        both.flatten(0, 1), at, padding_mode="border", align_corners=False
    )
    both = recolour(both.view(b, 2 * f, 3, size, size), rng)
    return both[:, :f], both[:, f:], disguise(sound, rng)


def embedded(
    expert: nn.Module, config: SyncExpertConfig, faces: Tensor, heard: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings (N,D), audio and video, of all windows of the expert's length among faces
    (B,F,3,S,S), and of the sound beside them, (B,F-window+1,1,80,16).
    """
    looked = resize_faces(faces.flatten(0, 1), config.size).unflatten(0, faces.shape[:2])
    index = torch.arange(heard.shape[1])[:, None] + torch.arange(config.window)
    return expert(heard.flatten(0, 1), looked[:, index].flatten(0, 1))


def remembering(expert: SyncExpert) -> SyncExpert:
    """``expert`` with batch statistics that leave its running ones as they are."""
    expert.train()
    for layer in expert.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    return expert


def out_of_sync(real: Tensor, made: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """Faces and sound that an expert which learns beside the generator shall tell apart, as LipGAN
    has it: half of the time generated faces beside their own sound, otherwise real ones beside the
    next clip's.
    """
    return (made.detach(), heard) if torch.rand(()) < 0.5 else (real, heard.roll(1, 0))


def _check_loss(expert: SyncExpert, name: str) -> None:
    if expert.config.projection:
        raise TrainingError(
            f"{name} was taught by the contrastive loss alone: its cosine may be negative, where "
            "E_sync has no "
            "gradient; train an expert with projection = false"
        )


def _initialize(
    model: Generator, expert: SyncExpert, settings: Settings, args: argparse.Namespace
) -> None:
    """Copy the expert's audio encoder and the weights of --start into ``model``, if wanted."""
    if settings.experts_ear and not init_audio_encoder_from_expert(expert, model):
        raise TrainingError(
            f"{args.expert} has an audio encoder of another shape; set experts_ear = false"
        )
    if args.start:
        try:
            model.load_state_dict(load_talking_face(args.start).state_dict())
        except RuntimeError as error:
            raise TrainingError(
                f"{args.start} is of another shape than this run's network: {error}"
            ) from error


def _crop(
    batch: Batch, sound: Tensor, settings: Settings, world: World, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return target, reference and sound of a step, augmented if the run asks for it."""
    if settings.augmented:
        noise = generator(settings.plan.seed, step, world.rank, device=world.device)
        return varied(batch, sound, settings.size, noise)
    target, reference = (
        crop_batch(batch[name], settings.size, world.device) for name in ("target", "reference")
    )
    return target, reference, sound


def _expert_loss(
    expert: SyncExpert,
    listen: nn.Module,
    faces: tuple[Tensor, Tensor],
    heard: Tensor,
    *,
    bfloat16: bool,
) -> Tensor:
    """Return the loss of an expert that learns beside the generator.

    Args:
        expert: the expert.
        listen: the same network, wrapped for all processes.
        faces: real and generated faces (N,F,3,S,S).
        heard: the mel windows that belong to them.
        bfloat16: whether it computes in bfloat16.
    """
    real, made = faces
    expert.requires_grad_(True)
    wrong_faces, beside = out_of_sync(real, made, heard)
    with torch.autocast(real.device.type, torch.bfloat16, enabled=bfloat16):
        both = torch.cat([real, wrong_faces]), torch.cat([heard, beside])
        audio, video = embedded(listen, expert.config, *both)
    labels = (torch.arange(len(audio), device=audio.device) < len(audio) // 2).float()
    return cosine_bce(audio, video, labels)


def _make_parts(
    model: Generator,
    average: Generator,
    critic: QualityDiscriminator,
    expert: SyncExpert,
    settings: Settings,
) -> dict[str, Any]:
    """Return everything that a checkpoint of the run holds, but for the switch."""

    def optimiser(of: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            of.parameters(), settings.rate, settings.betas, weight_decay=settings.weight_decay
        )

    parts: dict[str, Any] = {"model": model, "average": average, "optimiser": optimiser(model)}
    if settings.quality_weight:
        parts |= {"critic": critic, "critic_optimiser": optimiser(critic)}
    if settings.expert_learns:
        parts |= {"expert": expert.requires_grad_(True), "expert_optimiser": optimiser(expert)}
    return parts


def _combine_losses(
    made: Tensor,
    target: Tensor,
    embedded_pair: tuple[Tensor, Tensor] | None,
    verdict: Tensor | None,
    weights: Mapping[str, float],
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the terms of the paper's loss, and L = (1 - sw - sg) L1 + sw E_sync + sg L_gen."""
    terms = {"l1": reconstruction(made, target)}
    if embedded_pair is not None:
        terms["sync"] = sync_loss(*embedded_pair)
    if verdict is not None:
        terms["quality"] = perceptual_loss(verdict.float())
    weighted = sum(w * terms[name] for name, w in weights.items() if w)
    return terms, (1 - sum(weights.values())) * terms["l1"] + weighted


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    options = make_parser(__doc__)
    options.add_argument(
        "--expert", required=True, help="a run's checkpoint (RUN/best.pt) or a weights file"
    )
    options.add_argument(
        "--start",
        help="a weights file or a bundled or pulled name, whose weights training begins with",
    )
    args = options.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = read_settings(args.run, Settings)
    plan, config = settings.plan, generator_config(settings)
    with join_processes(args.device) as world:
        if world.is_main:
            save_settings(args.out, settings, recipe="wav2lip")
            keep_arguments(args)
        beside = ", and two for each where the expert gets other clips' sound"
        check_divisible(
            settings.windows, "windows", world, least=1 + settings.expert_learns, beside=beside
        )
        least = settings.frames + 2 * settings.far
        clips, strangers = read_clips(args.shards, settings.framing, settings.size, least=least)
        strangers = choose_clips(strangers, settings.judged_clips)
        expert, judge = (read_expert(name).to(world.device) for name in (args.expert, args.judge))
        check_framings(config.framing, {args.expert: expert, args.judge: judge}, advice=OTHER_CROPS)
        _check_loss(expert, args.expert)
        seed_step(plan.seed)
        model = init_as_copy(Generator(config))
        _initialize(model, expert, settings, args)
        model.to(world.device, memory_format=torch.channels_last)
        average = copy.deepcopy(model).eval()
        critic = QualityDiscriminator(config_for_size(WAV2LIP_DISCRIMINATOR, settings.size))
        critic.to(world.device, memory_format=torch.channels_last)
        switch = Switch(settings.sync_below is None)

        parts = _make_parts(model, average, critic, expert, settings) | {"switch": switch}
        if settings.expert_statistics == "batch":
            remembering(expert)
        together = world.wrap(model)
        discriminate = world.wrap(critic) if settings.quality_weight else critic
        listen = world.wrap(expert) if settings.expert_learns else expert
        factor = make_schedule(settings.schedule, plan.steps, warmup=settings.warmup)
        draw = WindowDraw(
            clips,
            features=config.features,
            expert=expert.config,
            frames=settings.frames,
            far=settings.far,
        )
        loader = make_loader(draw, batch=settings.windows, seed=plan.seed, world=world)
        bfloat16 = choose_precision(settings.precision, world)

        def learn(batch: Batch, step: int) -> dict[str, Tensor]:
            sound, heard = batch["sound"].to(world.device), batch["heard"].to(world.device)
            target, reference, sound = _crop(batch, sound, settings, world, step)
            flat = target.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            rate = settings.rate * factor(step)
            # the first rank alone evaluates; no rank may leave this out
            switch.on = world.any(switch.on)
            weights = {"sync": settings.sync_weight * switch.on, "quality": settings.quality_weight}
            together.train()
            critic.requires_grad_(False)
            expert.requires_grad_(False)
            with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                made = together(sound.flatten(0, 1), flat, reference.flatten(0, 1)).float()
                seen = (
                    embedded(expert, expert.config, made.view_as(target), heard)
                    if weights["sync"]
                    else None
                )
                verdict = critic(made) if weights["quality"] else None
            terms, loss = _combine_losses(made, flat, seen, verdict, weights)
            norm = step_optimizer(loss, parts["optimiser"], rate=rate, clip_norm=settings.clip_norm)
            update_ema(average, model, step, decay=settings.decay)
            terms |= {"loss": loss, "gradient": norm}
            if settings.quality_weight:
                kept = parts["critic_optimiser"]
                terms |= train_critic(
                    critic,
                    discriminate,
                    flat,
                    made,
                    kept,
                    rate=rate,
                    clip_norm=settings.clip_norm,
                    bfloat16=bfloat16,
                )
            if settings.expert_learns:
                terms["expert"] = _expert_loss(
                    expert, listen, (target, made.view_as(target)), heard, bfloat16=bfloat16
                )
                step_optimizer(
                    terms["expert"],
                    parts["expert_optimiser"],
                    rate=rate,
                    clip_norm=settings.clip_norm,
                )
            return terms

        def evaluate(step: int) -> Evaluation:
            found = score_generator(average, strangers, judge, teacher=expert)
            if settings.sync_below is not None:
                switch.on = switch.on or found.figures["sync"] < settings.sync_below
            return found

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
