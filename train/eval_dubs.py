"""Parts of the recipes that train on dubs: frames with other speech, of which there is no truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lipsync_core.errors import TrainingError
from lipsync_core.metrics.sync import SEARCH
from lipsync_core.models.generator import SoundFeatures, TalkingFace
from lipsync_core.models.lip_warp import LipWarp
from lipsync_core.models.sync_expert import SyncExpert, SyncExpertConfig
from lipsync_core.models.wav2lip import Generator
from lipsync_core.models.weights import load_talking_face
from lipsync_core.training.augment import disturb
from lipsync_core.training.clips import Clip
from lipsync_core.training.loading import DubDraw, Loader
from lipsync_core.training.losses import mouth, shift_loss, sync_loss
from lipsync_core.training.sync_eval import resize_faces
from train.export import network_of
from train.harness import (
    AnyRun,
    Job,
    init_audio_encoder_from_expert,
    is_run_checkpoint,
    load_batches,
    print_line,
)


def read_talking_face(name: str) -> TalkingFace:
    """Read a network that draws faces.

    Args:
        name: a run's checkpoint (RUN/best.pt), a weights file, or a bundled or pulled name.

    Returns:
        The network in evaluation mode.

    Raises:
        TrainingError: it draws nothing.
    """
    if not is_run_checkpoint(name):
        face = load_talking_face(name)
        if isinstance(face, LipWarp):
            raise TrainingError(
                f"{name} is a LipWarp, which moves the lips of real pictures and draws none: it "
                "can neither teach a generator nor be the start of one; expected a network that "
                "draws faces: name `mini-2`"
            )
        return face
    model = network_of(Path(name))
    if not isinstance(model, TalkingFace):
        raise TrainingError(
            f"{name} is a run of a {type(model).__name__}; expected one that draws faces"
        )
    return model.eval()


def begin_mini(job: Job[Any], model: Generator, expert: SyncExpert, name: str) -> None:
    """Give a network of `mini-2`'s shape the weights of --start, or the expert's audio encoder.

    Args:
        job: the run.
        model: the network, changed in place.
        expert: the expert.
        name: its name.

    Raises:
        TrainingError: --start is of another shape.
    """
    if job.args.start:
        start = read_talking_face(job.args.start)
        if start.config != model.config:
            raise TrainingError(
                f"{job.args.start} is no `mini-2` for {model.config.framing.kind} crops; expected "
                "one to begin with"
            )
        model.load_state_dict(start.state_dict())
    elif not init_audio_encoder_from_expert(expert, model) and job.world.is_main:
        print_line(f"the audio encoder of {name} is of another shape: mini's begins at random")


def reach(expert: SyncExpertConfig) -> int:
    """Return how many frames of sound before and after the lips ``sync_term`` needs."""
    return SEARCH if expert.projection else 0


def sync_term(expert: SyncExpert, faces: Tensor, heard: Tensor, rng: torch.Generator) -> Tensor:
    """Return how far lips are from their sound, by a frozen expert.

    E_sync of the paper if the expert's cosine is never negative; for an expert of the contrastive
    loss, where E_sync has no gradient, the cross-entropy over shifts. It sees the faces disturbed,
    as in its own training.

    Args:
        expert: the expert.
        faces: (B,F,3,S,S).
        heard: (B,F-window+1+2*reach,1,80,16).
        rng: of the disturbances.

    Returns:
        The loss, ().
    """
    b, f = faces.shape[:2]
    size, window = expert.config.size, expert.config.window
    looked = disturb(resize_faces(faces.flatten(0, 1), size).unflatten(0, (b, f)), rng)
    windows = looked[:, torch.arange(f - window + 1)[:, None] + torch.arange(window)]
    with torch.no_grad():
        audio = expert.embed_audio(heard.flatten(0, 1))
    video = expert.embed_video(windows.flatten(0, 1))
    if not expert.config.projection:
        return sync_loss(audio, video)
    return shift_loss(video.unflatten(0, (b, -1)), audio.unflatten(0, (b, -1))).mean()


def load_dubs(run: AnyRun, voices: Sequence[Clip], *, also: SoundFeatures | None = None) -> Loader:
    """Return the batches of windows that talk and of dubs.

    Args:
        run: the run, whose settings have ``windows``, ``frames``, ``far`` and ``foreign``.
        voices: clips that dubs take their sound from.
        also: sound features of a second network.
    """
    settings, expert = run.settings, run.data.expert.config
    draw = DubDraw(
        run.data.clips,
        voices=voices,
        features=run.student.average.config.features,
        also=also,
        expert=expert,
        search=reach(expert),
        frames=settings.frames,
        far=settings.far,
        foreign=settings.foreign,
    )
    return load_batches(run, draw, settings.windows)


def lips(size: int, device: torch.device) -> Tensor:
    """Return ``losses.mouth`` in a whole crop, (1,1,S,S).

    In box crops, which are not aligned, the mouth lies a little lower, but still within it.
    """
    return pad(mouth(size, device=device), (0, 0, size // 2, 0))


def only_at(faces: Tensor, mask: Tensor) -> Tensor:
    """Return faces with a gradient only where a mask is 1.

    This is what an expert sees: its gradient outside the mouth leaves dark spots, whatever the
    augmentation.
    """
    return faces * mask + faces.detach() * (1 - mask)


def deviation(made: Tensor, target: Tensor, talking: Tensor, mask: Tensor) -> Tensor:
    """Return the errors of the lower halves of faces.

    Args:
        made: generated faces (B,F,3,S,S).
        target: true faces.
        talking: (B,1), false for a dub, whose mouth has no truth: a tenth of its error counts.
        mask: the mouth (1,1,S,S).

    Returns:
        (B,F,3,S/2,S).
    """
    weight = torch.where(talking[..., None, None, None], 1.0, 1 - 0.9 * mask)
    return ((made - target) * weight)[..., made.shape[-2] // 2 :, :]
