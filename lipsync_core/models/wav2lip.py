"""The lip generator of Wav2Lip: a face encoder, an audio encoder and a face decoder with skips.

Layer tables of the preset ``wav2lip``: the public code of "A Lip Sync Expert Is All You Need for
Speech to Lip Generation In the Wild" (2020), 36 298 035 parameters, 3.967 GMAC a frame. ``mini`` is
ours, and so are the ``LARGER`` ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..audio.features import MelFeatures
from ..image.affine import Framing
from ..image.crop import sample
from .generator import TalkingFace, blank_lower_half, flip_channels
from .layers import Conv, Stage, UpConv, chain_blocks, make_encoder, make_residuals

_SEAM = 2  # rows of context above the lower half, at half resolution
_DOWN = (2, 2)


def _up(channels: int, residuals: int) -> Stage:
    """A stage that doubles height and width."""
    return Stage(channels, stride=(2, 2), residuals=residuals, output_padding=1)


@dataclass(frozen=True, slots=True)
class BaseGeneratorConfig:
    """Shape and inputs that Wav2Lip's generator and its derivatives have in common.

    Attributes:
        face: Stages of the face encoder.
        audio: Stages of the audio encoder.
        decoder: Stages of the decoder.
        head: Channels of the last layer but one.
        size: Side of the crops in px.
        bgr: Whether the weights were trained on BGR.
        references: Number of reference frames.
        features: Audio features.
        framing: How crops are placed on faces.
    """

    face: tuple[Stage, ...]
    audio: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    head: int
    size: int = 96
    bgr: bool = False
    references: int = 1
    features: MelFeatures = MelFeatures()
    framing: Framing = Framing()


@dataclass(frozen=True, slots=True)
class GeneratorConfig(BaseGeneratorConfig):
    """Shape of a generator, and its inputs.

    Attributes:
        output: ``paint`` draws every pixel; ``flow`` moves the reference's pixels, and paints those
            that cannot be moved from it.
        modulated: The audio scales and shifts the channels of every decoder stage, not only of the
            first, which makes the lips follow it after far fewer training steps.
    """

    output: Literal["paint", "flow"] = "paint"
    modulated: bool = False


WAV2LIP = GeneratorConfig(
    face=(
        Stage(16, 7, padding=3),
        Stage(32, stride=_DOWN, residuals=2),
        Stage(64, stride=_DOWN, residuals=3),
        Stage(128, stride=_DOWN, residuals=2),
        Stage(256, stride=_DOWN, residuals=2),
        Stage(512, stride=_DOWN, residuals=1),
        Stage(512, padding=0),
        Stage(512, 1, padding=0),
    ),
    audio=(
        Stage(32, residuals=2),
        Stage(64, stride=(3, 1), residuals=2),
        Stage(128, stride=(3, 3), residuals=2),
        Stage(256, stride=(3, 2), residuals=1),
        Stage(512, padding=0),
        Stage(512, 1, padding=0),
    ),
    decoder=(
        Stage(512, 1, padding=0),
        Stage(512, padding=0, residuals=1),
        _up(512, 2),
        _up(384, 2),
        _up(256, 2),
        _up(128, 2),
        _up(64, 2),
    ),
    head=32,
    bgr=True,
    framing=Framing("box", pads=(0, 10, 0, 0)),
)


def _larger(size: int, coarse: int, outside: tuple[Stage, ...]) -> GeneratorConfig:
    """Return ``wav2lip`` for larger crops: its stages from the second on, and thin ones round them.

    As the public derivatives for larger faces (288 px: github.com/primepake/wav2lip_288x288).

    Args:
        size: Side of the crops in px.
        coarse: Side of the map that the embedding is made of.
        outside: Stages at full resolution.
    """
    inside = WAV2LIP.face[1:-2]
    first, *others = outside
    return GeneratorConfig(
        face=(*outside, *inside, Stage(512, coarse, padding=0), WAV2LIP.face[-1]),
        audio=WAV2LIP.audio,
        decoder=(
            WAV2LIP.decoder[0],
            Stage(512, coarse, padding=0, residuals=1),
            *WAV2LIP.decoder[2:],
            *(_up(2 * stage.channels, 2) for stage in reversed((first, *others[:-1]))),
        ),
        head=16,
        size=size,
        features=MelFeatures(lead_ms=80),
    )


# By the side of the crops in px: GMAC a frame 5.07, 8.95 and 6.48; million parameters 36.3, 41.8
# and 36.3.
LARGER: dict[int, GeneratorConfig] = {
    192: _larger(192, 3, (Stage(16, 7, padding=3), Stage(16, stride=_DOWN, residuals=1))),
    256: _larger(256, 4, (Stage(16, 7, padding=3), Stage(16, stride=_DOWN, residuals=1))),
    384: _larger(
        384,
        3,
        (Stage(8, 7, padding=3), Stage(16, stride=_DOWN), Stage(16, stride=_DOWN, residuals=1)),
    ),
}

MINI = GeneratorConfig(
    face=(
        Stage(16, 5, padding=2),
        Stage(32, stride=_DOWN, residuals=1),
        Stage(48, stride=_DOWN, residuals=1),
        Stage(80, stride=_DOWN, residuals=1),
        Stage(128, stride=_DOWN, residuals=1),
        Stage(192, stride=_DOWN, residuals=1),
        Stage(224, padding=0),
        Stage(224, 1, padding=0),
    ),
    audio=(
        Stage(24, residuals=1),
        Stage(48, stride=(3, 1), residuals=1),
        Stage(96, stride=(3, 3), residuals=1),
        Stage(160, stride=(3, 2), residuals=1),
        Stage(256, padding=0),
        Stage(256, 1, padding=0),
    ),
    decoder=(
        Stage(256, 1, padding=0),
        Stage(224, padding=0, residuals=1),
        _up(160, 1),
        _up(112, 1),
        _up(64, 1),
        _up(48, 1),
        _up(16, 1),
    ),
    head=16,
    output="flow",
    modulated=True,
    features=MelFeatures(lead_ms=80),
)


class Generator(TalkingFace):
    """Redraws the lower half of a face from log-mel windows (N,1,80,16) in [-4,4]."""

    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        blocks = make_encoder(3 + 3 * config.references, config.face)
        # the public keys hold the two last stages in one block
        blocks[-2:] = [blocks[-2] + blocks[-1]]
        self.face_encoder_blocks = nn.ModuleList([nn.Sequential(*block) for block in blocks])
        self.audio_encoder = chain_blocks(make_encoder(1, config.audio))
        skips = [stage.channels for stage in (*config.face[:-2], config.face[-1])]
        self.face_decoder_blocks = nn.ModuleList()
        cin = config.audio[-1].channels
        for k, stage in enumerate(config.decoder):
            first = UpConv(cin, stage) if k else Conv(cin, stage)
            self.face_decoder_blocks.append(nn.Sequential(first, *make_residuals(stage)))
            cin = stage.channels + skips.pop()
        if config.modulated:
            width = config.audio[-1].channels
            self.modulation = nn.ModuleList(
                [nn.Conv2d(width, 2 * stage.channels, 1) for stage in config.decoder]
            )
        planes = 3 if config.output == "paint" else 6
        self.output_block = nn.Sequential(
            Conv(cin, Stage(config.head)), nn.Conv2d(config.head, planes, 1)
        )

    @property
    def moves(self) -> bool:
        """Whether the output is ``flow``."""
        return self.config.output == "flow"

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Compute the face encoder's features, finest first."""
        masked = blank_lower_half(target)
        if self.config.bgr:
            masked, prepared = flip_channels(masked), flip_channels(prepared)
        x = torch.cat([masked, prepared], 1)
        skips: list[Tensor] = []
        for block in self.face_encoder_blocks:
            x = block(x)
            skips.append(x)
        return skips

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Turn planes into pictures."""
        n = planes.shape[0]
        if self.config.output == "flow":
            return warp_reference(
                planes, target.expand(n, -1, -1, -1), reference.expand(n, -1, -1, -1)
            )
        painted = planes.sigmoid()
        return painted.flip(1) if self.config.bgr else painted

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Generate logits of colors (N,3,S,S), or planes (N,6,S/2,S) for ``warp_reference``."""
        n = driving.shape[0]
        x = audio = self.audio_encoder(driving)
        for k, (block, skip) in enumerate(
            zip(self.face_decoder_blocks, reversed(target), strict=True)
        ):
            if self.config.output == "flow" and skip is target[0]:
                # the finest layers draw the lower half alone
                x = x[:, :, x.shape[2] // 2 - _SEAM :]
            x = block(x)
            if self.config.modulated:
                scale, shift = self.modulation[k](audio).chunk(2, 1)
                x = torch.addcmul(shift, x, 1 + scale)
            x = torch.cat([x, skip[:, :, -x.shape[2] :].expand(n, -1, -1, -1)], 1)
        x = self.output_block(x)
        return x[:, :, 2 * _SEAM :].float() if self.config.output == "flow" else x


def init_as_copy(model: Generator) -> Generator:
    """Initialize a generator with the output ``flow``, in place, so that it copies the reference.

    Lips are learned sooner from there than from noise. Other generators stay as they are.

    Returns:
        The same model.
    """
    if model.config.output == "flow":
        last = model.output_block[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            # 88 % of every pixel comes from the reference
            last.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 2]))
    return model


def warp_reference(planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
    """Warp references by generated planes, and paint over them.

    Args:
        planes: (N,6,S/2,S) of ``Generator.draw``.
        target: (N,3,S,S) RGB in [0,1]; its upper half is kept.
        reference: (N,3,S,S) RGB in [0,1].

    Returns:
        (N,3,S,S) RGB in [0,1].
    """
    half, size = planes.shape[2:]
    paint, flow, share = unpack_planes(planes)
    axis = (torch.arange(size, device=planes.device, dtype=planes.dtype) + 0.5) / size * 2 - 1
    flow = flow * (2 / size)
    grid = torch.stack([axis.expand(half, size) + flow[:, 0], axis[half:, None] + flow[:, 1]], 1)
    pulled = sample(reference.to(grid.dtype), grid)
    lower = share * pulled + (1 - share) * paint
    return torch.cat([target[:, :, :half].to(lower.dtype), lower], 2)


def unpack_planes(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unpack generated planes of the lower half.

    Args:
        planes: (N,6,S/2,S) of ``Generator.draw``.

    Returns:
        (N,3,S/2,S) paint, RGB in [0,1]; (N,2,S/2,S) offset (x, y) in crop px of the place in the
        reference that each pixel comes from, at most a quarter of the crop; (N,1,S/2,S) weight in
        [0,1] of the reference's pixels against the paint.
    """
    size = planes.shape[3]
    return planes[:, :3].sigmoid(), planes[:, 3:5].tanh() * (size / 4), planes[:, 5:].sigmoid()
