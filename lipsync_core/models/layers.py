"""Blocks that several networks share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

M = TypeVar("M", bound=nn.Module)
Activation = Literal["relu", "leaky", "prelu"]
_SLOPE = 0.2  # of the derivatives' leaky ReLU


@dataclass(frozen=True, slots=True)
class Stage:
    """One convolution that changes the shape, then ``residuals`` that keep it. ``kernel``,
    ``stride`` and ``padding`` are (height, width) alike unless ``stride`` says otherwise;
    ``output_padding`` matters to up-sampling stages only."""

    channels: int
    kernel: int = 3
    stride: tuple[int, int] = (1, 1)
    padding: int = 1
    residuals: int = 0
    output_padding: int = 0


def left(side: int, axis: int, stages: Iterable[Stage]) -> int:
    """What ``stages`` leave of a picture's ``side`` along ``axis`` (0: height, 1: width), in px."""
    for stage in stages:
        side = (side + 2 * stage.padding - stage.kernel) // stage.stride[axis] + 1
    return side


class _Activated(nn.Module):
    """A layer that ends in an activation: ReLU, leaky ReLU, or one whose slope is learnt (key
    ``act.weight``)."""

    def __init__(self, kind: Activation) -> None:
        super().__init__()
        self.act = nn.PReLU() if kind == "prelu" else None
        self.leaky = kind == "leaky"

    def activated(self, x: Tensor) -> Tensor:
        if self.act is not None:
            return self.act(x)
        return F.leaky_relu_(x, _SLOPE) if self.leaky else x.relu_()


class Conv(_Activated):
    """Convolution, batch norm, optional skip, activation. Keys ``conv_block.0`` and ``.1`` as in
    the public checkpoints."""

    def __init__(
        self, cin: int, stage: Stage, *, residual: bool = False, act: Activation = "relu"
    ) -> None:
        super().__init__(act)
        conv = nn.Conv2d(cin, stage.channels, stage.kernel, stage.stride, stage.padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(stage.channels))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return self.activated(y + x if self.residual else y)


class UpConv(_Activated):
    """Transposed convolution, batch norm, activation."""

    def __init__(self, cin: int, stage: Stage, *, act: Activation = "relu") -> None:
        super().__init__(act)
        conv = nn.ConvTranspose2d(
            cin,
            stage.channels,
            stage.kernel,
            stage.stride,
            stage.padding,
            output_padding=stage.output_padding,
        )
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(stage.channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.activated(self.conv_block(x))


class SameConv(nn.Conv2d):
    """A convolution whose output is ceil(input / stride) large, as Keras pads for it: where the
    padding is odd, the right and the lower side get one more."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        top, bottom = _same(height, self.kernel_size[0], self.stride[0])
        left, right = _same(width, self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(input, (left, right, top, bottom)))


class SameUpConv(nn.ConvTranspose2d):
    """A transposed convolution whose output is input * stride large: the reverse of a ``SameConv``.
    For kernels at least as large as their stride."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = (n * step for n, step in zip(input.shape[2:], self.stride, strict=True))
        over = [kernel - step for kernel, step in zip(self.kernel_size, self.stride, strict=True)]
        top, left = over[0] // 2, over[1] // 2
        return super().forward(input)[:, :, top : top + height, left : left + width]


def same_pool(x: Tensor, kernel: int, stride: tuple[int, int]) -> Tensor:
    """The largest of each ``kernel`` x ``kernel`` window of (N,C,H,W) numbers that are not
    negative; the output is ceil(input / stride) large."""
    top, bottom = _same(x.shape[2], kernel, stride[0])
    left, right = _same(x.shape[3], kernel, stride[1])
    return F.max_pool2d(F.pad(x, (left, right, top, bottom)), kernel, stride)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many zeros come before and after."""
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def residuals(stage: Stage, act: Activation = "relu") -> list[nn.Module]:
    """The shape-keeping 3x3 convolutions that follow a stage's first layer."""
    keep = Stage(stage.channels)
    return [Conv(stage.channels, keep, residual=True, act=act) for _ in range(stage.residuals)]


def encoder(cin: int, stages: tuple[Stage, ...], act: Activation = "relu") -> list[list[nn.Module]]:
    """The layers of each stage in turn; callers nest or flatten them as the checkpoint's key names
    want."""
    blocks: list[list[nn.Module]] = []
    for stage in stages:
        blocks.append([Conv(cin, stage, act=act), *residuals(stage, act)])
        cin = stage.channels
    return blocks


def flatten(blocks: list[list[nn.Module]]) -> nn.Sequential:
    """All layers of all stages in one numbered row."""
    return nn.Sequential(*(layer for block in blocks for layer in block))


def fold(model: M) -> M:
    """``model`` in eval mode with every batch norm folded, in place, into the layer before it: the
    same numbers with fewer passes over memory. For inference only; the state dict no longer fits a
    checkpoint."""
    model.eval()
    for row in [layer for layer in model.modules() if isinstance(layer, nn.Sequential)]:
        for i in reversed(range(1, len(row))):
            norm = row[i]
            if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
                row[i - 1] = _fused(row[i - 1], norm)
                del row[i]  # an empty layer in its place would cost a call
    return model


def ready(model: M) -> M:
    """``model`` folded in place, without gradients, its channels interleaved, on which oneDNN and
    cuDNN run convolutions faster."""
    fold(model).requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def _fused(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d))
    return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
