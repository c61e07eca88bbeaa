"""Measure the shape of dubbed lips from landmarks: lips that leak, freeze or differ from the truth.

Each metric takes the landmarks of frames, (N,K,2) in a layout of ``image.landmarks.LIP_LAYOUTS``
with NaN in frames without a face, which do not count. Any pieces give the same figures, bit for
bit, because every frame is measured by itself.
"""

import math

import torch
from torch import Tensor

from ..image.landmarks import INNER_LIPS, OUTER_LIPS, POINTS, mouth_aspect, mouth_opening
from .aggregate import FrameValues, mean

LEAKING = 0.25
"""Mouth aspect ratio above which KeySync counts a mouth as open."""

CLOSED = 0.05
"""Mouth aspect ratio up to which lips are closed, by our own landmarks.

A silent man's lips have at most 0.023 in 50 frames; six people who talk have medians of 0.09 to
0.19, and 4 to 44 % of their frames are closed.
"""

STILL = 0.01
"""Standard deviation of the mouth aspect ratio below which a mouth did not move.

The same silent man's: 0.007; those of the six who talk: 0.05 to 0.10.
"""

LIPS = {68: slice(48, 68), POINTS: slice(OUTER_LIPS.start, INNER_LIPS.stop)}
"""Points of the lips that ``ProcrustesDisparity`` compares, by the number of landmarks."""


class _AspectRatios(FrameValues):
    """Collects the mouth aspect ratio of each frame with a face."""

    def update(self, points: Tensor) -> None:
        """Add the next frames of a clip.

        Args:
            points: (N,K,2) landmarks in px, NaN in frames without a face.
        """
        seen = ~points.isnan().flatten(1).any(1)
        self.values += mouth_aspect(points[seen].double()).tolist()


class LipLeak(_AspectRatios):
    """Share of frames whose mouth is open although the sound is silent; lower is better.

    Feed it a dub of a talking person with silence. Formula: frames whose mouth aspect ratio is
    above 0.25, over frames with a face; range [0,1]. Source: KeySync (Bigata et al. 2025, arXiv
    2505.00497), which prints 0.33 for LatentSync and 0.16 for itself. Our reading: the ratio is the
    mean gap of the inner lips over the distance of the outer corners, for which 0.25 is a wide
    mouth: five of six people who talk never reach it in two seconds, one in 16 % of the frames.
    ``SilentLips`` separates methods better.
    """

    def compute(self) -> float | None:
        """Return the share in [0,1]; None without a face."""
        return mean([float(value > LEAKING) for value in self.values])


class SilentLips(_AspectRatios):
    """SILENT: share of frames whose lips are closed although the source talks; higher is better.

    Feed it a dub of a talking person with silence (five seconds in the paper). Formula: frames with
    closed lips over frames with a face; range [0,1]. Source: HighSync (2026, arXiv 2605.16918),
    which prints 0.84 for Wav2Lip and 0.93 for itself and does not say what closed is. Our reading:
    a mouth aspect ratio of at most 0.05.
    """

    def compute(self) -> float | None:
        """Return the share in [0,1]; None without a face."""
        return mean([float(value <= CLOSED) for value in self.values])


class MouthDivergence(_AspectRatios):
    """MAR divergence: how much a mouth moves at all; best that of a real speaker of the sound.

    Formula: standard deviation of the mouth aspect ratio over the frames of one clip; range 0 and
    more, 0 for a frozen mouth, 0.05 to 0.10 for real talk. Source: several papers of 2025 and 2026
    without one formula; our reading. Use one object per clip.
    """

    def compute(self) -> float | None:
        """Return the deviation; None for fewer than two frames with a face."""
        if len(self.values) < 2:
            return None
        center = math.fsum(self.values) / len(self.values)
        return math.sqrt(math.fsum((v - center) ** 2 for v in self.values) / len(self.values))

    def moved(self) -> bool | None:
        """Return whether the mouth moved at all: a deviation of 0.01 or more; None as above."""
        found = self.compute()
        return None if found is None else found >= STILL


class ProcrustesDisparity(FrameValues):
    """PD: difference of two lips' shapes whatever their place, size and roll; lower is better.

    Formula: per frame the sum of squared differences of the lips' points after the best shift,
    scale and rotation of one to the other, both scaled to norm 1 (Gower 1975); the mean over
    frames; range [0,1], 0 for equal shapes. Source: FreeTalkDiff (2026, arXiv 2605.30230), which
    prints 0.009 to 0.010 of 3-D points. Our reading: 2-D points of outer and inner lips, so that a
    turned head counts.
    """

    def update(self, made: Tensor, true: Tensor) -> None:
        """Compare the next frames of two clips.

        Args:
            made: (N,K,2) landmarks of the dub, K 68 or 102, NaN in frames without a face.
            true: (N,K,2) landmarks of the truth at the same moments.

        Raises:
            ValueError: For tensors of other shapes.
        """
        if made.shape != true.shape or made.ndim != 3 or made.shape[1] not in LIPS:
            known = " or ".join(f"(N,{count},2)" for count in sorted(LIPS))
            raise ValueError(
                f"points are {tuple(made.shape)} and {tuple(true.shape)}; expected twice {known}"
            )
        lips = LIPS[made.shape[1]]
        for first, second in zip(made[:, lips].double(), true[:, lips].double(), strict=True):
            if not bool((first.isnan() | second.isnan()).any()):
                self.values.append(_disparity(first, second))

    def compute(self) -> float | None:
        """Return the mean over frames; None without a frame that shows both."""
        return mean(self.values)


def _disparity(first: Tensor, second: Tensor) -> float:
    """1 - (sum of the singular values of A'B)^2 for A and B centered and of norm 1.

    Without mirroring: the smallest singular value counts negative where the best map is one.
    """
    a, b = (points - points.mean(0) for points in (first, second))
    product = (a / a.norm().clamp_min(1e-12)).T @ (b / b.norm().clamp_min(1e-12))
    left, values, right = torch.linalg.svd(product)
    sign = torch.sign(torch.linalg.det(left @ right))
    return max(0.0, 1 - float(values[0] + sign * values[1]) ** 2)


class LipDistance:
    """PCLD and CSLD: how alike two mouths open over time; higher is better.

    Formula: Pearson's correlation (PCLD, in [-1,1]) and cosine similarity (CSLD, in [0,1]) of the
    two series of lip distances at the same moments. Source: FreeTalkDiff (2026, arXiv 2605.30230),
    which prints 0.72 and 0.88. Our reading: the distance is ``mouth_opening``, and frames in which
    one of the two shows no face are left out. Openings are never negative, so any two mouths that
    are usually open have a CSLD near 1: read PCLD first. No lag is searched (``MouthFollowing``
    does so). Use one object per clip.
    """

    def __init__(self) -> None:
        self._made: list[float] = []
        self._true: list[float] = []

    def update(self, made: Tensor, true: Tensor) -> None:
        """Add the next moments of both clips.

        Args:
            made: (N,) openings of the dub, NaN without a face; or its landmarks (N,K,2).
            true: The same of the truth.

        Raises:
            ValueError: For another number of moments.
        """
        first, second = (mouth_opening(x) if x.ndim == 3 else x for x in (made, true))
        if first.shape != second.shape:
            raise ValueError(
                f"{tuple(first.shape)} and {tuple(second.shape)} openings; expected equally many"
            )
        seen = ~(first.isnan() | second.isnan())
        self._made += first[seen].double().tolist()
        self._true += second[seen].double().tolist()

    def compute(self) -> tuple[float | None, float | None]:
        """Return (PCLD, CSLD); None for fewer than two moments; PCLD 0 for a frozen mouth."""
        if len(self._made) < 2:
            return None, None
        count = len(self._made)
        centers = [math.fsum(series) / count for series in (self._made, self._true)]
        a, b = (
            [value - center for value in series]
            for series, center in zip((self._made, self._true), centers, strict=True)
        )
        return _cosine(a, b), _cosine(self._made, self._true)


def _cosine(first: list[float], second: list[float]) -> float:
    """Cosine of two series; 0 where one of them is 0 all over."""
    dot = math.fsum(x * y for x, y in zip(first, second, strict=True))
    norms = [math.sqrt(math.fsum(x * x for x in series)) for series in (first, second)]
    small = 1e-9 * len(first)
    return dot / (norms[0] * norms[1]) if min(norms) > small else 0.0
