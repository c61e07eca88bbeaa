"""Measure from mouth openings over time whether dubbed lips follow the new speech or the old lips.

Series of mouth openings (``landmarks.mouth_opening``: in distances between the outer corners of the
eyes) of three videos are compared: the dub; ``truth``, a video of the speaker of the new audio; and
``source``, the video that was dubbed. No sync network takes part, so a model that learned to please
one gains nothing here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

Role = Literal["dub", "truth", "source"]

RATE = 25  # openings a second
LAGS = 3  # openings by which the sound of a dub may be early or late
_LEAST = 20  # openings: correlations of fewer mean nothing
_LEAST_SEEN = 0.8  # of the frames
_FROZEN = 1e-6  # deviation of a mouth that does not move
_CLOSED = 0.1  # of the way from a mouth's most closed to its most open
_ENDS = (0.01, 0.99)  # quantiles: what counts as most closed and most open


@dataclass(frozen=True, slots=True)
class MouthFollowing:
    """How the mouth of a dub follows that of the true speaker and that of the source.

    Attributes:
        truth: Correlation with the true speaker, the largest of those at lags of at most 3
            openings; in [-1,1], higher is better, 0 for a frozen mouth.
        truth_lag: The lag of ``truth`` in openings of 1/25 s, positive where the dub is late; None
            for a frozen mouth.
        leak: Correlation with the source, likewise; in [-1,1], best no higher than ``chance``.
        chance: Correlation of the source with the true speaker, likewise: what a dub that keeps the
            old lips scores as ``truth``, and one that follows the new speech perfectly as ``leak``.
        old: Coefficient of the source in the least-squares fit dub = old * source + new * truth at
            ``truth_lag``, each series with mean 0 and deviation 1; best 0.
        new: Coefficient of the true speaker in the same fit; best 1.
        movement: Deviation of the dub over that of the true speaker, both after a median over three
            openings; best 1.
        closure_recall: Share of the true speaker's closed openings at which the dub is closed too,
            one opening earlier or later allowed; in [0,1], higher is better. Closed is less than a
            tenth of the way from a mouth's 1st to its 99th percentile.
        closure_precision: Share of the dub's closed openings at which the true speaker is closed
            too, likewise.
        reasons: Why figures are None, by their names.
    """

    truth: float | None = None
    truth_lag: int | None = None
    leak: float | None = None
    chance: float | None = None
    old: float | None = None
    new: float | None = None
    movement: float | None = None
    closure_recall: float | None = None
    closure_precision: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_values(self) -> dict[str, Any]:
        """Give the figures for JSON.

        Returns:
            The figures by their names, None where there are none, and ``reasons``.
        """
        return {name: getattr(self, name) for name in FIGURES} | {"reasons": dict(self.reasons)}


FIGURES = tuple(one.name for one in fields(MouthFollowing) if one.name != "reasons")


class MouthFollowingMetric:
    """Gathers the openings of dub, truth and source piece by piece.

    Any pieces give the same figures, bit for bit.
    """

    def __init__(self) -> None:
        self._pieces: dict[Role, list[tuple[Tensor, Tensor]]] = {
            "dub": [],
            "truth": [],
            "source": [],
        }

    def update(self, openings: Tensor, times: Tensor, role: Role) -> None:
        """Add the next openings of one of the videos.

        Args:
            openings: (N,) openings of its frames, NaN where no face is seen.
            times: (N,) when they are shown, in seconds, rising.
            role: Which video: ``dub``, ``truth`` or ``source``.

        Raises:
            ValueError: For tensors of other shapes, or an unknown role.
        """
        if role not in self._pieces:
            raise ValueError(f"role is {role!r}; expected dub, truth or source")
        if openings.ndim != 1 or openings.shape != times.shape:
            raise ValueError(
                f"openings are {tuple(openings.shape)}, times {tuple(times.shape)}; expected (N,) "
                "of one length"
            )
        self._pieces[role].append((openings.detach().cpu().double(), times.detach().cpu().double()))

    def compute(self, *, missing: Mapping[Role, str] | None = None) -> MouthFollowing:
        """Compare what was gathered.

        Args:
            missing: Why there are no openings of a video, for ``reasons``.

        Returns:
            The figures; without any openings of truth or source, or where one of the videos shows
            no face, those that can be had, and the reasons for the others.
        """
        missing = dict(missing or {})
        series: dict[Role, Tensor] = {}
        for role, pieces in self._pieces.items():
            if not pieces:
                continue
            openings, times = (
                torch.cat([piece[0] for piece in pieces]),
                torch.cat([piece[1] for piece in pieces]),
            )
            regular = resample_openings(openings, times)
            if regular is None:
                seen = int((~openings.isnan()).sum())
                missing[role] = (
                    f"the {_NAMES[role]} shows a face in {seen} of {len(openings)} frames; "
                    "expected 80 %, and 20 or more"
                )
            else:
                series[role] = regular
        return compare_openings(
            series.get("dub"), series.get("truth"), series.get("source"), missing=missing
        )


_NAMES: dict[Role, str] = {"dub": "dub", "truth": "true speaker's video", "source": "source video"}


def resample_openings(openings: Tensor, times: Tensor, *, rate: float = RATE) -> Tensor | None:
    """Interpolate openings to a regular rate, linearly between the frames that show a face.

    Args:
        openings: (N,) openings, NaN where no face is seen.
        times: (N,) seconds, rising.
        rate: Openings a second.

    Returns:
        (M,) float64: openings at ``times[0] + k / rate``, up to but without ``times[-1]``; before
        the first and after the last frame with a face those of that frame. None where fewer than 20
        frames, or fewer than 80 %, show a face.
    """
    openings, times = openings.double(), times.double()
    seen = ~openings.isnan()
    if int(seen.sum()) < _LEAST or float(seen.double().mean()) < _LEAST_SEEN:
        return None
    first, step = float(times[0]), 1 / rate
    at = first + step * torch.arange(
        math.ceil((float(times[-1]) - first) / step), dtype=torch.float64
    )
    known, values = times[seen], openings[seen]
    right = torch.searchsorted(known, at, right=True).clamp(1, len(known) - 1)
    left = right - 1
    part = ((at - known[left]) / (known[right] - known[left])).clamp(0, 1).nan_to_num(0)
    return values[left] + part * (values[right] - values[left])


def _check_series(
    given: dict[Role, Tensor | None], missing: Mapping[Role, str]
) -> tuple[dict[Role, Tensor | None], dict[str, str]]:
    """Return the series that are long enough, and why figures cannot be had without the others."""
    why: dict[Role, str] = {role: f"no {_NAMES[role]} was given" for role in given}
    why |= missing
    for role, series in given.items():
        if series is not None and len(series) < _LEAST:
            given[role], why[role] = (
                None,
                f"the {_NAMES[role]} lasts {len(series) / RATE:.2f} s; expected 0.8 s or more",
            )
    reasons: dict[str, str] = {}
    for names, roles in _NEEDED.items():
        lacking = [why[role] for role in roles if given[role] is None]
        if lacking:
            reasons |= dict.fromkeys(names, lacking[0])
    return given, reasons


def compare_openings(
    dub: Tensor | None,
    truth: Tensor | None,
    source: Tensor | None = None,
    *,
    lags: int = LAGS,
    missing: Mapping[Role, str] | None = None,
) -> MouthFollowing:
    """Compare regular series of openings; see ``MouthFollowing``.

    Args:
        dub: (M,) openings of the dub at 25 a second, all finite; None where they cannot be had.
        truth: Those of the true speaker, likewise; sound and picture of all three begin together.
        source: Those of the source, likewise; None for a photo, whose mouth does not move.
        lags: The greatest lag at which correlations are taken, in openings. 1 if the offsets of
            the truth are corrected.
        missing: Why series are None.

    Returns:
        The figures that can be had, and the reasons for the others.
    """
    given, reasons = _check_series({"dub": dub, "truth": truth, "source": source}, missing or {})
    figures: dict[str, Any] = {}
    d, t, s = (None if series is None else series.double() for series in given.values())
    if d is not None and t is not None:
        truth_value, lag = _largest_correlation(d, t, lags)
        figures["truth"] = truth_value
        if _is_frozen(d):
            reasons["truth_lag"] = "the dub's mouth does not move"
        else:
            figures["truth_lag"] = lag
        figures["movement"] = _movement(d, t)
        figures["closure_recall"], figures["closure_precision"] = compare_closures(
            *align(d, t, lag)
        )
        if s is not None:
            figures["old"], figures["new"] = fit_old_and_new(d, t, s, lag)
    if d is not None and s is not None:
        figures["leak"] = _largest_correlation(d, s, lags)[0]
    if t is not None and s is not None:
        figures["chance"] = _largest_correlation(s, t, lags)[0]
    for name, reason in _ABSENT.items():
        if name in figures and figures[name] is None:
            reasons[name] = reason
    return MouthFollowing(**figures, reasons=reasons)


_NEEDED: dict[tuple[str, ...], tuple[Role, ...]] = {
    ("truth", "truth_lag", "movement", "closure_recall", "closure_precision"): ("dub", "truth"),
    ("leak",): ("dub", "source"),
    ("chance",): ("source", "truth"),
    ("old", "new"): ("dub", "truth", "source"),
}
_ABSENT = {
    "movement": "the true speaker's mouth does not move",
    "closure_recall": "the true speaker's mouth is never closed",
    "closure_precision": "the dub's mouth is never closed",
}


def align(first: Tensor, second: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Cut two series to their common part when the first is ``lag`` openings late.

    Args:
        first: (M,) openings.
        second: (L,) openings.
        lag: Openings; below 0 if the first is early.

    Returns:
        Two series of one length.
    """
    first, second = first[max(lag, 0) :], second[max(-lag, 0) :]
    common = min(len(first), len(second))
    return first[:common], second[:common]


def correlate_openings(first: Tensor, second: Tensor) -> float:
    """Take Pearson's correlation of two series of openings.

    Args:
        first: (M,) openings.
        second: (M,) openings of the same moments.

    Returns:
        The correlation in [-1,1]; 0 where one of the two does not move (deviation below 1e-6), and
        for fewer than 20.
    """
    if len(first) < _LEAST or _is_frozen(first) or _is_frozen(second):
        return 0.0
    a, b = first.double() - first.double().mean(), second.double() - second.double().mean()
    return float(((a @ b) / (a.norm() * b.norm())).clamp(-1, 1))


def fit_old_and_new(dub: Tensor, truth: Tensor, source: Tensor, lag: int) -> tuple[float, float]:
    """Explain a dub by the source's mouth and the true speaker's at once.

    What source and true speaker have in common by chance is then counted for neither alone.

    Args:
        dub: (M,) openings.
        truth: (L,) openings of the true speaker.
        source: (K,) openings of the source, which the dub follows without any lag.
        lag: By how many openings the dub is late against the truth.

    Returns:
        (old, new): the least-squares coefficients of source and truth, all three with mean 0 and
        deviation 1; (0, 0) for a frozen dub, and for 20 openings in common or fewer.
    """
    actual, expected = align(dub.double(), truth.double(), lag)
    before = source.double()[max(lag, 0) :]
    common = min(len(actual), len(before))
    if common <= _LEAST or _is_frozen(dub):
        return 0.0, 0.0
    causes = torch.stack([_standardize(before[:common]), _standardize(expected[:common])], 1)
    solved = torch.linalg.lstsq(
        causes, _standardize(actual[:common])[:, None], driver="gelsd"
    ).solution[:, 0]
    return float(solved[0]), float(solved[1])


def compare_closures(dub: Tensor, truth: Tensor) -> tuple[float | None, float | None]:
    """Compare the moments at which two mouths are closed.

    One opening earlier or later counts as agreeing.

    Args:
        dub: (M,) openings.
        truth: (M,) openings of the true speaker at the same moments.

    Returns:
        (recall, precision) in [0,1]; None for the recall where the truth is never closed, for the
        precision where the dub never is. A mouth that does not move is never closed.
    """
    actual, expected = _find_closed(dub), _find_closed(truth)
    recall = _share(_widen(actual) & expected, expected)
    precision = _share(_widen(expected) & actual, actual)
    return recall, precision


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part.sum() / whole.sum()) if bool(whole.any()) else None


def _find_closed(openings: Tensor) -> Tensor:
    """Return (M,) bool, whether the mouth is closed."""
    if not len(openings):
        return torch.zeros(0, dtype=torch.bool)
    low, high = torch.quantile(openings, openings.new_tensor(_ENDS))
    return openings < low + _CLOSED * (high - low)


def _widen(moments: Tensor) -> Tensor:
    """Widen each run of an (M,) bool mask by one opening on either side."""
    wide = moments.clone()
    wide[:-1] |= moments[1:]
    wide[1:] |= moments[:-1]
    return wide


def _largest_correlation(first: Tensor, second: Tensor, lags: int) -> tuple[float, int]:
    """Return the largest correlation and its lag; of equal ones, the latest lag."""
    return max(
        (correlate_openings(*align(first, second, lag)), lag) for lag in range(-lags, lags + 1)
    )


def _movement(dub: Tensor, truth: Tensor) -> float | None:
    actual, expected = (
        float(_median_of_three(openings).std(correction=0)) for openings in (dub, truth)
    )
    return actual / expected if expected > _FROZEN else None


def _median_of_three(openings: Tensor) -> Tensor:
    """Return the (M-2,) medians of three neighbors."""
    return openings.unfold(0, 3, 1).median(1).values


def _standardize(openings: Tensor) -> Tensor:
    """Scale to mean 0 and deviation 1; a frozen mouth becomes all 0."""
    return (openings - openings.mean()) / (openings.std(correction=0) + 1e-9)


def _is_frozen(openings: Tensor) -> bool:
    return float(openings.double().std(correction=0)) < _FROZEN
