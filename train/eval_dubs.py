"""What recipes share that teach by dubs: frames that say something else than they did, of which
there is no truth.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from lipsync_core.errors import TrainingError
from lipsync_core.metrics.sync import SEARCH
from lipsync_core.models.generator import TalkingFace
from lipsync_core.models.lip_warp import LipWarp
from lipsync_core.models.sync_expert import SyncExpert, SyncExpertConfig
from lipsync_core.models.weights import load_talking_face
from lipsync_core.training.augment import disturb
from lipsync_core.training.losses import mouth, shift_loss, sync_loss
from lipsync_core.training.sync_eval import resize_faces
from train.export import network_of
from train.harness import is_run_checkpoint


def read_talking_face(name: str) -> TalkingFace:
    """A network that draws faces: a run's checkpoint (RUN/best.pt), a weights file, or a bundled or
    pulled name.

    TrainingError for one that draws nothing.
    """
    if not is_run_checkpoint(name):
        face = load_talking_face(name)
        if isinstance(face, LipWarp):
            raise TrainingError(
                f"{name} is a LipWarp, which moves the lips of real pictures and draws none: it "
                "can neither teach a generator "
                "nor be the start of one; wanted a network that draws faces: name `mini-2`"
            )
        return face
    model = network_of(Path(name))
    if not isinstance(model, TalkingFace):
        raise TrainingError(
            f"{name} is a run of a {type(model).__name__}; wanted one that draws faces"
        )
    return model.eval()


def reach(expert: SyncExpertConfig) -> int:
    """How many frames of sound before and after the lips ``sync_term`` wants for this expert."""
    return SEARCH if expert.projection else 0


def sync_term(expert: SyncExpert, faces: Tensor, heard: Tensor, rng: torch.Generator) -> Tensor:
    """How far the lips of faces (B,F,3,S,S) are from their sound by a frozen expert, (): E_sync of
    the paper where its cosine is never negative; for one of the contrastive loss, where E_sync has
    no gradient, the cross-entropy over shifts.

    It sees the faces disturbed, as in its own training. heard: (B,F-window+1+2*reach,1,80,16).
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


def lips(size: int, device: torch.device) -> Tensor:
    """(1,1,S,S): ``losses.mouth`` in a whole crop.

    In box crops, which are not aligned, the mouth lies a little lower, but within it all the same.
    """
    return pad(mouth(size, device=device), (0, 0, size // 2, 0))


def only_at(faces: Tensor, mask: Tensor) -> Tensor:
    """``faces`` with a gradient where ``mask`` is 1 alone.

    What an expert sees: elsewhere than at the mouth it buys dark blots, whatever the augmentation.
    """
    return faces * mask + faces.detach() * (1 - mask)


def deviation(made: Tensor, target: Tensor, talking: Tensor, mask: Tensor) -> Tensor:
    """By how much the lower halves of faces (B,F,3,S,S) are off, (B,F,3,S/2,S).

    Where a window is a dub, ``talking`` (B,1) false, the mouth has no truth, and a tenth of it
    counts.
    """
    weight = torch.where(talking[..., None, None, None], 1.0, 1 - 0.9 * mask)
    return ((made - target) * weight)[..., made.shape[-2] // 2 :, :]
