"""Train a generator against a frozen lip-sync expert, with or without a discriminator.

    python -m train.wav2lip train/configs/wav2lip-gan.toml SHARDS OUT --expert runs/expert/best.pt
    torchrun --nproc-per-node 8 -m train.wav2lip train/configs/wav2lip-gan.toml SHARDS OUT --expert
    runs/expert/best.pt

L = (1 - sync_weight - quality_weight) L1 + sync_weight E_sync + quality_weight L_gen, as in the
paper. The same command continues a run that was stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

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
from lipsync_core.training.augment import disguise, recolor, warp_grid
from lipsync_core.training.clips import FRAMINGS
from lipsync_core.training.loading import Batch, Loader, WindowDraw
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Plan
from lipsync_core.training.losses import cosine_bce, perceptual_loss, reconstruction, sync_loss
from lipsync_core.training.optim import make_schedule, step_optimizer
from lipsync_core.training.sync_eval import resize_faces, scale_with_margin
from lipsync_core.training.validation import score_generator
from train import harness
from train.expert_weights import read_expert
from train.harness import EXPERT, JUDGE, START, Data, Job, Networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a named run.

    Attributes:
        network: the layers.
        experts_ear: whether the audio encoder begins as the expert's, which separates visemes
            already; their shapes must be equal (``mini`` has those of train.expert's teacher).
        size: side of the faces in pixels.
        framing: how crops are cut.
        windows: windows of a batch, over all processes.
        frames: frames of a window.
        far: least distance of the beginnings of a window and its reference, in frames.
        augmented: whether colors, positions and voices are varied; the paper and its code vary
            nothing.
        sync_weight: weight of E_sync.
        sync_below: E_sync counts only from the first evaluation on in which it is below this; None:
            from the beginning. The public code has 0.75, and forgets it when a run is resumed.
        quality_weight: weight of L_gen; 0: no discriminator.
        expert_statistics: of the expert's batch norms: ``running``, as in a frozen network, or
            ``batch``, as the public code has it by omission. E_sync differs much (0.72 against
            1.05 on one batch); in evaluations ``batch`` means one clip, not 16, so thresholds are
            only near those of the public code.
        expert_learns: the expert is not frozen but trained on generated faces, as LipGAN's
            discriminator is.
        rate: learning rate.
        betas: of AdamW.
        schedule: how the rate changes.
        warmup: steps in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        decay: of the moving average that is evaluated and exported; 0: none.
        judged_clips: largest number of clips to evaluate on.
        precision: of the networks' computation.
        plan: length and intervals of the run.
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
                f"windows {self.windows}, frames {self.frames}, far {self.far}; expected 1 or more"
            )
        weights = self.sync_weight, self.quality_weight
        if min(weights) < 0 or sum(weights) >= 1:
            raise ValueError(
                f"sync_weight, quality_weight are {weights}; expected 0 or more, and less than 1 "
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
    """Return the configuration of the generator."""
    if settings.network == "mini":
        return replace(MINI, framing=FRAMINGS[settings.framing])
    # 40 ms: what the public code pairs in training (and its inference does not)
    classic = replace(WAV2LIP, features=MelFeatures(lead_ms=40))
    return replace(
        classic if settings.size == 96 else LARGER[settings.size],
        framing=FRAMINGS[settings.framing],
    )


class Switch:
    """Whether E_sync counts yet; part of a checkpoint."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def state_dict(self) -> dict[str, bool]:
        """Return the state."""
        return {"on": self.on}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Continue from a state."""
        self.on = state["on"]


def varied(
    batch: Batch, sound: Tensor, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Augment the faces and the sound of a batch.

    Args:
        batch: ``target`` and ``reference`` (B,F,C,C,3) uint8 with margin.
        sound: mel windows (B,F,1,80,16).
        size: side of the result in pixels.
        rng: the generator.

    Returns:
        Target and reference (B,F,3,size,size), both in the same other light and turned a little
        alike, and the sound in another voice.
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
    both = recolor(both.view(b, 2 * f, 3, size, size), rng)
    return both[:, :f], both[:, f:], disguise(sound, rng)


def embedded(
    expert: nn.Module, config: SyncExpertConfig, faces: Tensor, heard: Tensor
) -> tuple[Tensor, Tensor]:
    """Embed all windows of the expert's length.

    Args:
        expert: the expert.
        config: its configuration.
        faces: (B,F,3,S,S).
        heard: mel windows (B,F-window+1,1,80,16).

    Returns:
        Embeddings of sound and lips, (N,D) each.
    """
    looked = resize_faces(faces.flatten(0, 1), config.size).unflatten(0, faces.shape[:2])
    index = torch.arange(heard.shape[1])[:, None] + torch.arange(config.window)
    return expert(heard.flatten(0, 1), looked[:, index].flatten(0, 1))


def remembering(expert: SyncExpert) -> SyncExpert:
    """Let an expert use batch statistics, and keep its running ones; it is changed in place."""
    expert.train()
    for layer in expert.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    return expert


def out_of_sync(real: Tensor, made: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """Choose pairs that do not belong together, as LipGAN's code does.

    Half of the time these are generated faces and their own sound, otherwise real faces and the
    sound of the next clip.

    Args:
        real: real faces, clips first.
        made: generated faces.
        heard: the sound of both.

    Returns:
        Faces and sound.
    """
    return (made.detach(), heard) if torch.rand(()) < 0.5 else (real, heard.roll(1, 0))


def _check_loss(expert: SyncExpert, name: str) -> None:
    if expert.config.projection:
        raise TrainingError(
            f"{name} was taught by the contrastive loss alone: its cosine may be negative, where "
            "E_sync has no gradient; train an expert with projection = false"
        )


def _initialize(job: Job[Settings], model: Generator, expert: SyncExpert) -> None:
    """Copy the expert's audio encoder and the weights of --start into ``model``, if wanted."""
    args = job.args
    if job.settings.experts_ear and not harness.init_audio_encoder_from_expert(expert, model):
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


def _crop(run: "Run", batch: Batch, sound: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return target, reference and sound of a step, augmented if the run asks for it."""
    settings, device = run.settings, run.world.device
    if settings.augmented:
        return varied(batch, sound, settings.size, run.noise(step))
    target, reference = (
        harness.crop_batch(batch[name], settings.size, device) for name in ("target", "reference")
    )
    return target, reference, sound


def _train_expert(
    run: "Run", real: Tensor, made: Tensor, heard: Tensor, *, rate: float
) -> dict[str, Tensor]:
    """Take one step of an expert that learns beside the generator.

    Args:
        run: the run.
        real: real faces (N,F,3,S,S).
        made: generated faces (N,F,3,S,S).
        heard: the mel windows that belong to them.
        rate: the learning rate.
    """
    expert = run.networks.opponents["expert"]
    expert.model.requires_grad_(True)
    wrong_faces, beside = out_of_sync(real, made, heard)
    with run.autocast():
        both = torch.cat([real, wrong_faces]), torch.cat([heard, beside])
        audio, video = embedded(expert.wrapped, expert.model.config, *both)
    labels = (torch.arange(len(audio), device=audio.device) < len(audio) // 2).float()
    loss = cosine_bce(audio, video, labels)
    step_optimizer(loss, expert.optimizer, rate=rate, clip_norm=run.settings.clip_norm)
    return {"expert": loss}


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


Run = harness.Run[Settings, Data, Networks]


def read(job: Job[Settings]) -> Data:
    """Read the clips, the expert and the judge."""
    args, settings = job.args, job.settings
    harness.check_divisible(
        settings.windows,
        "windows",
        job.world,
        least=1 + settings.expert_learns,
        beside=", and two for each where the expert gets other clips' sound",
    )
    clips = harness.read_clips(job, settings.size, least=settings.frames + 2 * settings.far)
    expert, judge = (read_expert(name).to(job.world.device) for name in (args.expert, args.judge))
    harness.check_framings(
        generator_config(settings).framing,
        {args.expert: expert, args.judge: judge},
        advice=harness.OTHER_CROPS,
    )
    _check_loss(expert, args.expert)
    return Data(*clips, judge, expert)


def build(job: Job[Settings], data: Data) -> Networks:
    """Build the generator and, if they learn, discriminator and expert."""
    settings = job.settings
    model = init_as_copy(Generator(generator_config(settings)))
    _initialize(job, model, data.expert)
    optimizer = harness.adamw(settings.rate, settings.betas, settings.weight_decay)
    schedule = make_schedule(settings.schedule, settings.plan.steps, warmup=settings.warmup)
    student = harness.make_student(job, job.place(model), optimizer, schedule=schedule)
    opponents: dict[str, nn.Module] = {}
    if settings.quality_weight:
        config = config_for_size(WAV2LIP_DISCRIMINATOR, settings.size)
        opponents["critic"] = job.place(QualityDiscriminator(config))
    if settings.expert_learns:
        opponents["expert"] = data.expert.requires_grad_(True)
    if settings.expert_statistics == "batch":
        remembering(data.expert)
    return Networks(
        student,
        {name: harness.make_opponent(job, each, optimizer) for name, each in opponents.items()},
        {"switch": Switch(settings.sync_below is None)},
    )


def load_batches(run: Run) -> Loader:
    """Return the batches of neighboring frames, a reference and their sound."""
    settings = run.settings
    draw = WindowDraw(
        run.data.clips,
        features=generator_config(settings).features,
        expert=run.data.expert.config,
        frames=settings.frames,
        far=settings.far,
    )
    return harness.load_batches(run, draw, settings.windows)


def step(run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Take one step of the generator, then one of each network that learns beside it."""
    settings, networks, expert = run.settings, run.networks, run.data.expert
    student, critic = networks.student, networks.opponents.get("critic")
    sound, heard = (batch[name].to(run.world.device) for name in ("sound", "heard"))
    target, reference, sound = _crop(run, batch, sound, step)
    flat = target.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    switch, rate = networks.others["switch"], student.rate(step)
    # the first rank alone evaluates; no rank may leave this out
    switch.on = run.world.any(switch.on)
    weights = {"sync": settings.sync_weight * switch.on, "quality": settings.quality_weight}
    student.wrapped.train()
    expert.requires_grad_(False)
    with run.autocast():
        made = student.wrapped(sound.flatten(0, 1), flat, reference.flatten(0, 1)).float()
        pair = verdict = None
        if weights["sync"]:
            pair = embedded(expert, expert.config, made.view_as(target), heard)
        if critic:
            verdict = critic.model.requires_grad_(False)(made)
    terms, loss = _combine_losses(made, flat, pair, verdict, weights)
    terms |= {"loss": loss, "gradient": student.learn(loss, step)}
    if critic:
        terms |= harness.train_critic(
            run, critic, flat, made, rate=rate, clip_norm=settings.clip_norm
        )
    if "expert" in networks.opponents:
        terms |= _train_expert(run, target, made.view_as(target), heard, rate=rate)
    return terms


def evaluate(run: Run, step: int) -> Evaluation:
    """Evaluate the average, and decide whether E_sync counts from now on."""
    data, networks = run.data, run.networks
    found = score_generator(
        networks.student.average, data.held_out, data.judge, teacher=data.expert
    )
    if run.settings.sync_below is not None:
        switch = networks.others["switch"]
        switch.on = switch.on or found.figures["sync"] < run.settings.sync_below
    return found


RECIPE = harness.Recipe(
    name="wav2lip",
    settings=Settings,
    network=lambda settings, out: Generator(generator_config(settings)),
    parse=partial(harness.parse_arguments, __doc__, judge=JUDGE, expert=EXPERT, start=START),
    read=read,
    build=build,
    batches=load_batches,
    step=step,
    evaluate=evaluate,
)
main = partial(harness.run, RECIPE)

if __name__ == "__main__":
    harness.run_command(main)
