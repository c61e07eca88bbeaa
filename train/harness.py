"""The harness of the training recipes: a `Recipe` is settings and functions, and `run` is a run.

A run parses its command line, reads its data, builds its networks, takes its steps and evaluates:

    args, settings, processes -> `Job` -> data -> networks -> `Run` -> steps and evaluations
"""

import argparse
import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

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
from lipsync_core.training.checkpoints import Stateful, load_state
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.distributed import World, join_processes
from lipsync_core.training.loading import Loader, Sample, Share
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Batches, generator, seed_step, train
from lipsync_core.training.losses import discriminator_loss
from lipsync_core.training.optim import constant, step_optimizer, update_ema
from lipsync_core.training.settings import (
    has_checkpoint,
    load_settings,
    read_settings,
    save_settings,
)
from lipsync_core.training.sync_eval import remove_margin, side_without_margin
from lipsync_core.training.validation import choose_clips, score_generator

BEGAN = "began"  # folder in that of a run, of what it was begun with
# what enlarging adds nothing to but blur; Speech2Vid's 112 px of 96 are well below
_ENLARGED = 1.25
OTHER_CROPS = (
    "prepare such ones (python -m train.prepare IN OUT --framing), set framing in the run, and "
    "take expert and judge of the same kind; or take another network"
)

S = TypeVar("S")
D = TypeVar("D")
N = TypeVar("N", bound="Networks")


@dataclass(frozen=True, eq=False)
class Job(Generic[S]):
    """The beginning of a run.

    Attributes:
        args: the command line.
        settings: the named run; a dataclass with ``plan``, ``precision``, ``rate``, ``clip_norm``
            and ``decay``.
        world: the processes.
    """

    args: argparse.Namespace
    settings: S
    world: World

    def place(self, network: nn.Module) -> Any:
        """Move a network to the run's device, in the memory format of its convolutions."""
        return network.to(self.world.device, memory_format=torch.channels_last)  # pyright: ignore


@dataclass(frozen=True, eq=False)
class Data:
    """The clips of a run, and the frozen networks that its command line names.

    Attributes:
        clips: clips to train on.
        held_out: clips to evaluate on.
        judge: the expert that evaluates.
        expert: the expert that trains the generator.
        teacher: the network that the student learns from.
    """

    clips: list[Clip]
    held_out: list[Clip]
    judge: Any = None
    expert: Any = None
    teacher: Any = None


@dataclass(frozen=True, eq=False)
class Student:
    """The network that a run trains.

    Attributes:
        model: the network, as checkpoints hold it.
        averaged: the part of it that ships.
        average: moving average of ``averaged``, which is evaluated and exported.
        optimizer: the optimizer of ``model``.
        wrapped: the module to call in steps; its gradients are means over the processes.
        rate: returns the learning rate of a step.
        clip_norm: largest norm of the gradient.
        decay: decay of the average.
    """

    model: nn.Module
    averaged: nn.Module
    average: Any
    optimizer: torch.optim.Optimizer
    wrapped: nn.Module
    rate: Callable[[int], float]
    clip_norm: float
    decay: float

    def learn(self, loss: Tensor, step: int) -> Tensor:
        """Take one step down a loss, move the average, and return the gradient's norm."""
        norm = step_optimizer(loss, self.optimizer, rate=self.rate(step), clip_norm=self.clip_norm)
        update_ema(self.average, self.averaged, step, decay=self.decay)
        return norm


@dataclass(frozen=True, eq=False)
class Opponent:
    """A network that learns beside the student, such as a discriminator.

    Attributes:
        model: the network, as checkpoints hold it.
        optimizer: its optimizer.
        wrapped: the module to call where it learns.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    wrapped: nn.Module


MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def make_student(
    job: Job[Any],
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    *,
    schedule: Callable[[int], float] | None = None,
    averaged: nn.Module | None = None,
    forward: nn.Module | None = None,
) -> Student:
    """Return a student: average first, then optimizer, then the wrapped module.

    Args:
        job: the run.
        model: the network, on its device.
        make_optimizer: returns the optimizer of parameters.
        schedule: factor of the learning rate by step; 1 by default.
        averaged: the part that ships; all of it by default.
        forward: the module to call in steps; ``model`` by default.
    """
    settings, averaged, schedule = job.settings, averaged or model, schedule or constant()
    average = copy.deepcopy(averaged).eval()
    optimizer = make_optimizer(model.parameters())
    return Student(
        model,
        averaged,
        average,
        optimizer,
        wrapped=job.world.wrap(forward or model),
        rate=lambda step: settings.rate * schedule(step),
        clip_norm=settings.clip_norm,
        decay=settings.decay,
    )


def make_opponent(job: Job[Any], model: nn.Module, make_optimizer: MakeOptimizer) -> Opponent:
    """Return an opponent of a network that is on its device."""
    return Opponent(model, make_optimizer(model.parameters()), job.world.wrap(model))


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks that a run trains.

    Attributes:
        student: the network that the run is for.
        opponents: networks that learn beside it, by their names in checkpoints.
        others: what else a checkpoint holds.
    """

    student: Student
    opponents: Mapping[str, Opponent] = field(default_factory=dict[str, Opponent])
    others: Mapping[str, Stateful] = field(default_factory=dict[str, Stateful])

    @property
    def parts(self) -> dict[str, Stateful]:
        """The parts of a checkpoint."""
        student = self.student
        parts: dict[str, Stateful] = {"model": student.model, "average": student.average}
        parts["optimiser"] = student.optimizer
        for name, opponent in self.opponents.items():
            parts |= {name: opponent.model, f"{name}_optimiser": opponent.optimizer}
        return parts | dict(self.others)


@dataclass(frozen=True, eq=False)
class Run(Job[S], Generic[S, D, N]):
    """A run in progress.

    Attributes:
        data: what the recipe's ``read`` returned.
        networks: what its ``build`` returned.
        bfloat16: whether networks compute in bfloat16.
    """

    data: D
    networks: N
    bfloat16: bool

    def autocast(self) -> torch.autocast:
        """Return the context in which networks compute."""
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bfloat16)

    @property
    def student(self) -> Student:
        """The student among the networks."""
        return self.networks.student

    def noise(self, step: int, *key: int) -> torch.Generator:
        """Return the random generator of a step of this process."""
        key = self.settings.plan.seed, step, self.world.rank, *key
        return generator(*key, device=self.world.device)


AnyRun = Run[Any, Any, Any]


def adamw(
    rate: float, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0
) -> MakeOptimizer:
    """Return AdamW for parameters that are not known yet."""
    return partial(torch.optim.AdamW, lr=rate, betas=betas, weight_decay=weight_decay)


def score_average(run: AnyRun, step: int) -> Evaluation:
    """Evaluate the student's average with the judge on the held-out clips."""
    return score_generator(run.student.average, run.data.held_out, run.data.judge)


def describe(run: AnyRun, *more: str) -> str:
    """Describe a run by the numbers of its clips and processes."""
    parts = f"{len(run.data.clips)} clips", *more, f"{len(run.data.held_out)} held out"
    return f"{', '.join(parts)}, {describe_processes(run.world)}"


def describe_processes(world: World) -> str:
    """Describe the processes of a run."""
    return f"{world.size} processes on {world.device}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """A kind of training: its settings, and functions that `run` calls in this order.

    Attributes:
        name: name in settings.json.
        settings: dataclass of its named runs.
        network: from settings and the folder of a run to the network that ships.
        parse: returns the command line, see `parse_arguments`.
        read: from a `Job` to its data and frozen networks. Raises TrainingError for what does not
            fit together.
        build: from a `Job` and its data to the `Networks` to train. The random generators are
            seeded before.
        batches: from a `Run` to its batches.
        step: takes a run, a batch and the number of the step; makes one step of the optimizers and
            returns named terms, () each.
        evaluate: takes a run and the number of steps done; called on the first process.
        describe: returns the first line to print.
        finish: called after the last step on the first process.
    """

    name: str
    settings: type[Any]
    network: Callable[[Any, Path], nn.Module]
    parse: Callable[[list[str] | None], argparse.Namespace]
    read: Callable[[Job[Any]], Any]
    build: Callable[[Job[Any], Any], Networks]
    batches: Callable[[AnyRun], Batches[Any]]
    step: Callable[[AnyRun, Any, int], Mapping[str, Tensor]]
    evaluate: Callable[[AnyRun, int], Evaluation] = score_average
    describe: Callable[[AnyRun], str] = describe
    finish: Callable[[AnyRun], None] | None = None

    def load_trained(self, state: Path) -> Any:
        """Load the network of a run's checkpoint: the average that was evaluated.

        Args:
            state: last.pt or best.pt in the run's folder.

        Raises:
            TrainingError: the folder holds no such run or checkpoint.
        """
        model = self.network(load_settings(state.parent, self.settings), state.parent)
        load_state(state, {"average": model})
        return model


def run(recipe: Recipe, argv: list[str] | None = None) -> None:
    """Run the command line of a recipe.

    Args:
        recipe: the recipe.
        argv: the arguments; those of the process by default.

    Raises:
        SystemExit: the run was asked to end before its last step.
        LipSyncError: it cannot begin or go on.
    """
    args = recipe.parse(argv)
    torch.set_num_threads(args.threads)
    settings = read_settings(args.run, recipe.settings)
    with join_processes(args.device) as world:
        job = Job(args, settings, world)
        if has_checkpoint(args.out):
            _remember(recipe, job)  # an error if it began otherwise
        data = recipe.read(job)
        seed_step(settings.plan.seed)
        networks = recipe.build(job, data)
        _remember(recipe, job)
        # after all processes have wrapped their networks; it asks all of them
        bfloat16 = choose_precision(settings.precision, world)
        done = _train(recipe, Run(args, settings, world, data, networks, bfloat16))
    if not done:
        sys.exit(1)  # what waits for this run must not begin


def _remember(recipe: Recipe, job: Job[Any]) -> None:
    """Store settings and arguments in the run's folder, or check that they are those in it."""
    if not job.world.is_main:
        return
    save_settings(job.args.out, job.settings, recipe=recipe.name)
    names = [f.name for f in dataclasses.fields(RunArguments) if hasattr(job.args, f.name)]
    if names:
        named = RunArguments(**{name: getattr(job.args, name) for name in names})
        save_settings(job.args.out / BEGAN, named, run=job.args.out)


def _train(recipe: Recipe, run: AnyRun) -> bool:
    """Take the steps of a run, and return whether the last one is done."""
    batches, plan = recipe.batches(run), run.settings.plan
    if run.world.is_main:
        print_line(recipe.describe(run))
    with batches if isinstance(batches, Loader) else nullcontext():
        progress = train(
            partial(recipe.step, run),
            batches,
            plan=plan,
            parts=run.networks.parts,
            evaluate=partial(recipe.evaluate, run),
            out=run.args.out,
            world=run.world,
            say=print_line,
        )
    done = progress.step >= plan.steps
    if done and run.world.is_main and recipe.finish is not None:
        recipe.finish(run)
    return done


# arguments that several recipes take
SHARDS = {"shards": {"help": "what train.prepare wrote: a folder, or its URL"}}
EXPERT = {"required": True, "help": "a run's checkpoint (RUN/best.pt) or a weights file"}
START = {"help": "a weights file or a bundled or pulled name, whose weights training begins with"}
JUDGE = {
    "default": "judge",
    "help": "judges the held-out clips: bundled, a run's checkpoint or a weights file",
}


def parse_arguments(
    doc: str,
    argv: list[str] | None,
    *,
    inputs: Mapping[str, Mapping[str, Any]] = SHARDS,
    **options: Mapping[str, Any],
) -> argparse.Namespace:
    """Parse RUN, the inputs, OUT, the device, the threads and the options of a recipe.

    Args:
        doc: description of the command.
        argv: the arguments; those of the process by default.
        inputs: keywords of `ArgumentParser.add_argument` by argument.
        options: the same by option.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments = {
        "run": {"type": Path, "help": "the named run: a TOML file of train/configs"},
        **inputs,
        "out": {"type": Path},
        "--device": {"default": "auto", "choices": ["auto", "cpu", "cuda"]},
        "--threads": {
            "type": positive,
            "default": 1,
            "help": "of torch, in each process (default %(default)s)",
        },
        **{f"--{name}": keywords for name, keywords in options.items() if name != "start"},
    }
    for name, keywords in arguments.items():
        parser.add_argument(name, **keywords)
    if "start" in options:
        # torchrun refuses a script's --start: it could mean its own --start-method
        parser.add_argument("--start-from", "--start", dest="start", **options["start"])
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """Parse a number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number of at least 1")
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
    job: Job[Any],
    size: int,
    *,
    least: int,
    half: int | None = None,
    least_judged: int | None = None,
) -> tuple[list[Clip], list[Clip]]:
    """Load the clips of a run for training and for evaluation.

    Args:
        job: the run, whose settings have ``judged_clips`` and ``framing``.
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
    shards, framing = job.args.shards, getattr(job.settings, "framing", "aligned")
    taught = load_clips(f"{shards}/train", half=half, least=least)
    try:
        strangers = load_clips(f"{shards}/val", least=least_judged or least)
    except NoClipsError as error:
        raise NoClipsError(
            f"{error}. A run is judged on clips that it does not learn from: prepare two people or "
            "more, or again with --splits time, which keeps the end of every speaker's footage for "
            "that"
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
    return taught, choose_clips(strangers, job.settings.judged_clips)


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


def load_batches(run: AnyRun, draw: Callable[[np.random.Generator], Sample], batch: int) -> Loader:
    """Return the loader of this process's part of every batch.

    Args:
        run: the run.
        draw: returns one sample.
        batch: samples of a batch, over all processes.
    """
    world = run.world
    return Loader(
        draw,
        batch=batch,
        seed=run.settings.plan.seed,
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
            f"{count} {what} a step for {world.size} processes; expected a multiple{beside}"
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
    run: AnyRun,
    critic: Opponent,
    real: Tensor,
    made: Tensor,
    *,
    rate: float,
    clip_norm: float = math.inf,
) -> dict[str, Tensor]:
    """Take one step of a visual-quality discriminator.

    Args:
        run: the run.
        critic: the discriminator.
        real: photographs (N,3,S,S).
        made: generated faces (N,3,S,S).
        rate: the learning rate.
        clip_norm: largest norm of the gradient.

    Returns:
        The terms critic_real and critic_fake.
    """
    critic.model.requires_grad_(True)
    with run.autocast():
        verdicts = critic.wrapped(torch.cat([real, made.detach()]))
    found = discriminator_loss(*verdicts.chunk(2))
    loss = found["real"] + found["fake"]
    step_optimizer(loss, critic.optimizer, rate=rate, clip_norm=clip_norm)
    return {f"critic_{name}": term for name, term in found.items()}


def run_command(main: Callable[[], None]) -> None:
    """Run a recipe; errors that the user can correct are shown without a traceback."""
    try:
        main()
    except (LipSyncError, OSError) as error:
        sys.exit(f"error: {error}")


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
