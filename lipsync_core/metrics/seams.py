"""Seam of a dub against the undubbed frames: line, color step and flicker at its edge."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.yuv import LUMA
from ..types import Frames
from .aggregate import FrameValues, mean

_SECTORS = 24  # of the edge, so that a cheek too light and a chin too dark do not cancel
# levels of 255, blurred, by which neighbouring frames differ at most where nothing moves
_STILL = 3.0


@dataclass(frozen=True, slots=True)
class SeamFigures:
    """Means over frames; lower is better, 0 without a seam, None if nothing was measured.

    Attributes:
        line: Levels of 255 per px by which the gradient across the edge differs from the source's
            at the same place.
        step: Levels by which the color just inside the edge differs from the source's, in 24
            sectors of the edge, root mean square over channels.
        flicker: Levels a frame by which the edge changes while the source does not.
    """

    line: float | None
    step: float | None
    flicker: float | None


class Seams:
    """Compares a dub with its source along the edge of the generated pixels.

    Each method is measured at its own edge, where ``alpha``, the opacity of new pixels, changes.
    """

    def __init__(self) -> None:
        self.lines, self.steps, self.flickers = FrameValues(), FrameValues(), FrameValues()
        self._last: tuple[Tensor, Tensor] | None = None

    def update(self, source: Frames, result: Frames, alpha: Tensor) -> None:
        """Measure the next frames of one clip.

        Args:
            source: Undubbed frames.
            result: The same frames dubbed, of the same size.
            alpha: (N,H,W) opacity of new pixels in [0,1].
        """
        for before, after, share in zip(
            _to_levels(source), _to_levels(result), alpha.float(), strict=True
        ):
            change = after - before  # (3,H,W)
            luma = (change * change.new_tensor(LUMA)[:, None, None]).sum(0)
            across, down = torch.gradient(share, dim=(1, 0))
            steep = (across.square() + down.square()).sqrt()
            if float(steep.sum()) > 0:
                e_across, e_down = torch.gradient(luma, dim=(1, 0))
                self.lines.values.append(
                    _weighted_mean(
                        (across * e_across + down * e_down).abs() / steep.clamp_min(1e-9), steep
                    )
                )
                self.steps.values.append(_color_step(change, share > 0.5))
                if self._last is not None:
                    self._flicker(before, luma, steep)
            self._last = before, luma

    def _flicker(self, before: Tensor, luma: Tensor, steep: Tensor) -> None:
        assert self._last is not None
        moved = F.avg_pool2d((before - self._last[0]).abs().mean(0)[None], 5, 1, 2)[0]
        still = steep * (moved < _STILL)
        if float(still.sum()) > 0:
            self.flickers.values.append(_weighted_mean((luma - self._last[1]).abs(), still))

    def compute(self) -> SeamFigures:
        """Return the means over frames."""
        return SeamFigures(
            mean(self.lines.values), mean(self.steps.values), mean(self.flickers.values)
        )


def _to_levels(frames: Frames) -> Tensor:
    """(N,3,H,W) in [0,255]."""
    pixels = frames.pixels.permute(0, 3, 1, 2).float()
    return pixels if frames.pixels.dtype == torch.uint8 else pixels * 255


def _weighted_mean(values: Tensor, weight: Tensor) -> float:
    return float((values * weight).sum() / weight.sum())


def _color_step(change: Tensor, inside: Tensor) -> float:
    """Of ``change`` (3,H,W) just inside the edge of ``inside`` (H,W)."""
    reach = max(2, round(0.04 * math.sqrt(float(inside.sum()))))
    deep = 1 - F.max_pool2d((~inside).float()[None], 2 * reach + 1, 1, reach)[0]
    y, x = torch.nonzero(inside.float() - deep > 0.5, as_tuple=True)
    rows, columns = torch.nonzero(inside, as_tuple=True)
    angle = torch.atan2(y - rows.float().mean(), x - columns.float().mean())
    sector = ((angle / (2 * math.pi) + 0.5) * _SECTORS).long().clamp(0, _SECTORS - 1)
    count = torch.bincount(sector, minlength=_SECTORS).float()
    means = torch.stack(
        [torch.bincount(sector, c[y, x], minlength=_SECTORS) for c in change]
    ) / count.clamp_min(1)
    return float(means.square().mean(0).sqrt()[count > 0].mean())
