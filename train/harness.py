"""What the command lines of the recipes share."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lipsync_core.errors import LipSyncError, NoClipsError, TrainingError
from lipsync_core.image.affine import Framing
from lipsync_core.models.precision import (
    SLOW_BFLOAT16,
    Precision,
    choose_training_dtype,
    has_bfloat16_units,
)
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import Generator
from lipsync_core.training.checkpoints import Stateful
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.distributed import World
from lipsync_core.training.loading import Loader, Sample, Share
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Draws, Plan, train
from lipsync_core.training.losses import discriminator_loss
from lipsync_core.training.optim import step_optimizer
from lipsync_core.training.settings import save_settings
from lipsync_core.training.sync_eval import remove_margin, side_without_margin

BEGAN = "began"  # folder in that of a run, of what it was begun with
# what enlarging adds nothing to but blur; Speech2Vid's 112 px of 96 are well below
_ENLARGED = 1.25
OTHER_CROPS = (
    "prepare such ones (python -m train.prepare IN OUT --framing), set framing in the run, and "
    "take expert and judge of the "
    "same kind; or take another network"
)


def make_parser(doc: str | None, *, judge: bool = True) -> argparse.ArgumentParser:
    """RUN SHARDS OUT, where to compute, and, where wanted, by whom to be judged."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", type=Path, help="the named run: a TOML file of train/configs")
    made.add_argument("shards", help="what train.prepare wrote: a folder, or its URL")
    made.add_argument("out", type=Path)
    made.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    made.add_argument(
        "--threads",
        type=positive,
        default=1,
        help="of torch, in each process (default %(default)s)",
    )
    if judge:
        made.add_argument(
            "--judge",
            default="judge",
            help="judges the held-out clips: bundled, a run's checkpoint or a weights file",
        )
    return made


def positive(text: str) -> int:
    """What a command line gives as a number of things, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of at least 1")
    return int(text)


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What a run was given on its command line, as it was named there: going on with another judge,
    say, would compare two scales. What its recipe does not take has its default."""

    judge: str | None = None
    expert: str | None = None
    teacher: str | None = None
    start: str | None = None
    videos: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()


def keep_arguments(
    args: argparse.Namespace, *, videos: tuple[str, ...] = (), speech: tuple[str, ...] = ()
) -> None:
    """Keep in OUT/began what the run was given.

    TrainingError where it has checkpoints of something else.
    """
    given = {name: getattr(args, name, None) for name in ("judge", "expert", "teacher", "start")}
    save_settings(
        args.out / BEGAN, RunArguments(**given, videos=videos, speech=speech), run=args.out
    )


def is_run_checkpoint(name: str) -> bool:
    """Whether ``name`` is a checkpoint in a run's folder; public weights may end in .pt, too."""
    path = Path(name)
    return path.suffix == ".pt" and (path.parent / "settings.json").exists()


def init_audio_encoder_from_expert(expert: SyncExpert, model: Generator) -> bool:
    """Begin with the expert's audio encoder, which already tells visemes apart and hears windows of
    the same length. False, and nothing is lent, where it is of another shape."""
    own = model.audio_encoder.state_dict()
    lent = {key: value for key, value in expert.audio_encoder.state_dict().items() if key in own}
    if any(value.shape != own[key].shape for key, value in lent.items()):
        return False
    model.audio_encoder.load_state_dict(own | lent)
    return True


def read_clips(
    shards: str,
    framing: str,
    size: int,
    *,
    least: int,
    half: int | None = None,
    least_judged: int | None = None,
) -> tuple[list[Clip], list[Clip]]:
    """Clips to learn from (one ``half`` of them, see `load_clips`), and to be judged on.

    LipSyncError where there are none, TrainingError for crops of another ``framing``, or much
    smaller ones than a network of ``size`` px wants.
    """
    taught = load_clips(f"{shards}/train", half=half, least=least)
    try:
        strangers = load_clips(f"{shards}/val", least=least_judged or least)
    except NoClipsError as error:
        raise NoClipsError(
            f"{error}. A run is judged on clips that it does not learn from: prepare two people or "
            "more, or anew with "
            "--splits time, which keeps the end of everybody's footage for that"
        ) from error
    if kinds := {clip.framing.kind for clip in (*taught, *strangers)} - {framing}:
        raise TrainingError(
            f"{shards} holds {', '.join(kinds)} crops; this run wants {framing} ones: prepare "
            "them, or set framing"
        )
    if (
        side := min(side_without_margin(clip.faces.shape[1]) for clip in (*taught, *strangers))
    ) * _ENLARGED < size:
        raise TrainingError(
            f"{shards} holds crops of {side} px, this run wants {size}: prepare larger ones "
            f"(--size {size})"
        )
    return taught, strangers


def check_framings(framing: Framing, networks: Mapping[str, nn.Module], *, advice: str) -> None:
    """TrainingError, which ends in ``advice``, where one of the ``networks``, by name, wants crops
    cut otherwise."""
    for name, network in networks.items():
        if (wanted := network.config.framing) != framing:
            which = (
                f"as {wanted}"
                if wanted.kind == framing.kind
                else f"as {wanted.kind}, not {framing.kind}"
            )
            raise TrainingError(f"{name} wants crops cut {which}; {advice}")


def crop_batch(faces: Tensor, size: int, device: torch.device) -> Tensor:
    """What a loader gives, (B,F,C,C,3) uint8 with a margin of a twelfth all round ->
    (B,F,3,size,size) in [0,1]."""
    planar = faces.to(device, non_blocking=True).flatten(0, 1).permute(0, 3, 1, 2)
    return remove_margin(planar, size).unflatten(0, faces.shape[:2])


def make_loader(
    draw: Callable[[np.random.Generator], Sample], *, batch: int, seed: int, world: World
) -> Loader:
    """The loader of this rank's part of every batch."""
    return Loader(
        draw,
        batch=batch,
        seed=seed,
        share=Share(world.rank, world.size),
        pin=world.device.type == "cuda",
    )


def check_divisible(
    count: int, what: str, world: World, *, least: int = 1, beside: str = ""
) -> None:
    """TrainingError where the ``count`` of ``what`` in a step cannot be shared out evenly,
    ``least`` for each process; ``beside`` tells of that."""
    if count % world.size or count < least * world.size:
        raise TrainingError(
            f"{count} {what} a step for {world.size} processes; wanted a multiple{beside}"
        )


def choose_precision(precision: Precision, world: World) -> bool:
    """Whether the networks of a run compute in bfloat16.

    Says which it is. ``auto`` takes it where every process has units for it: all take the same. To
    be called by every rank.
    """
    lower = choose_training_dtype(world.device, precision) == torch.bfloat16
    if precision == "auto":
        lower = not world.any(not lower)
    if world.is_main:
        print_line(
            f"precision: {'bfloat16' if lower else 'float32'}"
            + (" (auto)" if precision == "auto" else "")
        )
        if lower and world.device.type == "cpu" and not has_bfloat16_units(world.device):
            print_line(f"warning: {SLOW_BFLOAT16}")
    return lower


def train_critic(
    critic: nn.Module,
    discriminate: nn.Module,
    real: Tensor,
    made: Tensor,
    optimiser: torch.optim.Optimizer,
    *,
    rate: float,
    clip_norm: float = math.inf,
    bfloat16: bool,
) -> dict[str, Tensor]:
    """One step of a visual-quality discriminator, which is ``discriminate`` to all ranks, on
    photographs and on what a generator made, (N,3,S,S) both. Returns the terms critic_real and
    critic_fake."""
    critic.requires_grad_(True)
    with torch.autocast(real.device.type, torch.bfloat16, enabled=bfloat16):
        verdicts = discriminate(torch.cat([real, made.detach()]))
    found = discriminator_loss(*verdicts.chunk(2))
    step_optimizer(found["real"] + found["fake"], optimiser, rate=rate, clip_norm=clip_norm)
    return {f"critic_{name}": term for name, term in found.items()}


def run_training(
    learn: Callable[[Any, int], Mapping[str, Tensor]],
    loader: Loader | Draws[Any],
    *,
    plan: Plan,
    parts: Mapping[str, Stateful],
    evaluate: Callable[[int], Evaluation],
    out: Path,
    world: World,
    about: str,
) -> bool:
    """Say what the run is ``about``, train, and tell whether it came to its end.

    Otherwise what waits for it must not begin.
    """
    if world.is_main:
        print_line(about)
    with loader if isinstance(loader, Loader) else nullcontext():
        progress = train(
            learn,
            loader,
            plan=plan,
            parts=parts,
            evaluate=evaluate,
            out=out,
            world=world,
            say=print_line,
        )
    return progress.step >= plan.steps


def run_command(main: Callable[[], None]) -> None:
    """Run a recipe; what the user can mend needs no traceback."""
    try:
        main()
    except (LipSyncError, OSError) as error:
        sys.exit(f"error: {error}")


def print_line(line: str) -> None:
    print(line, flush=True)
