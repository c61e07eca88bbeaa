"""Network for dense facial landmarks: 102 points of one face, and a confidence.

A plain residual network regresses the points of an upright crop. Small dense convolutions, because
on CPUs they run several times as fast per operation as depthwise ones.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..image.affine import Framing
from ..image.landmarks import POINTS

# Places of eyes and nose of an upright face in the unit square of crops: 2.8 eye distances wide,
# so that jaw, chin and brows of a face with an open mouth fit. Mouth corners are left out: moving
# lips must not move the crop.
EYES_AND_NOSE = ((0.325, 0.34), (0.675, 0.34), (0.50, 0.53))
FRAMING = Framing("eyes", points=EYES_AND_NOSE)


@dataclass(frozen=True, slots=True)
class FaceLandmarksConfig:
    """Shape of the network.

    Attributes:
        size: Side of its crops in px.
        widths: Channels of its maps at strides 2, 4, 8, 16 and 32.
        depths: Residual blocks of these maps.
        head: Channels that the coarsest map is reduced to before the points.
        framing: How crops are placed on faces.
    """

    size: int = 128
    widths: tuple[int, int, int, int, int] = (16, 32, 48, 64, 96)
    depths: tuple[int, int, int, int, int] = (0, 1, 1, 1, 1)
    head: int = 32
    framing: Framing = FRAMING


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu_())).relu_()


class FaceLandmarks(nn.Module):
    """Finds points and confidences of crops (N,3,S,S), RGB in [0,1], framed by ``FRAMING``."""

    def __init__(self, config: FaceLandmarksConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        inputs = 3
        for width, depth in zip(config.widths, config.depths, strict=True):
            layers += [_conv(inputs, width, stride=2), nn.ReLU(inplace=True)]
            layers += [_Residual(width) for _ in range(depth)]
            inputs = width
        self.trunk = nn.Sequential(*layers)
        self.narrow = nn.Sequential(_conv(inputs, config.head, kernel=1), nn.ReLU(inplace=True))
        cells = (config.size // 32) ** 2
        self.points = nn.Linear(config.head * cells, 2 * POINTS)
        self.sure = nn.Linear(config.head * cells, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points of each crop.

        Args:
            crops: (N,3,S,S) RGB in [0,1].

        Returns:
            (N,102,2) points (x, y) in px of the crop, and (N,) logits that the crop shows a face
            with visible lips.
        """
        x = self.narrow(self.trunk(crops * 2 - 1)).flatten(1).to(self.points.weight.dtype)
        points = self.points(x).float().unflatten(1, (POINTS, 2))
        return (points + 0.5) * self.config.size, self.sure(x)[:, 0].float()
