"""The visual-quality discriminator: is the lower half of this face a photograph?

Layer table of the preset ``wav2lip``: the public Wav2Lip code, 14 113 793 parameters; no
normalization layers.
"""

from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor, nn

from .layers import Stage, output_size

_DOWN = (2, 2)


@dataclass(frozen=True, slots=True)
class QualityDiscriminatorConfig:
    """Shape of a discriminator.

    Attributes:
        blocks: Blocks of layers, each an inner tuple.
        size: Side of the faces in px.
        slope: Negative slope of the leaky ReLU.
        bgr: Whether the weights were trained on BGR.
    """

    blocks: tuple[tuple[Stage, ...], ...]
    size: int = 96
    slope: float = 0.01
    bgr: bool = False


WAV2LIP_DISCRIMINATOR = QualityDiscriminatorConfig(
    blocks=(
        (Stage(32, 7, padding=3),),
        (Stage(64, 5, stride=(1, 2), padding=2), Stage(64, 5, padding=2)),
        (Stage(128, 5, stride=_DOWN, padding=2), Stage(128, 5, padding=2)),
        (Stage(256, 5, stride=_DOWN, padding=2), Stage(256, 5, padding=2)),
        (Stage(512, stride=_DOWN), Stage(512)),
        (Stage(512, stride=_DOWN), Stage(512)),
        (Stage(512, padding=0), Stage(512, 1, padding=0)),
    ),
    bgr=True,
)


# Scores whether patches of about 30 px could be of a photograph. Without it, training a small
# generator with an expert leaves dark blots.
PATCH_CRITIC = QualityDiscriminatorConfig(
    blocks=(
        (Stage(32, 5, stride=_DOWN, padding=2),),
        (Stage(64, stride=_DOWN),),
        (Stage(96, stride=_DOWN), Stage(96)),
    ),
    slope=0.2,
)


def config_for_size(config: QualityDiscriminatorConfig, size: int) -> QualityDiscriminatorConfig:
    """Adapt ``config`` to faces of another size.

    Convolutions that halve are put first, as many as leave 3 to 5 px for the last block, whose
    kernel covers what is left.

    Args:
        config: Shape of a discriminator.
        size: Side of the faces in px, a multiple of 32 from 96 to 384.

    Returns:
        The adapted shape.

    Raises:
        ValueError: If no number of convolutions fits.
    """
    first = (Stage(config.blocks[0][0].channels, 5, stride=_DOWN, padding=2),)
    *before, (last, *rest) = config.blocks
    for blocks in ((first,) * n + tuple(before) for n in range(3)):
        height, width = (
            output_size(side, axis, chain(*blocks)) for axis, side in enumerate((size // 2, size))
        )
        if height == width and 3 <= height <= 5:
            return replace(
                config, blocks=(*blocks, (replace(last, kernel=height), *rest)), size=size
            )
    raise ValueError(
        f"no discriminator of this shape sees faces of {size} px; expected 96 to 384 in steps of 32"
    )


class _LeakyConv(nn.Module):
    def __init__(self, cin: int, stage: Stage, slope: float) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(cin, stage.channels, stage.kernel, stage.stride, stage.padding)
        )
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu_(self.conv_block(x), self.slope)


class QualityDiscriminator(nn.Module):
    """Score single faces."""

    def __init__(self, config: QualityDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.face_encoder_blocks = nn.ModuleList()
        cin = 3
        for block in config.blocks:
            layers: list[nn.Module] = []
            for stage in block:
                layers.append(_LeakyConv(cin, stage, config.slope))
                cin = stage.channels
            self.face_encoder_blocks.append(nn.Sequential(*layers))
        self.binary_pred = nn.Sequential(nn.Conv2d(cin, 1, 1), nn.Sigmoid())

    def forward(self, faces: Tensor) -> Tensor:
        """Score faces (N,3,S,S), RGB in [0,1], by their lower half.

        Returns:
            (N,1) in [0,1]; 1 means a photograph.
        """
        x = faces[:, :, faces.shape[2] // 2 :]
        x = x.flip(1) if self.config.bgr else x
        for block in self.face_encoder_blocks:
            x = block(x)
        logits, squash = self.binary_pred
        # float32: in bfloat16 scores beyond 99.8 % round to certainty and have no gradient
        return squash(logits(x).float()).flatten(1)
