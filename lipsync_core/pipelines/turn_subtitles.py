"""Turns from subtitles with names (SRT, WebVTT) and from diarizations (RTTM).

Read here because the libraries for subtitles lose what we need: pysubs2 1.8.1 drops the names of
WebVTT's voice spans, webvtt-py 0.6.0 keeps the first of a cue and reads SRT's 0:0:5,5 as 5.005 s.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import LipSyncError
from ..faces.selector import FaceSelector, parse_face
from ..runtime.text_file import read_text_file
from ..runtime.timecode import parse_seconds
from .turn_table import TurnRow, read_turns

SUBTITLES = (".srt", ".vtt", ".rttm")
NO_FACE = "none"  # in place of a face: a voice that is not in the picture

_TIMES = re.compile(r"\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
# <v Anna>, <v.loud Anna>; [Anna] and Anna: at the beginning of a line, after the dash of a dialogue
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_BRACKETS = re.compile(r"\s*[-\N{EN DASH}]?\s*\[([^\]]+)\]\s*:?")
_COLON = re.compile(r"\s*[-\N{EN DASH}]?\s*([^\W\d][^:\n<>\[\]]{0,40}?)\s*:(?!\S*//)")
_TAGS = re.compile(r"<[^>]*>|\{\\[^}]*\}")


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a speaker says: from when to when, in seconds, and in which line of the file."""

    start: Fraction
    end: Fraction
    name: str
    line: int


def parse_who(texts: Sequence[str]) -> dict[str, str]:
    """Split NAME=FACE texts.

    Raises:
        ValueError: A text is no pair, a face is none, or a name is given twice.
    """
    who: dict[str, str] = {}
    for text in texts:
        name, equals, face = (part.strip() for part in text.partition("="))
        if not (name and equals and face):
            raise ValueError(f"{text!r} is no NAME=FACE; expected, for example, Anna=left")
        if name in who:
            raise ValueError(f"{name!r} is given twice; give one face for each name")
        if face != NO_FACE:
            parse_face(face)
        who[name] = face
    return who


def read_any_turns(path: Path, who: Mapping[str, str] | None = None) -> list[TurnRow]:
    """Read turns from subtitles, a diarization (``read_subtitle_turns``) or a table.

    Raises:
        LipSyncError: The file cannot be read as what its name ends in.
        ValueError: There is no such file, or names and faces do not fit it.
    """
    if path.suffix.lower() in SUBTITLES:
        return read_subtitle_turns(path, who or {})
    return read_turns(path)


def read_subtitle_turns(path: Path, who: Mapping[str, str]) -> list[TurnRow]:
    """Read who speaks when from subtitles or a diarization.

    A speaker's name stands before the text: ``Anna: ...``, ``[Anna] ...`` or WebVTT's
    ``<v Anna>``. Text without a name continues the speaker before it. Several speakers of one
    subtitle share its time by the lengths of their texts.

    Args:
        path: A file that ends in .srt, .vtt or .rttm.
        who: The face of each name, as ``--face`` takes it, or ``none`` for a voice that is not in
            the picture; capitals do not matter.

    Returns:
        The turns of the faces, in the order of the file.

    Raises:
        LipSyncError: The file cannot be read, or holds a name without a face; the message lists
            the names.
        ValueError: There is no such file, or it does not have a name that is given a face.
    """
    if not path.is_file():
        raise ValueError(f"speakers is {str(path)!r}, and there is no such file; give another name")
    try:
        text = read_text_file(path)
    except (OSError, ValueError) as error:
        raise LipSyncError(f"{path} cannot be read ({error})") from error
    known = {name.casefold(): _parse(face) for name, face in who.items()}
    read = _read_rttm if path.suffix.lower() == ".rttm" else _read_cues
    turns = list(read(path, text.splitlines(), known.keys()))
    if not turns:
        raise LipSyncError(
            f"{path} names no speaker; expected lines such as 'Anna: ...', '[Anna] ...' or "
            "'<v Anna>...', or the SPEAKER lines of a diarization"
        )
    _check_names(path, turns, who)
    return [
        TurnRow(turn.start, turn.end, face)
        for turn in turns
        if (face := known[turn.name.casefold()]) is not None
    ]


def _parse(face: str) -> FaceSelector | None:
    return None if face == NO_FACE else parse_face(face)


def _check_names(path: Path, turns: Sequence[_Turn], who: Mapping[str, str]) -> None:
    names = dict.fromkeys(turn.name for turn in turns)
    found, known = {name.casefold() for name in names}, {name.casefold() for name in who}
    if lacking := [name for name in names if name.casefold() not in known]:
        line = next(turn.line for turn in turns if turn.name == lacking[0])
        raise LipSyncError(
            f"{path}, line {line}: no face is given for {', '.join(lacking)}; give one for each, "
            f"such as --who {lacking[0]}=left, or {lacking[0]}={NO_FACE} for a voice that is not "
            "in the picture"
        )
    if unused := [name for name in who if name.casefold() not in found]:
        raise ValueError(
            f"{path} holds no {', '.join(unused)}; its speakers are {', '.join(names)}"
        )


def _read_rttm(path: Path, lines: Sequence[str], known: Collection[str]) -> Iterator[_Turn]:
    """The SPEAKER lines: type, file, channel, start, duration, two of no use, name."""
    recordings: set[str] = set()
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells or cells[0] != "SPEAKER":
            continue
        try:
            start, seconds = (Fraction(cell) for cell in cells[3:5])
            name = cells[7]
        except (ValueError, IndexError, ZeroDivisionError):
            raise LipSyncError(
                f"{path}, line {number}: {line[:60]!r}; expected SPEAKER FILE CHANNEL START "
                "SECONDS <NA> <NA> NAME"
            ) from None
        recordings.add(cells[1])
        if len(recordings) > 1:
            raise LipSyncError(
                f"{path}, line {number}: a second recording ({', '.join(sorted(recordings))}); "
                "keep the lines of one"
            )
        if seconds > 0:
            yield _Turn(start, start + seconds, name, number)


def _read_cues(path: Path, lines: Sequence[str], known: Collection[str]) -> Iterator[_Turn]:
    """The named texts of subtitles, SRT and WebVTT alike."""
    speaker: str | None = None
    at = 0
    while at < len(lines):
        match = _TIMES.match(lines[at])
        at += 1
        if match is None:
            continue
        start, end = (_parse_time(time, path, at) for time in match.groups())
        if end <= start:
            raise LipSyncError(f"{path}, line {at}: it ends before it starts; expected start < end")
        first = at + 1
        texts: list[str] = []
        while at < len(lines) and lines[at].strip() and not _TIMES.match(lines[at]):
            texts.append(lines[at])
            at += 1
        said = _split_speakers("\n".join(texts), speaker, known)
        total = sum(length for _, length in said)
        for name, length in said:
            stop = start + (end - start) * Fraction(length, total)
            if name is not None:
                yield _Turn(start, stop, name, first)
            start, total, speaker = stop, total - length, name


def _parse_time(text: str, path: Path, line: int) -> Fraction:
    try:
        return parse_seconds(text.replace(",", "."))
    except ValueError as error:
        raise LipSyncError(f"{path}, line {line}: {error}") from error


def _split_speakers(
    text: str, speaker: str | None, known: Collection[str]
) -> list[tuple[str | None, int]]:
    """Who speaks in a cue, one after the other, and how many characters, at least one."""
    said: list[tuple[str | None, int]] = []
    for line in text.split("\n"):
        pieces = _VOICE.split(line)  # text, name, text, name, text
        for i in range(0, len(pieces), 2):
            piece = pieces[i]
            if i:
                speaker = " ".join(pieces[i - 1].split())
            elif (label := _find_label(_TAGS.sub("", piece), known)) is not None:
                speaker, piece = label
            length = len(_TAGS.sub("", piece).strip())
            if length or i:
                said.append((speaker, max(1, length)))
    return said


def _find_label(line: str, known: Collection[str]) -> tuple[str, str] | None:
    """The name before a line's text, and that text.

    A word and a colon may be no name ("He said: ..."): it is one if it is known, or if each of at
    most three words begins with a capital or digit.
    """
    if match := _BRACKETS.match(line):
        return match[1].strip(), line[match.end() :]
    if match := _COLON.match(line):
        words = match[1].split()
        named = len(words) <= 3 and all(word[0].isupper() or word[0].isdigit() for word in words)
        if named or match[1].casefold() in known:
            return match[1].strip(), line[match.end() :]
    return None
