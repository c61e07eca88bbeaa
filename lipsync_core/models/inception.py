"""The Inception network of the Frechet Inception Distance, as pytorch-fid has it.

Frechet Inception Distance: Heusel et al. 2017. Inception v3 (Szegedy et al. 2016) with the weights
that TensorFlow published on 2015-12-05. It differs from torchvision's network in its pooling
branches, which changes every feature. Parameter names are those of the public file
``pt_inception-2015-12-05-6726825d.pth``, so that it loads strictly.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 2048
"""Numbers per image."""

_MINIMUM_SIZE = 75  # px: below this the last blocks have no pixel left


@dataclass(frozen=True, slots=True)
class InceptionConfig:
    """Shape of the network; the defaults are the public file's.

    Attributes:
        size: px of the side to which every image is stretched.
        classes: width of the classifier, which the file holds and the distance does not use.
    """

    size: int = 299
    classes: int = 1008

    def __post_init__(self) -> None:
        if self.size < _MINIMUM_SIZE:
            raise ValueError(f"size is {self.size} px; expected at least {_MINIMUM_SIZE}")


@dataclass(frozen=True, slots=True)
class _Layer:
    """One convolution. ``kernel`` (height, width).

    With stride 1 it keeps the map's size, with stride 2 it is not padded.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


@dataclass(frozen=True, slots=True)
class _Path:
    """One path through a block: a pooling, convolutions in a row, then parallel ``heads``."""

    row: tuple[_Layer, ...] = ()
    heads: tuple[_Layer, ...] = ()
    pool: Literal["none", "average", "max", "half"] = "none"


class NormConv(nn.Sequential):
    """Convolution, batch norm (epsilon 0.001, as in TensorFlow), ReLU."""

    def __init__(
        self,
        cin: int,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        conv = nn.Conv2d(cin, channels, kernel, stride, padding, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels, eps=1e-3)))

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers."""
        return F.relu(super().forward(input), inplace=True)


class Mixed(nn.Module):
    """Several paths over one map, their outputs in one row of channels."""

    def __init__(self, cin: int, paths: tuple[_Path, ...]) -> None:
        super().__init__()
        self.paths = paths
        self.channels = 0
        for path in paths:
            width = cin
            for layer in path.row:
                self._add(width, layer)
                width = layer.channels
            for layer in path.heads:
                self._add(width, layer)
            self.channels += sum(layer.channels for layer in path.heads) or width

    def _add(self, cin: int, layer: _Layer) -> None:
        padding = (layer.kernel[0] // 2, layer.kernel[1] // 2) if layer.stride == 1 else (0, 0)
        conv = NormConv(cin, layer.channels, layer.kernel, stride=layer.stride, padding=padding)
        self.add_module(layer.name, conv)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        outputs: list[Tensor] = []
        for path in self.paths:
            y = _pooled(x, path.pool)
            for layer in path.row:
                y = self.get_submodule(layer.name)(y)
            outputs += [self.get_submodule(layer.name)(y) for layer in path.heads] or [y]
        return torch.cat(outputs, 1)


def _pooled(x: Tensor, pool: str) -> Tensor:
    if pool == "average":  # TensorFlow's: what lies outside the map does not count
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if pool == "max":
        return F.max_pool2d(x, 3, 1, 1)
    return F.max_pool2d(x, 3, 2) if pool == "half" else x


def _block_a(pool: int) -> tuple[_Path, ...]:
    three = (
        _Layer("branch3x3dbl_1", 64),
        _Layer("branch3x3dbl_2", 96, (3, 3)),
        _Layer("branch3x3dbl_3", 96, (3, 3)),
    )
    return (
        _Path((_Layer("branch1x1", 64),)),
        _Path((_Layer("branch5x5_1", 48), _Layer("branch5x5_2", 64, (5, 5)))),
        _Path(three),
        _Path((_Layer("branch_pool", pool),), pool="average"),
    )


def _block_b() -> tuple[_Path, ...]:
    twice = (
        _Layer("branch3x3dbl_1", 64),
        _Layer("branch3x3dbl_2", 96, (3, 3)),
        _Layer("branch3x3dbl_3", 96, (3, 3), 2),
    )
    return _Path((_Layer("branch3x3", 384, (3, 3), 2),)), _Path(twice), _Path(pool="half")


def _block_c(width: int) -> tuple[_Path, ...]:
    once = (
        _Layer("branch7x7_1", width),
        _Layer("branch7x7_2", width, (1, 7)),
        _Layer("branch7x7_3", 192, (7, 1)),
    )
    twice = (
        _Layer("branch7x7dbl_1", width),
        _Layer("branch7x7dbl_2", width, (7, 1)),
        _Layer("branch7x7dbl_3", width, (1, 7)),
        _Layer("branch7x7dbl_4", width, (7, 1)),
        _Layer("branch7x7dbl_5", 192, (1, 7)),
    )
    pooled = _Path((_Layer("branch_pool", 192),), pool="average")
    return _Path((_Layer("branch1x1", 192),)), _Path(once), _Path(twice), pooled


def _block_d() -> tuple[_Path, ...]:
    seven = (
        _Layer("branch7x7x3_1", 192),
        _Layer("branch7x7x3_2", 192, (1, 7)),
        _Layer("branch7x7x3_3", 192, (7, 1)),
        _Layer("branch7x7x3_4", 192, (3, 3), 2),
    )
    three = (_Layer("branch3x3_1", 192), _Layer("branch3x3_2", 320, (3, 3), 2))
    return _Path(three), _Path(seven), _Path(pool="half")


def _block_e(pool: Literal["average", "max"]) -> tuple[_Path, ...]:
    """``pool``: the last block takes the maximum where the one before it averages.

    So it is in the published graph.
    """
    once = (_Layer("branch3x3_2a", 384, (1, 3)), _Layer("branch3x3_2b", 384, (3, 1)))
    twice = (_Layer("branch3x3dbl_3a", 384, (1, 3)), _Layer("branch3x3dbl_3b", 384, (3, 1)))
    return (
        _Path((_Layer("branch1x1", 320),)),
        _Path((_Layer("branch3x3_1", 384),), once),
        _Path((_Layer("branch3x3dbl_1", 448), _Layer("branch3x3dbl_2", 384, (3, 3))), twice),
        _Path((_Layer("branch_pool", 192),), pool=pool),
    )


class Inception(nn.Module):
    """Images in, 2048 features each out (the mean over the last map, before the classifier)."""

    def __init__(self, config: InceptionConfig) -> None:
        super().__init__()
        self.config = config
        self.Conv2d_1a_3x3 = NormConv(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = NormConv(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = NormConv(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = NormConv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = NormConv(80, 192, (3, 3))
        width = 192
        blocks = {
            **{f"5{name}": _block_a(pool) for name, pool in zip("bcd", (32, 64, 64), strict=True)},
            "6a": _block_b(),
            **{
                f"6{name}": _block_c(inside)
                for name, inside in zip("bcde", (128, 160, 160, 192), strict=True)
            },
            "7a": _block_d(),
            "7b": _block_e("average"),
            "7c": _block_e("max"),
        }
        self._blocks = tuple(f"Mixed_{name}" for name in blocks)
        for name, paths in zip(self._blocks, blocks.values(), strict=True):
            block = Mixed(width, paths)
            self.add_module(name, block)
            width = block.channels
        assert width == FEATURES
        self.fc = nn.Linear(width, config.classes)  # in the file, not in the distance

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` (N,3,H,W) float RGB in [0,1] of any size -> (N,2048)."""
        side = self.config.size
        # plain bilinear, not averaged first: pytorch-fid does so
        if pixels.shape[2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
        x = 2 * pixels - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in self._blocks:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))
