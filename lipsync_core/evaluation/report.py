"""Report of a benchmark: a page with its table beside the paper's, and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors.torch import load_file

from ..metrics.fid import MomentStream, frechet_distance
from ..metrics.success import SuccessFigures
from ..models.inception import FEATURES
from ..runtime.atomic import atomic_write
from ..runtime.jobs import Outcome
from .benchmark import Benchmark, explain_missing_fid
from .lips import format_lips_section
from .making import BASELINES
from .page import write_html, write_sheet
from .pairs import NOT_DRAWN
from .picture_tables import (
    compute_discrepancy,
    explain_success,
    format_agreement_section,
    format_picture_section,
    format_silence_section,
    make_attempt,
    rate_success,
)
from .spread import SPREADS
from .tables import bootstrap_mean, format_markdown, format_paper_table, plot_distributions

_SHOWN = 20  # failures, and files left out, by name


@dataclass(frozen=True, slots=True)
class _Method:
    """Results of one method by pair, and its failures."""

    name: str
    results: Mapping[int, Mapping[str, Any]]
    failures: Sequence[Outcome]
    own_sound: frozenset[int] = frozenset()

    def values(self, key: str) -> list[float]:
        return [float(result[key]) for result in self.results.values() if result[key] is not None]


def write_report(
    plan: Benchmark,
    outcomes: Sequence[Outcome],
    *,
    pairs: str,
    unpaired: Mapping[str, str] | None = None,
) -> str:
    """Write ``table.md``, ``table.html``, ``distributions.png`` and ``worst/`` into ``plan.out``.

    Args:
        plan: The benchmark.
        outcomes: Outcomes of its jobs.
        pairs: Description of the source of the pairs.
        unpaired: Files left out of the draw, with the reasons.

    Returns:
        The page.
    """
    methods = [_collect_method(name, outcomes) for name in plan.names]
    results = {method.name: list(method.results.values()) for method in methods}
    success = {m.name: rate_success(results[m.name], len(m.failures)) for m in methods}
    distance, confidence = name_scores(plan)
    title = (
        f"{Path(plan.scorer).name}, mode {plan.mode}{', whole frames' if plan.whole_frame else ''}"
    )
    text = "\n\n".join(
        [
            "# Benchmark",
            f"Pairs: {pairs}. Scorer: {title}. Mean and 95 % bootstrap interval over the pairs "
            "that succeeded (n).",
            _format_table(plan, methods, success, distance, confidence),
            "\n".join([_explain_columns(plan), explain_success(success)]),
            "![Distributions of the figures](distributions.png)",
            format_lips_section(results),
            format_picture_section(results),
            *filter(None, [format_silence_section(results), _format_discrepancy(methods)]),
            *filter(None, [format_agreement_section([r for m in results.values() for r in m])]),
            *_show_worst(plan, methods),
            *_list_left_out(methods, unpaired or {}),
            "## The paper's table 1",
            "SyncNet by the paper's scripts on its own test sets (Prajwal et al. 2020): figures "
            "to be set beside the above only where scorer, mode and data are the same. Measured "
            "again: by arXiv 2602.00189 with the public weights, which others found too; on LRS2 "
            "they do not reach what the paper prints.",
            format_paper_table(),
        ]
    )
    with atomic_write(plan.out / "table.md") as part:
        part.write_text(text + "\n", encoding="utf-8")
    write_html(text, plan.out / "table.html", title="Benchmark")
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


_WORST = 10


def _show_worst(plan: Benchmark, methods: Sequence[_Method]) -> list[str]:
    """List the worst clips of all methods but the baselines, with sheets of their faces.

    First those that broke a rule of success, then those whose lips follow the new speech least.
    """
    clips = [
        (make_attempt(result).broken_rule(), result["mouth"]["new"], method.name, pair, result)
        for method in methods
        if method.name not in BASELINES
        for pair, result in method.results.items()
        if (plan.out / result["out"]).is_file()
    ]
    if not clips:
        return []
    clips.sort(key=lambda clip: (clip[0] is None, 1.0 if clip[1] is None else clip[1], *clip[2:4]))
    for stale in (plan.out / "worst").glob("*.jpg"):  # of an earlier report
        stale.unlink()
    parts = ["## Worst clips", "Above the source, below the dub. By broken rules, then by `new`."]
    for rule, new, name, pair, result in clips[:_WORST]:
        sheet = plan.out / f"worst/{pair:05} {name}.jpg".replace(" ", "_")
        face = plan.out / f"videos/undubbed/{pair:05}.mp4"
        made = plan.out / result["out"]
        why = f"broke the rule {rule}" if rule else "no rule broken"
        follows = "unknown" if new is None else f"{new:.2f}"
        line = f"[{name}, pair {pair:05}]({_address(result['out'])}): {why}; new {follows}"
        if face.is_file():
            write_sheet(face, made, sheet, frames=result["frames"], box=tuple(result["box"]))
            address = _address(sheet.relative_to(plan.out).as_posix())
            line = f"{line} ![source and dub]({address})"
        parts.append(line)
    return parts


def _address(path: str) -> str:
    return quote(path)


def _format_discrepancy(methods: Sequence[_Method]) -> str:
    """Write LSD, where some pairs have the face's own sound and some another."""
    lines = [
        f"- {method.name}: {found:.3f}"
        for method in methods
        if (
            found := compute_discrepancy(
                [(pair in method.own_sound, result) for pair, result in method.results.items()]
            )
        )
        is not None
    ]
    if not lines:
        return ""
    note = "Difference of scores between pairs with the face's own sound and with another, best 0."
    return "\n\n".join(["## Sync discrepancy (LSD)", note, "\n".join(lines)])


def _collect_method(name: str, outcomes: Sequence[Outcome]) -> _Method:
    own = [outcome for outcome in outcomes if outcome.arguments["method"] == name]
    results = {
        outcome.arguments["pair"]: outcome.result for outcome in own if outcome.result is not None
    }
    own_sound = frozenset(
        outcome.arguments["pair"]
        for outcome in own
        if outcome.arguments["audio"] == outcome.arguments["video"]
    )
    return _Method(name, results, [o for o in own if o.error is not None], own_sound)


def _format_table(
    plan: Benchmark,
    methods: Sequence[_Method],
    success: Mapping[str, SuccessFigures],
    distance: str,
    confidence: str,
) -> str:
    region = f"FID ({plan.region})"
    header = [
        "method",
        "n",
        "failed",
        "success ↑",
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
            "–" if success[method.name].rate is None else f"{success[method.name].rate:.0%}",
            *(_format_score(method, methods[0], key) for key in ("distance", "confidence")),
            f"{sum(abs(value) <= 1 for value in method.values('offset_frames'))} of "
            f"{len(method.results)}",
            _format_fid(plan.out, method, methods[0]),
            *(str(bootstrap_mean(method.values(key))) for key in ("sharpness", "border_jitter")),
        ]
        for method in methods
    ]
    return format_markdown(header, rows)


ABOVE = "‡"


def _format_score(method: _Method, real: _Method, key: str) -> str:
    """Format a mean score, marked where it is better than real video's: no better dub for that."""
    found = bootstrap_mean(method.values(key))
    truth = bootstrap_mean(real.values(key))
    better = found.mean < truth.mean if key == "distance" else found.mean > truth.mean
    return f"{found}{ABOVE if method is not real and better else ''}"


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
        "each frame has the mouth of the frame half a clip away, blended in like a dub; frozen "
        "mouth: all frames have that of one.",
        f"- {ABOVE} beyond real video, which is not better: the dub pleases the scorer more than "
        "people's own lips do.",
        *_explain_spread(plan),
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


def _explain_spread(plan: Benchmark) -> list[str]:
    spread = SPREADS.get((Path(plan.scorer).name, plan.mode))
    if spread is None:
        return [
            "- How much these scores change when one clip is only encoded otherwise was not "
            "measured for this scorer; for SyncNet others found 0.4 on average and 1.2 at most "
            "(THEval, arXiv 2511.04520)."
        ]
    return [
        f"- The same clip encoded in {spread.encodings} ways (codecs, rates, qualities) differs by "
        f"up to {spread.distance:.3f} in distance and {spread.confidence:.3f} in confidence: less "
        "than that between two methods says nothing."
    ]


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
