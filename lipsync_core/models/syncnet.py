"""SyncNet, the judge of LSE-D and LSE-C.

Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016. Layers and names are those
of the public file ``syncnet_v2.model`` of joonson/syncnet_python (13 631 616 parameters), so that
it loads strictly.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FPS = Fraction(25)
"""Frames a second of the videos it was trained on."""

WINDOW = 5
"""Frames in its input, 0.2 s."""

SIZE = 224
"""Side of its pictures in px."""

RATE = 16000
"""Hz of the sound."""

COLUMNS = 20
"""Columns of cepstra (100 a second) in its input."""

COLUMNS_PER_FRAME = 4
"""Columns of cepstra to one frame."""


@dataclass(frozen=True, slots=True)
class SyncNetConfig:
    """Shape of SyncNet; the defaults are the public file's, and kernels and strides are fixed.

    Attributes:
        lip: Channels of the six convolutions on pictures.
        audio: Channels of the six convolutions on sound.
        hidden: Channels of the layer between the convolutions and the embedding.
        embedding: Length of the embeddings.
    """

    lip: tuple[int, int, int, int, int, int] = (96, 256, 256, 256, 256, 512)
    audio: tuple[int, int, int, int, int, int] = (64, 192, 384, 256, 256, 512)
    hidden: int = 512
    embedding: int = 1024


class StackedConv(nn.Conv3d):
    """Convolution over time, height and width whose kernel covers the whole time: (N,C*T,H,W).

    It computes the same sums as one over height and width with the frames stacked as channels,
    which is quicker. Returns (N,D,h,w).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N,C*T,H,W) into (N,D,h,w)."""
        return F.conv2d(
            input, self.weight.flatten(1, 2), self.bias, self.stride[1:], self.padding[1:]
        )  # type: ignore[arg-type]


class SyncNet(nn.Module):
    """Embed 0.2 s of sound and of a face so that matching ones are close (Euclidean distance)."""

    def __init__(self, config: SyncNetConfig) -> None:
        super().__init__()
        self.config = config
        a, v = config.audio, config.lip
        self.netcnnaud = nn.Sequential(
            *_normed(nn.Conv2d(1, a[0], 3, padding=1)),
            nn.Identity(),  # a pool of one pixel in the original; keeps the numbering of the layers
            *_normed(nn.Conv2d(a[0], a[1], 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_normed(nn.Conv2d(a[1], a[2], 3, padding=1)),
            *_normed(nn.Conv2d(a[2], a[3], 3, padding=1)),
            *_normed(nn.Conv2d(a[3], a[4], 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_normed(nn.Conv2d(a[4], a[5], (5, 4))),
        )
        self.netfcaud = _head(a[5], config)
        self.netfclip = _head(v[5], config)
        self.netcnnlip = nn.Sequential(
            *_normed(StackedConv(3, v[0], (WINDOW, 7, 7), (1, 2, 2))),
            nn.MaxPool2d(3, 2),
            *_normed(StackedConv(v[0], v[1], (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool2d(3, 2, 1),
            *_normed(StackedConv(v[1], v[2], (1, 3, 3), padding=(0, 1, 1))),
            *_normed(StackedConv(v[2], v[3], (1, 3, 3), padding=(0, 1, 1))),
            *_normed(StackedConv(v[3], v[4], (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool2d(3, 2),
            *_normed(StackedConv(v[4], v[5], (1, 6, 6))),
        )

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """Embed (N,1,13,20) of ``audio.features.mfcc`` as (N,1024).

        The vectors are not normalized: their lengths are in the hundreds.
        """
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_video(self, lips: Tensor) -> Tensor:
        """Embed (N,3,5,224,224) RGB in [0,1] as (N,1024).

        The vectors are not normalized: their lengths are in the hundreds.
        """
        # One pass over the pictures: colors and frames as the innermost axis, which is quicker on
        # CPUs, and the weights, not the pictures, turned to the BGR bytes of OpenCV that they were
        # trained on. On one core a window takes 35 ms with its authors' 3-d convolutions, 25 so, 22
        # when folded (batch 20), 20 in batches of 8.
        stacked = lips.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
        first = self.netcnnlip[0]
        assert isinstance(first, nn.Conv3d)
        seen = F.conv2d(
            stacked.contiguous(memory_format=torch.channels_last),
            (first.weight.flip(1) * 255).flatten(1, 2),
            first.bias,
            stride=2,
        )
        return self.netfclip(self.netcnnlip[1:](seen).flatten(1))


def _normed(conv: nn.Conv2d | nn.Conv3d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


def _head(channels: int, config: SyncNetConfig) -> nn.Sequential:
    between = nn.Linear(channels, config.hidden)
    return nn.Sequential(
        between,
        nn.BatchNorm1d(config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, config.embedding),
    )
