"""How well an expert finds the offset of clips: the curve of mean cosine distance over shifts."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, interpolate

from ..errors import TrainingError
from ..metrics.sync import find_offset, offset_curve
from ..models.precision import autocast_training
from ..models.sync_expert import SyncExpert
from .clips import Clip


@torch.inference_mode()
def embed(
    model: SyncExpert, faces: Tensor, mels: Tensor, *, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """(audio (W,D), video (W,D)) of every window of faces (N,3,S,S) float and their mel windows
    (N,1,80,16)."""
    window = model.config.window
    count = faces.shape[0] - window + 1
    audio: list[Tensor] = []
    video: list[Tensor] = []
    for index in torch.arange(count).tensor_split(
        max(1, -(-count // batch))
    ):  # no part of one: batch norms may be learning
        with autocast_training(faces.device):
            a, v = model(mels[index], faces[index[:, None] + torch.arange(window)])
        audio.append(a)
        video.append(v)
    return torch.cat(audio), torch.cat(video)


def crop_center(faces: Tensor, size: int = 96) -> Tensor:
    """The (N,3,size,size) float centre of uint8 crops with margin."""
    m = (faces.shape[-1] - size) // 2
    return faces[:, :, m : m + size, m : m + size].float() / 255


def remove_margin(faces: Tensor, size: int) -> Tensor:
    """(N,3,C,C) uint8 crops with a margin of a twelfth all round -> (N,3,size,size) float without
    it."""
    return resize_faces(crop_center(faces, side_without_margin(faces.shape[-1])), size)


def side_without_margin(side: int) -> int:
    """The side of crops without their margin: of s + 2 (s // 12) px it is s, whatever s is."""
    return side - 2 * (side // 14)


def scale_with_margin(faces: Tensor, size: int) -> Tensor:
    """(...,3,C,C) uint8 crops with their margin, for drawing ``size`` px from: floats in [0,1],
    larger ones made smaller, since sampling alone would let them alias."""
    x = faces.float() / 255
    if side_without_margin(faces.shape[-1]) <= size:
        return x
    return resize_faces(x.flatten(0, -4), round(size * 7 / 6)).unflatten(0, x.shape[:-3])


def resize_faces(faces: Tensor, size: int) -> Tensor:
    """Faces (N,3,S,S) -> (N,3,size,size)."""
    return (
        faces
        if faces.shape[-1] == size
        else interpolate(faces, (size, size), mode="bilinear", antialias=True)
    )


def draw_pairs(starts: Tensor, rng: torch.Generator, *, apart: int) -> tuple[Tensor, Tensor]:
    """Which window's sound to show to each of the (K,W) windows that begin at ``starts``, and
    whether it is the right one: index (K,W) into W, labels (K,W) float. Half of the time the own
    one, otherwise one of the same clip at least ``apart`` frames off; a window that has none of
    these keeps its own."""
    far = (starts[:, :, None] - starts[:, None]).abs() >= apart  # (K,W,W)
    own = torch.eye(starts.shape[1], dtype=torch.bool).expand_as(far)
    right = (torch.rand(starts.shape, generator=rng) < 0.5) | ~far.any(2)
    choice = torch.where(right[..., None], own, far).flatten(0, 1).float()
    return torch.multinomial(choice, 1, generator=rng).view(starts.shape), right.float()


def score_expert_on_clips(
    model: SyncExpert, clips: Sequence[Clip], *, apart: int
) -> Mapping[str, float]:
    """What an expert makes of whole clips: means over speakers of ``score_expert``."""
    by_speaker: dict[str, list[Mapping[str, float]]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(score_expert(model, clip, apart=apart))
    names = next(iter(by_speaker.values()))[0]
    return {
        name: fmean(fmean(row[name] for row in rows) for rows in by_speaker.values())
        for name in names
    }


@torch.inference_mode()
def score_expert(model: SyncExpert, clip: Clip, *, apart: int) -> Mapping[str, float]:
    """What an expert makes of one clip: ``within_one``, 1 where it finds the offset at 0 within a
    frame; ``confidence``, of that offset; ``off_sync``, the share of windows that lie closer to
    their own sound than to one drawn at least ``apart`` frames off; ``bce``, the paper's loss on
    those pairs (0.69 is a guess). TrainingError where it gives no finite embedding."""
    at = next(model.parameters()).device
    faces = remove_margin(clip.frames(0, len(clip.faces)), model.config.size)
    mels = clip.windows(model.config.features, 0, len(clip.faces))
    audio, video = (x.cpu() for x in embed(model, faces.to(at), mels.to(at)))
    if not bool(audio.isfinite().all() & video.isfinite().all()):
        raise TrainingError(
            f"the held-out clip {clip.name} gives no finite embedding; look at its data, or "
            "prepare anew"
        )
    offset, confidence = find_offset(offset_curve(audio, video))
    starts = torch.arange(len(video))
    away = ((starts[:, None] - starts).abs() >= apart).float()
    wrong = away.multinomial(1, generator=torch.Generator().manual_seed(0))[:, 0]
    true, false = (video * audio).sum(1), (video * audio[wrong]).sum(1)
    cosine = torch.cat([true, false]).clamp(0, 1)
    labels = torch.cat([torch.ones_like(true), torch.zeros_like(false)])
    return {
        "within_one": float(abs(offset) <= 1),
        "confidence": confidence,
        "off_sync": float((true > false).float().mean()),
        "bce": float(binary_cross_entropy(cosine, labels)),
    }
