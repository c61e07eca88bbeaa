"""Train the network that predicts the shape of the lips from speech.

    python -m train.speech_lips train/configs/speech-lips-first.toml DATA LABELS A
    python -m train.speech_lips train/configs/speech-lips.toml DATA LABELS B --teacher A/best.pt

DATA holds talking clips of many people, LABELS what label_landmarks.py wrote of them
(`train.talks`). A short first run measures by how many frames the lips of each person's clips are
late; the second one takes that into account. The same command continues a run that was stopped.
"""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_core.audio.features import MelFeatures, mean_columns, subtract_spectrum
from lipsync_core.errors import TrainingError
from lipsync_core.models.precision import Precision
from lipsync_core.models.speech_lips import SpeechLips, SpeechLipsConfig
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Draws, Plan
from lipsync_core.training.optim import warmup_cosine
from train import harness
from train.harness import Job, Networks
from train.talks import (
    HELD_OUT,
    TEACHING,
    Talk,
    group_by_person,
    measure_offsets,
    normalize,
    read_talks,
    score_people,
)

CLIPS, WINDOWS, SILENT = 16, 14, 28  # of a step: clips, windows of each, and windows of silence
FEW = 900  # frames: people of whom there are fewer are drawn less often
LEVEL = 12.5  # dB of one unit of log-mel
WEIGHTS = (2.0, 1.0, 1.0)  # of opening, width and jaw in the loss
_BEST = ("opening", "width", "jaw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Attributes:
        folders: folders of DATA whose clips teach.
        held_out: folders of DATA whose clips are evaluated on.
        leave_out: people of ``folders`` who teach nothing and are evaluated on.
        width: of the network's layers.
        relative: share of the sound's own mean spectrum that is subtracted; 0.9 helps voices that
            nothing in the training data resembles (docs/decisions.md).
        rate: learning rate.
        warmup: steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    folders: tuple[str, ...] = TEACHING
    held_out: tuple[str, ...] = HELD_OUT
    leave_out: tuple[str, ...] = ()
    width: int = 128
    relative: float = 0.0
    rate: float = 2e-3
    warmup: int = 240
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    decay: float = 0.995
    precision: Precision = "float32"
    plan: Plan


def network_config(settings: Settings) -> SpeechLipsConfig:
    """Return the configuration of a run's network."""
    config = SpeechLipsConfig(settings.width)
    return replace(config, features=replace(config.features, relative=settings.relative))


@dataclass(frozen=True, slots=True, eq=False)
class Talks:
    """The clips of a run.

    Attributes:
        clips: clips that teach.
        held_out: clips to evaluate on.
    """

    clips: list[Talk]
    held_out: list[Talk]


class Batch(NamedTuple):
    """Windows of several clips, and of silence."""

    mels: Tensor  # (N,1,80,T)
    shapes: Tensor  # (N,3)


Run = harness.Run[Settings, Talks, Networks]


def augment(mel: Tensor, rng: torch.Generator) -> Tensor:
    """Return windows (K,80,T) of one clip as another voice, microphone and room would have them."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    bands = mel.shape[1]
    if uniform(0, 1) < 0.7:  # formants and pitch: up to 5 bands
        shift = int(torch.randint(-5, 6, (), generator=rng))
        mel = mel.roll(shift, 1)
        if shift > 0:
            mel[:, :shift] = mel[:, shift : shift + 1]
        elif shift < 0:
            mel[:, shift:] = mel[:, shift - 1 : shift]
    tone = F.interpolate(
        torch.randn(1, 1, 6, generator=rng) * 0.25, (bands,), mode="linear", align_corners=True
    )[0, 0]
    # of what is heard of the clip: quiet recordings must not drown in noise
    loud = float(mel.mean(1).quantile(0.9))
    gain = uniform(-0.8, 0.5)
    mel = (mel + gain + tone[:, None]).clamp(-4, 4)
    if uniform(0, 1) < 0.2:  # a room: what sounded before is still heard
        decay = uniform(0.5, 0.85)
        kept = [mel[..., 0]]
        for step in mel.unbind(2)[1:]:
            kept.append(torch.maximum(step, kept[-1] - (1 - decay) * 1.6))
        mel = torch.stack(kept, 2)
    if uniform(0, 1) < 0.35:  # 10 to 45 dB below the speech
        mel = add_noise(mel, loud + gain - uniform(0.8, 3.6) + 0.5 * tone.flip(0)[:, None], rng)
    return mel + torch.randn(mel.shape, generator=rng) * 0.05


def add_noise(mel: Tensor, floor: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``mel`` (K,80,T) over a noise whose level is ``floor`` (80,1): powers add."""
    # 5.6 dB: Rayleigh-distributed magnitudes
    noise = floor + torch.randn(mel.shape, generator=rng) * 0.45
    scale = LEVEL / 10
    return ((10 ** (mel * scale) + 10 ** (noise * scale)).log10() / scale).clamp(-4, 4)


def silence(count: int, steps: int, rng: torch.Generator) -> Tensor:
    """Draw windows without speech: digital silence, and noise of any color up to -45 dBFS.

    Args:
        count: number of windows.
        steps: columns of a window.
        rng: the generator.

    Returns:
        (count,80,steps).
    """
    floor = torch.rand(count, 1, 1, generator=rng) * 4.2 - 4.3
    points = torch.randn(count, 1, 5, generator=rng) * 0.6
    tone = F.interpolate(points, (80,), mode="linear", align_corners=True)[:, 0, :, None]
    mel = (floor + tone + torch.randn(count, 80, steps, generator=rng) * 0.45).clamp(-4, 4)
    mel[: count // 4] = -4
    for window in mel[
        count // 2 :
    ]:  # where a recording begins or ends, noise does so at once: that is no speech either
        place = int(torch.randint(1, steps, (), generator=rng))
        part = (
            window[:, :place] if float(torch.rand((), generator=rng)) < 0.5 else window[:, place:]
        )
        part[:] = -4
    return mel


def subtract_mean(windows: Tensor, features: MelFeatures) -> Tensor:
    """Subtract from windows (K,80,T) of one clip the mean spectrum of their columns."""
    mean = mean_columns(windows.transpose(0, 1).flatten(1))
    return subtract_spectrum(windows, mean, features)


def draw_silence(heard: list[Tensor], features: MelFeatures, rng: torch.Generator) -> Tensor:
    """Draw windows without speech: of pauses in talks, and of sounds that are silent throughout.

    Args:
        heard: windows (K,80,T) of each talk, before their means are subtracted.
        features: of the network.
        rng: the generator.

    Returns:
        (SILENT,80,T) less the mean spectra of the talks, or of the silence itself.
    """
    drawn = silence(SILENT, features.steps, rng)
    rows = []
    for window in drawn:
        talk = int(torch.randint(-len(heard), len(heard), (), generator=rng))
        around = heard[talk] if talk >= 0 else window[None]
        mean = mean_columns(around.transpose(0, 1).flatten(1))
        rows.append(subtract_spectrum(window, mean, features))
    return torch.stack(rows)


def draw(people: dict[str, list[Talk]], features: MelFeatures, rng: torch.Generator) -> Batch:
    """Draw a batch: people evenly, but for those of whom there is little.

    Args:
        people: the clips of each person.
        features: of the network.
        rng: the generator.
    """
    frames = [float(sum(len(talk.target) for talk in own)) for own in people.values()]
    weights, every = torch.tensor(frames).clamp_max(FEW), list(people.values())
    heard: list[Tensor] = []
    shapes: list[Tensor] = []
    for person in torch.multinomial(weights, CLIPS, replacement=True, generator=rng).tolist():
        own = every[person]
        talk = own[int(torch.randint(len(own), (), generator=rng))]
        low, high = max(0, -talk.offset), len(talk.target) - max(0, talk.offset)
        at = torch.randint(low, high, (WINDOWS,), generator=rng)
        heard.append(augment(talk.windows(at, features), rng))
        shapes.append(talk.target[at + talk.offset])
    quiet = draw_silence(heard, features, rng)
    mels = torch.cat([*(subtract_mean(windows, features) for windows in heard), quiet])
    return Batch(mels[:, None], torch.cat([*shapes, torch.zeros(SILENT, 3)]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return harness.parse_arguments(
        __doc__,
        argv,
        inputs={
            "data": {"type": Path, "help": "folder of folders of talking clips"},
            "labels": {"type": Path, "help": "what label_landmarks.py wrote"},
        },
        teacher={"help": "checkpoint of a run that measures the clips' offsets"},
    )


def read(job: Job[Settings]) -> Talks:
    """Read the clips."""
    settings, args, features = job.settings, job.args, network_config(job.settings).features
    every = read_talks(args.data, args.labels, settings.folders, features)
    taught = normalize([talk for talk in every if talk.person not in settings.leave_out])
    held_out = [talk for talk in every if talk.person in settings.leave_out]
    held_out += read_talks(args.data, args.labels, settings.held_out, features)
    if not taught or not held_out:
        raise TrainingError(
            f"{args.labels} has labels of {len(taught)} clips of {', '.join(settings.folders)} in "
            f"{args.data}, and of {len(held_out)} of {', '.join(settings.held_out)}; label some of "
            "both (train/label_landmarks.py)"
        )
    if args.teacher is not None:
        teacher = RECIPE.load_trained(Path(args.teacher)).eval()
        taught = measure_offsets(teacher, taught, teacher.config.features)
    return Talks(taught, held_out)


def build(job: Job[Settings], data: Talks) -> Networks:
    """Build the network."""
    settings = job.settings
    optimizer = harness.adamw(settings.rate, weight_decay=settings.weight_decay)
    schedule = warmup_cosine(settings.plan.steps, warmup=settings.warmup, least=1e-3)
    model = SpeechLips(network_config(settings)).to(job.world.device)
    return Networks(harness.make_student(job, model, optimizer, schedule=schedule))


def batches(run: Run) -> Draws[Batch]:
    """Return the batches of this process."""
    people, features = group_by_person(run.data.clips), network_config(run.settings).features
    world = run.world

    def draw_of(step: int) -> Batch:
        seed = (run.settings.plan.seed * 1_000_003 + step) * world.size + world.rank
        return draw(people, features, torch.Generator().manual_seed(seed))

    return Draws(draw_of)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step."""
    student, device = run.student, run.world.device
    student.wrapped.train()
    with run.autocast():
        found = student.wrapped(batch.mels.to(device))
    off = F.smooth_l1_loss(found.float(), batch.shapes.to(device), reduction="none").mean(0)
    loss = (off * torch.tensor(WEIGHTS, device=device)).mean()
    norm = student.learn(loss, step)
    return {"loss": loss, "gradient": norm, **dict(zip(_BEST, off, strict=True))}


def evaluate(run: Run, step: int) -> Evaluation:
    """Evaluate the average on the held-out clips, each person's offset measured first."""
    net, features = run.student.average.eval(), network_config(run.settings).features
    talks = measure_offsets(net, run.data.held_out, features)
    people = score_people(net, talks, features)
    figures = {
        f"{person} {what}": round(value, 4)
        for person, values in people.items()
        for what, value in zip(_BEST, values, strict=True)
    }
    score = sum(values[0] for values in people.values()) / len(people)
    return Evaluation(score, {"opening": round(score, 4), **figures})


RECIPE = harness.Recipe(
    name="speech_lips",
    settings=Settings,
    network=lambda settings, out: SpeechLips(network_config(settings)),
    parse=parse,
    read=read,
    build=build,
    batches=batches,
    step=step,
    evaluate=evaluate,
)
main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
