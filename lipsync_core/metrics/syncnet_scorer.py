"""SyncNet as a scorer of the exact mode: its embeddings, window by window."""

from fractions import Fraction

import torch
from torch import Tensor

from ..audio.ops import mfcc
from ..geometry import Framing
from ..models.layers import fold
from ..models.syncnet import COLUMNS, COLUMNS_PER_FRAME, FPS, RATE, SIZE, WINDOW, SyncNet
from ..types import Audio

BATCH = 8  # windows at once: the quickest of 4 to 40 on one core, and little memory


class SyncNetScorer:
    """SyncNet, which was trained on windows of 5 frames at 25 frames a second, as a scorer. Its vectors are hundreds long,
    and so are distances. The model is folded in place and must not be trained further."""

    name: str = "syncnet"
    fps: Fraction = FPS
    window: int = WINDOW
    rate: int = RATE
    size: int = SIZE
    framing: Framing = Framing("square")

    def __init__(self, model: SyncNet) -> None:
        self.model = fold(model).requires_grad_(False)

    def embed_video(self, crops: Tensor) -> Tensor:
        """``crops`` (N,3,224,224) RGB float in [0,1] -> (N-4, 1024) on the CPU, one for each frame that begins a window."""
        return embed_lips(self.model, crops)

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Mono 16 kHz ``audio`` -> (count, 1024) on the CPU, for the windows that begin with frames ``start`` ..
        ``start+count-1``; outside the signal there is silence."""
        return embed_sound(self.model, audio, start, count)


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
def embed_sound(model: SyncNet, audio: Audio, start: int, count: int) -> Tensor:
    """As ``SyncNetScorer.embed_audio``. Only a few windows of sound are worked on at a time."""
    like = next(model.parameters())
    out = torch.empty(count, model.config.embedding)
    for done in range(0, count, BATCH):
        columns = COLUMNS_PER_FRAME * (min(BATCH, count - done) - 1) + COLUMNS
        cepstra = mfcc(audio, first=COLUMNS_PER_FRAME * (start + done), count=columns)
        windows = cepstra.unfold(1, COLUMNS, COLUMNS_PER_FRAME).movedim(1, 0)[:, None]  # (n,1,13,20)
        out[done : done + BATCH] = model.embed_audio(windows.to(like))
    return out
