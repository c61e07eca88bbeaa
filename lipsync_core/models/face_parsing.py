"""BiSeNet for face parsing: a label for each pixel of a portrait.

Yu et al., ECCV 2018: "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation".
The shape and the parameter names are those of zllrunning/face-parsing.PyTorch (model.py), whose
``79999_iter.pth`` loads strictly: the paper's context path on a ResNet-18, without its spatial
path, in place of which that network's own features at an eighth of the side are fused.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of ImageNet, as torchvision publishes them; test.py of that repository.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class FaceParsingConfig:
    """Shape of the network; the defaults are the public file's (13 300 416 parameters).

    ``stages``: channels of the ResNet's four stages, ``blocks`` residual blocks in each. ``width``:
    of the context path. ``side``: px of the square that the network was trained on; others work,
    the finer the better up to it.
    """

    labels: int = 19
    stages: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    width: int = 128
    side: int = 512


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 3) -> None:
        conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(cout)))

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers."""
        return super().forward(input).relu_()


class Residual(nn.Sequential):
    """Two 3x3 convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        shortcut = nn.Sequential()
        if stride > 1 or cin != cout:
            shortcut = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False),
                bn1=nn.BatchNorm2d(cout),
                relu=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(cout, cout, 3, padding=1, bias=False),
                bn2=nn.BatchNorm2d(cout),
                downsample=shortcut,
            )
        )

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers."""
        *layers, shortcut = self
        x = input
        for layer in layers:
            x = layer(x)
        return (x + shortcut(input)).relu_()


class Backbone(nn.Sequential):
    """A ResNet without its classifier."""

    def __init__(self, config: FaceParsingConfig) -> None:
        first = config.stages[0]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, first, 7, 2, padding=3, bias=False),
            bn1=nn.BatchNorm2d(first),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, 2, padding=1),
        )
        cin = first
        for number, (width, count) in enumerate(zip(config.stages, config.blocks, strict=True), 1):
            stride = 1 if number == 1 else 2
            layers[f"layer{number}"] = nn.Sequential(
                Residual(cin, width, stride), *(Residual(width, width, 1) for _ in range(count - 1))
            )
            cin = width
        super().__init__(layers)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at an eighth, a sixteenth and a thirty-second of the side."""
        *stem, to_eighth, to_sixteenth, to_last = self
        for layer in stem:
            x = layer(x)
        eighth = to_eighth(x)
        sixteenth = to_sixteenth(eighth)
        return eighth, sixteenth, to_last(sixteenth)


class Refinement(nn.Sequential):
    """A convolution whose channels are weighed by what the whole picture shows."""

    def __init__(self, cin: int, width: int) -> None:
        gate = nn.Conv2d(width, width, 1, bias=False)
        super().__init__(
            OrderedDict(conv=ConvNorm(cin, width), conv_atten=gate, bn_atten=nn.BatchNorm2d(width))
        )

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers."""
        conv, *gate = self
        x = conv(input)
        weight = x.mean((2, 3), keepdim=True)
        for layer in gate:
            weight = layer(weight)
        return x * weight.sigmoid()


class ContextPath(nn.Module):
    """The backbone's coarse features, refined and brought up to an eighth of the side."""

    def __init__(self, config: FaceParsingConfig) -> None:
        super().__init__()
        *_, sixteenth, last = config.stages
        width = config.width
        self.resnet = Backbone(config)
        self.arm16 = Refinement(sixteenth, width)
        self.arm32 = Refinement(last, width)
        self.conv_head32 = ConvNorm(width, width)
        self.conv_head16 = ConvNorm(width, width)
        self.conv_avg = ConvNorm(last, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features at an eighth: the backbone's own, and the context's."""
        eighth, sixteenth, last = self.resnet.maps(x)
        coarse = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        middle = self.arm16(sixteenth) + self.conv_head32(
            F.interpolate(coarse, sixteenth.shape[2:])
        )
        return eighth, self.conv_head16(F.interpolate(middle, eighth.shape[2:]))


class Fusion(nn.Module):
    """Merge both kinds of features; channels that matter in the picture count up to twice."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.convblk = ConvNorm(cin, cin, 1)
        self.conv1 = nn.Conv2d(cin, cin // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(cin // 4, cin, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Run the layers."""
        x = self.convblk(torch.cat([detail, context], 1))
        weight = self.conv2(self.conv1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + x * weight


class FaceParsing(nn.Module):
    """How likely each of the 19 labels of ``blend.parser_masks.LABELS`` is at each pixel."""

    def __init__(self, config: FaceParsingConfig) -> None:
        super().__init__()
        self.config = config
        fused = config.stages[1] + config.width
        self.cp = ContextPath(config)
        self.ffm = Fusion(fused)
        self.conv_out = _head(fused, fused, config.labels)
        # Heads that only training listens to; the public file has them.
        self.conv_out16 = _head(config.width, config.width // 2, config.labels)
        self.conv_out32 = _head(config.width, config.width // 2, config.labels)

    def cells(self, pixels: Tensor) -> Tensor:
        """Return logits (N,19,h,w) of portraits ``pixels`` (N,3,H,W) RGB in [0,1].

        h and w are an eighth, rounded up, of height and width. The centers of the corner cells are
        those of the corner pixels (align_corners), as in training.
        """
        mean, spread = (pixels.new_tensor(values)[:, None, None] for values in (_MEAN, _SPREAD))
        eighth, context = self.cp((pixels - mean) / spread)
        return self.conv_out(self.ffm(eighth, context))

    def forward(self, pixels: Tensor) -> Tensor:
        """``cells`` enlarged to every pixel: (N,19,H,W)."""
        return F.interpolate(
            self.cells(pixels), pixels.shape[2:], mode="bilinear", align_corners=True
        )


def _head(cin: int, width: int, labels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=ConvNorm(cin, width), conv_out=nn.Conv2d(width, labels, 1, bias=False))
    )
