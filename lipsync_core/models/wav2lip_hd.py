"""Wav2Lip's generator as in public derivatives for larger faces.

Experimental: more stages, other activations, attention.

Layer tables and behaviour: github.com/primepake/wav2lip_288x288 (commit 3e3e5f0; its first layout,
90805a5, had learnt slopes everywhere, and wangxian/wav2lip_288x288 has them on the way up),
github.com/nghiakvnvsd/wav2lip384 (85e42e5), whose layout langzizhixin/wav2lip384x384 first
published weights for (98d1cd3) before it changed to primepake's spatial attention (d493d02).
Million parameters and GMAC a frame: 48.5 and 18.5 at 288 px, 159 and 23.5 at 384, 173 and 80.7 with
attention. None of their weights are available here: the output with real weights is untested.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..image.affine import Framing
from .generator import TalkingFace, flip_channels
from .layers import Activation, Conv, Stage, UpConv, chain_blocks, make_encoder, make_residuals
from .wav2lip import BaseGeneratorConfig

_DOWN = (2, 2)
_DENSE = 2  # layers that end the audio encoder: ReLU where the rest is leaky


@dataclass(frozen=True, slots=True)
class LargeGeneratorConfig(BaseGeneratorConfig):
    """Shape of a derivative, and its inputs.

    Attributes:
        act: Activation.
        act_up: Activation of transposed convolutions.
        refine: Number of 1x1 layers after the audio encoder.
        refined: Whether these layers are used; a public layout carries them unused.
        attention: Features of the decoder are amplified by spatial attention on the skips.
        symmetric: Colors are in [-1,1] inside, and the output is tanh.
        margin: px of the lower half's border that stay visible at the left, the right and below.
    """

    act: Activation = "relu"
    act_up: Activation = "relu"
    refine: int = 0
    refined: bool = False
    attention: bool = False
    symmetric: bool = False
    margin: int = 0
    bgr: bool = True
    framing: Framing = Framing("box", pads=(0, 10, 0, 0))


def _up(channels: int, residuals: int = 2, output_padding: int = 1) -> Stage:
    return Stage(channels, stride=_DOWN, residuals=residuals, output_padding=output_padding)


def _point(channels: int) -> Stage:
    return Stage(channels, 1, padding=0)


WAV2LIP_288 = LargeGeneratorConfig(
    face=(
        Stage(16, 7, padding=3),
        Stage(32, 5, stride=_DOWN, padding=2, residuals=1),
        Stage(32, stride=_DOWN, residuals=2),
        Stage(64, stride=_DOWN, residuals=3),
        Stage(128, stride=_DOWN, residuals=2),
        Stage(256, stride=_DOWN, residuals=2),
        Stage(512, stride=_DOWN, residuals=1),
        Stage(512, padding=0),
        _point(512),
        Stage(512, padding=0),
        _point(512),
    ),
    audio=(
        Stage(32, residuals=2),
        Stage(64, stride=(3, 1), residuals=2),
        Stage(128, stride=(3, 3), residuals=2),
        Stage(256, stride=(3, 2), residuals=1),
        Stage(512, padding=0),
        _point(512),
    ),
    decoder=(
        _point(512),
        Stage(512, padding=0, residuals=1),
        _up(512, output_padding=0),
        _up(512, output_padding=0),
        _up(384),
        _up(256),
        _up(128),
        _up(64),
        _up(64),
    ),
    head=32,
    size=288,
)
WAV2LIP_288_PRELU = replace(WAV2LIP_288, act="prelu", act_up="prelu")
WAV2LIP_288_MIXED = replace(WAV2LIP_288, act_up="prelu")

_DEEP_AUDIO = (
    Stage(32, residuals=2),
    Stage(64, stride=(3, 1), residuals=2),
    Stage(128, stride=(3, 3), residuals=2),
    Stage(256, stride=(3, 2), residuals=2),
    Stage(512, residuals=2),
    Stage(1024, padding=0),
    _point(1024),
)
_DEEP_UP = (
    _point(1024),
    Stage(1024, padding=0, residuals=1),
    _up(1024),
    _up(768),
    _up(512),
    _up(256),
    _up(128),
    _up(64),
)

WAV2LIP_384 = LargeGeneratorConfig(
    face=(
        Stage(8, 7, padding=3),
        Stage(16, stride=_DOWN, residuals=2),
        Stage(32, stride=_DOWN, residuals=2),
        Stage(64, stride=_DOWN, residuals=3),
        Stage(128, stride=_DOWN, residuals=2),
        Stage(256, stride=_DOWN, residuals=2),
        Stage(512, stride=_DOWN, residuals=2),
        Stage(1024, stride=_DOWN, residuals=2),
        Stage(1024, padding=0),
        _point(1024),
    ),
    audio=_DEEP_AUDIO,
    decoder=(*_DEEP_UP, _up(32)),
    head=16,
    size=384,
    act="leaky",
    act_up="leaky",
    refine=2,
    refined=True,
    symmetric=True,
    margin=8,
)

# Six halvings of 384 px leave a map of 6x6, which the last stages reduce to 4x4: the attention
# spreads the audio over it.
WAV2LIP_384_SAM = LargeGeneratorConfig(
    face=(
        Stage(16, 7, padding=3, residuals=3),
        Stage(32, stride=_DOWN, residuals=3),
        Stage(64, stride=_DOWN, residuals=3),
        Stage(128, stride=_DOWN, residuals=3),
        Stage(256, stride=_DOWN, residuals=3),
        Stage(512, stride=_DOWN, residuals=3),
        Stage(1024, stride=_DOWN, residuals=3),
        Stage(1024, padding=0),
        _point(1024),
        _point(1024),
    ),
    audio=_DEEP_AUDIO,
    decoder=_DEEP_UP,
    head=32,
    size=384,
    refine=2,
    attention=True,
)


class LargeGenerator(TalkingFace):
    """Redraws the lower half of a face from log-mel windows (N,1,80,16) in [-4,4]."""

    config: LargeGeneratorConfig

    def __init__(self, config: LargeGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        blocks: list[list[nn.Module]] = []
        skips: list[int] = []
        for layers, stage in zip(
            make_encoder(3 + 3 * config.references, config.face, config.act),
            config.face,
            strict=True,
        ):
            # the public keys hold such a stage in the block of the one before
            if stage.kernel == 1:
                blocks[-1] += layers
                skips[-1] = stage.channels
            else:
                blocks.append(layers)
                skips.append(stage.channels)
        self.face_encoder_blocks = nn.ModuleList([nn.Sequential(*block) for block in blocks])
        dense = "relu" if config.act == "leaky" else config.act
        early, late = config.audio[:-_DENSE], config.audio[-_DENSE:]
        self.audio_encoder = chain_blocks(
            make_encoder(1, early, config.act) + make_encoder(early[-1].channels, late, dense)
        )
        cin = config.audio[-1].channels
        if config.refine:
            again = [Conv(cin, _point(cin), act=config.act) for _ in range(config.refine)]
            self.audio_refine = nn.Sequential(*again)
        if config.attention:
            self.sam = _Attention()
        self.face_decoder_blocks = nn.ModuleList()
        for k, stage in enumerate(config.decoder):
            first = UpConv(cin, stage, act=config.act_up) if k else Conv(cin, stage, act=config.act)
            self.face_decoder_blocks.append(
                nn.Sequential(first, *make_residuals(stage, config.act))
            )
            cin = stage.channels + skips.pop()
        self.output_block = nn.Sequential(
            Conv(cin, Stage(config.head), act=config.act), nn.Conv2d(config.head, 3, 1)
        )

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Compute the face encoder's features, finest first."""
        side, margin = self.config.size, self.config.margin
        masked = target.clone()
        masked[:, :, side // 2 : side - margin, margin : side - margin] = 0
        x = torch.cat([masked, prepared], 1)
        x = flip_channels(x) if self.config.bgr else x
        x = x * 2 - 1 if self.config.symmetric else x
        skips: list[Tensor] = []
        for block in self.face_encoder_blocks:
            x = block(x)
            skips.append(x)
        return skips

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Generate logits of colors (N,3,S,S)."""
        x = self.audio_encoder(driving)
        x = self.audio_refine(x) if self.config.refined else x
        for block, skip in zip(self.face_decoder_blocks, reversed(target), strict=True):
            x = block(x)
            x = self.sam(skip, x) if self.config.attention else x
            x = torch.cat([x, skip.expand(x.shape[0], -1, -1, -1)], 1)
        return self.output_block(x)

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Turn logits into pictures."""
        painted = (planes.tanh() + 1) / 2 if self.config.symmetric else planes.sigmoid()
        return flip_channels(painted) if self.config.bgr else painted


class _SpatialWeight(nn.Module):
    """Spatial attention: (N,1,H,W) in [0,1] for features (N,C,H,W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(
            torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        ).sigmoid()


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sa = _SpatialWeight()

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return x * self.sa(skip) + x
