"""Tables of the benchmark on picture, shapes of lips, silence, success, and how measures agree."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics.success import (
    RULES,
    RULES_VERSION,
    Attempt,
    SilentSync,
    SuccessFigures,
    SuccessRate,
    SyncDiscrepancy,
)
from .tables import bootstrap_mean, format_markdown, rank_correlation

Result = Mapping[str, Any]

PICTURE = {
    "pcld": "PCLD ↑",
    "csld": "CSLD ↑",
    "pd": "PD ↓",
    "mar_divergence": "MAR div.",
    "lip_color": "lip color dE ↓",
    "inner_sharpness": "inner mouth",
    "flicker": "flicker, 0",
    "untouched_change": "rest changed ↓",
    "untouched_exact": "rest bit-exact ↑",
}
"""Columns of the table of shapes and picture."""

_SILENCE = {"silent": "SILENT ↑", "lip_leak": "LipLeak ↓", "mar_divergence": "MAR div. ↓"}


def format_picture_section(methods: Mapping[str, Sequence[Result]]) -> str:
    """Write the table of shapes and picture.

    Args:
        methods: Results of the pairs that succeeded, by the names of the methods.

    Returns:
        Markdown: a heading, the table with means and 95 % bootstrap intervals over pairs, and what
        its columns mean.
    """
    rows = [
        [name, *(str(bootstrap_mean(_values(results, key))) for key in PICTURE), _moved(results)]
        for name, results in methods.items()
    ]
    table = format_markdown(["method", *PICTURE.values(), "did not move"], rows)
    return "\n\n".join(["## Shapes and picture", table, "\n".join(_PICTURE_MEANINGS)])


_PICTURE_MEANINGS = (
    "- PCLD, CSLD: correlation and cosine of the openings with those of the speaker of the sound "
    "at the same moments; PD: difference of the lips' shapes (Procrustes). All by landmarks. The "
    "speaker is another person than the face, so real video alone reaches 1 and 0.",
    "- MAR div.: deviation of the mouth aspect ratio; a mouth of less than 0.01 did not move.",
    "- lip color: distance (CIE 1976) from the lips of the source; inner mouth: detail of teeth "
    "and tongue, in levels of 255, best as of real video; flicker: of the skin around the lips "
    "against the source's.",
    "- rest: the picture outside of the lower face, against the source. An encoder changes nearly "
    "every pixel: the undubbed video shows what it alone does.",
)


def format_silence_section(methods: Mapping[str, Sequence[Result]]) -> str:
    """Write the table of dubs with silence.

    Args:
        methods: Results by the names of the methods.

    Returns:
        Markdown as of ``format_picture_section``; an empty text if nothing was dubbed with silence.
    """
    rows: list[list[str]] = []
    for name, results in methods.items():
        found = [result["silence"] for result in results if result.get("silence")]
        if not found:
            continue
        sync = SilentSync()
        for one in found:
            if one.get("confidence") is not None:
                sync.update(one["confidence"], one["distance"])
        scores = sync.compute()
        cells = [str(bootstrap_mean(_values(found, key))) for key in _SILENCE]
        cells += [_number(scores.confidence), _number(scores.distance)]
        rows.append([name, str(len(found)), *cells])
    if not rows:
        return ""
    header = ["method", "n", *_SILENCE.values(), "confidence_S ↓", "distance_S ↑"]
    text = (
        "- Every face dubbed with silence. SILENT: share of frames with closed lips; LipLeak: with "
        "a mouth aspect ratio above 0.25; undubbed: the source's own mouth.\n"
        "- confidence_S, distance_S: scores against the source's own sound (LSE-C_S and LSE-D_S if "
        "the columns above are LSE): old lips that show are in sync with it."
    )
    return "\n\n".join(["## In silence", format_markdown(header, rows), text])


def rate_success(results: Sequence[Result], failures: int) -> SuccessFigures:
    """Compute the automatic success rate of a method.

    Args:
        results: Results of the pairs that gave a video.
        failures: Number of pairs that did not.

    Returns:
        The rate and the broken rules.
    """
    rate = SuccessRate()
    for result in results:
        rate.update(make_attempt(result))
    for _ in range(failures):
        rate.update(Attempt(finished=False))
    return rate.compute()


def make_attempt(result: Result) -> Attempt:
    """Gather what the rules of success need from a result."""
    numbers = [value for value in result.values() if isinstance(value, float)]
    return Attempt(
        missing_seconds=result["missing_seconds"],
        finite=all(math.isfinite(value) for value in numbers),
        face=result["face"],
        moved=result["moved"],
        offset_frames=result["offset_frames"],
        truth=result["mouth"]["truth"],
        truth_lag=result["mouth"]["truth_lag"],
    )


def explain_success(methods: Mapping[str, SuccessFigures]) -> str:
    """State the rules of success, and which of them each method broke."""
    lines = [
        f"- success, by rules of version {RULES_VERSION}, without people: "
        + "; ".join(RULES.values())
        + "."
    ]
    for name, found in methods.items():
        if found.broken:
            parts = ", ".join(f"{rule} {count}" for rule, count in found.broken.items())
            lines.append(f"- {name}, rules broken first: {parts} of {found.count}")
    return "\n".join(lines)


def compute_discrepancy(results: Sequence[tuple[bool, Result]]) -> float | None:
    """Compute LSD from (whether the sound is the face's own, result)."""
    metric = SyncDiscrepancy()
    for own, result in results:
        metric.update(result["confidence"], result["distance"], own_sound=own)
    return metric.compute()


_COMPARED = ("distance", "sharpness", "border_jitter", *PICTURE)


def format_agreement_section(results: Sequence[Result]) -> str:
    """Write which measures agree: rank correlations over all clips of all methods.

    Args:
        results: Results of all methods.

    Returns:
        Markdown; an empty text for fewer than six clips.
    """
    if len(results) < 6:
        return ""
    rows: list[list[str]] = []
    for name in _COMPARED:
        cells: list[str] = []
        for read in (lambda r: r["confidence"], lambda r: r["mouth"]["truth"]):
            pairs = [
                (float(result[name]), float(read(result)))
                for result in results
                if result[name] is not None and read(result) is not None
            ]
            cells.append(_number(rank_correlation([a for a, _ in pairs], [b for _, b in pairs])))
        rows.append([PICTURE.get(name, name.replace("_", " ")).rstrip(" ↑↓"), *cells])
    table = format_markdown(["measure", "with confidence", "with lips (truth)"], rows)
    note = f"Spearman's rank correlation over {len(results)} clips of all methods."
    return "\n\n".join(["## Which measures agree", note, table])


def _values(results: Sequence[Result], name: str) -> list[float]:
    return [float(result[name]) for result in results if result.get(name) is not None]


def _moved(results: Sequence[Result]) -> str:
    known = [result["moved"] for result in results if result["moved"] is not None]
    return f"{sum(not moved for moved in known)} of {len(known)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
