"""Train a generator of the shape of `mini-2` on the output of any other generator.

The student learns from the teacher's pictures, from the features of its face encoder, and from a
frozen expert.

    python -m train.distil train/configs/distil.toml SHARDS OUT --teacher wav2lip
        --expert runs/expert/best.pt
    torchrun --nproc-per-node 8 -m train.distil train/configs/distil.toml SHARDS OUT
        --teacher T --expert E

The teacher: a bundled or pulled name, a weights file of any kind that `dub` can use, or a run's
checkpoint. It may draw larger faces and take other sound features and more pictures; its crops
must be cut as the shards' are. Half of all windows are dubs, of which only the teacher knows what
they look like. The same command continues a run that was stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lipsync_core.models.generator import TalkingFace
from lipsync_core.models.precision import Precision
from lipsync_core.models.wav2lip import MINI, Generator, GeneratorConfig, init_as_copy
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.loading import Batch, Loader
from lipsync_core.training.loop import Plan, format_terms
from lipsync_core.training.losses import feature_loss, reconstruction
from lipsync_core.training.optim import warmup_cosine
from lipsync_core.training.sync_eval import resize_faces, side_without_margin
from lipsync_core.training.validation import score_generator
from train import harness
from train.eval_dubs import (
    begin_mini,
    deviation,
    lips,
    load_dubs,
    only_at,
    read_talking_face,
    sync_term,
)
from train.expert_weights import read_expert
from train.harness import EXPERT, JUDGE, Data, Job
from train.wav2lip import varied


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Attributes:
        framing: how crops are cut.
        windows: windows of a batch, over all processes.
        frames: frames of a window.
        far: least distance of the beginnings of a window and its reference, in frames.
        foreign: share of the windows that are dubs.
        output_weight: weight of the mean absolute difference of the lower half from the teacher's.
            With ``truth_weight`` it is as much as L1 has in `mini`'s own recipe (20). It is the
            larger one: dubs have nothing else, and it is what a small network can learn.
        truth_weight: weight of the difference from the frame, which keeps the teacher's blur away.
        feature_weight: weight of ``feature_loss``, which is 1 at first. By far the least: it says
            nothing of the lips, and only helps the face encoder to a start.
        sync_weight: weight of ``sync_term``, at every step. Without it small students lose the
            lips, whose few pixels hardly count in L1 (the 28 times smaller Wav2Lip of arXiv
            2304.00471 has an LSE-C of 2.67 or 6.28 without its teacher and 8.04 with). As much as
            dubs have in `mini`'s recipe.
        rate: learning rate.
        warmup: steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
    """

    framing: Literal["aligned", "box"] = "aligned"
    windows: int = 16
    frames: int = 7
    far: int = 5
    foreign: float = 0.5
    output_weight: float = 12.0
    truth_weight: float = 8.0
    feature_weight: float = 0.1
    sync_weight: float = 0.3
    rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    decay: float = 0.995
    judged_clips: int = 12
    precision: Precision = "auto"
    plan: Plan

    def __post_init__(self) -> None:
        if min(self.windows, self.frames, self.far) < 1:
            raise ValueError(
                f"windows {self.windows}, frames {self.frames}, far {self.far}; expected 1 or more"
            )
        weights = self.output_weight, self.truth_weight, self.feature_weight, self.sync_weight
        if min(weights) < 0 or not self.output_weight:
            raise ValueError(
                f"the weights are {weights}; expected 0 or more, and more than 0 of the teacher's "
                "output"
            )
        if not 0 <= self.foreign < 1:
            raise ValueError(f"foreign is {self.foreign}; expected 0 or more and less than 1")


def student_config(settings: Settings) -> GeneratorConfig:
    """Return the student's configuration."""
    return replace(MINI, framing=FRAMINGS[settings.framing])


class Pair(NamedTuple):
    """A student's feature and the teacher's feature that it is compared with.

    Attributes:
        mine: number of the feature in the student's face encoder.
        other: number of the feature in the teacher's.
        channels: channels of both.
    """

    mine: int
    other: int
    channels: tuple[int, int]


@torch.no_grad()
def partners(student: TalkingFace, teacher: TalkingFace) -> list[Pair]:
    """Pair each feature of a student with the coarsest teacher feature that is as fine.

    The teacher's must be less than twice as fine. Features without such a partner are left out.

    Args:
        student: the student, in evaluation mode.
        teacher: the teacher.

    Returns:
        The pairs.
    """
    mine, others = (
        [x.shape for x in maps(model.encode(*_blank(model)))] for model in (student, teacher)
    )
    found: list[Pair] = []
    for i, (_, channels, _, side) in enumerate(mine):
        fine = [j for j, shape in enumerate(others) if side <= shape[3] < 2 * side]
        found += [Pair(i, fine[-1], (channels, others[fine[-1]][1]))] if fine else []
    return found


def maps(features: Sequence[Tensor]) -> list[Tensor]:
    """Return features as maps (N,C,H,W); features without positions become maps of one pixel."""
    return [x[:, :, None, None] if x.ndim == 2 else x for x in features]


def _blank(model: TalkingFace) -> tuple[Tensor, Tensor]:
    target = next(model.parameters()).new_zeros(1, 3, model.config.size, model.config.size)
    return target, target.repeat(1, model.config.references, 1, 1)


class WithAdapters(nn.Module):
    """A student with layers that predict the teacher's features, as one module."""

    def __init__(self, student: Generator, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.student, self._read = student, [pair.mine for pair in pairs]
        self.adapters = nn.ModuleList([nn.Conv2d(*pair.channels, 1) for pair in pairs])

    def forward(
        self, sound: Tensor, target: Tensor, reference: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the faces (N,3,S,S) that the student draws, and guesses of teacher's features."""
        features = self.student.encode(target, reference)
        made = self.student.decode(sound, features, target, reference)
        return made, [
            adapter(features[i]) for adapter, i in zip(self.adapters, self._read, strict=True)
        ]


@torch.no_grad()
def lesson(
    teacher: TalkingFace, sound: Tensor, faces: Tensor, reference: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return the teacher's picture and features.

    Args:
        teacher: the teacher.
        sound: (N,1,H,W).
        faces: (N,3,S,S) of any size.
        reference: (N,3,S,S) of any size.

    Returns:
        The faces that the teacher draws, and its features of them.
    """
    target, shot = (resize_faces(x, teacher.config.size) for x in (faces, reference))
    shots = shot.repeat(1, teacher.config.references, 1, 1)
    features = teacher.encode(target, shots)
    return teacher.decode(sound, features, target, shots).float(), maps(features)


@dataclass(frozen=True, eq=False)
class Networks(harness.Networks):
    """The networks of a run.

    Attributes:
        pairs: the features of student and teacher that are compared.
    """

    pairs: Sequence[Pair] = ()


Run = harness.Run[Settings, Data, Networks]


def read(job: Job[Settings]) -> Data:
    """Read the clips, the expert, the judge and the teacher."""
    args, settings, config = job.args, job.settings, student_config(job.settings)
    harness.check_divisible(settings.windows, "windows", job.world)
    clips = harness.read_clips(job, config.size, least=settings.frames + 2 * settings.far)
    expert, judge = (read_expert(name).to(job.world.device) for name in (args.expert, args.judge))
    teacher = job.place(read_talking_face(args.teacher).requires_grad_(False))
    harness.check_framings(
        config.framing,
        {args.teacher: teacher, args.expert: expert, args.judge: judge},
        advice=harness.OTHER_CROPS,
    )
    return Data(*clips, judge, expert, teacher)


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the student with the layers that predict the teacher's features."""
    settings = job.settings
    student = init_as_copy(Generator(student_config(settings)))
    begin_mini(job, student, data.expert, job.args.expert)
    student = job.place(student)
    pairs = partners(student.eval(), data.teacher) if settings.feature_weight else []
    model = job.place(WithAdapters(student, pairs))
    optimizer = harness.adamw(settings.rate, (0.9, 0.99), settings.weight_decay)
    schedule = warmup_cosine(settings.plan.steps, warmup=settings.warmup)
    trained = harness.make_student(job, model, optimizer, schedule=schedule, averaged=student)
    return Networks(trained, pairs=pairs)


def load_batches(run: Run) -> Loader:
    """Return the batches of talking windows and dubs."""
    return load_dubs(run, run.data.clips, also=run.data.teacher.config.features)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the student."""
    settings, data, student = run.settings, run.data, run.student
    size, device, noise = student.average.config.size, run.world.device, run.noise(step)
    sound, also, heard, talking = (
        batch[name].to(device) for name in ("sound", "also", "heard", "talking")
    )
    # the teacher gets the voice as it is
    side = side_without_margin(data.clips[0].faces.shape[1])
    target, reference, sound = varied(batch, sound, side, noise)
    target, reference = target.flatten(0, 1), reference.flatten(0, 1)
    small = [
        resize_faces(x, size).contiguous(memory_format=torch.channels_last)
        for x in (target, reference)
    ]
    around = lips(size, device)
    student.wrapped.train()
    with run.autocast():
        shown, known = lesson(data.teacher, also.flatten(0, 1), target, reference)
        made, guessed = student.wrapped(sound.flatten(0, 1), *small)
        made = made.float().unflatten(0, (*talking.shape[:1], -1))
        sync = sync_term(data.expert, only_at(made, around), heard, noise)
    shown, truth = (x.view_as(made) for x in (resize_faces(shown, size), small[0]))
    half = size // 2
    terms = {
        "output": reconstruction(made[..., half:, :], shown[..., half:, :]),
        "truth": deviation(made, truth, talking, around).abs().mean(),
        "sync": sync,
    }
    if guessed:
        terms["feature"] = feature_loss(guessed, [known[p.other] for p in run.networks.pairs])
    weights = {name: getattr(settings, f"{name}_weight") for name in terms}
    loss = sum((weights[name] * term for name, term in terms.items()), made.new_zeros(()))
    return terms | {"loss": loss, "gradient": student.learn(loss, step)}


def describe(run: Run) -> str:
    """Describe the run and the teacher."""
    evaluation = score_generator(run.data.teacher, run.data.held_out, run.data.judge)
    return (
        f"{harness.describe(run)}\n{len(run.networks.pairs)} features are compared; the teacher, "
        f"held out: {format_terms(evaluation.figures)}"
    )


RECIPE = harness.Recipe(
    name="distil",
    settings=Settings,
    network=lambda settings, out: Generator(student_config(settings)),
    parse=partial(
        harness.parse_arguments,
        __doc__,
        judge=JUDGE,
        teacher={
            "required": True,
            "help": "a bundled or pulled name, a weights file, or RUN/best.pt",
        },
        expert=EXPERT,
        start={"help": "a `mini-2` to begin with in place of a copy of the reference"},
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
