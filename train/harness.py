"""The parts that the command lines of the recipes share."""

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
    """Return a parser of RUN SHARDS OUT, the device and, if wanted, the judge.

    Args:
        doc: description of the command.
        judge: whether there is an option for the judge.

    Returns:
        The parser.
    """
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
    """Parse a number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of at least 1")
    return int(text)


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The networks and data of a run, as named on its command line.

    Resuming with another judge, say, would compare two scales. An argument that a recipe does
    not take has its default.

    Attributes:
        judge: the expert that evaluates.
        expert: the expert that trains the generator.
        teacher: the network that the student learns from.
        start: the weights that training starts from.
        videos: further videos.
        speech: further recordings of speech.
    """

    judge: str | None = None
    expert: str | None = None
    teacher: str | None = None
    start: str | None = None
    videos: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()


def keep_arguments(
    args: argparse.Namespace, *, videos: tuple[str, ...] = (), speech: tuple[str, ...] = ()
) -> None:
    """Store the arguments of a run in OUT/began.

    Args:
        args: the parsed command line.
        videos: further videos.
        speech: further recordings of speech.

    Raises:
        TrainingError: OUT has checkpoints of a run with other arguments.
    """
    given = {name: getattr(args, name, None) for name in ("judge", "expert", "teacher", "start")}
    save_settings(
        args.out / BEGAN, RunArguments(**given, videos=videos, speech=speech), run=args.out
    )


def is_run_checkpoint(name: str) -> bool:
    """Return whether ``name`` is a checkpoint of a run; public weights may end in .pt too."""
    path = Path(name)
    return path.suffix == ".pt" and (path.parent / "settings.json").exists()


def init_audio_encoder_from_expert(expert: SyncExpert, model: Generator) -> bool:
    """Start with the expert's audio encoder, which separates visemes already.

    It takes windows of the same length.

    Args:
        expert: the expert.
        model: the generator, changed in place.

    Returns:
        False, with the model unchanged, if the encoders' shapes differ.
    """
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
    """Load clips for training and for evaluation.

    Args:
        shards: a prepared folder or its URL.
        framing: how crops must be cut.
        size: side of the network's input in pixels.
        least: least frames of a clip.
        half: train on one half of the clips, see `load_clips`.
        least_judged: least frames of a clip for evaluation; ``least`` by default.

    Returns:
        Clips to train on and clips to evaluate on.

    Raises:
        LipSyncError: there are none.
        TrainingError: the crops have another framing, or are much smaller than ``size``.
    """
    taught = load_clips(f"{shards}/train", half=half, least=least)
    try:
        strangers = load_clips(f"{shards}/val", least=least_judged or least)
    except NoClipsError as error:
        raise NoClipsError(
            f"{error}. A run is judged on clips that it does not learn from: prepare two people or "
            "more, or again with "
            "--splits time, which keeps the end of every speaker's footage for that"
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
    """Check that all networks take crops cut like these.

    Args:
        framing: how the crops are cut.
        networks: the networks by name.
        advice: end of the error message.

    Raises:
        TrainingError: a network takes crops cut differently.
    """
    for name, network in networks.items():
        if (wanted := network.config.framing) != framing:
            which = (
                f"as {wanted}"
                if wanted.kind == framing.kind
                else f"as {wanted.kind}, not {framing.kind}"
            )
            raise TrainingError(f"{name} wants crops cut {which}; {advice}")


def crop_batch(faces: Tensor, size: int, device: torch.device) -> Tensor:
    """Convert a loader's faces to network input.

    Args:
        faces: (B,F,C,C,3) uint8 with a margin of a twelfth on every side.
        size: side of the result in pixels.
        device: device of the result.

    Returns:
        (B,F,3,size,size) in [0,1].
    """
    planar = faces.to(device, non_blocking=True).flatten(0, 1).permute(0, 3, 1, 2)
    return remove_margin(planar, size).unflatten(0, faces.shape[:2])


def make_loader(
    draw: Callable[[np.random.Generator], Sample], *, batch: int, seed: int, world: World
) -> Loader:
    """Return the loader of this rank's part of every batch."""
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
    """Check that the processes can share the items of a step evenly.

    Args:
        count: number of items in a step.
        what: name of the items.
        world: the processes.
        least: least items of each process.
        beside: addition to the error message.

    Raises:
        TrainingError: they cannot.
    """
    if count % world.size or count < least * world.size:
        raise TrainingError(
            f"{count} {what} a step for {world.size} processes; wanted a multiple{beside}"
        )


def choose_precision(precision: Precision, world: World) -> bool:
    """Choose and print whether the networks of a run compute in bfloat16.

    Every rank must call this. ``auto`` takes bfloat16 if every process has units for it: all
    take the same.

    Args:
        precision: the precision of the settings.
        world: the processes.

    Returns:
        Whether it is bfloat16.
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
    """Take one step of a visual-quality discriminator.

    Args:
        critic: the discriminator.
        discriminate: the same, wrapped for all ranks.
        real: photographs (N,3,S,S).
        made: generated faces (N,3,S,S).
        optimiser: the discriminator's optimizer.
        rate: the learning rate.
        clip_norm: largest norm of the gradient.
        bfloat16: whether to compute in bfloat16.

    Returns:
        The terms critic_real and critic_fake.
    """
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
    """Print a description of the run and train.

    Args:
        learn: see `lipsync_core.training.loop.train`.
        loader: the batches.
        plan: length and intervals of the run.
        parts: models and optimizers of the checkpoint.
        evaluate: returns an evaluation.
        out: the run's folder.
        world: the processes.
        about: the description.

    Returns:
        Whether the run is finished; if not, steps that need its result must not start.
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
    """Run a recipe; errors that the user can correct are shown without a traceback."""
    try:
        main()
    except (LipSyncError, OSError) as error:
        sys.exit(f"error: {error}")


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
