"""S3FD, the face detector of Wav2Lip (Zhang et al., ICCV 2017: "S3FD: Single Shot Scale-invariant Face Detector").

Parameter names are those of the public file ``s3fd-619a316812.pth``, so that it loads strictly.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (4, 8, 16, 32, 64, 128)
"""Image pixels per cell of each of the six maps."""

MINIMUM_SIZE = 32
"""The shortest image side in px that survives five halvings."""


@dataclass(frozen=True, slots=True)
class S3FDConfig:
    """Shape of S3FD; the defaults are the public file's (VGG-16 with two more stages, 22 459 110 parameters).

    ``channel_order`` is the order in which the network sees the colours. It was trained on BGR, and
    ``means`` are its BGR means; Wav2Lip hands it RGB and subtracts the same three numbers all the same. "rgb" does as
    Wav2Lip does, "bgr" as in training.
    """

    stages: tuple[int, ...] = (64, 128, 256, 512, 512)
    convolutions: tuple[int, ...] = (2, 2, 3, 3, 3)
    fc: int = 1024
    extra: tuple[tuple[int, int], ...] = ((256, 512), (128, 256))
    means: tuple[float, float, float] = (104.0, 117.0, 123.0)
    channel_order: Literal["rgb", "bgr"] = "rgb"


class ChannelNorm(nn.Module):
    """Every pixel's feature vector scaled to length one, then channel by channel by a learned weight."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:  # (N,C,H,W)
        length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight[:, None, None]


class S3FD(nn.Module):
    """Six maps of face scores and box offsets, at the strides of ``STRIDES``."""

    def __init__(self, config: S3FDConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("means", torch.tensor(config.means), persistent=False)
        width = 3
        for stage, (channels, count) in enumerate(zip(config.stages, config.convolutions, strict=True), 1):
            for i in range(1, count + 1):
                self.add_module(f"conv{stage}_{i}", nn.Conv2d(width, channels, 3, padding=1))
                width = channels
        # Padding 3 without dilation: the map grows by 4 px each way. So it is in Wav2Lip, and the weights expect it.
        self.fc6 = nn.Conv2d(width, config.fc, 3, padding=3)
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
            labels = 4 if name == _SOURCES[0] else 2  # three kinds of background at the finest level, then face
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, labels, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """``pixels`` (N,3,H,W) float RGB in [0,1], H and W at least 32. Per level: logits (N,2,h,w) of background and
        face, and offsets (N,4,h,w) of the box against the cell's anchor (centre x, y, then log width, height)."""
        if self.config.channel_order == "bgr":
            pixels = pixels.flip(1)
        maps: list[tuple[Tensor, Tensor]] = []
        for name, features in zip(_SOURCES, self._features(pixels * 255 - self._means()), strict=True):
            logits = self._layer(f"{name}_mbox_conf", features)
            face = logits[:, -1:]
            background = logits[:, :-1].amax(1, keepdim=True)  # "max-out": the likeliest kind of background counts
            maps.append((torch.cat((background, face), 1), self._layer(f"{name}_mbox_loc", features)))
        return maps

    def _features(self, x: Tensor) -> list[Tensor]:
        sources: list[Tensor] = []
        for stage, count in enumerate(self.config.convolutions, 1):
            for i in range(1, count + 1):
                x = F.relu(self._layer(f"conv{stage}_{i}", x))
            if stage >= 3:
                sources.append(self._layer(f"conv{stage}_3_norm", x))
            x = F.max_pool2d(x, 2)
        x = F.relu(self.fc7(F.relu(self.fc6(x))))
        sources.append(x)
        for stage in range(6, 6 + len(self.config.extra)):
            x = F.relu(self._layer(f"conv{stage}_1", x))
            x = F.relu(self._layer(f"conv{stage}_2", x))
            sources.append(x)
        return sources

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)

    def _means(self) -> Tensor:
        return self.get_buffer("means")[:, None, None]


_SOURCES = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")
