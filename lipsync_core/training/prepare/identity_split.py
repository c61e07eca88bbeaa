"""Identities and duplicates from the prints of clips, and the split of speakers."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import LipSyncError
from .sources import SPLITS
from .stages import PRINT

Prints = npt.NDArray[np.float32]  # (N,P), see work._print

# Correlations above which two clips are taken for one, in pictures and in sound; both must be.
# Among 54 different clips, whose speakers sit still before one wall, pictures reach 0.996, but
# sound 0.88; GRID clips coded again at half the size with x264's crf 36 are found.
SAME_PICTURES, SAME_SOUND = 0.95, 0.95
# Mean likeness within a group of takes taken for one person (average linkage). Of 10 speakers in 54
# clips (GRID, and four others) 0.91 to 0.93 tell all apart and part none; 0.90 takes two men of
# GRID for one, 0.89 four, and none of them parts a speaker. Rather two people as one than one in
# two splits.
SAME_PERSON = 0.90
MOST_BY_LIKENESS = 8000  # takes: all pairs are compared, 256 MB for these
_BLOCK = 1024


def duplicates(prints: Prints) -> dict[int, int]:
    """Find the clips that repeat an earlier one.

    A repetition is recognized if both begin and end at the same place.

    Args:
        prints: the prints of the clips.

    Returns:
        Number of each repeated clip -> number of the first.
    """
    pictures, sounds = prints[:, : PRINT[0]], prints[:, PRINT[0] : sum(PRINT)]
    found: dict[int, int] = {}
    for begin in range(0, len(prints), _BLOCK):
        here = slice(begin, begin + _BLOCK)
        # unit vectors of four pictures each: the mean of four correlations
        alike = (pictures[here] @ pictures.T > SAME_PICTURES) & (
            sounds[here] @ sounds.T > SAME_SOUND
        )
        for row, other in zip(*np.nonzero(alike), strict=True):
            clip = begin + int(row)
            if other < clip and clip not in found:
                found[clip] = found.get(int(other), int(other))
    return found


def same_people(
    prints: Prints, takes: Sequence[Hashable], known: Sequence[str | None]
) -> list[str]:
    """Name the person in each clip, by likeness.

    Clips of one take show one person, whom tracking followed. Clips with a ``known`` name keep
    it and give it to their group.

    Args:
        prints: the prints of the clips.
        takes: the take of each clip.
        known: the name of each clip's speaker, None if unknown.

    Returns:
        A name per clip.

    Raises:
        LipSyncError: there are more than 8000 takes.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    number = {take: i for i, take in enumerate(dict.fromkeys(takes))}
    if len(number) > MOST_BY_LIKENESS:
        raise LipSyncError(
            f"{len(number)} takes are too many to tell people apart by their faces (at most "
            f"{MOST_BY_LIKENESS}); give --speaker folder, file, or an expression"
        )
    member = np.array([number[take] for take in takes])
    means = np.zeros((len(number), prints.shape[1] - sum(PRINT)))
    np.add.at(means, member, prints[:, sum(PRINT) :])
    groups = np.ones(len(number), np.int64)
    if len(number) > 1:
        groups = fcluster(linkage(pdist(means, "cosine"), "average"), 1 - SAME_PERSON, "distance")
    told: dict[int, Counter[str]] = {}
    for name, take in zip(known, member.tolist(), strict=True):
        told.setdefault(int(groups[take]), Counter()).update([name] if name else [])
    taken, names = {name for name in known if name}, dict[int, str]()
    for group, counts in told.items():
        fresh = next(
            f"person-{i:03}"
            for i in range(len(number) + len(taken))
            if f"person-{i:03}" not in taken
        )
        names[group] = counts.most_common(1)[0][0] if counts else fresh
        taken.add(names[group])
    return [
        name or names[int(groups[take])] for name, take in zip(known, member.tolist(), strict=True)
    ]


def kept_together(seen: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group the speakers who must share a split.

    Two people in one video share its acoustics and each other's voice.

    Args:
        seen: (source, speaker) of every clip.

    Returns:
        Speaker -> the first of the speakers of the same group.
    """
    leader: dict[str, str] = {}
    first: dict[str, str] = {}

    def find(speaker: str) -> str:
        while leader[speaker] != speaker:
            speaker = leader[speaker]
        return speaker

    for source, speaker in seen:
        leader.setdefault(speaker, speaker)
        leader[find(speaker)] = find(first.setdefault(source, speaker))
    return {speaker: find(speaker) for speaker in leader}


def shared_out(
    frames: Mapping[str, int],
    shares: Mapping[str, float],
    known: Mapping[str, str],
    *,
    seed: int = 0,
) -> dict[str, str]:
    """Choose the split of every speaker.

    Speakers stay whole. Those not ``known``, shuffled by ``seed``, fill ``val`` and ``test`` up
    to their ``shares`` of all frames where they fit (half as much again at most), and then
    train. If a split with a share stays empty and train has two speakers, it gets the one with
    the fewest frames.

    Args:
        frames: frames of every speaker.
        shares: share of every split.
        known: the split of speakers that have one, which stays.
        seed: seed of the shuffle.

    Returns:
        Speaker -> split.
    """
    total = sum(frames.values())
    out = {speaker: split for speaker, split in known.items() if speaker in frames}
    held = {
        split: sum(frames[who] for who, where in out.items() if where == split) for split in SPLITS
    }
    fresh = sorted(
        (s for s in frames if s not in out),
        key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest(),
    )
    small = [split for split in SPLITS if split != "train" and shares[split] > 0]
    for speaker in fresh:
        fit = [
            split
            for split in small
            if held[split] < shares[split] * total
            and held[split] + frames[speaker] <= 1.5 * shares[split] * total
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
    """Stack the prints of clips."""
    return (
        np.stack([np.asarray(row, np.float32) for row in rows])
        if rows
        else np.zeros((0, sum(PRINT) + 1), np.float32)
    )
