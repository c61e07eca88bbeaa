"""Remove from MP4 files whatever names their maker.

Metadata is emptied in place, so that no sample and no time stamp moves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# ISO/IEC 14496-12: user data, metadata, extensions of anybody
_TELLING = {b"udta", b"meta", b"uuid"}
_NESTED = {b"moov", b"trak"}


def clear_metadata(path: Path) -> None:
    """Turn every box of user data and metadata into free space of the same size.

    Args:
        path: MP4 file; it is changed in place.
    """
    with path.open("r+b") as file:
        for kind, start, body, end in list(_boxes(file, 0, path.stat().st_size)):
            if kind in _TELLING:
                file.seek(start + 4)
                file.write(b"free")
                file.seek(body)
                file.write(bytes(end - body))


def is_h264(path: Path) -> bool:
    """Return whether a track's sample description says AVC.

    Args:
        path: MP4 file.
    """
    with path.open("rb") as file:
        for kind, _, body, end in _boxes(file, 0, path.stat().st_size):
            if kind == b"trak":
                file.seek(body)
                description = file.read(end - body)
                if b"avc1" in description or b"avc3" in description:
                    return True
    return False


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield (kind, start, start of the body, end) of the boxes between two positions.

    Boxes inside those in ``_NESTED`` are included.
    """
    while start + 8 <= stop:
        file.seek(start)
        size, kind = int.from_bytes(file.read(4)), file.read(4)
        body = start + 8
        if size == 1:  # a long size follows
            size, body = int.from_bytes(file.read(8)), start + 16
        end = stop if size == 0 else start + size
        if end < body or end > stop:
            return  # a damaged box: what follows cannot be told apart
        yield kind, start, body, end
        if kind in _NESTED:
            yield from _boxes(file, body, end)
        start = end
