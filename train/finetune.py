"""Fine-tune a generator on one person, from about a minute of footage.

    python -m train.finetune train/configs/finetune.toml VIDEO [VIDEO ...] OUT [--start mini-2]
    [--expert E] [--speech FILE]

VIDEO: a file, or a folder of them. One command does it all: it prepares the footage (OUT/shards,
see its report.html), takes the person who is seen longest, holds out the last fifth of the frames,
trains, writes OUT/NAME.safetensors, NAME being the folder's, for `lipsync dub --model`, and prints
what was gained on the held-out frames. The same command continues a run that was stopped.

--expert: judges the lips in training, a run's checkpoint or a weights file. The package has none
but the judge, which otherwise teaches and evaluates at once: its figures then prove nothing.
--speech: recordings of others, used for dubs in training beside the person's own words in disguised
voices.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lipsync_core.audio.features import log_mel
from lipsync_core.audio.ops import mix_to_mono
from lipsync_core.cli.progress import Bar
from lipsync_core.errors import LipSyncError, TrainingError, WeightsError
from lipsync_core.media import read_audio
from lipsync_core.models import hub
from lipsync_core.models.precision import Precision
from lipsync_core.models.quality_discriminator import PATCH_CRITIC, QualityDiscriminator
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import Generator
from lipsync_core.models.weights import load_model, read_header, save_model, weights_file
from lipsync_core.pipelines.demo import SPEECH
from lipsync_core.training.clips import FPS, RATE, Clip, load_clips
from lipsync_core.training.loading import Batch, Loader
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan
from lipsync_core.training.losses import perceptual_loss, slopes
from lipsync_core.training.optim import constant
from lipsync_core.training.prepare import settings as preparing
from lipsync_core.training.prepare.run import Splitting, prepare
from lipsync_core.training.prepare.sources import Source, find_sources
from lipsync_core.training.settings import has_checkpoint
from lipsync_core.training.shards import part, read_index
from lipsync_core.training.validation import choose_clips, score_generator
from train import harness
from train.eval_dubs import deviation, lips, load_dubs, only_at, read_talking_face, sync_term
from train.expert_weights import read_expert
from train.harness import BEGAN, Job, Networks, print_line
from train.wav2lip import varied

_START = "start.safetensors"  # in the folder BEGAN of a run, the weights it began with
# frames of a held-out clip: fewer tell the judge nothing; ``score_generator`` looks at no more
_LEAST, _PIECE = 20, 75
_REPORT = {
    "psnr": "lower half rebuilt, PSNR in dB",
    "copied": "the same by copying the reference",
    "confidence": "judge's confidence, dubs with own words",
    "foreign_confidence": "judge's confidence, dubs with a stranger's speech",
    "real": "judge's confidence, the footage itself",
    "within_one": "offset within one frame, own words",
    "foreign_within_one": "offset within one frame, a stranger's speech",
    "flicker": "flicker beyond the footage's own, levels of 255",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    The weights of the losses are those of `mini-2`'s recipe, but for ``sync_weight``.

    Attributes:
        windows: windows of a batch, over all processes.
        frames: frames of a window.
        far: least distance of the beginnings of a window and its reference, in frames.
        foreign: share of the windows that are dubs, as in `mini-2`'s recipe; with fewer, unseen
            speakers lost their sync there.
        held: share of the frames, the last ones, that is held out.
        gap: frames between those and what is learned from.
        least_seconds: least footage of the person.
        least_confidence: least confidence of a clip.
        l1_weight: weight of the mean error of the lower half.
        slope_weight: weight of the error's slopes, in which blur stands out.
        sync_weight: weight of ``sync_term`` on talking windows and dubs alike, a third of
            `mini-2`'s: the lips are right already, and with more of it and no critic dark spots
            grew beside them.
        photograph_weight: weight of the patch critic's verdict.
        rate: learning rate, a tenth of `mini-2`'s, so that a few hundred steps on one person do not
            unteach the voices of others.
        critic_rate: learning rate of the critic.
        warmup: steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and written.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    windows: int = 8
    frames: int = 7
    far: int = 5
    foreign: float = 0.5
    held: float = 0.2
    gap: int = 15
    least_seconds: float = 20.0
    least_confidence: float = 0.1
    l1_weight: float = 20.0
    slope_weight: float = 10.0
    sync_weight: float = 0.1
    photograph_weight: float = 0.1
    rate: float = 1e-4
    critic_rate: float = 2.5e-4
    warmup: int = 20
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    decay: float = 0.97
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        if min(self.windows, self.frames, self.far) < 1:
            raise ValueError(
                f"windows {self.windows}, frames {self.frames}, far {self.far}; expected 1 or more"
            )
        if not (0 < self.held < 1 and 0 <= self.foreign < 1 and self.gap >= 0):
            raise ValueError(
                f"held {self.held}, foreign {self.foreign}, gap {self.gap}; expected held between "
                "0 and 1, foreign from 0 to less than 1, and a gap of 0 or more"
            )


def started(name: str, out: Path) -> Generator:
    """Return the generator to start from, and keep a copy in ``out``.

    If the run has a checkpoint, the copy is used.

    Args:
        name: bundled or pulled name, or a weights file.
        out: the run's folder.

    Returns:
        The generator.

    Raises:
        TrainingError: the network is of another kind.
    """
    path = out / BEGAN / _START
    kept = path.exists() and has_checkpoint(out)
    model = load_model(path) if kept else read_talking_face(name)
    if not isinstance(model, Generator) or model.config.references != 1:
        raise TrainingError(
            f"{name} is a {type(model).__name__}, which is not trained here; expected `mini-2`, a "
            "Wav2Lip generator, or a run of one"
        )
    if not kept:
        licence, source = origin(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, path, licence=licence, source=source)
    return model


def origin(name: str) -> tuple[str, str]:
    """Return licence and source of weights, by their name."""
    unknown = "not stated by the weights that it was begun with", Path(name).name
    if Path(name).suffix == ".pt":
        return unknown
    try:
        header = read_header(weights_file(name))
    except WeightsError:
        return (hub.HUB[name].licence, name) if name in hub.HUB else unknown
    return header.licence, header.source


def footage(videos: Sequence[Path], out: Path) -> tuple[Path, list[Source]]:
    """Find the videos.

    Args:
        videos: files or folders.
        out: a folder that is left out.

    Returns:
        A folder above all of them, and the sources in order.

    Raises:
        LipSyncError: one is missing.
    """
    found: list[tuple[Path, Source]] = []
    for path in videos:
        if path.is_dir():
            found += [(path.resolve(), source) for source in find_sources(path, leave=out)]
        elif path.is_file():
            found.append((path.resolve().parent, Source(path.name, "video")))
        else:
            raise LipSyncError(f"{path} does not exist; expected a video, or a folder of them")
    try:
        root = Path(os.path.commonpath([folder for folder, _ in found]))
    except ValueError as error:
        raise LipSyncError(
            f"the videos lie on several drives ({error}); put them below one folder"
        ) from error
    names = {
        (folder / source.name).relative_to(root).as_posix(): source.kind for folder, source in found
    }
    return root, [Source(name, kind) for name, kind in names.items()]


def person(shards: Path, order: Sequence[str]) -> tuple[list[Clip], str]:
    """Return the clips of the person seen longest, in the order of time.

    Of clips that were filmed at one time, as in a mirror, the first counts.

    Args:
        shards: the prepared clips.
        order: names of the sources in order.

    Returns:
        The clips, and the person in words.
    """
    entries = [entry for entry in read_index(shards) if entry.facts["source"] in order]
    seen = Counter[str]()
    for entry in entries:
        seen[entry.speaker] += int(entry.facts["frames"])
    (who, most), *others = seen.most_common()
    told = f"{who}, seen for {float(most / FPS):.0f} s"
    if others:
        told += "; left out: " + ", ".join(
            f"{name} ({float(count / FPS):.0f} s)" for name, count in others
        )
    clips = {clip.name: clip for clip in load_clips(shards, least=1)}
    kept: list[Clip] = []
    end = ("", 0)
    for entry in sorted(
        entries, key=lambda entry: (order.index(entry.facts["source"]), entry.facts["start"])
    ):
        source, first = str(entry.facts["source"]), int(entry.facts["start"])
        if entry.speaker == who and (source != end[0] or first >= end[1]):
            kept.append(clips[entry.name])
            end = source, first + int(entry.facts["frames"])
    return kept, told


def parted(clips: Sequence[Clip], held: float, gap: int) -> tuple[list[Clip], list[Clip]]:
    """Divide clips, in the order of time, into training and held-out clips.

    Args:
        clips: clips of one person.
        held: share of the frames, the last ones, that is held out.
        gap: frames between the two that are in neither.

    Returns:
        Clips to train on, and held-out pieces of at most 75 frames.
    """
    total, at = sum(len(clip.faces) for clip in clips), 0
    cut = total - round(held * total)
    taught: list[Clip] = []
    kept: list[Clip] = []
    for clip in clips:
        count = len(clip.faces)
        stop, first = (min(max(place - at, 0), count) for place in (cut - gap, cut))
        if stop:
            taught.append(stretch(clip, 0, stop))
        if count - first >= _LEAST:
            pieces = -(-(count - first) // _PIECE)
            edges = np.linspace(first, count, pieces + 1).round().astype(int).tolist()
            kept += [stretch(clip, a, b) for a, b in pairwise(edges)]
        at += count
    return taught, kept


def stretch(clip: Clip, first: int, stop: int) -> Clip:
    """Return frames ``first`` to ``stop - 1`` of a clip."""
    return replace(clip, faces=part(clip.faces, first, stop), first=clip.first + first)


def voice(path: Path) -> Clip:
    """Return a recording as a clip of whose faces there is only the number."""
    sound = mix_to_mono(read_audio(path, rate=RATE))
    faces = np.zeros((int(sound.samples.shape[1] * FPS / RATE), 1, 1, 3), np.uint8)
    samples = (sound.samples[0] * 32767).round().clamp(-32768, 32767).short().numpy()
    return Clip(path.stem, str(path), faces, log_mel(sound), sound=samples)


def examined(model: Generator, clips: Sequence[Clip], judge: SyncExpert) -> Evaluation:
    """Evaluate on held-out clips with each other's words and with foreign words.

    The foreign words are the package's demo speech, which no training uses. The score is the
    mean of both.

    Args:
        model: the generator.
        clips: held-out clips.
        judge: the expert that scores.

    Returns:
        The evaluation.
    """
    own = score_generator(model, clips, judge)
    strange = score_generator(model, clips, judge, voices=parted([voice(SPEECH)], 1, 0)[1])
    foreign = {
        f"foreign_{name}": strange.figures[name]
        for name in ("confidence", "distance", "within_one", "flicker")
    }
    return Evaluation((own.score + strange.score) / 2, {**own.figures, **foreign}, strange.pictures)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line, and find the videos.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        The command line. ``root`` is a folder above all ``sources``, which ``videos`` names.

    Raises:
        LipSyncError: a video is missing.
    """
    args = harness.parse_arguments(
        __doc__,
        argv,
        inputs={
            "videos": {
                "metavar": "VIDEO",
                "type": Path,
                "nargs": "+",
                "help": "a video, or a folder of them",
            }
        },
        start={
            "default": "mini-2",
            "help": "bundled or pulled name, weights file or RUN/best.pt (default mini-2)",
        },
        expert={"help": "teaches: RUN/best.pt or a weights file (default: the judge)"},
        judge={
            "default": "judge",
            "help": "judges the held-out frames: bundled, a file or RUN/best.pt",
        },
        speech={
            "action": "append",
            "type": Path,
            "default": [],
            "help": "a recording; may be given several times",
        },
    )
    args.root, args.sources = footage(args.videos, args.out)
    args.videos = tuple(source.name for source in args.sources)
    args.speech = tuple(str(path.resolve()) for path in args.speech)
    return args


@dataclass(frozen=True, eq=False)
class Data(harness.Data):
    """The clips and networks of a run.

    Attributes:
        person: the person in words.
    """

    person: str = ""


Run = harness.Run[Settings, Data, Networks]


def read(job: Job[Settings]) -> Data:
    """Prepare the videos, and read the clips of the person and the experts."""
    args, settings, world = job.args, job.settings, job.world
    harness.check_divisible(settings.windows, "windows", world)
    expert, judge = (
        read_expert(name).to(world.device) for name in (args.expert or args.judge, args.judge)
    )
    shards = args.out / "shards"
    if world.is_main:
        model = started(args.start, args.out)
        harness.check_framings(
            model.config.framing,
            {args.expert or args.judge: expert, args.judge: judge},
            advice=f"name --expert and --judge that were trained on crops such as {args.start} "
            "wants",
        )
        prepare_videos(job, model, shards)
    world.any(False)  # the others wait
    clips, told = person(shards / "train", args.videos)
    taught, held_out = parted(clips, settings.held, settings.gap)
    seconds = float(sum(len(clip.faces) for clip in clips) / FPS)
    long = [clip for clip in taught if len(clip.faces) >= settings.frames + 2 * settings.far]
    if seconds < settings.least_seconds or not (long and held_out):
        raise TrainingError(
            f"{told}: too little to learn from and be judged on, expected "
            f"{settings.least_seconds:g} s on end; give more footage, and see "
            f"{shards / 'report.html'} for what was left out"
        )
    # all, if one alone is not too short
    return Data(taught, choose_clips(held_out, len(held_out)), judge, expert, person=told)


def prepare_videos(job: Job[Settings], model: Generator, shards: Path) -> None:
    """Write the shards of the videos, as a generator takes them, with progress."""
    args = job.args
    with Bar() as bar:
        prepare(
            args.root,
            shards,
            only=args.sources,
            settings=preparing.Settings(
                size=model.config.size,
                framing="aligned" if model.config.framing.kind == "aligned" else "box",
                least_confidence=job.settings.least_confidence,
            ),
            splitting=Splitting("likeness", val=0, test=0),
            processes=min(len(args.sources), os.cpu_count() or 1),
            on_progress=bar,
        )


def load_start(job: Job[Settings]) -> Generator:
    """Load the generator that the run began with, in evaluation mode.

    Batch norms keep their statistics in training: those of a minute, and of one person's light,
    would be worse for all others.
    """
    return job.place(load_model(job.args.out / BEGAN / _START))


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the generator and its critic."""
    settings, model = job.settings, load_start(job)
    optimizer = harness.adamw(settings.rate, (0.9, 0.99), settings.weight_decay)
    schedule = constant(warmup=settings.warmup)
    student = harness.make_student(job, model, optimizer, schedule=schedule)
    critic = job.place(QualityDiscriminator(replace(PATCH_CRITIC, size=model.config.size)))
    optimizer = harness.adamw(settings.critic_rate, (0.5, 0.99), 1e-3)
    return Networks(student, {"critic": harness.make_opponent(job, critic, optimizer)})


def load_batches(run: Run) -> Loader:
    """Return the batches of the person's talking windows and dubs."""
    return load_dubs(run, [*run.data.clips, *map(voice, map(Path, run.args.speech))])


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the generator, then one of the critic."""
    settings, student, critic = run.settings, run.student, run.networks.opponents["critic"]
    size, device, noise = student.average.config.size, run.world.device, run.noise(step)
    sound, heard, talking = (batch[name].to(device) for name in ("sound", "heard", "talking"))
    target, reference, sound = varied(batch, sound, size, noise)
    flat = [
        x.flatten(0, 1).contiguous(memory_format=torch.channels_last) for x in (target, reference)
    ]
    around = lips(size, device)
    critic.model.requires_grad_(False)
    with run.autocast():
        made = student.wrapped(sound.flatten(0, 1), *flat).float().view_as(target)
        sync = sync_term(run.data.expert, only_at(made, around), heard, noise)
        photograph = perceptual_loss(critic.model(made.flatten(0, 1)))
    off = deviation(made, target, talking, around)
    terms = {"l1": off.abs().mean(), "slope": slopes(off), "sync": sync, "photograph": photograph}
    weights = {name: getattr(settings, f"{name}_weight") for name in terms}
    loss = sum((weights[name] * term for name, term in terms.items()), made.new_zeros(()))
    norm = student.learn(loss, step)
    both = target.flatten(0, 1), made.flatten(0, 1)
    terms |= harness.train_critic(run, critic, *both, rate=settings.critic_rate)
    return terms | {"loss": loss, "gradient": norm}


def evaluate(run: Run, step: int) -> Evaluation:
    """Evaluate the average with the person's own words and with foreign ones."""
    return examined(run.student.average, run.data.held_out, run.data.judge)


def describe(run: Run) -> str:
    """Describe the run by the person and the numbers of frames."""
    learnt, held = (
        sum(len(clip.faces) for clip in clips) for clips in (run.data.clips, run.data.held_out)
    )
    return (
        f"{run.data.person}. {learnt} frames to learn from, {held} held out, "
        f"{harness.describe_processes(run.world)}"
    )


def finish(run: Run) -> None:
    """Write the weights, and print what was gained."""
    out, data = run.args.out, run.data
    path = out / f"{out.resolve().name}.safetensors"
    header = read_header(out / BEGAN / _START)
    best = RECIPE.load_trained(out / "best.pt")
    source = f"{header.source}; fine-tuned on one person by train/finetune.py"
    save_model(best, path, licence=header.licence, source=source, dtype=torch.float16)
    before, after = (
        examined(model, data.held_out, data.judge)
        for model in (load_start(run), run.place(best).eval())
    )
    tell(before, after, path, independent=bool(run.args.expert))


def tell(before: Evaluation, after: Evaluation, path: Path, *, independent: bool) -> None:
    """Print the evaluations before and after, and where the weights are."""
    print_line("\n| held out | before | after |\n|---|---|---|")
    for name, title in _REPORT.items():
        print_line(f"| {title} | {before.figures[name]:.3f} | {after.figures[name]:.3f} |")
    print_line("\nThe step was chosen on these very frames, so they are a little kind.")
    if not independent:
        print_line(
            "The judge taught as well: its confidence and offsets are no independent verdict; "
            "--expert makes them one."
        )
    if after.score <= before.score:
        print_line(
            f"No step was better than the start (score {before.score:.3f}, best "
            f"{after.score:.3f}): rather keep that one."
        )
    print_line(f"{path}: try it with lipsync dub VIDEO SPEECH OUT.mp4 --model {path}")


RECIPE = harness.Recipe(
    name="finetune",
    settings=Settings,
    network=lambda settings, out: Generator(read_header(out / BEGAN / _START).config),
    parse=parse,
    read=read,
    build=build,
    batches=load_batches,
    step=step,
    evaluate=evaluate,
    describe=describe,
    finish=finish,
)
main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
