"""Losses: pure functions that return unweighted terms; the recipes choose the weights."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_bce(audio: Tensor, video: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy on the cosine of embeddings: the paper's expert loss.

    The cosine is clamped to [0,1]: rounding gives 1 + 1e-7, and embeddings that do not end in
    ReLU give negatives.

    Args:
        audio: (N,D) embeddings of sound.
        video: (N,D) embeddings of lips.
        labels: (N,), 1 = in sync.

    Returns:
        The loss, ().
    """
    cosine = F.cosine_similarity(audio, video, dim=1).clamp(0, 1)
    return _bce(cosine, labels)


def sync_loss(audio: Tensor, video: Tensor) -> Tensor:
    """Return E_sync of the paper: the expert's loss of generated lips and their sound.

    Args:
        audio: (N,D) embeddings of sound.
        video: (N,D) embeddings of generated lips.

    Returns:
        The loss, ().
    """
    return cosine_bce(audio, video, torch.ones_like(audio[:, 0]))


def reconstruction(made: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference of pictures in [0,1].

    It is L_recon of the papers (LipGAN, Speech2Vid and Wav2Lip alike).
    """
    return (made - truth).abs().mean()


def margin_loss(audio: Tensor, video: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return LipGAN's contrastive loss of embeddings.

    It is the squared distance of pairs in sync, and for the others the square of the amount by
    which they are closer than ``margin``.

    Args:
        audio: (N,D) embeddings of sound.
        video: (N,D) embeddings of lips.
        labels: (N,), 1 = in sync; LipGAN's own code has the opposite sign.
        margin: distance from which pairs out of sync cost nothing.

    Returns:
        The loss, ().
    """
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
    """Return the symmetric cross-entropy of matching windows of sound with windows of lips.

    Args:
        audio: (K,W,D) embeddings of the sound of K clips.
        video: (K,W,D) embeddings of their lips.
        starts: (K,W) first frames of the windows.
        temperature: divides the cosines, ().
        apart: windows of a clip that are fewer frames off are neither right nor wrong.
        among: ``clip`` takes rivals from the same clip alone, so that neither voice nor face
            gives the answer away; ``batch`` takes them from the whole batch.

    Returns:
        The loss, ().
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
    """Return how much a stretch of lips matches another shift of its sound instead of its own.

    Cross-entropy over shifts. The windows vote together: a shift's logit is the mean of their
    cosines over ``temperature``.

    Args:
        video: (K,C,D) unit vectors of a stretch's consecutive windows.
        heard: (K,C+2*S,D) unit vectors of its sound, from S frames before the first window to S
            after the last.
        apart: shifts of fewer frames are neither right nor wrong.
        temperature: divides the mean cosine.

    Returns:
        (K,) losses.
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
    """Return the mean size of the differences of horizontal and of vertical neighbors in (...,H,W).

    Of an error, this is what blur leaves in it; of a flow, how much it bends.
    """
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def mouth(size: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return how much each pixel of the lower half of an aligned crop belongs to the mouth.

    Args:
        size: side of the crop in pixels.
        device: device of the result.

    Returns:
        (1,1,size/2,size): 1 over the lips and the middle of the chin, falling to 0.1 at the
        upper border of that half and to 0 before its other borders.
    """
    y = (torch.arange(size // 2, device=device) + 0.5)[:, None] / size + 0.5
    x = (torch.arange(size, device=device) + 0.5)[None] / size
    radius = (((x - 0.5) / 0.27) ** 2 + ((y - 0.70) / 0.20) ** 2).sqrt()
    return ((1 - radius) * 4).clamp(0, 1)[None, None]


def discriminator_loss(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return the BCE of the visual-quality discriminator.

    Args:
        real: (N,1) verdicts on photographs.
        fake: (N,1) verdicts on generated faces.

    Returns:
        The terms by name, () each.
    """
    return {
        "real": _bce(real, torch.ones_like(real)),
        "fake": _bce(fake, torch.zeros_like(fake)),
    }


def perceptual_loss(fake: Tensor) -> Tensor:
    """Return L_gen as in the public code (non-saturating): BCE of the (N,1) verdicts against 1."""
    return _bce(fake, torch.ones_like(fake))


def feature_loss(guessed: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return how far features are from a teacher's.

    Args:
        guessed: per layer (N,C,H,W).
        wanted: the teacher's, per layer (N,C,H',W'), which are pooled to the same grid.

    Returns:
        The squared distance as a share of the teacher's energy (0: equal, 1: no better than
        zeros), the mean over layers, ().
    """
    shares: list[Tensor] = []
    for mine, other in zip(guessed, wanted, strict=True):
        aim = F.adaptive_avg_pool2d(other, (mine.shape[2], mine.shape[3])).detach().float()
        shares.append((mine.float() - aim).square().mean() / aim.square().mean().clamp_min(1e-12))
    return torch.stack(shares).mean()


def _bce(share: Tensor, label: Tensor) -> Tensor:
    """BCE of shares in [0,1], in float32: CUDA refuses it under autocast; bfloat16 has 2 digits."""
    with torch.autocast(share.device.type, enabled=False):
        return F.binary_cross_entropy(share.float(), label.float())
