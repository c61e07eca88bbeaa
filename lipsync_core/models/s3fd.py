"""S3FD, the face detector of Wav2Lip.

Zhang et al., ICCV 2017: "S3FD: Single Shot Scale-invariant Face Detector". Parameter names are
those of the public file ``s3fd-619a316812.pth``, so that it loads strictly. syncnet_python has the
same network with other weights and three other details: ``SYNCNET_S3FD``.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (4, 8, 16, 32, 64, 128)
"""Image pixels per cell of each of the six maps."""


@dataclass(frozen=True, slots=True)
class S3FDConfig:
    """Shape of S3FD; the defaults are the public file's.

    That file is VGG-16 with two more stages, 22 459 110 parameters.

    Attributes:
        stages: Channels of the VGG stages.
        convolutions: Number of convolutions in each VGG stage.
        fc: Channels of ``fc6`` and ``fc7``.
        extra: Inner and outer channels of the stages after them.
        means: Means subtracted from the pixels in [0,255].
        channel_order: Order of the colors that the network sees. It was trained on BGR, and
            ``means`` are its BGR means; Wav2Lip passes RGB and subtracts the same three numbers
            nevertheless. "rgb" does as Wav2Lip does, "bgr" as in training.
        fc6_padding: Padding of ``fc6``; 3 without dilation lets the map grow by 4 px each way,
            which the weights of Wav2Lip expect.
        fc6_dilation: Dilation of ``fc6``.
        ceil_third_pool: Whether the third pool rounds odd sides up.
    """

    stages: tuple[int, ...] = (64, 128, 256, 512, 512)
    convolutions: tuple[int, ...] = (2, 2, 3, 3, 3)
    fc: int = 1024
    extra: tuple[tuple[int, int], ...] = ((256, 512), (128, 256))
    means: tuple[float, float, float] = (104.0, 117.0, 123.0)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    fc6_padding: int = 3
    fc6_dilation: int = 1
    ceil_third_pool: bool = False

    @property
    def minimum_size(self) -> int:
        """The shortest image side in px that survives five halvings."""
        return 28 if self.ceil_third_pool else 32


SYNCNET_S3FD = S3FDConfig(
    means=(123.0, 117.0, 104.0), fc6_padding=6, fc6_dilation=6, ceil_third_pool=True
)
"""The S3FD of joonson/syncnet_python, file ``sfd_face.pth``."""


class ChannelNorm(nn.Module):
    """Scale each pixel's feature vector to length one, then each channel by a learned weight."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:  # (N,C,H,W)
        """Normalize features (N,C,H,W)."""
        length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight[:, None, None]


class S3FD(nn.Module):
    """Six maps of face scores and box offsets, at the strides of ``STRIDES``."""

    def __init__(self, config: S3FDConfig) -> None:
        super().__init__()
        self.config = config
        width = 3
        for stage, (channels, count) in enumerate(
            zip(config.stages, config.convolutions, strict=True), 1
        ):
            for i in range(1, count + 1):
                self.add_module(f"conv{stage}_{i}", nn.Conv2d(width, channels, 3, padding=1))
                width = channels
        self.fc6 = nn.Conv2d(
            width, config.fc, 3, padding=config.fc6_padding, dilation=config.fc6_dilation
        )
        self.fc7 = nn.Conv2d(config.fc, config.fc, 1)
        width = config.fc
        for stage, (narrow, channels) in enumerate(config.extra, 6):
            self.add_module(f"conv{stage}_1", nn.Conv2d(width, narrow, 1))
            self.add_module(f"conv{stage}_2", nn.Conv2d(narrow, channels, 3, stride=2, padding=1))
            width = channels
        for stage, scale in ((3, 10.0), (4, 8.0), (5, 5.0)):  # the paper's initial scales
            self.add_module(f"conv{stage}_3_norm", ChannelNorm(config.stages[stage - 1], scale))
        sources = [*config.stages[2:], config.fc, *(channels for _, channels in config.extra)]
        for name, channels in zip(_SOURCES, sources, strict=True):
            # three kinds of background at the finest level, then face
            labels = 4 if name == _SOURCES[0] else 2
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, labels, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute the face scores and box offsets of each level.

        Args:
            pixels: (N,3,H,W) float RGB in [0,1], H and W at least ``minimum_size``.

        Returns:
            Per level, logits (N,2,h,w) of background and face, and offsets (N,4,h,w) of the box
            against the cell's anchor (center x, y, then log width, height).
        """
        if self.config.channel_order == "bgr":
            pixels = pixels.flip(1)
        maps: list[tuple[Tensor, Tensor]] = []
        means = pixels.new_tensor(self.config.means)[:, None, None]
        for name, features in zip(_SOURCES, self._features(pixels * 255 - means), strict=True):
            logits = self._layer(f"{name}_mbox_conf", features)
            face = logits[:, -1:]
            # "max-out": the likeliest kind of background counts
            background = logits[:, :-1].amax(1, keepdim=True)
            maps.append(
                (torch.cat((background, face), 1), self._layer(f"{name}_mbox_loc", features))
            )
        return maps

    def _features(self, x: Tensor) -> list[Tensor]:
        sources: list[Tensor] = []
        for stage, count in enumerate(self.config.convolutions, 1):
            for i in range(1, count + 1):
                x = F.relu(self._layer(f"conv{stage}_{i}", x))
            if stage >= 3:
                sources.append(self._layer(f"conv{stage}_3_norm", x))
            x = F.max_pool2d(x, 2, ceil_mode=stage == 3 and self.config.ceil_third_pool)
        x = F.relu(self.fc7(F.relu(self.fc6(x))))
        sources.append(x)
        for stage in range(6, 6 + len(self.config.extra)):
            x = F.relu(self._layer(f"conv{stage}_1", x))
            x = F.relu(self._layer(f"conv{stage}_2", x))
            sources.append(x)
        return sources

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)


_SOURCES = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")

# The convolutions of the five stages, and their places in syncnet_python's row of layers, in which
# pools and ReLUs count.
_VGG = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3")
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)

SYNCNET_NAMES = {
    **{f"vgg.{place}": f"conv{name}" for place, name in zip(_PLACES, _VGG, strict=True)},
    **{"vgg.31": "fc6", "vgg.33": "fc7"},
    **{f"L2Norm{name}": f"conv{name}_norm" for name in ("3_3", "4_3", "5_3")},
    **{f"extras.{i}": f"conv{name}" for i, name in enumerate(("6_1", "6_2", "7_1", "7_2"))},
    **{
        f"{head}.{i}": f"{source}_mbox_{head}"
        for head in ("loc", "conf")
        for i, source in enumerate(_SOURCES)
    },
}
"""What ``sfd_face.pth`` calls our layers: its name -> ours."""
