"""Report of a benchmark: a page with its table beside the paper's, and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..metrics.fid import MomentStream, frechet_distance
from ..models.inception import FEATURES
from ..runtime.atomic import atomic_write
from ..runtime.jobs import Outcome
from .benchmark import BASELINES, Benchmark, explain_missing_fid
from .lips import format_lips_section
from .pairs import NOT_DRAWN
from .tables import bootstrap_mean, format_markdown, format_paper_table, plot_distributions

_SHOWN = 20  # failures, and files left out, by name


@dataclass(frozen=True, slots=True)
class _Method:
    """Results of one method by pair, and its failures."""

    name: str
    results: Mapping[int, Mapping[str, Any]]
    failures: Sequence[Outcome]

    def values(self, key: str) -> list[float]:
        return [float(result[key]) for result in self.results.values() if result[key] is not None]


def write_report(
    plan: Benchmark,
    outcomes: Sequence[Outcome],
    *,
    pairs: str,
    unpaired: Mapping[str, str] | None = None,
) -> str:
    """Write ``table.md`` and ``distributions.png`` into ``plan.out``.

    Args:
        plan: The benchmark.
        outcomes: Outcomes of its jobs.
        pairs: Description of the source of the pairs.
        unpaired: Files left out of the draw, with the reasons.

    Returns:
        The page.
    """
    methods = [_collect_method(name, outcomes) for name in (*BASELINES, *plan.methods)]
    distance, confidence = name_scores(plan)
    title = (
        f"{Path(plan.scorer).name}, mode {plan.mode}{', whole frames' if plan.whole_frame else ''}"
    )
    text = "\n\n".join(
        [
            "# Benchmark",
            f"Pairs: {pairs}. Scorer: {title}. Mean and 95 % bootstrap interval over the pairs "
            "that succeeded (n).",
            _format_table(plan, methods, distance, confidence),
            _explain_columns(plan),
            format_lips_section({method.name: list(method.results.values()) for method in methods}),
            *_list_left_out(methods, unpaired or {}),
            "## The paper's table 1",
            "SyncNet by the paper's scripts on its own test sets (Prajwal et al. 2020): figures to "
            "be set beside the above only where scorer, mode and data are the same.",
            format_paper_table(),
        ]
    )
    with atomic_write(plan.out / "table.md") as part:
        part.write_text(text + "\n", encoding="utf-8")
    quantities = {
        distance: "distance",
        confidence: "confidence",
        "offset, frames (where there is a verdict)": "offset_frames",
    }
    quantities["mouth sharpness / face sharpness"] = "sharpness"
    panels = {
        label: {method.name: method.values(key) for method in methods}
        for label, key in quantities.items()
    }
    with atomic_write(plan.out / "distributions.png") as part:
        plot_distributions(panels, title, part)
    return text


def name_scores(plan: Benchmark) -> tuple[str, str]:
    """Name distance and confidence: LSE-D and LSE-C in mode reference only.

    They are SyncNet's scores in the public protocol, which mode reference follows.
    """
    return ("LSE-D", "LSE-C") if plan.mode == "reference" else ("distance", "confidence")


def _collect_method(name: str, outcomes: Sequence[Outcome]) -> _Method:
    own = [outcome for outcome in outcomes if outcome.arguments["method"] == name]
    results = {
        outcome.arguments["pair"]: outcome.result for outcome in own if outcome.result is not None
    }
    return _Method(name, results, [outcome for outcome in own if outcome.error is not None])


def _format_table(
    plan: Benchmark, methods: Sequence[_Method], distance: str, confidence: str
) -> str:
    region = f"FID ({plan.region})"
    header = [
        "method",
        "n",
        "failed",
        f"{distance} ↓",
        f"{confidence} ↑",
        "offset within 1",
        region + " ↓",
    ]
    header += ["sharpness", "border jitter ↓"]
    rows = [
        [
            method.name,
            str(len(method.results)),
            str(len(method.failures)),
            *(str(bootstrap_mean(method.values(key))) for key in ("distance", "confidence")),
            f"{sum(abs(value) <= 1 for value in method.values('offset_frames'))} of "
            f"{len(method.results)}",
            _format_fid(plan.out, method, methods[0]),
            *(str(bootstrap_mean(method.values(key))) for key in ("sharpness", "border_jitter")),
        ]
        for method in methods
    ]
    return format_markdown(header, rows)


def _format_fid(folder: Path, method: _Method, real: _Method) -> str:
    """Format the distance of a method's pictures to the real ones of the same pairs."""
    both = [pair for pair in sorted(method.results) if pair in real.results]
    files = [
        (real.results[pair]["fid_features"], method.results[pair]["fid_features"]) for pair in both
    ]
    if method is real or not files or any(None in pair for pair in files):
        return "–"
    sides = (MomentStream(), MomentStream())
    for names in files:
        for stream, name in zip(sides, names, strict=True):
            stream.update(load_file(folder / name)["features"])
    first, second = (stream.compute() for stream in sides)
    few = "*" if min(first.count, second.count) <= FEATURES else ""
    return f"{frechet_distance(first, second):.3f}{few}"


def _explain_columns(plan: Benchmark) -> str:
    lines = [
        "- real: the same frames under their own sound; undubbed: under the pair's; copied mouth: "
        "each frame has the mouth of the frame half a clip away, blended in like a dub.",
        "- offset within 1: pairs with a verdict of at most one frame; without a verdict a pair "
        "does not count as such.",
        "- sharpness: detail of the mouth over that of the rest of the face; border jitter: "
        "trembling of the seam.",
    ]
    missing = explain_missing_fid()
    if missing:
        lines.append(f"- FID: null, because {missing}")
    else:
        lines.append(
            f"- FID of {plan.region}s, against the real frames of the same pairs; * biased "
            f"upwards: fewer images than the {FEATURES} features."
        )
    if name_scores(plan)[0] != "LSE-D":
        lines.append(
            f"- Distance and confidence are those of {Path(plan.scorer).name}; they are not LSE-D "
            "and LSE-C."
        )
    return "\n".join(lines)


def _list_left_out(methods: Sequence[_Method], unpaired: Mapping[str, str]) -> list[str]:
    count = sum(len(method.failures) for method in methods)
    reasons = {name: reason for name, reason in unpaired.items() if reason != NOT_DRAWN}
    rest = len(unpaired) - len(reasons)
    parts = [f"## Failures: {count}", *_list_reasons(_collect_failures(methods))]
    if unpaired:
        parts += [f"## Files without a pair of their own: {len(unpaired)}", *_list_reasons(reasons)]
        parts += [f"- {NOT_DRAWN}: {rest}"] if rest else []
    return parts


def _collect_failures(methods: Sequence[_Method]) -> dict[str, str]:
    """Collect errors by pair if all methods fail alike, else by pair and method."""
    pairs: dict[int, list[Outcome]] = {}
    for outcome in (outcome for method in methods for outcome in method.failures):
        pairs.setdefault(outcome.arguments["pair"], []).append(outcome)
    errors: dict[str, str] = {}
    for pair, failures in sorted(pairs.items()):
        alike = len(failures) == len(methods) and len({outcome.error for outcome in failures}) == 1
        errors |= {
            f"{pair:05}, all methods" if alike else outcome.id: str(outcome.error)
            for outcome in failures
        }
    return errors


def _list_reasons(reasons: Mapping[str, str]) -> list[str]:
    lines = [f"- {name}: {' '.join(reason.split())}" for name, reason in reasons.items()]
    more = len(lines) - _SHOWN
    lines = [*lines[:_SHOWN], f"- and {more} more"] if more > 0 else lines
    return ["\n".join(lines)] if lines else []
