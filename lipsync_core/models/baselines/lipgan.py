"""Generator of LipGAN ("Towards Automatic Face-to-Face Translation", 2019), predecessor of Wav2Lip.

Layer tables: the public Keras code (github.com/Rudrabha/LipGAN, MIT, commit 0a4aab9), its
``residual`` and its ``basic`` network (71 331 987 and 24 922 771 parameters, 5.55 and 1.44 GMAC a
frame); both take cepstra. Kept from Keras: its padding, batch norms with epsilon 1e-3 and momentum
0.8 (0.2 in PyTorch), biases everywhere. Its weights are a Keras file (.h5), which nothing here
reads; the later network that takes log-mel (its branch fully_pythonic) is not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...audio.features import CepstrumFeatures
from ...image.affine import Framing
from ..generator import TalkingFace, blank_lower_half, flip_channels
from ..layers import SameConv, SameUpConv

_EPSILON, _MOMENTUM = 1e-3, 0.2
_DOWN = (2, 2)


@dataclass(frozen=True, slots=True)
class LipGANStage:
    """A convolution, and pairs of 3x3 ones with a skip connection round each pair.

    Attributes:
        channels: Output channels.
        kernel: Height and width.
        stride: Height and width.
        residuals: Number of pairs.
        whole: No padding, so that the kernel covers the map.
        top: Rows of zeros that are put above the map first.
    """

    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    residuals: int = 0
    whole: bool = False
    top: int = 0


@dataclass(frozen=True, slots=True)
class LipGANConfig:
    """Shape of a LipGAN generator, and its inputs.

    The public code feeds BGR with box framing; ours are RGB and aligned.

    Attributes:
        face: Stages of the face encoder; each but the last two is a skip to one of ``decoder``, the
            last two make its embedding.
        audio: Stages of the audio encoder.
        decoder: Stages of the decoder.
        finish: Channels of the two layers after the decoder.
        size: Side of the crops in px.
        bgr: Whether the weights were trained on BGR.
        references: Number of reference frames.
        features: Audio features.
        framing: How crops are placed on faces.
    """

    face: tuple[LipGANStage, ...]
    audio: tuple[LipGANStage, ...]
    decoder: tuple[LipGANStage, ...]
    finish: int = 16
    size: int = 96
    bgr: bool = False
    references: int = 1
    features: CepstrumFeatures = CepstrumFeatures()
    framing: Framing = Framing()


LIPGAN = LipGANConfig(
    face=(
        LipGANStage(32, (7, 7)),
        LipGANStage(64, (5, 5), _DOWN, 2),
        LipGANStage(128, stride=_DOWN, residuals=3),
        LipGANStage(256, stride=_DOWN, residuals=2),
        LipGANStage(512, stride=_DOWN, residuals=2),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, whole=True),
        LipGANStage(512, (1, 1)),
    ),
    audio=(
        LipGANStage(128, residuals=3),
        LipGANStage(256, stride=(1, 2), residuals=2, top=1),
        LipGANStage(512, stride=_DOWN, residuals=2),
        LipGANStage(512, stride=_DOWN, residuals=1),
        LipGANStage(512, (4, 5), whole=True),
        LipGANStage(512, (1, 1)),
    ),
    decoder=(
        LipGANStage(512, stride=(3, 3)),
        LipGANStage(512, stride=_DOWN, residuals=2),
        LipGANStage(256, stride=_DOWN, residuals=2),
        LipGANStage(128, stride=_DOWN, residuals=2),
        LipGANStage(64, stride=_DOWN, residuals=2),
        LipGANStage(32, stride=_DOWN),
    ),
)

LIPGAN_BASIC = LipGANConfig(
    face=(
        LipGANStage(32, (11, 11)),
        LipGANStage(64, (7, 7), _DOWN),
        LipGANStage(128, (5, 5), _DOWN),
        LipGANStage(256, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, whole=True),
        LipGANStage(256, (1, 1)),
    ),
    audio=(
        LipGANStage(128),
        LipGANStage(256, stride=(1, 2), top=1),
        LipGANStage(256),
        LipGANStage(256, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, (4, 5), whole=True),
        LipGANStage(256, (1, 1)),
    ),
    decoder=(
        LipGANStage(512, stride=(3, 3)),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(256, stride=_DOWN),
        LipGANStage(128, stride=_DOWN),
        LipGANStage(64, stride=_DOWN),
        LipGANStage(32, stride=_DOWN),
    ),
)


class LipGAN(TalkingFace):
    """Redraws a face from cepstra (N,1,12,35)."""

    config: LipGANConfig

    def __init__(self, config: LipGANConfig) -> None:
        super().__init__()
        self.config = config
        self.face_encoder = _encoder(3 + 3 * config.references, config.face)
        self.audio_encoder = nn.Sequential(*_encoder(1, config.audio))
        skips = [stage.channels for stage in config.face[:-2]]
        self.decoder = nn.ModuleList()
        cin = config.face[-1].channels + config.audio[-1].channels
        for stage in config.decoder:
            self.decoder.append(nn.Sequential(_layer(cin, stage, SameUpConv), *_residuals(stage)))
            cin = stage.channels + skips.pop()
        last = LipGANStage(config.finish)
        self.head = nn.Sequential(
            _layer(cin, last), _layer(config.finish, last), nn.Conv2d(config.finish, 3, 1)
        )

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Compute the face encoder's features, finest first, then the embedding (N,D,1,1)."""
        masked = blank_lower_half(target)
        if self.config.bgr:
            masked, prepared = flip_channels(masked), flip_channels(prepared)
        x = torch.cat([prepared, masked], 1)
        features: list[Tensor] = []
        for stage in self.face_encoder:
            x = stage(x)
            features.append(x)
        return [*features[:-2], features[-1]]

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Generate logits of colors (N,3,S,S)."""
        *finer, face = (skip.expand(driving.shape[0], -1, -1, -1) for skip in target)
        x = torch.cat([face, self.audio_encoder(driving)], 1)
        for block, skip in zip(self.decoder, reversed(finer), strict=True):
            x = torch.cat([skip, block(x)], 1)
        return self.head(x)

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Turn logits into pictures."""
        painted = planes.sigmoid()
        return flip_channels(painted) if self.config.bgr else painted


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        stage = LipGANStage(channels)
        conv, norm, _ = _layer(channels, stage)
        self.body = nn.Sequential(*_layer(channels, stage), conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + x).relu_()


def _layer(
    cin: int, stage: LipGANStage, kind: type[nn.Conv2d] | type[SameUpConv] = SameConv
) -> nn.Sequential:
    kind = nn.Conv2d if stage.whole else kind
    conv = kind(cin, stage.channels, stage.kernel, stage.stride)
    return nn.Sequential(
        conv, nn.BatchNorm2d(stage.channels, _EPSILON, _MOMENTUM), nn.ReLU(inplace=True)
    )


def _residuals(stage: LipGANStage) -> list[nn.Module]:
    return [_Residual(stage.channels) for _ in range(stage.residuals)]


def _encoder(cin: int, stages: Sequence[LipGANStage]) -> nn.ModuleList:
    blocks = nn.ModuleList()
    for stage in stages:
        above: list[nn.Module] = [nn.ZeroPad2d((0, 0, stage.top, 0))] if stage.top else []
        blocks.append(nn.Sequential(*above, _layer(cin, stage), *_residuals(stage)))
        cin = stage.channels
    return blocks
