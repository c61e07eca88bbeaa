"""Write the clips of all sources to shards, without duplicates, one split per speaker."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LipSyncError
from ...runtime.atomic import atomic_write, remove_partials
from ...runtime.jobs import Outcome
from ..shards import INDEX, Entry, ShardWriter, load_arrays, read_index
from .identity_split import as_prints, duplicates, kept_together, same_people, shared_out
from .settings import Settings
from .sources import SPLITS
from .stages import FULL, PARTS

STATE = "gathered.json"


@dataclass(slots=True)
class State:
    """Decisions of earlier calls.

    Attributes:
        duplicates: clip -> the first clip that it repeats.
    """

    duplicates: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip whose parts are ready; ``row`` holds its facts."""

    key: str
    source: str
    folder: Path
    row: Mapping[str, Any]


def read_state(out: Path) -> State:
    """Read the decisions of earlier calls."""
    path = out / STATE
    if not path.exists():
        return State()
    try:
        return State(dict(json.loads(path.read_text(encoding="utf-8"))["duplicates"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LipSyncError(
            f"{path} cannot be read ({error}); remove it, and duplicates are looked for again"
        ) from error


def known_clips(out: Path) -> dict[str, list[Entry]]:
    """Return the clips in the shards of every split."""
    return {
        split: read_index(out / split) if (out / split / INDEX).exists() else [] for split in SPLITS
    }


def is_there(out: Path) -> Callable[[Outcome], bool]:
    """Return a test of whether a source's clips exist: in shards, as parts or duplicates."""
    settled = {entry.name for entries in known_clips(out).values() for entry in entries} | set(
        read_state(out).duplicates
    )

    def there(outcome: Outcome) -> bool:
        if outcome.result is None or FULL in outcome.result:
            return False
        parts = out / PARTS / outcome.id
        return all(
            row["key"] in settled or (parts / f"{row['key']}.print.npy").exists()
            for row in outcome.result["clips"]
        )

    return there


def gather(  # noqa: PLR0913
    out: Path,
    outcomes: Sequence[Outcome],
    settings: Settings,
    *,
    speakers: Mapping[str, str | None],
    shares: Mapping[str, float],
    given: Mapping[str, str] | None = None,
    by_time: bool = False,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Move the clips that are in no shard yet into new shards and remove their parts.

    Killed at any point, the next call finishes the work: shards and indices appear whole, parts
    are removed last.

    Args:
        out: the folder of the shards.
        outcomes: the results of the sources.
        settings: how clips are cut and judged.
        speakers: source -> speaker, None if faces decide.
        shares: share of each split; speakers that are in the shards already stay in their
            split.
        given: source -> split, if folders give it.
        by_time: whether the end of every speaker's footage is val and test.
        seed: seed of the split.
        on_progress: gets (done, total).

    Returns:
        The duplicates found so far: clip -> the clip that it repeats.
    """
    for split in SPLITS:
        remove_partials(out / split)
    known, state = known_clips(out), read_state(out)
    old = [entry for entries in known.values() for entry in entries]
    settled = {entry.name for entry in old} | set(state.duplicates)
    fresh = [
        _Clip(row["key"], outcome.arguments["name"], out / PARTS / outcome.id, row)
        for outcome in outcomes
        if outcome.result is not None
        for row in outcome.result.get("clips", ())
        if row["key"] not in settled
    ]
    if fresh:
        named = _named(out, known, fresh, speakers, state)
        if given is not None:
            placed = {clip.key: given[clip.source] for clip, _ in named}
        elif by_time:
            placed = _by_time(known, named, shares)
        else:
            homes = _placed(known, named, shares, seed)
            placed = {clip.key: homes[who] for clip, who in named}
        done = 0
        for split in SPLITS:
            here = [(clip, who) for clip, who in named if placed[clip.key] == split]
            if here:
                with ShardWriter(out / split) as writer:
                    for clip, speaker in here:
                        _add(writer, clip, speaker, settings)
                        done += 1
                        if on_progress is not None:
                            on_progress(done, len(named))
        with atomic_write(out / STATE) as part:
            part.write_text(json.dumps({"duplicates": state.duplicates}), encoding="utf-8")
    shutil.rmtree(out / PARTS, ignore_errors=True)
    return state.duplicates


def _named(
    out: Path,
    known: Mapping[str, Sequence[Entry]],
    fresh: Sequence[_Clip],
    speakers: Mapping[str, str | None],
    state: State,
) -> list[tuple[_Clip, str]]:
    """Return the clips that repeat no other, with their speakers; note the rest in ``state``."""
    rows = [
        arrays["print"][:]
        for split, entries in known.items()
        for arrays in load_arrays(out / split, entries, ("print",))
    ]
    old = [entry for entries in known.values() for entry in entries]
    prints = as_prints([*rows, *(np.load(clip.folder / f"{clip.key}.print.npy") for clip in fresh)])
    names = [*(entry.name for entry in old), *(clip.key for clip in fresh)]
    again = {i: first for i, first in duplicates(prints).items() if i >= len(old)}
    state.duplicates |= {names[i]: names[first] for i, first in again.items()}
    kept = [i for i in range(len(names)) if i not in again]
    told = [*(entry.speaker for entry in old), *(speakers[clip.source] for clip in fresh)]
    who = [told[i] for i in kept]
    takes = [
        *((entry.facts["source"], entry.facts["take"]) for entry in old),
        *((clip.source, clip.row["take"]) for clip in fresh),
    ]
    people = (
        same_people(prints[kept], [takes[i] for i in kept], who)
        if None in who
        else [name or "" for name in who]
    )
    return [
        (fresh[i - len(old)], name) for i, name in zip(kept, people, strict=True) if i >= len(old)
    ]


def _placed(
    known: Mapping[str, Sequence[Entry]],
    named: Sequence[tuple[_Clip, str]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, str]:
    """Return the split of every speaker."""
    before = {entry.speaker: split for split, entries in known.items() for entry in entries}
    old = [
        (str(entry.facts["source"]), entry.speaker, int(entry.facts["frames"]))
        for entries in known.values()
        for entry in entries
    ]
    seen = [*old, *((clip.source, speaker, int(clip.row["frames"])) for clip, speaker in named)]
    together = kept_together((source, speaker) for source, speaker, _ in seen)
    frames: dict[str, int] = {}
    for _, speaker, count in seen:
        frames[together[speaker]] = frames.get(together[speaker], 0) + count
    fixed: dict[str, str] = {}
    for speaker, split in before.items():
        fixed.setdefault(together[speaker], split)
    chosen = shared_out(frames, shares, fixed, seed=seed)
    return {speaker: before.get(speaker, chosen[group]) for speaker, group in together.items()}


def _by_time(
    known: Mapping[str, Sequence[Entry]],
    named: Sequence[tuple[_Clip, str]],
    shares: Mapping[str, float],
) -> dict[str, str]:
    """Return the split of every clip.

    Of each speaker's footage, in the order of sources and time, the last ``shares`` are val
    and, before it, test; at least one clip each, if train keeps one.
    """
    clips = [
        (
            entry.speaker,
            str(entry.facts["source"]),
            int(entry.facts["start"]),
            int(entry.facts["frames"]),
            entry.name,
        )
        for entries in known.values()
        for entry in entries
    ]
    clips += [
        (who, clip.source, int(clip.row["start"]), int(clip.row["frames"]), clip.key)
        for clip, who in named
    ]
    by_speaker: dict[str, list[tuple[int, str]]] = {}
    for who, _, _, frames, name in sorted(clips):
        by_speaker.setdefault(who, []).append((frames, name))
    placed = {name: "train" for *_, name in clips}
    for rows in by_speaker.values():
        total = sum(frames for frames, _ in rows)
        for split in ("val", "test"):  # val first: without it no checkpoint can be chosen
            held = 0
            while (
                shares[split] > 0
                and len(rows) > 1
                and (held == 0 or held + rows[-1][0] <= shares[split] * total)
            ):
                frames, name = rows.pop()
                placed[name], held = split, held + frames
    return placed


def _add(writer: ShardWriter, clip: _Clip, speaker: str, settings: Settings) -> None:
    side = settings.size + 2 * settings.margin
    frames = int(clip.row["frames"])
    faces = np.fromfile(clip.folder / f"{clip.key}.faces", np.uint8).reshape(frames, side, side, 3)
    arrays = {
        name: np.load(clip.folder / f"{clip.key}.{name}.npy") for name in ("mel", "sound", "print")
    }
    facts = {k: v for k, v in clip.row.items() if k != "key"}
    facts |= {
        "source": clip.source,
        "size": settings.size,
        "margin": settings.margin,
        "framing": settings.framing,
    }
    writer.add(
        clip.key, speaker=speaker, facts={**facts, "fps": 25}, arrays={"faces": faces, **arrays}
    )
