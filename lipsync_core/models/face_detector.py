"""`mini` face detector: a small anchor-free pyramid network for boxes and five landmarks.

A separable residual backbone gives maps at strides 8, 16, 32 and 64; a top-down pyramid (FPN, Lin
et al. 2017) brings them to one width, and one head shared by all levels (FCOS, Tian et al. 2019)
says for every cell how likely it lies on the centre of a face, where that face's box is, and where
its five points are.
"""

import copy
import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..image.crop import pixel_grid
from .layers import fold_batch_norms

STRIDES = (8, 16, 32, 64)
# A face of `FACE_IN_CELLS` times a level's stride is what that level's size output calls 0: the
# middle (geometric) of the sizes that the level is taught.
FACE_IN_CELLS = 4.5


@dataclass(frozen=True, slots=True)
class FaceDetectorConfig:
    """``stem``: widths at strides 2 and 4.

    ``widths`` and ``depths`` (residual blocks) of the maps at strides 8, 16, 32 and 64;
    ``pyramid``: width of the pyramid and the head.
    """

    stem: tuple[int, int] = (16, 32)
    widths: tuple[int, int, int, int] = (64, 96, 128, 128)
    depths: tuple[int, int, int, int] = (2, 3, 2, 1)
    pyramid: int = 64


class Cells(NamedTuple):
    """Output of the network for A cells, in pixels of its input.

    Attributes:
        logits: (N,A) of the score.
        boxes: (N,A,4) xyxy.
        points: (N,A,5,2).
    """

    logits: Tensor
    boxes: Tensor
    points: Tensor


def _conv(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Separable(nn.Module):
    """Depthwise then pointwise convolution, residual if the shapes agree.

    (N,C,H,W) -> (N,D,H/stride,W/stride).
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = _conv(inputs, inputs, kernel=kernel, stride=stride, groups=inputs)
        self.pointwise = _conv(inputs, outputs, kernel=1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        y = self.pointwise(self.depthwise(x).relu_())
        return (x + y if self.residual else y).relu_()


class FaceDetector(nn.Module):
    """Map pictures (N,3,H,W) RGB in [0,1], any H and W >= 1, to `Cells`.

    Cells of stride 8 come row by row, then 16, 32, 64.
    """

    def __init__(self, config: FaceDetectorConfig) -> None:
        super().__init__()
        self.config = config
        first, second = config.stem
        self.stem = nn.Sequential(
            _conv(3, first, stride=2),
            nn.ReLU(inplace=True),
            _conv(first, second, stride=2),
            nn.ReLU(inplace=True),
            Separable(second, second),
        )
        ins = (second, *config.widths[:-1])
        # 5x5 kernels where maps are small: the coarse levels must see whole large faces
        self.stages = nn.ModuleList(
            nn.Sequential(
                Separable(inputs, width, stride=2),
                *(Separable(width, width, kernel=5 if stride > 16 else 3) for _ in range(depth)),
            )
            for inputs, width, depth, stride in zip(
                ins, config.widths, config.depths, STRIDES, strict=True
            )
        )
        self.laterals = nn.ModuleList(
            _conv(width, config.pyramid, kernel=1) for width in config.widths
        )
        self.merges = nn.ModuleList(Separable(config.pyramid, config.pyramid) for _ in STRIDES)
        self.tower = Separable(config.pyramid, config.pyramid)
        self.score = nn.Sequential(
            Separable(config.pyramid, config.pyramid), nn.Conv2d(config.pyramid, 1, 1)
        )
        self.shape = nn.Sequential(
            Separable(config.pyramid, config.pyramid), nn.Conv2d(config.pyramid, 14, 1)
        )
        # focal loss starts from "a cell holds a face with probability 0.01" (Lin et al. 2017,
        # section 4.1)
        nn.init.constant_(self.score[1].bias, -4.6)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Tensor) -> Cells:
        """Run the layers."""
        return self.look(images * 2 - 1)

    def look(self, x: Tensor, *, levels: int = len(STRIDES)) -> Cells:
        """``forward`` of pictures in [-1,1].

        Of a copy made by ``folded(127.5)``: in [-127.5,127.5]. ``levels``: only so many, from the
        finest on, look for faces.
        """
        x = self.stem(x)
        maps: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for fine in reversed(range(len(maps) - 1)):
            h, w = maps[fine].shape[-2:]
            above = interpolate(maps[fine + 1], scale_factor=2.0, mode="nearest")
            maps[fine] = maps[fine] + above[..., :h, :w]
        cells: list[Cells] = []
        for level, merge, stride in list(zip(maps, self.merges, STRIDES, strict=True))[:levels]:
            y = self.tower(merge(level))
            cells.append(_decode(self.score(y), self.shape(y), stride))
        return Cells(*(torch.cat(parts, 1) for parts in zip(*cells, strict=True)))

    def folded(self, full: float = 1) -> "FaceDetector":
        """A copy for inference: BatchNorm folded into the convolutions, in eval mode.

        ``full``: what 1 is to ``look``; with 127.5 it takes bytes less 127.5, which bfloat16 holds
        exactly.
        """
        model = fold_batch_norms(copy.deepcopy(self))
        first = next(model.parameters())
        first.data.div_(full)
        return model


@functools.lru_cache(maxsize=64)
def cell_centres(
    height: int, width: int, *, stride: int, device: torch.device | None = None
) -> Tensor:
    """(H*W,2) centres (x, y) in input pixels of the cells of one level, row by row.

    Kept: it is not to be written into.
    """
    with torch.inference_mode(False):  # what is kept may be used in training later
        grid = pixel_grid(height, width, torch.empty(0, device=device)) * stride
        return grid.permute(1, 2, 0).reshape(-1, 2)


def _decode(score: Tensor, shape: Tensor, stride: int) -> Cells:
    """Convert the maps (N,1,h,w) and (N,14,h,w) of one level to `Cells`.

    Center and points count strides from the cell's center, sizes are logarithms. float32, because
    bfloat16 cannot hold a coordinate past 256 px.
    """
    n, _, h, w = score.shape
    centres = cell_centres(h, w, stride=stride, device=score.device)
    raw = shape.float().flatten(2).mT  # (N, h*w, 14)
    middle = centres + raw[..., :2] * stride
    half = raw[..., 2:4].clamp(-3, 3).exp() * (stride * FACE_IN_CELLS / 2)
    points = centres[:, None] + raw[..., 4:].reshape(n, h * w, 5, 2) * stride
    return Cells(
        score.float().reshape(n, h * w), torch.cat([middle - half, middle + half], -1), points
    )
