"""Who speaks what: the public lists of pairs, and lists of our own by the paper's rule."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import LipSyncError, MediaError
from ..media import probe, read_audio, read_frames
from ..runtime.atomic import atomic_write

Order = Literal["auto", "audio-video", "video-audio"]

NOT_DRAWN = "not drawn"

_SUFFIXES = (
    ".avi",
    ".flv",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".ts",
    ".webm",
    ".wmv",
)
_SOUNDS = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav")
# px: frames are read to be counted, because what headers say of length may be off by a few
_SMALL = (16, 16)
_UNFIT = (
    "has a tab, a line break or a letter beyond Unicode, which no list of pairs can hold; rename it"
)
_LEAST_SPEECH = Fraction(1, 2)  # seconds: no scorer says anything of less


@dataclass(frozen=True, slots=True)
class Pair:
    """The speech of ``audio`` for the face of ``video``: names below a root folder, with "/"."""

    audio: str
    video: str


@dataclass(frozen=True, slots=True)
class DrawnPairs:
    """``pairs`` that were drawn, and the files that are in none as a face, each with the reason."""

    pairs: tuple[Pair, ...]
    unpaired: Mapping[str, str]


def read_pairs(path: Path, *, order: Order = "auto") -> list[Pair]:
    """The pairs of a list: two names a line, parted by a tab where the line has one, else by white
    space. Empty lines and those that begin with "#" count for nothing.

    The public lists for LRW, LRS2 and LRS3 give the audio first and no suffix (".mp4" is meant);
    those of ReSyncED give the video first, and suffixes. ``auto`` tells them apart by that. Raises
    LipSyncError for a list that cannot be read so, for names that lead out of the root folder and
    for a pair that comes twice, ValueError for an unknown order.
    """
    if order not in ("auto", "audio-video", "video-audio"):
        raise ValueError(f"order is {order!r}; wanted auto, audio-video or video-audio")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LipSyncError(f"{path} cannot be read as a list of pairs ({error})") from error
    named = _read_names(path, lines)
    if order == "auto":
        order = _order(path, [name for names in named.values() for name in names])
    found: dict[Pair, int] = {}
    for number, names in named.items():
        first, second = map(_with_suffix, names)
        pair = Pair(first, second) if order == "audio-video" else Pair(second, first)
        if pair in found:
            raise LipSyncError(
                f"{path}, line {number} repeats the pair of line {found[pair]}; wanted each once"
            )
        found[pair] = number
    return list(found)


def _read_names(path: Path, lines: list[str]) -> dict[int, tuple[str, str]]:
    """Return the two names of each line that has any, by line number."""
    named: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        names = (
            [name.strip() for name in line.split("\t") if name.strip()]
            if "\t" in line
            else line.split()
        )
        if len(names) != 2:
            raise LipSyncError(
                f"{path}, line {number} has {len(names)} names; wanted two, parted by a tab or "
                "white space"
            )
        if outside := next(filter(_leads_out, names), None):
            raise LipSyncError(
                f"{path}, line {number}: {outside} leads out of the root folder; wanted names "
                "below it"
            )
        named[number] = names[0], names[1]
    if not named:
        raise LipSyncError(
            f"{path} holds no pairs; wanted two names a line, parted by a tab or white space"
        )
    return named


def _leads_out(name: str) -> bool:
    return bool(Path(name).anchor) or Path(os.path.normpath(name)).parts[:1] == ("..",)


def _order(path: Path, names: list[str]) -> Order:
    having = sum(_has_suffix(name) for name in names)
    if 0 < having < len(names):
        raise LipSyncError(
            f"{path}: {having} of {len(names)} names have a suffix, so the order cannot be told; "
            "give --order audio-video or --order video-audio"
        )
    return "video-audio" if having else "audio-video"


def _has_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _SUFFIXES + _SOUNDS


def _with_suffix(name: str) -> str:
    name = PurePosixPath(name).as_posix()
    return name if _has_suffix(name) else f"{name}.mp4"


def draw_pairs(
    root: Path, *, seed: int = 0, count: int | None = None, leave: Path | None = None
) -> DrawnPairs:
    """Pairs by the paper's rule: for each video below ``root`` the speech of another one, drawn at
    random among those that are shorter. The same files and seed give the same pairs on every
    machine.

    No pair comes twice. ``count``: how many pairs; more than there are videos give each several, as
    long as there are others to speak; None: one for each video. ``leave``: a folder whose files do
    not count, such as that of earlier dubs. Files that cannot be read, show no picture, or are not
    longer than any other one that speaks are left out and told of. Raises LipSyncError when no pair
    can be drawn.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} pairs; wanted at least 1")
    lengths, speaking, unpaired = _measure_lengths(root, leave)
    chance = random.Random(seed)
    partners: dict[str, list[str]] = {}
    for name, seconds in lengths.items():
        others = [other for other, spoken in speaking.items() if other != name and spoken < seconds]
        chance.shuffle(others)
        if others:
            partners[name] = others
        else:
            unpaired[name] = f"no other speech is shorter than its {float(seconds):.2f} s"
    if not partners:
        raise LipSyncError(
            f"no pair can be drawn below {root}: {len(unpaired)} files, of which none shows a face "
            "for longer than "
            "another one speaks; wanted at least two videos of unequal length"
        )
    videos = list(partners)
    chance.shuffle(videos)
    rounds = max(map(len, partners.values()))
    pairs = [
        Pair(partners[name][turn], name)
        for turn in range(rounds)
        for name in videos
        if turn < len(partners[name])
    ]
    wanted = len(videos) if count is None else count
    if wanted > len(pairs):
        raise LipSyncError(
            f"{wanted} pairs are wanted, and {root} allows {len(pairs)}; give fewer, or more videos"
        )
    shown = {pair.video for pair in pairs[:wanted]}
    unpaired |= {name: NOT_DRAWN for name in videos if name not in shown}
    return DrawnPairs(tuple(pairs[:wanted]), unpaired)


def write_pairs(pairs: list[Pair] | tuple[Pair, ...], path: Path) -> None:
    """``pairs`` as a list that ``read_pairs`` reads back: with suffixes, so the video stands first,
    and parted by tabs."""
    for name in [name for pair in pairs for name in (pair.audio, pair.video)]:
        if not _fits_a_line(name):
            raise LipSyncError(f"{name!a} {_UNFIT}")
    lines = [f"{_escape(pair.video)}\t{_escape(pair.audio)}\n" for pair in pairs]
    with atomic_write(path) as part:
        part.write_text("".join(lines), encoding="utf-8", newline="\n")


def _fits_a_line(name: str) -> bool:
    return not set(name) & set("\t\r\n") and not any(
        "\ud800" <= letter <= "\udfff" for letter in name
    )


def _escape(name: str) -> str:
    """A name that would be read as a comment, or lose its first space, in other words."""
    return f"./{name}" if name.startswith("#") or name[:1].isspace() else name


def _measure_lengths(
    root: Path, leave: Path | None
) -> tuple[dict[str, Fraction], dict[str, Fraction], dict[str, str]]:
    """Seconds of picture and of sound of the videos below ``root`` by name, in order, and what
    could not be used."""
    if not root.is_dir():
        raise LipSyncError(f"{root} is no folder; wanted one with videos")
    files = [path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES]
    names = sorted(
        path.relative_to(root).as_posix()
        for path in files
        if leave is None or not path.resolve().is_relative_to(leave.resolve())
    )
    shown: dict[str, Fraction] = {}
    spoken: dict[str, Fraction] = {}
    unusable: dict[str, str] = {}
    for name in names:
        if not _fits_a_line(name):
            unusable[ascii(name)] = f"its name {_UNFIT}"
            continue
        try:
            count = sum(piece.pixels.shape[0] for piece in read_frames(root / name, size=_SMALL))
            shown[name] = count / probe(root / name).fps
        except MediaError as error:
            unusable[name] = str(error)
            continue
        try:
            sound = read_audio(root / name)
        except MediaError:
            continue  # it can still be spoken for
        seconds = Fraction(sound.samples.shape[1], sound.rate)
        if seconds >= _LEAST_SPEECH:
            spoken[name] = seconds
    return shown, spoken, unusable
