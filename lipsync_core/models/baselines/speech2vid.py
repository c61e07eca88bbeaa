"""Speech2Vid ("You said that?", 2017): the earliest of the baselines.

The public release is Matlab's binary files, so the layer table is that of the third-party Keras
version (github.com/Sindhu-Hegde/you_said_that, commit 2b028cb), which redraws video as LipGAN's
authors compared it: beside stills of the person it sees the frame's upper half. The original draws
109 px, up-samples bilinearly and sharpens with a second network; neither is here. Keras' padding
and batch norms (epsilon 1e-3, momentum 0.8) are kept. 41 705 989 parameters with one still, 1.62
GMAC a frame. Its input is LipGAN's cepstra.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...audio.features import CepstrumFeatures
from ...image.affine import Framing
from ..generator import TalkingFace, blank_lower_half
from ..layers import SameConv, SameUpConv, pool_same

_EPSILON, _MOMENTUM = 1e-3, 0.2


@dataclass(frozen=True, slots=True)
class Speech2VidConfig:
    """Shape of the network, and its inputs.

    Attributes:
        audio: Channels of the audio encoder's convolutions.
        face: Channels of the face encoder's convolutions.
        hidden: Width of the first dense layers.
        embedding: Width of the last dense layers.
        seed: Channels of the coarsest map, with which the decoder begins.
        decoder: Channels of the decoder's convolutions.
        size: Side of the crops in px.
        references: Number of stills of the person; 5 in the paper.
        features: Audio features.
        framing: How crops are placed on faces.
    """

    audio: tuple[int, int, int, int, int] = (64, 128, 256, 256, 512)
    face: tuple[int, int, int, int, int] = (96, 256, 512, 512, 512)
    hidden: int = 512
    embedding: int = 256
    seed: int = 2
    decoder: tuple[int, int, int, int, int] = (512, 256, 96, 96, 64)
    size: int = 112
    references: int = 1
    features: CepstrumFeatures = CepstrumFeatures()
    framing: Framing = Framing()


SPEECH2VID = Speech2VidConfig()


class Speech2Vid(TalkingFace):
    """Redraws a face from cepstra (N,1,12,35)."""

    config: Speech2VidConfig

    def __init__(self, config: Speech2VidConfig) -> None:
        super().__init__()
        self.config = config
        a, f, d = config.audio, config.face, config.decoder
        self.audio_first = nn.Sequential(_conv(1, a[0]), _conv(a[0], a[1]))
        self.audio_second = nn.Sequential(_conv(a[1], a[2]), _conv(a[2], a[3]), _conv(a[3], a[4]))
        height, width = config.features.coefficients, config.features.steps
        self.audio_dense = _dense(a[4] * _half(height) * _half(_half(width)), config)
        self.face_first = _conv(3 + 3 * config.references, f[0], 7, 2)
        self.face_second = _conv(f[0], f[1], 5, 2)
        self.face_third = nn.Sequential(_conv(f[1], f[2]), _conv(f[2], f[3]), _conv(f[3], f[4]))
        coarse = config.size // 16
        self.face_dense = _dense(f[4] * coarse**2, config)
        seed = nn.Linear(2 * config.embedding, config.seed * coarse**2)
        self.seed = nn.Sequential(
            seed, nn.ReLU(inplace=True), nn.Unflatten(1, (config.seed, coarse, coarse))
        )
        self.decoder = nn.ModuleList(
            [
                nn.Sequential(_up(config.seed, d[0], 6, 1), _up(d[0], d[1], 5, 1)),
                _up(d[1] + f[1], d[2], 5, 2),
                _up(d[2] + f[1], d[3], 5, 2),
            ]
        )
        self.head = nn.Sequential(_up(d[3] + f[0], d[4], 5, 2), SameUpConv(d[4], 3, 5, 2))

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Compute features at 1/4, 1/8 and 1/16 of the size, and the embedding (N,D)."""
        x = torch.cat([prepared, blank_lower_half(target)], 1)
        quarter = pool_same(self.face_first(x), 3, (2, 2))
        eighth = self.face_second(quarter)
        sixteenth = pool_same(eighth, 3, (2, 2))
        return [quarter, eighth, sixteenth, self.face_dense(self.face_third(sixteenth))]

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Generate logits of colors (N,3,S,S)."""
        *finer, face = (skip.expand(driving.shape[0], *skip.shape[1:]) for skip in target)
        audio = self.audio_second(pool_same(self.audio_first(driving), 3, (1, 2)))
        audio = self.audio_dense(pool_same(audio, 3, (2, 2)))
        x = self.seed(torch.cat([audio, face], 1))
        for block, skip in zip(self.decoder, reversed(finer), strict=True):
            x = torch.cat([block(x), skip], 1)
        return self.head(x)

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Turn logits into pictures."""
        return planes.sigmoid()


def _half(size: int) -> int:
    return -(-size // 2)


def _conv(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    norm = nn.BatchNorm2d(cout, _EPSILON, _MOMENTUM)
    return nn.Sequential(SameConv(cin, cout, kernel, stride), norm, nn.ReLU(inplace=True))


def _up(cin: int, cout: int, kernel: int, stride: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(cout, _EPSILON, _MOMENTUM)
    return nn.Sequential(SameUpConv(cin, cout, kernel, stride), norm, nn.ReLU(inplace=True))


def _dense(cin: int, config: Speech2VidConfig) -> nn.Sequential:
    first, second = nn.Linear(cin, config.hidden), nn.Linear(config.hidden, config.embedding)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
