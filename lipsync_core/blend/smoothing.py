"""Nothing jumps from frame to frame: what is eased over time, one frame after the other, whatever
the chunks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_QUIET = (
    # of the range [0,1], or of a quarter of the crop where things move: changes below are
    # trembling, not speech
    0.03
)
_NEAR = 9  # px round a pixel over which its change is averaged


def linked(index: Tensor, last: int | None) -> Tensor:
    """(N,) bool: which of the frames ``index`` (N,) come right after the one before, the first
    after frame ``last``."""
    before = torch.cat([index.new_tensor([-2 if last is None else last]), index[:-1]])
    return index == before + 1


def eased(
    values: Tensor,
    last: Tensor | None,
    keep: Tensor,
    *,
    rises: bool = False,
    within: float | None = None,
) -> Tensor:
    """(N,...) ``values`` (N,...) of frame after frame, of each of which ``keep`` (N,...),
    broadcast, is what the frame before it became, ``last`` (1,...) being the frame before the
    first; where that is None nothing is kept of it. ``rises``: what grows does so at once, and only
    what falls is eased. ``within``: what differs by more is something else, of which nothing is
    kept."""
    out: list[Tensor] = []
    for value, share in zip(values.split(1), keep.split(1), strict=True):
        share = share.to(value)
        if within is not None and last is not None:
            share = share * ((value - last).abs().amax() < within)
        now = value if last is None else torch.lerp(value, last, share)
        last = torch.maximum(now, value) if rises else now
        out.append(last)
    return torch.cat(out)


def steadied(
    drawn: Tensor,
    last: Tensor | None,
    follows: Tensor,
    *,
    strength: float,
    visible: Tensor | None = None,
) -> Tensor:
    """``drawn`` (N,C,H,W), pictures in [0,1] or movement in [-1,1] of a quarter of the crop,
    without the trembling: up to ``strength`` in [0,1] of the frame before is kept where little
    changes, nothing where lips move. follows (N,): whether each frame follows the one before, the
    first following ``last`` (1,C,H,W). visible (N,C,H,W) in [0,1]: how much of each value is seen,
    and its change counts; None: all."""
    out: list[Tensor] = []
    shares = [None] * len(drawn) if visible is None else visible.split(1)
    for now, share, follow in zip(drawn.split(1), shares, follows.tolist(), strict=True):
        if follow and last is not None:
            change = (now - last).abs() if share is None else (now - last).abs() * share
            change = change.amax(1, keepdim=True)
            change = F.avg_pool2d(change, _NEAR, 1, _NEAR // 2, count_include_pad=False)
            now = torch.lerp(now, last, strength * (-(change / _QUIET).square()).exp())
        last = now
        out.append(last)
    return torch.cat(out)
