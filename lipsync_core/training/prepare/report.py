"""The report of a preparation: figures, histograms, contact sheets, reasons for what was dropped.

One HTML file without scripts.
"""

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.atomic import atomic_write
from ...runtime.jobs import Outcome
from ..shards import Entry, load_arrays
from .sources import SPLITS
from .stages import DROPPED
from .write_shards import known_clips

_SHEET, _COLUMNS, _TILE = 48, 12, 96  # pictures of a contact sheet, and px of each
_BINS, _WIDTH, _HEIGHT = 24, 360, 120  # of a histogram
_NAMED = 8  # sources named beside a reason
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;"
    "color:#222}\n"
    "table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\n"
    "td:first-child,th:first-child,td.text{text-align:left}"
    "figure{display:inline-block;margin:1em 1.5em 1em 0}\n"
    "figcaption{font-weight:600}svg text{font:11px system-ui,sans-serif;fill:#555}"
    "img{max-width:100%}"
)


@dataclass(frozen=True, slots=True)
class Counts:
    """The figures of a preparation.

    Attributes:
        sources: number of sources.
        splits: split -> (clips, speakers, seconds).
        dropped: reason -> (clips or sources, seconds).
        shared: speakers in more than one split, if folders gave the splits.
    """

    sources: int
    splits: Mapping[str, tuple[int, int, float]]
    dropped: Mapping[str, tuple[int, float]]
    shared: tuple[str, ...]

    @property
    def clips(self) -> int:
        """Number of clips in all splits."""
        return sum(clips for clips, _, _ in self.splits.values())


def counted(out: Path, outcomes: Sequence[Outcome], duplicates: Mapping[str, str]) -> Counts:
    """Count the clips below ``out``, per split, and what was dropped."""
    known = known_clips(out)
    frames = {
        split: sum(entry.arrays["faces"].shape[0] for entry in entries)
        for split, entries in known.items()
    }
    people = {split: {entry.speaker for entry in entries} for split, entries in known.items()}
    splits = {
        split: (len(known[split]), len(people[split]), frames[split] / 25) for split in SPLITS
    }
    twice = Counter(speaker for speakers in people.values() for speaker in speakers)
    number, length = Counter[str](), Counter[str]()
    for reason, _, count in _drops(outcomes, duplicates):
        number[reason] += 1
        length[reason] += count
    dropped = {reason: (n, length[reason] / 25) for reason, n in number.most_common()}
    return Counts(
        len(outcomes), splits, dropped, tuple(sorted(s for s, n in twice.items() if n > 1))
    )


def write_report(
    out: Path, outcomes: Sequence[Outcome], duplicates: Mapping[str, str], *, command: str
) -> Counts:
    """Write ``report.html`` and ``report.json``.

    Args:
        out: the folder of the shards.
        outcomes: the results of the sources.
        duplicates: clip -> the clip that it repeats.
        command: the command line that the report shows.

    Returns:
        The figures in the report.
    """
    counts = counted(out, outcomes, duplicates)
    known = known_clips(out)
    facts = [entry.facts for entries in known.values() for entry in entries]
    lost = [
        row
        for o in outcomes
        if o.result
        for row in o.result.get("dropped", ())
        if "confidence" in row
    ]
    rows = [
        (split, clips, who, f"{seconds / 60:.1f}")
        for split, (clips, who, seconds) in counts.splits.items()
    ]
    parts = [
        f"<h1>Prepared clips</h1><p>{counts.clips} clips from {counts.sources} sources.</p>",
        f"<p><code>{html.escape(command)}</code></p>",
        _table(("split", "clips", "speakers", "minutes"), rows),
    ]
    if counts.shared:
        parts.append(
            f"<p><b>In more than one split:</b> {html.escape(', '.join(counts.shared))}. The "
            "folders said so.</p>"
        )
    parts += ["<h2>Dropped</h2>", _reasons(outcomes, duplicates, counts)]
    parts += [
        "<h2>Figures</h2>",
        _histogram(
            "confidence", [f["confidence"] for f in facts], [row["confidence"] for row in lost]
        ),
        _histogram(
            "sound early by, frames (corrected)",
            [f["offset_frames"] for f in facts],
            [r["offset_frames"] for r in lost],
            whole=True,
        ),
        _histogram("length, s", [f["frames"] / 25 for f in facts]),
        _histogram("face, px", [f["face_px"] for f in facts]),
        _histogram("minutes a speaker", _minutes(known)),
    ]
    for split, entries in known.items():
        if entries:
            ranked = sorted(entries, key=lambda entry: entry.facts["confidence"])
            title = f"{split}: from the least to the most confident"
            parts.append(_sheet(title, _middles(out / split, _spread(ranked))))
    pictures = [_read(path) for path in _spread(sorted((out / DROPPED).glob("*.jpg")))]
    parts.append(_sheet("dropped by the judge", pictures) if pictures else "")
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Prepared clips</title>'
        f"<style>{_STYLE}</style>"
    )
    page = head + "".join(parts)
    with atomic_write(out / "report.html") as part:
        part.write_text(page, encoding="utf-8")
    figures = {
        "sources": counts.sources,
        "splits": counts.splits,
        "dropped": counts.dropped,
        "shared": counts.shared,
    }
    with atomic_write(out / "report.json") as part:
        part.write_text(json.dumps(figures), encoding="utf-8")
    return counts


def _drops(
    outcomes: Sequence[Outcome], duplicates: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """Return (reason, source or clip, frames) of everything that did not become a clip."""
    out: list[tuple[str, str, int]] = []
    for outcome in outcomes:
        name = str(outcome.arguments["name"])
        if outcome.error is not None:
            out.append(("cannot be read", f"{name}: {outcome.error}", 0))
        elif outcome.result is not None:
            out += [
                (row["reason"], name, int(row["frames"]))
                for row in outcome.result.get("dropped", ())
            ]
            here = {row["key"]: int(row["frames"]) for row in outcome.result.get("clips", ())}
            out += [
                ("duplicate", f"{name} repeats {duplicates[k]}", n)
                for k, n in here.items()
                if k in duplicates
            ]
    return out


def _reasons(outcomes: Sequence[Outcome], duplicates: Mapping[str, str], counts: Counts) -> str:
    names: dict[str, list[str]] = {}
    for reason, name, _ in _drops(outcomes, duplicates):
        names.setdefault(reason, []).append(name)
    rows = [
        (
            reason,
            n,
            f"{seconds / 60:.1f}",
            "; ".join(names[reason][:_NAMED]) + (" ..." if n > _NAMED else ""),
        )
        for reason, (n, seconds) in counts.dropped.items()
    ]
    return _table(("reason", "number", "minutes", "such as"), rows) if rows else "<p>Nothing.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return (
            "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
        )

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _minutes(known: Mapping[str, Sequence[Entry]]) -> list[float]:
    frames: Counter[str] = Counter()
    for entry in (entry for entries in known.values() for entry in entries):
        frames[entry.speaker] += entry.arrays["faces"].shape[0]
    return [count / 1500 for count in frames.values()]


def _histogram(
    title: str, kept: Sequence[float], lost: Sequence[float] = (), *, whole: bool = False
) -> str:
    """Draw bars of ``kept`` and, on top of them, pale bars of what was dropped."""
    values = np.asarray([*kept, *lost], np.float64)
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    edges = (
        np.arange(low - 0.5, high + 1)
        if whole
        else np.linspace(low, high if high > low else low + 1, _BINS + 1)
    )
    bars, pale = np.histogram(kept, edges)[0], np.histogram(lost, edges)[0]
    most, wide = max(1, int((bars + pale).max())), _WIDTH / len(bars)
    shapes: list[str] = []
    for i, (n, m) in enumerate(zip(bars.tolist(), pale.tolist(), strict=True)):
        for count, below, color in ((n, 0, "#3465a4"), (m, n, "#c8d6e8")):
            if count:
                height, top = count / most * _HEIGHT, _HEIGHT * (1 - (below + count) / most)
                shapes.append(
                    f'<rect x="{i * wide:.1f}" y="{top:.1f}" width="{wide * 0.9:.1f}" '
                    f'height="{height:.1f}" fill="{color}"/>'
                )
    ends = "".join(
        f'<text x="{x}" y="{_HEIGHT + 14}" text-anchor="{anchor}">{value:g}</text>'
        for x, anchor, value in ((0, "start", round(low, 3)), (_WIDTH, "end", round(high, 3)))
    )
    middle = float(np.median(np.asarray(kept))) if len(kept) else float("nan")
    caption = f"{html.escape(title)}: median {middle:.3g}, highest bar {most}" + (
        ", dropped pale" if len(lost) else ""
    )
    svg = f'<svg width="{_WIDTH}" height="{_HEIGHT + 18}" role="img">{"".join(shapes)}{ends}</svg>'
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def _spread(items: Sequence[Any]) -> list[Any]:
    """Return at most as many items as a sheet holds, evenly from first to last."""
    return [
        items[i * len(items) // min(len(items), _SHEET)] for i in range(min(len(items), _SHEET))
    ]


def _middles(folder: Path, entries: Sequence[Entry]) -> list[npt.NDArray[np.uint8]]:
    found: list[npt.NDArray[np.uint8]] = []
    for arrays in load_arrays(folder, entries, ("faces",)):
        middle = len(arrays["faces"]) // 2
        found.append(np.array(arrays["faces"][middle : middle + 1][0]))
    return found


def _read(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def _sheet(title: str, pictures: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Lay out pictures in rows, as one JPEG within the page."""
    from PIL import Image

    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_TILE * min(len(pictures), _COLUMNS), _TILE * rows), "white")
    for i, pixels in enumerate(pictures):
        tile = Image.fromarray(pixels).resize((_TILE, _TILE))
        sheet.paste(tile, (i % _COLUMNS * _TILE, i // _COLUMNS * _TILE))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" '
        f'src="data:image/jpeg;base64,{data}">'
    )
