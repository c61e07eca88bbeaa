"""Write files and folders so that nothing half-written carries a final name."""

import errno
import re
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import LipSyncError

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part(\..+)?")
_LOCK = ".lock"


def temporary_name(path: Path) -> Path:
    """Return a temporary name beside ``path``, whose suffix tells writers the format."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix.lower()}")


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Give a temporary name that is renamed to ``path`` when the block ends.

    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: final name of the file.

    Yields:
        The temporary name to write to.
    """
    part = temporary_name(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def exclusive_dir(folder: Path) -> Generator[None]:
    """Create ``folder`` if needed and hold it for this process until the block or the process ends.

    Files that killed processes left half-written in it are removed. The file .lock stays: two
    processes could lock a file that is removed.

    Args:
        folder: the folder to hold.

    Raises:
        LipSyncError: If another process works in the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise LipSyncError(
            f"{folder} cannot be written ({error}); fix that, or give a folder that can be written"
        ) from error
    with file:
        if not _locked(file):
            raise LipSyncError(
                f"another process is at work in {folder}; wait for its end, or give another folder"
            )
        remove_partials(folder)
        yield


def remove_partials(folder: Path) -> None:
    """Remove the files that killed processes left half-written in ``folder``."""
    for path in folder.glob(".*"):
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _locked(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any other: a file system without locks cannot tell processes apart
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
