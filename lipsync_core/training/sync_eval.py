"""Evaluation of sync experts: how well an expert finds the audio offset of clips."""

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
    """Return the embeddings of every window of a clip.

    Args:
        model: the expert.
        faces: (N,3,S,S) float.
        mels: (N,1,80,16) mel windows of the frames.
        batch: windows per call of the model.

    Returns:
        (audio (W,D), video (W,D)).
    """
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
    """Return the (N,3,size,size) float center of uint8 crops with margin."""
    m = (faces.shape[-1] - size) // 2
    return faces[:, :, m : m + size, m : m + size].float() / 255


def remove_margin(faces: Tensor, size: int) -> Tensor:
    """Return crops without their margin, scaled to ``size``.

    Args:
        faces: (N,3,C,C) uint8 crops with a margin of a twelfth on every side.
        size: side of the result in pixels.

    Returns:
        (N,3,size,size) float.
    """
    return resize_faces(crop_center(faces, side_without_margin(faces.shape[-1])), size)


def side_without_margin(side: int) -> int:
    """Return the side of crops without their margin: s for crops of s + 2 (s // 12) pixels."""
    return side - 2 * (side // 14)


def scale_with_margin(faces: Tensor, size: int) -> Tensor:
    """Scale crops with their margin so that ``size`` pixels can be sampled from them.

    Larger crops are made smaller, since sampling alone would let them alias.

    Args:
        faces: (...,3,C,C) uint8.
        size: side of the sampled crop in pixels.

    Returns:
        Floats in [0,1].
    """
    x = faces.float() / 255
    if side_without_margin(faces.shape[-1]) <= size:
        return x
    return resize_faces(x.flatten(0, -4), round(size * 7 / 6)).unflatten(0, x.shape[:-3])


def resize_faces(faces: Tensor, size: int) -> Tensor:
    """Resize faces (N,3,S,S) to (N,3,size,size)."""
    return (
        faces
        if faces.shape[-1] == size
        else interpolate(faces, (size, size), mode="bilinear", antialias=True)
    )


def draw_pairs(starts: Tensor, rng: torch.Generator, *, apart: int) -> tuple[Tensor, Tensor]:
    """Draw the window of sound that each window of lips is paired with.

    Half of the windows get their own; the others get one of the same clip at least ``apart``
    frames off. A window without such a rival keeps its own.

    Args:
        starts: (K,W) first frames of the windows.
        rng: the generator.
        apart: least distance of a wrong window, in frames.

    Returns:
        (index (K,W) into W, labels (K,W) float, 1 = its own).
    """
    far = (starts[:, :, None] - starts[:, None]).abs() >= apart  # (K,W,W)
    own = torch.eye(starts.shape[1], dtype=torch.bool).expand_as(far)
    right = (torch.rand(starts.shape, generator=rng) < 0.5) | ~far.any(2)
    choice = torch.where(right[..., None], own, far).flatten(0, 1).float()
    return torch.multinomial(choice, 1, generator=rng).view(starts.shape), right.float()


def score_expert_on_clips(
    model: SyncExpert, clips: Sequence[Clip], *, apart: int
) -> Mapping[str, float]:
    """Return the means over speakers of `score_expert`.

    Args:
        model: the expert.
        clips: whole clips.
        apart: least distance of wrong windows, in frames.

    Returns:
        The figures of `score_expert`.
    """
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
    """Return an expert's scores on one clip.

    Args:
        model: the expert.
        clip: the clip.
        apart: least distance of wrong windows, in frames.

    Returns:
        ``within_one``: 1 if the expert finds the offset at 0 within a frame; ``confidence`` of
        that offset; ``off_sync``: share of windows that are closer to their own sound than to
        one drawn at least ``apart`` frames off; ``bce``: the paper's loss on those pairs (0.69
        is a guess).

    Raises:
        TrainingError: the expert gives an embedding that is not finite.
    """
    at = next(model.parameters()).device
    faces = remove_margin(clip.frames(0, len(clip.faces)), model.config.size)
    mels = clip.windows(model.config.features, 0, len(clip.faces))
    audio, video = (x.cpu() for x in embed(model, faces.to(at), mels.to(at)))
    if not bool(audio.isfinite().all() & video.isfinite().all()):
        raise TrainingError(
            f"the held-out clip {clip.name} gives no finite embedding; look at its data, or "
            "prepare again"
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
