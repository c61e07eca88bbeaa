"""How well an expert finds the offset of clips: the curve of mean cosine distance over shifts."""

import torch
from torch import Tensor

from ..metrics.sync import offset_and_confidence, offset_curve
from ..models.sync_expert import SyncExpert
from .clips import Clip


@torch.inference_mode()
def embed(model: SyncExpert, faces: Tensor, mels: Tensor, *, batch: int = 64) -> tuple[Tensor, Tensor]:
    """(audio (W,D), video (W,D)) of every window of faces (N,3,S,S) float and their mel windows (N,1,80,16)."""
    window = model.config.window
    count = faces.shape[0] - window + 1
    audio: list[Tensor] = []
    video: list[Tensor] = []
    for i in range(0, count, batch):
        index = torch.arange(i, min(i + batch, count))
        with torch.autocast(faces.device.type, torch.bfloat16):
            a, v = model(mels[index], faces[index[:, None] + torch.arange(window)])
        audio.append(a)
        video.append(v)
    return torch.cat(audio), torch.cat(video)


def middle(faces: Tensor, size: int = 96) -> Tensor:
    """The (N,3,size,size) float centre of uint8 crops with margin."""
    m = (faces.shape[-1] - size) // 2
    return faces[:, :, m : m + size, m : m + size].float() / 255


def offsets_found(model: SyncExpert, clips: list[Clip]) -> dict[str, list[tuple[int, float]]]:
    """Offset and confidence of each clip, by speaker."""
    found: dict[str, list[tuple[int, float]]] = {}
    for clip in clips:
        n = len(clip.faces)
        audio, video = embed(model, middle(clip.frames(0, n)), clip.mels(list(range(n))))
        found.setdefault(clip.speaker, []).append(offset_and_confidence(offset_curve(audio, video)))
    return found
