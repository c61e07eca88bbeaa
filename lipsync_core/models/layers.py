"""Layers that several networks share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

M = TypeVar("M", bound=nn.Module)
Activation = Literal["relu", "leaky", "prelu"]
_SLOPE = 0.2  # of the leaky ReLU in the derivatives of Wav2Lip


@dataclass(frozen=True, slots=True)
class Stage:
    """One convolution that changes the shape, then residual ones that keep it.

    Attributes:
        channels: Output channels.
        kernel: Side of the kernel.
        stride: Height and width.
        padding: On each side.
        residuals: Number of residual convolutions.
        output_padding: Of transposed convolutions.
    """

    channels: int
    kernel: int = 3
    stride: tuple[int, int] = (1, 1)
    padding: int = 1
    residuals: int = 0
    output_padding: int = 0


def output_size(side: int, axis: int, stages: Iterable[Stage]) -> int:
    """Compute the side of the map that stages make of a picture.

    Args:
        side: Of the picture, in px.
        axis: 0 for height, 1 for width.
        stages: The stages in order.

    Returns:
        The side of the last map.
    """
    for stage in stages:
        side = (side + 2 * stage.padding - stage.kernel) // stage.stride[axis] + 1
    return side


class _Activated(nn.Module):
    """A layer that ends in ReLU, leaky ReLU, or one with a learned slope (key ``act.weight``)."""

    def __init__(self, kind: Activation) -> None:
        super().__init__()
        self.act = nn.PReLU() if kind == "prelu" else None
        self.leaky = kind == "leaky"

    def activate(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        if self.act is not None:
            return self.act(x)
        return F.leaky_relu_(x, _SLOPE) if self.leaky else x.relu_()


class Conv(_Activated):
    """Convolution, batch norm, optional skip connection, activation.

    Keys ``conv_block.0`` and ``.1`` as in the public checkpoints.
    """

    def __init__(
        self, cin: int, stage: Stage, *, residual: bool = False, act: Activation = "relu"
    ) -> None:
        super().__init__(act)
        conv = nn.Conv2d(cin, stage.channels, stage.kernel, stage.stride, stage.padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(stage.channels))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (N,C,H,W)."""
        y = self.conv_block(x)
        return self.activate(y + x if self.residual else y)


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
        """Apply the layer to (N,C,H,W)."""
        return self.activate(self.conv_block(x))


class SameConv(nn.Conv2d):
    """A convolution whose output has the size ceil(input / stride), padded as in Keras.

    Odd padding is one pixel larger on the right and the lower side.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (N,C,H,W)."""
        height, width = input.shape[2:]
        top, bottom = _same(height, self.kernel_size[0], self.stride[0])
        left, right = _same(width, self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(input, (left, right, top, bottom)))


class SameUpConv(nn.ConvTranspose2d):
    """A transposed convolution whose output has the size input * stride.

    The reverse of ``SameConv``, for kernels at least as large as their stride.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the layer to (N,C,H,W)."""
        height, width = (n * step for n, step in zip(input.shape[2:], self.stride, strict=True))
        over = [kernel - step for kernel, step in zip(self.kernel_size, self.stride, strict=True)]
        top, left = over[0] // 2, over[1] // 2
        return super().forward(input)[:, :, top : top + height, left : left + width]


def pool_same(x: Tensor, kernel: int, stride: tuple[int, int]) -> Tensor:
    """Pool maxima, with an output of the size ceil(input / stride).

    Args:
        x: (N,C,H,W), not negative.
        kernel: Side of the windows.
        stride: Height and width.

    Returns:
        (N,C,h,w) maxima.
    """
    top, bottom = _same(x.shape[2], kernel, stride[0])
    left, right = _same(x.shape[3], kernel, stride[1])
    return F.max_pool2d(F.pad(x, (left, right, top, bottom)), kernel, stride)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after."""
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def make_residuals(stage: Stage, act: Activation = "relu") -> list[nn.Module]:
    """Make the residual 3x3 convolutions of a stage."""
    keep = Stage(stage.channels)
    return [Conv(stage.channels, keep, residual=True, act=act) for _ in range(stage.residuals)]


def make_encoder(
    cin: int, stages: tuple[Stage, ...], act: Activation = "relu"
) -> list[list[nn.Module]]:
    """Make the layers of an encoder.

    Args:
        cin: Input channels.
        stages: The stages in order.
        act: Activation of all layers.

    Returns:
        For each stage its layers; callers nest or chain them as the checkpoint's keys need.
    """
    blocks: list[list[nn.Module]] = []
    for stage in stages:
        blocks.append([Conv(cin, stage, act=act), *make_residuals(stage, act)])
        cin = stage.channels
    return blocks


def chain_blocks(blocks: list[list[nn.Module]]) -> nn.Sequential:
    """Chain all layers of all stages in one numbered row."""
    return nn.Sequential(*(layer for block in blocks for layer in block))


def fold_batch_norms(model: M) -> M:
    """Fold every batch norm into the layer before it, in place, and switch to eval mode.

    The same results with fewer passes over memory. For inference only: the state dict no longer
    fits a checkpoint.

    Returns:
        The same model.
    """
    model.eval()
    for row in [layer for layer in model.modules() if isinstance(layer, nn.Sequential)]:
        for i in reversed(range(1, len(row))):
            norm = row[i]
            if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
                row[i - 1] = _fuse(row[i - 1], norm)
                del row[i]  # an empty layer in its place would cost a call
    return model


def prepare_for_inference(model: M) -> M:
    """Prepare a model for inference, in place: folded, without gradients, channels last.

    oneDNN and cuDNN run convolutions faster with channels last.

    Returns:
        The same model.
    """
    fold_batch_norms(model).requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


def _fuse(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Fold a batch norm into a layer, in place: torch's own functions copy the layer first."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    if isinstance(layer, nn.Linear):
        fused = fuse_linear_bn_weights(
            layer.weight, layer.bias, mean, variance, eps, norm.weight, norm.bias
        )
    else:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d))
        fused = fuse_conv_bn_weights(
            layer.weight,
            layer.bias,
            mean,
            variance,
            eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(layer, nn.ConvTranspose2d),
        )
    layer.weight, layer.bias = fused
    return layer
