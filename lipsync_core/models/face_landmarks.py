"""Dense facial landmarks: 102 points of one face, and how sure the network is that it sees one.

A plain residual network regresses the points of an upright crop. Small dense convolutions, because on CPUs they run at
several times the arithmetic rate of depthwise ones.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..geometry import Framing

# Where the 102 points lie among the vertices of MediaPipe's face mesh (canonical_face_model, google-ai-edge/mediapipe).
# Left and right are the picture's. Lips run from the left corner along the lower lip to the right one and back along the
# upper lip; the jaw runs from ear to ear by the chin; eyes from their left corner along the upper lid and back.
OUTER_LIPS, INNER_LIPS, JAW = slice(0, 20), slice(20, 40), slice(40, 61)
LEFT_EYE, RIGHT_EYE = slice(61, 69), slice(69, 77)
LEFT_BROW, RIGHT_BROW = slice(77, 82), slice(82, 87)
NOSE_BRIDGE, NOSE_BASE, NOSE_WINGS, IRISES = slice(87, 93), slice(93, 98), slice(98, 100), slice(100, 102)
POINTS = 102

MEDIAPIPE_VERTICES: tuple[int, ...] = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),  # outer lips
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),  # inner lips
    *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),  # jaw, left to chin
    *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454),  # jaw, chin to right
    *(33, 160, 159, 158, 133, 153, 145, 144),  # left eye
    *(362, 385, 386, 387, 263, 373, 374, 380),  # right eye
    *(70, 63, 105, 66, 107),  # left brow
    *(336, 296, 334, 293, 300),  # right brow
    *(168, 6, 197, 195, 5, 4),  # bridge of the nose, downwards
    *(98, 97, 2, 326, 327),  # base of the nose
    *(129, 358),  # wings of the nose
    *(468, 473),  # irises
)


def _mirrored() -> tuple[int, ...]:
    """Which point of a face takes the place of each in its mirror image."""
    order = list(range(POINTS))

    def lips(first: int) -> list[int]:  # corners change places; each lip runs the other way
        return [first + (10 - k) % 20 for k in range(20)]

    order[OUTER_LIPS], order[INNER_LIPS] = lips(0), lips(20)
    order[JAW] = list(range(60, 39, -1))
    eye = (4, 3, 2, 1, 0, 7, 6, 5)  # corners change places; each lid runs the other way
    order[LEFT_EYE], order[RIGHT_EYE] = [69 + k for k in eye], [61 + k for k in eye]
    order[LEFT_BROW], order[RIGHT_BROW] = list(range(86, 81, -1)), list(range(81, 76, -1))
    order[NOSE_BASE] = list(range(97, 92, -1))
    order[NOSE_WINGS], order[IRISES] = [99, 98], [101, 100]
    return tuple(order)


MIRRORED = _mirrored()

# Where eyes and nose of an upright face lie in the unit square of the crops: 2.8 eye distances wide, so that jaw, chin and
# brows of an open-mouthed face fit. Mouth corners place nothing: lips that move must not move the crop.
EYES_AND_NOSE = ((0.325, 0.34), (0.675, 0.34), (0.50, 0.53))
FRAMING = Framing("eyes", points=EYES_AND_NOSE)


@dataclass(frozen=True, slots=True)
class FaceLandmarksConfig:
    """Shape of the network: side ``size`` of its crops in px, ``widths`` of its maps at strides 2, 4, 8, 16 and 32,
    residual blocks (``depths``) of those, and the width ``head`` that the coarsest map is narrowed to before the points."""

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
    """Crops (N,3,S,S), RGB in [0,1], framed by ``FRAMING``, to points and confidences."""

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
            (N,102,2) points (x, y) in px of the crop, and (N,) logits of a face whose lips can be seen.
        """
        x = self.narrow(self.trunk(crops * 2 - 1)).flatten(1).to(self.points.weight.dtype)
        points = self.points(x).float().unflatten(1, (POINTS, 2))
        return (points + 0.5) * self.config.size, self.sure(x)[:, 0].float()
