"""Train the generator that ships as `mini-2`: it redraws the lower half of a face from sound.

    python -m train.mini train/configs/mini.toml SHARDS OUT --teacher runs/teacher/best.pt
    torchrun --nproc-per-node 4 -m train.mini train/configs/mini.toml SHARDS OUT
        --teacher runs/teacher/best.pt

The teacher is a frozen expert. Each step sees two kinds of clips: talking ones (rebuild the frames:
L1, slopes, sync) and foreign ones, other footage or photographs with another person's sound (no
truth: sync, and L1 that is weak at the mouth). The same command continues a run that was stopped.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lipsync_core.errors import TrainingError
from lipsync_core.metrics.sync import SEARCH
from lipsync_core.models.precision import Precision
from lipsync_core.models.quality_discriminator import PATCH_CRITIC, QualityDiscriminator
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import MINI, Generator, init_as_copy, warp_reference
from lipsync_core.training.augment import (
    degrade,
    disguise,
    disturb,
    elsewhere,
    grimace,
    recolor,
    warp_grid,
)
from lipsync_core.training.clips import Clip, speaker_weights
from lipsync_core.training.distributed import World
from lipsync_core.training.loop import Draws, Plan, generator
from lipsync_core.training.losses import mouth, perceptual_loss, shift_loss, slopes
from lipsync_core.training.optim import warmup_cosine
from lipsync_core.training.sync_eval import resize_faces
from train import harness
from train.eval_dubs import begin_mini
from train.expert_weights import read_expert
from train.harness import JUDGE, START, Job, Networks

SIZE = MINI.size
_HEARD = 2000  # clips of which is kept what the teacher heard: some 200 kB each


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the terms that ``losses`` returns."""

    l1: float = 30.0
    slopes: float = 15.0
    sync: float = 0.2
    bend: float = 0.5
    foreign_l1: float = 12.0
    foreign_slopes: float = 3.0
    foreign_sync: float = 0.3
    photograph: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Attributes:
        talking: talking clips of a batch, over all processes.
        foreign: foreign clips of a batch; every other one is a photograph if there are any.
        frames: frames of each clip; the teacher judges all its windows among them together.
        far: least distance of the beginnings of a clip and its reference, in frames.
        apart: shifts of fewer frames are no rivals.
        moved_heads: share of the references that are turned and shifted a little, so that the flow
            learns to bring them into place.
        weights: weights of the losses.
        rate: learning rate.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup: steps in which the rate rises.
        clip_norm: largest norm of the gradient.
        critic_rate: constant learning rate of the patch critic.
        critic_betas: of its AdamW.
        critic_weight_decay: of its AdamW.
        decay: of the moving average that is evaluated and exported.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    talking: int = 4
    foreign: int = 4
    frames: int = 7
    far: int = 5
    apart: int = 3
    moved_heads: float = 0.7
    weights: Weights = Weights()
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup: int = 100
    clip_norm: float = 1.0
    critic_rate: float = 2.5e-4
    critic_betas: tuple[float, float] = (0.5, 0.99)
    critic_weight_decay: float = 1e-3
    decay: float = 0.998
    judged_clips: int = 12
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        for name in ("talking", "foreign", "far"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not 1 <= self.apart <= SEARCH:
            raise ValueError(f"apart is {self.apart}; expected 1 to {SEARCH}, or no shift is wrong")


class Sample(NamedTuple):
    """A clip as it lies on disk."""

    target: Tensor  # (F,3,C,C) uint8, with a margin of a twelfth all round
    reference: Tensor  # (F,3,C,C)
    mels: Tensor  # (F,1,80,16) one window per frame, for the generator
    # (F-window+1+2*SEARCH,D) the teacher's vectors of the sound from SEARCH frames before the clip
    # on
    heard: Tensor
    photograph: bool  # the target is one picture


class Batch(NamedTuple):
    """K clips of F frames, the talking ones first, augmented and on the device of the run."""

    target: Tensor  # (K*F,3,96,96) in [0,1]
    reference: Tensor  # (K*F,3,96,96)
    mels: Tensor  # (K*F,1,80,16)
    heard: Tensor  # (K,F-window+1+2*SEARCH,D)
    talking: int  # so many of the clips show their own sound


class Planes(nn.Module):
    """A generator up to the planes that it draws, for gradients that are means over processes."""

    def __init__(self, model: Generator) -> None:
        super().__init__()
        self.model = model

    def forward(self, mels: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Return the planes (N,6,S/2,S)."""
        return self.model.draw(mels, self.model.encode(target, reference))


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Source of the batches.

    Attributes:
        clips: the clips to learn from.
        weights: probability of each clip.
        audio_embedding: returns the teacher's embeddings of a clip's sound, by its number; see
            ``hearing``.
        window: frames that the teacher looks at.
        photographs: (N,C,C,3) uint8, None without any.
        settings: settings of the run.
    """

    clips: Sequence[Clip]
    weights: npt.NDArray[np.float64]
    audio_embedding: Callable[[int], Tensor]
    window: int
    photographs: npt.NDArray[np.uint8] | None
    settings: Settings

    def talking(self, rng: np.random.Generator) -> Sample:
        """Draw a clip with its own sound and a reference elsewhere in it."""
        frames, far = self.settings.frames, self.settings.far
        i, begin = self._stretch(rng)
        starts = range(len(self.clips[i].faces) - frames + 1)
        other = int(rng.choice([start for start in starts if abs(start - begin) >= far]))
        faces = (self.clips[i].frames(start, frames) for start in (begin, other))
        return Sample(*faces, *self._sound(i, begin), False)

    def foreign(self, rng: np.random.Generator, *, photograph: bool) -> Sample:
        """Draw the sound of a clip and the faces of any other.

        As in use, each frame is its own reference.
        """
        sound = self._sound(*self._stretch(rng))
        if photograph and self.photographs is not None:
            picture = np.array(self.photographs[rng.integers(len(self.photographs))])
            faces = (
                torch.from_numpy(picture).permute(2, 0, 1).expand(self.settings.frames, -1, -1, -1)
            )
            return Sample(faces, faces, *sound, True)
        i, begin = self._stretch(rng)
        faces = self.clips[i].frames(begin, self.settings.frames)
        return Sample(faces, faces, *sound, False)

    def _stretch(self, rng: np.random.Generator) -> tuple[int, int]:
        """Which clip, and its frame to begin with."""
        i = int(rng.choice(len(self.clips), p=self.weights))
        return i, int(rng.integers(len(self.clips[i].faces) - self.settings.frames + 1))

    def _sound(self, i: int, begin: int) -> tuple[Tensor, Tensor]:
        count = self.settings.frames - self.window + 1 + 2 * SEARCH
        return self.clips[i].windows(
            MINI.features, begin, self.settings.frames
        ), self.audio_embedding(i)[begin : begin + count]


@torch.no_grad()
def hearing(teacher: SyncExpert, clip: Clip, *, bfloat16: bool) -> Tensor:
    """Embed the sound of a clip with a frozen teacher; it is not augmented, so once is enough.

    Args:
        teacher: the teacher.
        clip: the clip of N frames.
        bfloat16: whether it computes in bfloat16.

    Returns:
        (N+2*SEARCH,D) embeddings at each frame and SEARCH frames before and after, on the CPU.
    """
    at = next(teacher.parameters()).device
    sound = clip.windows(teacher.config.features, -SEARCH, len(clip.faces) + 2 * SEARCH)
    with torch.autocast(at.type, torch.bfloat16, enabled=bfloat16):
        return torch.cat([teacher.embed_audio(part.to(at)).cpu() for part in sound.split(256)])


def draw(footage: Footage, step: int, world: World) -> Batch:
    """Return this process's part of the batch of a step, augmented, on its device.

    Clip i of a step is the same one for any number of processes.
    """
    settings, seed = footage.settings, footage.settings.plan.seed

    def mine(count: int) -> range:
        part = count // world.size
        return range(world.rank * part, (world.rank + 1) * part)

    def rng(i: int) -> np.random.Generator:
        return np.random.default_rng((seed, step, i))

    samples = [footage.talking(rng(i)) for i in mine(settings.talking)]
    samples += [
        footage.foreign(rng(settings.talking + i), photograph=i % 2 == 1)
        for i in mine(settings.foreign)
    ]
    noise = generator(seed, step, world.rank, device=world.device)
    return augmented(samples, len(mine(settings.talking)), noise, moved_heads=settings.moved_heads)


def augmented(
    samples: Sequence[Sample], talking: int, rng: torch.Generator, *, moved_heads: float = 0.0
) -> Batch:
    """Augment samples.

    Args:
        samples: the samples, talking ones first.
        talking: number of those that show their own sound.
        rng: the generator, on the device of the result.
        moved_heads: share of the talking ones whose reference holds the head differently.

    Returns:
        The batch.
    """
    *rows, photograph = zip(*samples, strict=True)
    target, reference, mels, heard = (torch.stack(row).to(rng.device) for row in rows)
    still = torch.tensor(photograph, device=rng.device)
    k, f = target.shape[:2]
    at = warp_grid(k, SIZE, SIZE * 7 // 6, rng)[:, None].repeat(1, f, 1, 1, 1)
    if any(photograph):
        at[still] = grimace(at[still].flatten(0, 1), f, rng).unflatten(0, (-1, f))
    turned = torch.rand(k, generator=rng, device=rng.device) < moved_heads
    turned[talking:] = False  # there the frame is its own reference, as in use
    other = torch.where(turned.view(-1, 1, 1, 1, 1), elsewhere(at, rng), at)
    at = torch.cat([at, other], 1).flatten(0, 1)
    faces = torch.cat([target, reference], 1).flatten(0, 1).float().mul_(1 / 255)
    faces = nn.functional.grid_sample(faces, at, padding_mode="border", align_corners=False)
    faces = recolor(faces.view(k, 2 * f, 3, SIZE, SIZE), rng)
    faces[talking:, :f] = degrade(faces[talking:, :f], rng)  # not where the truth is learnt from
    faces[talking:, f:] = faces[talking:, :f]
    flat = (
        x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for x in (faces[:, :f], faces[:, f:])
    )
    # the generator gets an augmented voice; the teacher, which must judge sharply, got it as it
    # is
    return Batch(*flat, disguise(mels, rng).flatten(0, 1), heard, talking)


def judged_in_sync(teacher: SyncExpert, faces: Tensor, heard: Tensor, *, apart: int) -> Tensor:
    """Return how badly the teacher finds the shift of faces against their sound.

    Args:
        teacher: the teacher.
        faces: (K,F,3,S,S).
        heard: (K,F-window+1+2*SEARCH,D) embeddings of the sound.
        apart: shifts of fewer frames are no rivals.

    Returns:
        (K,) losses.
    """
    k, f = faces.shape[:2]
    count = f - teacher.config.window + 1
    looked = resize_faces(faces.flatten(0, 1), teacher.config.size).unflatten(0, (k, f))
    windows = looked[:, torch.arange(count)[:, None] + torch.arange(teacher.config.window)]
    video = teacher.embed_video(windows.flatten(0, 1)).view(k, count, -1)
    return shift_loss(video, heard, apart=apart)


def losses(
    planes: Tensor,
    batch: Batch,
    teacher: SyncExpert,
    critic: QualityDiscriminator,
    rng: torch.Generator,
    *,
    apart: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of generated planes, and the faces that they make.

    Args:
        planes: (K*F,6,48,96).
        batch: the batch that they belong to.
        teacher: the frozen expert.
        critic: the patch critic.
        rng: of the disturbances that the teacher sees.
        apart: shifts of fewer frames are no rivals.

    Returns:
        The terms, () each, and the faces (K*F,3,96,96). The terms are, of talking clips, ``l1`` and
        ``slopes`` of the lower half's error, and ``sync``; of foreign ones the same, where at the
        mouth L1 counts a tenth and slopes three tenths; of all ``bend``, the slopes of the flow,
        and ``photograph``, the critic's verdict.
    """
    target, reference, t = batch.target, batch.reference, batch.talking
    k = len(batch.heard)
    made = warp_reference(planes, target, reference)
    # The teacher's pull at paint counts over the mouth alone: elsewhere it is pleased by dark blots
    # that no augmentation rules out. The flow may follow it anywhere.
    at = mouth(SIZE, device=planes.device)
    paint, flow, share = planes.split([3, 2, 1], 1)
    color, mask = (x * at + x.detach() * (1 - at) for x in (paint, share))
    pulled = warp_reference(torch.cat([color, flow, mask], 1), target, reference).unflatten(
        0, (k, -1)
    )
    sync = judged_in_sync(teacher, disturb(pulled, rng), batch.heard, apart=apart)
    error = (made - target)[:, :, SIZE // 2 :].unflatten(0, (k, -1))
    terms = {
        "l1": error[:t].abs().mean(),
        "slopes": slopes(error[:t]),
        "sync": sync[:t].mean(),
        "bend": slopes(flow.tanh()),
        "foreign_l1": (error[t:].abs() * (1 - 0.9 * at)).mean(),
        "foreign_slopes": slopes(error[t:] * (1 - 0.7 * at)),
        "foreign_sync": sync[t:].mean(),
        "photograph": perceptual_loss(critic(made).float()),
    }
    return terms, made


def read_photographs(path: Path, *, side: int) -> npt.NDArray[np.uint8]:
    """Read the photographs that train.prepare wrote; they stay on disk.

    Args:
        path: the file.
        side: side that they must have in pixels.

    Returns:
        (N,side,side,3) uint8.

    Raises:
        TrainingError: they are of another size or type.
    """
    found = np.load(path, mmap_mode="r")
    if found.dtype != np.uint8 or found.shape[1:] != (side, side, 3):
        raise TrainingError(
            f"{path} holds {found.dtype} {found.shape}; expected uint8 (N, {side}, {side}, 3), cut "
            "as the clips are: prepare both alike"
        )
    return found


@dataclass(frozen=True, eq=False)
class Data(harness.Data):
    """The clips, networks and photographs of a run.

    Attributes:
        photographs: (N,C,C,3) uint8, None without any.
    """

    photographs: npt.NDArray[np.uint8] | None = None


Run = harness.Run[Settings, Data, Networks]


def read(job: Job[Settings]) -> Data:
    """Read the clips, the photographs, the teacher and the judge."""
    args, settings, world = job.args, job.settings, job.world
    for count, what in ((settings.talking, "talking"), (settings.foreign, "foreign")):
        harness.check_divisible(count, f"{what} clips", world)
    clips, held_out = harness.read_clips(job, SIZE, least=2 * (settings.far + settings.frames))
    portraits, photographs = args.portraits or Path(args.shards) / "portraits.npy", None
    if args.portraits or portraits.exists():
        photographs = read_photographs(portraits, side=clips[0].faces.shape[1])
    teacher, judge = (read_expert(name).to(world.device) for name in (args.teacher, args.judge))
    if teacher.config.window > settings.frames or teacher.config.framing.kind != MINI.framing.kind:
        raise TrainingError(
            f"{args.teacher} looks at {teacher.config.window} {teacher.config.framing.kind} "
            f"crops; expected at most {settings.frames} {MINI.framing.kind} ones: raise frames, or "
            "name another teacher"
        )
    return Data(clips, held_out, judge, teacher=teacher, photographs=photographs)


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the generator and its critic."""
    settings = job.settings
    model = init_as_copy(Generator(MINI))
    begin_mini(job, model, data.teacher, job.args.teacher)
    optimizer = harness.adamw(settings.rate, settings.betas, settings.weight_decay)
    schedule = warmup_cosine(settings.plan.steps, warmup=settings.warmup)
    student = harness.make_student(
        job, job.place(model), optimizer, schedule=schedule, forward=Planes(model)
    )
    critic = job.place(QualityDiscriminator(PATCH_CRITIC))
    optimizer = harness.adamw(
        settings.critic_rate, settings.critic_betas, settings.critic_weight_decay
    )
    return Networks(student, {"critic": harness.make_opponent(job, critic, optimizer)})


def load_batches(run: Run) -> Draws[Batch]:
    """Return the batches of talking and foreign clips; the teacher embeds each sound once."""
    clips, teacher, photographs = run.data.clips, run.data.teacher, run.data.photographs
    embed = lru_cache(_HEARD)(lambda i: hearing(teacher, clips[i], bfloat16=run.bfloat16))
    weights, window = speaker_weights(clips), teacher.config.window
    footage = Footage(clips, weights, embed, window, photographs, run.settings)
    return Draws(lambda step: draw(footage, step, run.world))


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the generator, then one of the critic."""
    settings, student, critic = run.settings, run.student, run.networks.opponents["critic"]
    weights = dataclasses.asdict(settings.weights)
    noise = run.noise(step, 1)  # other than the batch's own
    student.wrapped.train()
    critic.model.requires_grad_(False)
    with run.autocast():
        planes = student.wrapped(batch.mels, batch.target, batch.reference)
        terms, made = losses(
            planes, batch, run.data.teacher, critic.model, noise, apart=settings.apart
        )
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    norm = student.learn(loss, step)
    terms |= harness.train_critic(run, critic, batch.target, made, rate=settings.critic_rate)
    return terms | {"loss": loss, "gradient": norm}


def describe(run: Run) -> str:
    """Describe the run by its clips and photographs."""
    photographs = run.data.photographs
    count = "no" if photographs is None else len(photographs)
    return harness.describe(run, f"{count} photographs")


RECIPE = harness.Recipe(
    name="mini",
    settings=Settings,
    network=lambda settings, out: Generator(MINI),
    parse=partial(
        harness.parse_arguments,
        __doc__,
        judge=JUDGE,
        teacher={
            "required": True,
            "help": "an expert: a run's checkpoint (RUN/best.pt) or a weights file",
        },
        portraits={"type": Path, "help": "photographs, SHARDS/portraits.npy where there are any"},
        start=START,
    ),
    read=read,
    build=build,
    batches=load_batches,
    step=step,
    describe=describe,
)
main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
