"""Networks that judge lip sync, behind one face: crops and sound in, embeddings out."""

from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from ..audio.features import mel_windows, mfcc
from ..image.affine import Framing
from ..models.layers import fold_batch_norms, prepare_for_inference
from ..models.precision import autocast_inference
from ..models.sync_expert import SyncExpert
from ..models.syncnet import COLUMNS, COLUMNS_PER_FRAME, FPS, RATE, SIZE, WINDOW, SyncNet
from ..types import Audio


class Scorer(Protocol):
    """Lips and sound as vectors that lie close (L2) where they belong together.

    ``name``: for reports; figures of two scorers do not compare. ``fps``: the rate at which it
    looks. ``window``: frames in one look; a window of sound lasts as long. ``rate``: Hz of the
    sound. ``size``, ``framing``: its crops.
    """

    @property
    def name(self) -> str: ...
    @property
    def fps(self) -> Fraction: ...
    @property
    def window(self) -> int: ...
    @property
    def rate(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def framing(self) -> Framing: ...

    def embed_video(self, crops: Tensor) -> Tensor:
        """Crops (N,3,S,S) RGB in [0,1] of consecutive frames -> (N-window+1, D) on the CPU."""
        ...

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """The windows of sound (mono, at ``rate``) that begin with the frames start ..
        start+count-1 at ``fps``: (count, D) on the CPU."""
        ...


class ExpertScorer:
    """A lip-sync expert as a scorer.

    Its vectors have length 1, so distances lie in [0, 2] (towers that end in ReLU: at most 1.41).
    The model is folded in place and must not be trained further.
    """

    def __init__(self, model: SyncExpert, name: str) -> None:
        config = model.config
        self._model = prepare_for_inference(model)
        self._features = config.features
        self.name = name
        self.window, self.size, self.framing = config.window, config.size, config.framing
        self.rate = config.features.rate
        # a window of sound lasts as long as the frames that it was trained beside, and ``lead_ms``
        # more on both sides
        heard = config.features
        seconds = Fraction(heard.steps * heard.hop, heard.rate) - Fraction(2 * heard.lead_ms, 1000)
        self.fps = config.window / seconds

    @torch.inference_mode()
    def embed_video(self, crops: Tensor) -> Tensor:
        weight = next(self._model.parameters())
        # (N-window+1, window, 3, S, S)
        windows = crops.unfold(0, self.window, 1).permute(0, 4, 1, 2, 3)
        with autocast_inference(weight):
            return self._model.embed_video(windows.to(weight.device, weight.dtype)).float().cpu()

    @torch.inference_mode()
    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        weight = next(self._model.parameters())
        mels = mel_windows(audio, self.fps, start, count, features=self._features)
        with autocast_inference(weight):
            return self._model.embed_audio(mels.to(weight.device, weight.dtype)).float().cpu()


BATCH = 8  # windows at once: the quickest of 4 to 40 on one core, and little memory


class SyncNetScorer:
    """SyncNet, which was trained on windows of 5 frames at 25 frames a second, as a scorer.

    Its vectors are hundreds long, and so are distances. The model is folded in place and must not
    be trained further.
    """

    name: str = "syncnet"
    fps: Fraction = FPS
    window: int = WINDOW
    rate: int = RATE
    size: int = SIZE
    framing: Framing = Framing("square")

    def __init__(self, model: SyncNet) -> None:
        self.model = fold_batch_norms(model).requires_grad_(False)

    def embed_video(self, crops: Tensor) -> Tensor:
        """``crops`` (N,3,224,224) RGB float in [0,1] -> (N-4, 1024) on the CPU, one for each frame
        that begins a window."""
        return embed_lips(self.model, crops)

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Mono 16 kHz ``audio`` -> (count, 1024) on the CPU, for the windows that begin with frames
        ``start`` .. ``start+count-1``; outside the signal there is silence."""
        return embed_sound(self.model, audio, start, count)


@torch.inference_mode()
def embed_lips(model: SyncNet, crops: Tensor) -> Tensor:
    """(N,3,224,224) RGB float in [0,1] -> (N-4, 1024) on the CPU.

    None from fewer than 5 pictures.
    """
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
        # (n,1,13,20)
        windows = cepstra.unfold(1, COLUMNS, COLUMNS_PER_FRAME).movedim(1, 0)[:, None]
        out[done : done + BATCH] = model.embed_audio(windows.to(like))
    return out
