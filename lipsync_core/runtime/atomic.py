"""Files that appear under their name when they are whole, and folders that one process at a time
fills."""

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
    """A temporary name beside ``path``, with its suffix, which tells writers the format."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix.lower()}")


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """A temporary name beside ``path``, which takes its place when the block ends, and is removed
    if it raises."""
    part = temporary_name(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def exclusive_dir(folder: Path) -> Generator[None]:
    """``folder``, made where there is none, for this process alone, until the block or the process
    ends in whatever way. What killed processes left half-written in it is removed.

    LipSyncError where another process is at work in it, or where it cannot be written. The file
    .lock stays: one that is removed could be locked by two.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise LipSyncError(
            f"{folder} cannot be written ({error}); mend that, or give a folder that can be written"
        ) from error
    with file:
        if not _locked(file):
            raise LipSyncError(
                f"another process is at work in {folder}; wait for its end, or give another folder"
            )
        remove_partials(folder)
        yield


def remove_partials(folder: Path) -> None:
    """Removes what killed processes left half-written in ``folder``."""
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
    except (
        OSError
    ) as error:  # any other: a file system without locks, where nobody can be told apart
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
