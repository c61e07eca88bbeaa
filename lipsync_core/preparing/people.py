"""Who is who and what is the same, from the prints of clips; and who goes into which split."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LipSyncError
from .sources import SPLITS
from .work import PRINT

Prints = npt.NDArray[np.float32]  # (N,P), see work._print

# Correlations above which two clips are taken for one, in pictures and in sound; both must be. The same GRID clip coded
# again at a quarter of the bits has 0.99 and 0.99; other sentences of one GRID speaker go up to 0.99 in pictures, but not
# above 0.85 in sound.
SAME_PICTURES, SAME_SOUND = 0.95, 0.95
# Mean likeness within a group of clips taken for one person (average linkage). Between the 5 % and 95 % lines of
# faces/likeness.py (same 0.918 and up, others 0.893 and less): rather two people as one than one in two splits.
SAME_PERSON = 0.87
MOST_BY_LIKENESS = 8000  # clips: all pairs are compared, 256 MB for these
_BLOCK = 1024


def duplicates(prints: Prints) -> dict[int, int]:
    """Clips that are an earlier one again, as far as they begin and end at the same place: number -> number of the first."""
    pictures, sounds = prints[:, : PRINT[0]], prints[:, PRINT[0] : sum(PRINT)]
    found: dict[int, int] = {}
    for begin in range(0, len(prints), _BLOCK):
        here = slice(begin, begin + _BLOCK)
        # unit vectors of four pictures each: the mean of four correlations
        alike = (pictures[here] @ pictures.T > SAME_PICTURES) & (sounds[here] @ sounds.T > SAME_SOUND)
        for row, other in zip(*np.nonzero(alike), strict=True):
            clip = begin + int(row)
            if other < clip and clip not in found:
                found[clip] = found.get(int(other), int(other))
    return found


def same_people(prints: Prints, known: Sequence[str | None]) -> list[str]:
    """A name for the person in each clip, by likeness; clips with a ``known`` name keep it, and lend it to their group.
    LipSyncError for more than 8000 clips."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    if len(prints) > MOST_BY_LIKENESS:
        raise LipSyncError(
            f"{len(prints)} clips are too many to tell people apart by their faces (at most {MOST_BY_LIKENESS}); "
            "give --speaker folder, file, or an expression"
        )
    if len(prints) < 2:
        return [name or "person-000" for name in known]
    tree = linkage(pdist(prints[:, sum(PRINT) :].astype(np.float64), "cosine"), "average")
    groups = fcluster(tree, 1 - SAME_PERSON, "distance")
    taken = {name for name in known if name}
    names: dict[int, str] = {}
    for group in dict.fromkeys(groups.tolist()):
        here = Counter(name for name, g in zip(known, groups, strict=True) if g == group and name)
        fresh = next(f"person-{i:03}" for i in range(len(prints)) if f"person-{i:03}" not in taken)
        names[group] = here.most_common(1)[0][0] if here else fresh
        taken.add(names[group])
    return [name or names[group] for name, group in zip(known, groups.tolist(), strict=True)]


def shared_out(
    frames: Mapping[str, int], shares: Mapping[str, float], known: Mapping[str, str], *, seed: int = 0
) -> dict[str, str]:
    """The split of every speaker with ``frames``, whole: those ``known`` stay. The others, shuffled by ``seed``, fill ``val``
    and ``test`` up to their ``shares`` of all frames where they fit (half as much again at most), and then train; where a split
    with a share stayed empty and train has two, it gets the one with the least."""
    total = sum(frames.values())
    out = {speaker: split for speaker, split in known.items() if speaker in frames}
    held = {split: sum(frames[who] for who, where in out.items() if where == split) for split in SPLITS}
    fresh = sorted((s for s in frames if s not in out), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    small = [split for split in SPLITS if split != "train" and shares[split] > 0]
    for speaker in fresh:
        fit = [
            split
            for split in small
            if held[split] < shares[split] * total and held[split] + frames[speaker] <= 1.5 * shares[split] * total
        ]
        out[speaker] = min(fit, key=lambda name: held[name] / shares[name]) if fit else "train"
        held[out[speaker]] += frames[speaker]
    for split in small:
        movable = [speaker for speaker in fresh if out[speaker] == "train"]
        if held[split] == 0 and movable and sum(where == "train" for where in out.values()) > 1:
            least = min(movable, key=lambda speaker: frames[speaker])
            out[least], held[split] = split, frames[least]
    return out


def as_prints(rows: Sequence[npt.NDArray[Any]]) -> Prints:
    return (
        np.stack([np.asarray(row, np.float32) for row in rows]) if rows else np.zeros((0, sum(PRINT) + 1), np.float32)
    )
