"""Tables of turns: who speaks from when to when, as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import LipSyncError
from ..faces.selector import FaceSelector, parse_face
from ..runtime.atomic import atomic_write
from ..runtime.text_file import read_text_file
from ..runtime.timecode import parse_seconds

_COLUMNS = ["start", "end", "face"]


@dataclass(frozen=True, slots=True)
class TurnRow:
    """One turn of a table.

    Attributes:
        start: When the face begins to speak, in seconds.
        end: When it ends, in seconds.
        face: The face that speaks.
    """

    start: Fraction
    end: Fraction
    face: FaceSelector


def read_turns(path: Path) -> list[TurnRow]:
    """Read a table of turns.

    Spreadsheets with a decimal comma write semicolons or tabs between cells, and times such as
    0,5; such tables are read too.

    Args:
        path: CSV in UTF-8 with the columns start, end, face: times in seconds or h:m:s, faces as
            ``--face`` takes them (x,y in quotes).

    Returns:
        The rows, in the order of the table.

    Raises:
        LipSyncError: The table cannot be read; the message names the line.
        ValueError: There is no such file.
    """
    if not path.is_file():
        raise ValueError(
            f"speakers is {str(path)!r}, and there is no such file; give auto, or a table of turns"
        )
    try:
        text = read_text_file(path)
        separator = next((mark for mark in ";\t" if mark in text.lstrip().partition("\n")[0]), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, _strip_cells(line)) for line in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise LipSyncError(
            f"{path} cannot be read as a table of turns ({error}); expected CSV in UTF-8 with the "
            "columns start,end,face"
        ) from error
    lines = [(number, line) for number, line in lines if line]
    if not lines or [cell.lower() for cell in lines[0][1]] != _COLUMNS:
        got = separator.join(lines[0][1]) if lines else "nothing"
        raise LipSyncError(f"{path} begins with {got!r}; expected the columns start,end,face")
    if not lines[1:]:
        raise LipSyncError(f"{path} holds no turn; expected a line for each, such as 0.5,2.25,left")
    return [_parse_row(line, separator, f"{path}, line {number}") for number, line in lines[1:]]


def write_turns(path: Path, rows: Sequence[TurnRow], *, overwrite: bool = False) -> None:
    """Write the table that ``read_turns`` reads, with times to the millisecond.

    Args:
        path: The file.
        rows: Its rows.
        overwrite: Whether an existing file is replaced.

    Raises:
        LipSyncError: The file exists, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise LipSyncError(f"{path} exists; choose another name, or overwrite it")
    try:
        with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(_COLUMNS)
            writer.writerows(
                [f"{float(row.start):.3f}", f"{float(row.end):.3f}", str(row.face)] for row in rows
            )
    except OSError as error:
        raise LipSyncError(f"{path} cannot be written ({error}); give another name") from error


def _strip_cells(line: list[str]) -> list[str]:
    """Cells without spaces round them, and without the empty ones that spreadsheets append."""
    cells = [cell.strip() for cell in line]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _parse_row(line: list[str], separator: str, place: str) -> TurnRow:
    if len(line) != 3:
        raise LipSyncError(
            f'{place} has {len(line)} cells; expected start,end,face, and "x,y" in quotes'
        )
    times = [cell if separator == "," else cell.replace(",", ".") for cell in line[:2]]
    try:
        start, end, face = *map(parse_seconds, times), parse_face(line[2])
    except ValueError as error:
        raise LipSyncError(f"{place}: {error}") from error
    if end <= start:
        raise LipSyncError(
            f"{place} ends at {line[1]}, which is not after its start at {line[0]}; expected start "
            "< end"
        )
    return TurnRow(start, end, face)
