"""Train a generator of the shape of `mini-2` on the output of any other generator.

The student learns from the teacher's pictures, from the features of its face encoder, and from a
frozen expert.

    python -m train.distil train/configs/distil.toml SHARDS OUT --teacher wav2lip
        --expert runs/expert/best.pt
    torchrun --nproc-per-node 8 -m train.distil train/configs/distil.toml SHARDS OUT
        --teacher T --expert E

The teacher: a bundled or pulled name, a weights file of any kind that `dub` can use, or a run's
checkpoint. It may draw larger faces, hear other features of the sound and take more pictures; its
crops must be cut as the shards' are. Half of all windows are dubs: of them the teacher alone knows
what they look like. The same command goes on where a run was stopped.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lipsync_core.errors import TrainingError
from lipsync_core.models.generator import TalkingFace
from lipsync_core.models.precision import Precision
from lipsync_core.models.wav2lip import MINI, Generator, GeneratorConfig, init_as_copy
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.distributed import join_processes
from lipsync_core.training.loading import Batch, DubDraw
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan, format_terms, generator, seed_step
from lipsync_core.training.losses import feature_loss, reconstruction
from lipsync_core.training.optim import step_optimizer, update_ema, warmup_cosine
from lipsync_core.training.settings import load_settings, read_settings, save_settings
from lipsync_core.training.sync_eval import resize_faces, side_without_margin
from lipsync_core.training.validation import choose_clips, score_generator
from train.eval_dubs import deviation, lips, only_at, reach, read_talking_face, sync_term
from train.expert_weights import read_expert
from train.harness import (
    OTHER_CROPS,
    check_divisible,
    check_framings,
    choose_precision,
    init_audio_encoder_from_expert,
    keep_arguments,
    make_loader,
    make_parser,
    print_line,
    read_clips,
    run_command,
    run_training,
)
from train.wav2lip import varied


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    A batch, over all ranks, is ``windows`` windows of ``frames`` frames,
    ``foreign`` of them dubs; reference windows of the others begin at least ``far`` frames away.
    ``decay``: of the moving average that is judged and exported.

    ``output_weight``, ``truth_weight``: of the mean absolute difference of the lower half from what
    the teacher draws, and from the frame; together as much as L1 weighs in `mini`'s own recipe
    (20). The teacher's share is the larger one: it is all there is for dubs, and what a small
    network can learn; the frame keeps it from the teacher's blur. ``feature_weight``: of
    ``feature_loss``, which is 1 at first: by far the least, for it says nothing of the lips and
    only helps the face encoder to a start. ``sync_weight``: of ``sync_term``, at every step:
    without it small students lose the lips, whose few pixels hardly count in L1 (the 28 times
    smaller Wav2Lip of arXiv 2304.00471 has an LSE-C of 2.67 or 6.28 without its teacher and 8.04
    with); as much as foreign clips have in `mini`'s recipe.
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
                f"windows {self.windows}, frames {self.frames}, far {self.far}; wanted 1 or more"
            )
        weights = self.output_weight, self.truth_weight, self.feature_weight, self.sync_weight
        if min(weights) < 0 or not self.output_weight:
            raise ValueError(
                f"the weights are {weights}; wanted 0 or more, and more than 0 of the teacher's "
                "output"
            )
        if not 0 <= self.foreign < 1:
            raise ValueError(f"foreign is {self.foreign}; wanted 0 or more and less than 1")


def student_config(settings: Settings) -> GeneratorConfig:
    """Return the student's configuration."""
    return replace(MINI, framing=FRAMINGS[settings.framing])


def load_trained(state: Path) -> Generator:
    """The student of a run's checkpoint, last.pt or best.pt: the average that was judged."""
    model = Generator(student_config(load_settings(state.parent, Settings)))
    load_state(state, {"average": model})
    return model


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


class Pupil(nn.Module):
    """A student with layers that predict the teacher's features, as one module."""

    def __init__(self, student: Generator, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.student, self._read = student, [pair.mine for pair in pairs]
        self.adapters = nn.ModuleList([nn.Conv2d(*pair.channels, 1) for pair in pairs])

    def forward(
        self, sound: Tensor, target: Tensor, reference: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """What it draws, (N,3,S,S), and its guesses of the teacher's features."""
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


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    options = make_parser(__doc__)
    options.add_argument(
        "--teacher", required=True, help="a bundled or pulled name, a weights file, or RUN/best.pt"
    )
    options.add_argument(
        "--expert", required=True, help="a run's checkpoint (RUN/best.pt) or a weights file"
    )
    options.add_argument(
        "--start",
        help="a `mini-2` to begin with instead of a copy of the reference, named like a teacher",
    )
    args = options.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = read_settings(args.run, Settings)
    plan, config = settings.plan, student_config(settings)
    with join_processes(args.device) as world:
        check_divisible(settings.windows, "windows", world)
        clips, strangers = read_clips(
            args.shards, settings.framing, config.size, least=settings.frames + 2 * settings.far
        )
        strangers = choose_clips(strangers, settings.judged_clips)
        expert, judge = (read_expert(name).to(world.device) for name in (args.expert, args.judge))
        teacher = read_talking_face(args.teacher).requires_grad_(False)
        teacher.to(world.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        check_framings(
            config.framing,
            {args.teacher: teacher, args.expert: expert, args.judge: judge},
            advice=OTHER_CROPS,
        )

        seed_step(plan.seed)
        student = init_as_copy(Generator(config))
        if not args.start and not init_audio_encoder_from_expert(expert, student) and world.is_main:
            print_line(
                f"the audio encoder of {args.expert} is of another shape: mini's begins at random"
            )
        if args.start:
            start = read_talking_face(args.start)
            if start.config != config:
                raise TrainingError(
                    f"{args.start} is no `mini-2` for {settings.framing} crops; wanted one to "
                    "begin with"
                )
            student.load_state_dict(start.state_dict())
        if world.is_main:
            save_settings(args.out, settings, recipe="distil")
            keep_arguments(args)
        average = copy.deepcopy(student).to(world.device, memory_format=torch.channels_last).eval()
        pairs = partners(average, teacher) if settings.feature_weight else []
        pupil = Pupil(student, pairs).to(world.device, memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            pupil.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        factor = warmup_cosine(plan.steps, warmup=settings.warmup)
        together = world.wrap(pupil)
        draw = DubDraw(
            clips,
            voices=clips,
            features=config.features,
            also=teacher.config.features,
            expert=expert.config,
            search=reach(expert.config),
            frames=settings.frames,
            far=settings.far,
            foreign=settings.foreign,
        )
        loader = make_loader(draw, batch=settings.windows, seed=plan.seed, world=world)
        side = side_without_margin(clips[0].faces.shape[1])
        around = lips(config.size, world.device)
        bfloat16 = choose_precision(settings.precision, world)

        def learn(batch: Batch, step: int) -> dict[str, Tensor]:
            noise = generator(plan.seed, step, world.rank, device=world.device)
            sound, also, heard, talking = (
                batch[k].to(world.device) for k in ("sound", "also", "heard", "talking")
            )
            # the teacher gets the voice as it is
            target, reference, sound = varied(batch, sound, side, noise)
            target, reference = target.flatten(0, 1), reference.flatten(0, 1)
            small = [
                resize_faces(x, config.size).contiguous(memory_format=torch.channels_last)
                for x in (target, reference)
            ]
            together.train()
            with torch.autocast(world.device.type, torch.bfloat16, enabled=bfloat16):
                shown, known = lesson(teacher, also.flatten(0, 1), target, reference)
                made, guessed = together(sound.flatten(0, 1), *small)
                made = made.float().unflatten(0, (*talking.shape[:1], -1))
                sync = sync_term(expert, only_at(made, around), heard, noise)
            shown, truth = (x.view_as(made) for x in (resize_faces(shown, config.size), small[0]))
            half = config.size // 2
            terms = {
                "output": reconstruction(made[..., half:, :], shown[..., half:, :]),
                "truth": deviation(made, truth, talking, around).abs().mean(),
                "sync": sync,
            }
            if guessed:
                terms["feature"] = feature_loss(guessed, [known[pair.other] for pair in pairs])
            weights = {"output": settings.output_weight, "truth": settings.truth_weight}
            weights |= {"feature": settings.feature_weight, "sync": settings.sync_weight}
            loss = sum((weights[name] * term for name, term in terms.items()), made.new_zeros(()))
            norm = step_optimizer(
                loss, optimiser, rate=settings.rate * factor(step), clip_norm=settings.clip_norm
            )
            update_ema(average, student, step, decay=settings.decay)
            return terms | {"loss": loss, "gradient": norm}

        def evaluate(step: int) -> Evaluation:
            return score_generator(average, strangers, judge)

        parts = {"model": pupil, "average": average, "optimiser": optimiser}
        about = (
            f"{len(clips)} clips, {len(strangers)} held out, {world.size} processes on "
            f"{world.device}"
        )
        if world.is_main:
            figures = format_terms(score_generator(teacher, strangers, judge).figures)
            about += f"\n{len(pairs)} features are compared; the teacher, held out: {figures}"
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
