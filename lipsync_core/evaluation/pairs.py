"""Pairs of face and speech: the public lists, and lists drawn by the paper's rule."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import LipSyncError, MediaError
from ..runtime.atomic import atomic_write
from ..runtime.text_file import read_text_file

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
    """Speech of one file for the face of another; names below a root folder, with "/".

    Attributes:
        audio: File of the speech.
        video: File of the face.
    """

    audio: str
    video: str


@dataclass(frozen=True, slots=True)
class DrawnPairs:
    """Pairs that were drawn.

    Attributes:
        pairs: The pairs.
        unpaired: Files that no pair uses as a face, each with the reason.
    """

    pairs: tuple[Pair, ...]
    unpaired: Mapping[str, str]


def read_pairs(path: Path, *, order: Order = "auto") -> list[Pair]:
    """Read a list of pairs: two names a line, separated by a tab, else by white space.

    Empty lines and those that begin with "#" are ignored. The public lists for LRW, LRS2 and LRS3
    give the audio first and no suffix (".mp4" is meant); those of ReSyncED give the video first,
    and suffixes.

    Args:
        path: The list.
        order: Which name comes first; ``auto`` decides by the suffixes.

    Returns:
        The pairs.

    Raises:
        LipSyncError: If the list cannot be read so, a name leads out of the root folder, or a pair
            comes twice.
        ValueError: If the order is unknown.
    """
    if order not in ("auto", "audio-video", "video-audio"):
        raise ValueError(f"order is {order!r}; expected auto, audio-video or video-audio")
    try:
        lines = read_text_file(path).split("\n")
    except (OSError, ValueError) as error:
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
                f"{path}, line {number} repeats the pair of line {found[pair]}; expected each once"
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
                f"{path}, line {number} has {len(names)} names; expected two, parted by a tab or "
                "white space"
            )
        if outside := next(filter(_leads_out, names), None):
            raise LipSyncError(
                f"{path}, line {number}: {outside} leads out of the root folder; expected names "
                "below it"
            )
        named[number] = names[0], names[1]
    if not named:
        raise LipSyncError(
            f"{path} holds no pairs; expected two names a line, parted by a tab or white space"
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
    """Draw pairs by the paper's rule: each video gets the speech of a random shorter one.

    The same files and seed give the same pairs on every machine. No pair comes twice. Files that
    cannot be read, show no picture, or are not longer than any other one that speaks are left out
    and reported.

    Args:
        root: Folder of the videos.
        seed: Seed of the draw.
        count: Number of pairs; more than there are videos give each several, as long as there are
            others to speak; None: one for each video.
        leave: Folder whose files are ignored, such as that of earlier dubs.

    Returns:
        The pairs, and the files left out.

    Raises:
        LipSyncError: If no pair can be drawn.
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} pairs; expected at least 1")
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
            "for longer than another one speaks; expected at least two videos of unequal length"
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
            f"{wanted} pairs were asked for, and {root} allows {len(pairs)}; ask for fewer, "
            "or give more videos"
        )
    shown = {pair.video for pair in pairs[:wanted]}
    unpaired |= {name: NOT_DRAWN for name in videos if name not in shown}
    return DrawnPairs(tuple(pairs[:wanted]), unpaired)


def write_pairs(pairs: list[Pair] | tuple[Pair, ...], path: Path) -> None:
    """Write a list that ``read_pairs`` reads back: with suffixes, video first, separated by tabs.

    Args:
        pairs: The pairs.
        path: File to write.
    """
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
    """Rewrite a name that would be read as a comment, or lose its first space."""
    return f"./{name}" if name.startswith("#") or name[:1].isspace() else name


def _measure_lengths(
    root: Path, leave: Path | None
) -> tuple[dict[str, Fraction], dict[str, Fraction], dict[str, str]]:
    """Return seconds of picture and of audio of the videos below ``root``, and unusable files.

    Names are in order; unusable files come with the reasons.
    """
    from ..media import probe, read_audio, read_frames  # not above: lists are read without torch

    if not root.is_dir():
        raise LipSyncError(f"{root} is not a folder; expected one with videos")
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
