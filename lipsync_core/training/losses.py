"""Losses: pure functions that return unweighted terms. How they are weighed is the recipe's choice."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_bce(audio: Tensor, video: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on the cosine of (N,D) embeddings, labels (N,) 1 = in sync (the paper's
    expert loss).

    The cosine is clamped to [0,1]: rounding gives 1 + 1e-7, and embeddings that do not end in ReLU
    give negatives.
    """
    cosine = F.cosine_similarity(audio, video, dim=1).clamp(0, 1)
    return _bce(cosine, labels)


def sync_loss(audio: Tensor, video: Tensor) -> Tensor:
    """E_sync of the paper: how far generated lips (N,D) are from their sound (N,D) by the expert's
    judgement."""
    return cosine_bce(audio, video, torch.ones_like(audio[:, 0]))


def reconstruction(made: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of pictures in [0,1]: L_recon of the papers (LipGAN, Speech2Vid and
    Wav2Lip alike)."""
    return (made - truth).abs().mean()


def margin_loss(audio: Tensor, video: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """LipGAN's contrastive loss of (N,D) embeddings, labels (N,) 1 = in sync (its own code counts
    the other way round): the squared distance of pairs in sync, and for the others that by which
    they lie closer than ``margin``, squared."""
    # the root of 0 has no gradient
    distance = (audio - video).square().sum(1).clamp_min(1e-12).sqrt()
    return (
        labels * distance.square() + (1 - labels) * (margin - distance).clamp_min(0).square()
    ).mean()


def contrastive(
    audio: Tensor,
    video: Tensor,
    starts: Tensor,
    temperature: Tensor,
    *,
    apart: int = 2,
    among: Literal["clip", "batch"] = "clip",
) -> Tensor:
    """Which window of sound belongs to which of lips: symmetric cross-entropy over (K,W,D)
    embeddings of K clips.

    starts (K,W): the windows' first frames. Rivals come from the same clip alone, so that neither
    voice nor face gives the answer away, or from the whole ``batch``; those of a clip that are
    fewer than ``apart`` frames off are neither right nor wrong.
    """
    if among == "batch":  # one long clip, whose parts lie far apart
        far = (starts.max() + apart) * torch.arange(starts.shape[0], device=starts.device)
        starts = (starts + far[:, None]).view(1, -1)
        audio, video = audio.reshape(1, -1, audio.shape[2]), video.reshape(1, -1, video.shape[2])
    logits = video @ audio.mT / temperature  # (K, W, W)
    off = (starts[:, :, None] - starts[:, None]).abs()
    logits = logits.masked_fill((off > 0) & (off < apart), float("-inf"))
    k, w, _ = logits.shape
    labels = torch.arange(w, device=logits.device).repeat(k)
    return (
        F.cross_entropy(logits.flatten(0, 1), labels)
        + F.cross_entropy(logits.mT.flatten(0, 1), labels)
    ) / 2


def shift_loss(video: Tensor, heard: Tensor, *, apart: int = 3, temperature: float = 0.1) -> Tensor:
    """By how much a stretch of lips is found at another shift of its sound than its own: (K,),
    cross-entropy over shifts.

    video (K,C,D): unit vectors of a stretch's consecutive windows; heard (K,C+2*S,D): those of its
    sound, from S frames before the first window to S after the last. The windows judge together: a
    shift's logit is the mean of their cosines over ``temperature``. Shifts of less than ``apart``
    frames are neither right nor wrong.
    """
    k, count, _ = video.shape
    shifts = heard.unfold(1, count, 1)  # (K, 2*S+1, D, C)
    # no einsum: under autocast it would round to bfloat16, and the shifts differ by little
    logits = (shifts * video.mT[:, None]).sum((2, 3)) / (count * temperature)
    search = logits.shape[1] // 2
    off = (torch.arange(logits.shape[1], device=logits.device) - search).abs()
    logits = logits.masked_fill((off > 0) & (off < apart), float("-inf"))
    return F.cross_entropy(logits, torch.full((k,), search, device=logits.device), reduction="none")


def slopes(x: Tensor) -> Tensor:
    """Mean size of the differences of horizontal and of vertical neighbours in (...,H,W).

    Of an error, what blur leaves in it; of a flow, how much it bends.
    """
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def mouth(size: int, *, device: torch.device | str = "cpu") -> Tensor:
    """(1,1,size/2,size): how much the lower half of an aligned crop is mouth, 1 over the lips and
    the chin's middle, falling to 0.1 at that half's upper edge and to 0 before the others."""
    y = (torch.arange(size // 2, device=device) + 0.5)[:, None] / size + 0.5
    x = (torch.arange(size, device=device) + 0.5)[None] / size
    radius = (((x - 0.5) / 0.27) ** 2 + ((y - 0.70) / 0.20) ** 2).sqrt()
    return ((1 - radius) * 4).clamp(0, 1)[None, None]


def discriminator_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """BCE of the visual-quality discriminator's (N,1) verdicts on photographs and on generated
    faces."""
    return {
        "real": _bce(real, torch.ones_like(real)),
        "fake": _bce(fake, torch.zeros_like(fake)),
    }


def perceptual_loss(fake: Tensor) -> Tensor:
    """L_gen as the public code has it (non-saturating): BCE of the (N,1) verdicts against 1."""
    return _bce(fake, torch.ones_like(fake))


def feature_loss(guessed: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How far features (N,C,H,W) are from a teacher's (N,C,H',W'), which are pooled to their grid:
    the squared distance as a share of the teacher's energy (0: equal, 1: no better than zeros), the
    mean over layers."""
    shares: list[Tensor] = []
    for mine, other in zip(guessed, wanted, strict=True):
        aim = F.adaptive_avg_pool2d(other, (mine.shape[2], mine.shape[3])).detach().float()
        shares.append((mine.float() - aim).square().mean() / aim.square().mean().clamp_min(1e-12))
    return torch.stack(shares).mean()


def _bce(share: Tensor, label: Tensor) -> Tensor:
    """Of shares in [0,1], in float32: under autocast CUDA refuses it, and bfloat16 has two digits."""
    with torch.autocast(share.device.type, enabled=False):
        return F.binary_cross_entropy(share.float(), label.float())
