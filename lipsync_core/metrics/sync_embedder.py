"""Networks that judge lip sync, behind one interface: crops and audio in, embeddings out."""

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
    """Network that embeds lips and audio as vectors that are close (L2) if they belong together.

    Attributes:
        name: Name for reports; figures of two scorers are not comparable.
        fps: Frame rate of the crops it takes.
        window: Frames per embedding; a window of audio is as long.
        rate: Sample rate of the audio in Hz.
        size: Side of the crops in px.
        framing: Framing of the crops.
    """

    @property
    def name(self) -> str:
        """Name for reports."""
        ...

    @property
    def fps(self) -> Fraction:
        """Frame rate of the crops."""
        ...

    @property
    def window(self) -> int:
        """Frames per embedding."""
        ...

    @property
    def rate(self) -> int:
        """Sample rate of the audio in Hz."""
        ...

    @property
    def size(self) -> int:
        """Side of the crops in px."""
        ...

    @property
    def framing(self) -> Framing:
        """Framing of the crops."""
        ...

    def embed_video(self, crops: Tensor) -> Tensor:
        """Embed the windows of consecutive crops.

        Args:
            crops: (N,3,S,S) RGB in [0,1] of consecutive frames.

        Returns:
            (N-window+1,D) embeddings on the CPU.
        """
        ...

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Embed the windows of audio that begin with ``count`` consecutive frames.

        Args:
            audio: Mono audio at ``rate``.
            start: First frame, at ``fps``.
            count: Number of windows.

        Returns:
            (count,D) embeddings on the CPU.
        """
        ...


class ExpertScorer:
    """Lip-sync expert as a scorer.

    Its vectors have length 1, so distances are in [0,2] (towers that end in ReLU: at most 1.41).
    The model is folded in place and must not be trained further.

    Args:
        model: Lip-sync expert.
        name: Name for reports.
    """

    def __init__(self, model: SyncExpert, name: str) -> None:
        config = model.config
        self._model = prepare_for_inference(model)
        self._features = config.features
        self.name = name
        self.window, self.size, self.framing = config.window, config.size, config.framing
        self.rate = config.features.rate
        # a window of audio lasts as long as the frames it was trained with, plus ``lead_ms`` on
        # both sides
        features = config.features
        seconds = Fraction(features.steps * features.hop, features.rate) - Fraction(
            2 * features.lead_ms, 1000
        )
        self.fps = config.window / seconds

    @torch.inference_mode()
    def embed_video(self, crops: Tensor) -> Tensor:
        """Embed the windows of consecutive crops; see ``Scorer``."""
        weight = next(self._model.parameters())
        # (N-window+1, window, 3, S, S)
        windows = crops.unfold(0, self.window, 1).permute(0, 4, 1, 2, 3)
        with autocast_inference(weight):
            return self._model.embed_video(windows.to(weight.device, weight.dtype)).float().cpu()

    @torch.inference_mode()
    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Embed windows of audio; see ``Scorer``."""
        weight = next(self._model.parameters())
        mels = mel_windows(audio, self.fps, start, count, features=self._features)
        with autocast_inference(weight):
            return self._model.embed_audio(mels.to(weight.device, weight.dtype)).float().cpu()


BATCH = 8  # windows at once: the fastest of 4 to 40 on one core, and little memory


class SyncNetScorer:
    """SyncNet, which was trained on windows of 5 frames at 25 frames a second, as a scorer.

    Its vectors have lengths in the hundreds, and so have their distances. The model is folded in
    place and must not be trained further.

    Args:
        model: SyncNet.
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
        """Embed (N,3,224,224) crops as (N-4,1024), one for each frame that begins a window."""
        return embed_lips(self.model, crops)

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        """Embed mono 16 kHz audio as (count,1024); outside the signal there is silence."""
        return embed_sound(self.model, audio, start, count)


@torch.inference_mode()
def embed_lips(model: SyncNet, crops: Tensor) -> Tensor:
    """Embed the windows of consecutive crops with SyncNet.

    Args:
        model: SyncNet.
        crops: (N,3,224,224) RGB float in [0,1].

    Returns:
        (N-4,1024) embeddings on the CPU; none for fewer than 5 crops.
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
    """Embed windows of audio with SyncNet, a few at a time.

    Args:
        model: SyncNet.
        audio: Mono audio at 16 kHz; outside the signal there is silence.
        start: First frame, at 25 fps.
        count: Number of windows.

    Returns:
        (count,1024) embeddings on the CPU, for the windows that begin with the frames ``start`` to
        ``start+count-1``.
    """
    like = next(model.parameters())
    out = torch.empty(count, model.config.embedding)
    for done in range(0, count, BATCH):
        columns = COLUMNS_PER_FRAME * (min(BATCH, count - done) - 1) + COLUMNS
        cepstra = mfcc(audio, first=COLUMNS_PER_FRAME * (start + done), count=columns)
        # (n,1,13,20)
        windows = cepstra.unfold(1, COLUMNS, COLUMNS_PER_FRAME).movedim(1, 0)[:, None]
        out[done : done + BATCH] = model.embed_audio(windows.to(like))
    return out
