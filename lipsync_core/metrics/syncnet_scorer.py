"""SyncNet as a scorer of the exact mode: its embeddings, window by window."""

from fractions import Fraction

import torch
from torch import Tensor

from ..audio import mfcc
from ..geometry import Framing
from ..models.syncnet import COLUMNS, COLUMNS_PER_FRAME, FPS, SIZE, WINDOW, SyncNet
from ..types import Audio

RATE = 16000  # Hz
BATCH = 20  # windows at once: as many as the reference takes, 240 MB of activations; more is no quicker on CPUs


class SyncNetScorer:
    """Embeds faces and sound with ``model`` (in eval mode, on any device; ``layers.fold`` makes it a tenth quicker), which
    was trained on 25 frames a second and windows of 5. Agreement is a small Euclidean distance."""

    name: str = "syncnet"
    fps: Fraction = FPS
    window: int = WINDOW
    size: int = SIZE
    framing: Framing = Framing("square")
    rate: int = RATE

    def __init__(self, model: SyncNet) -> None:
        self.model = model

    def embed_video(self, crops: Tensor) -> Tensor:
        """``crops`` (N,3,224,224) RGB float in [0,1] -> (N-4, 1024) on the CPU, one for each frame that begins a window."""
        return embed_lips(self.model, crops)

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Mono 16 kHz ``audio`` -> (count, 1024) on the CPU, for the windows that begin with frames ``start`` ..
        ``start+count-1``; outside the signal there is silence."""
        columns = COLUMNS_PER_FRAME * (count - 1) + COLUMNS if count > 0 else 0
        return embed_sound(self.model, mfcc(audio, first=COLUMNS_PER_FRAME * start, count=columns))


@torch.inference_mode()
def embed_lips(model: SyncNet, crops: Tensor) -> Tensor:
    """(N,3,224,224) RGB float in [0,1] -> (N-4, 1024) on the CPU; none from fewer than 5 pictures."""
    like = next(model.parameters())
    windows = max(0, crops.shape[0] - WINDOW + 1)
    out = torch.empty(windows, model.config.embedding)
    for first in range(0, windows, BATCH):
        few = crops[first : first + BATCH + WINDOW - 1].to(like)
        out[first : first + BATCH] = model.embed_video(few.unfold(0, WINDOW, 1).movedim(-1, 2))
    return out


@torch.inference_mode()
def embed_sound(model: SyncNet, cepstra: Tensor) -> Tensor:
    """(13,T) of ``audio.mfcc`` -> (floor((T-20)/4)+1, 1024) on the CPU; none from fewer than 20 columns."""
    like = next(model.parameters())
    if cepstra.shape[1] < COLUMNS:
        return torch.empty(0, model.config.embedding)
    windows = cepstra.unfold(1, COLUMNS, COLUMNS_PER_FRAME).movedim(1, 0)[:, None]  # (n,1,13,20)
    return torch.cat([model.embed_audio(few.to(like)).float().cpu() for few in windows.split(BATCH)])
