"""Write files and folders so that nothing half-written carries a final name."""

import errno
import hashlib
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import LipSyncError

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part(\..+)?")
_LOCK = ".lock"
_STEM_BYTES = 150  # of a temporary name
_UNTOUCHED = 3600  # seconds


_MADE: set[str] = set()
"""The temporary names of this process, which may be in use in another thread."""


def temporary_name(path: Path) -> Path:
    """Return a temporary name beside ``path``, whose suffix tells writers the format.

    It names this computer and process, so that a later run can tell whether it is still in use.
    """
    token = f"{os.getpid()}-{_host()}.{secrets.token_hex(4)}"
    part = path.with_name(f".{_short_stem(path)}.{token}.part{path.suffix.lower()}")
    _MADE.add(part.name)
    return part


def remove_stale(path: Path) -> None:
    """Remove the temporary files of ``path`` whose process on this computer has ended.

    Those of other runs that write the same file, here or on another computer, stay.
    """
    stem, suffix = re.escape(f".{_short_stem(path)}."), re.escape(path.suffix.lower())
    own = re.compile(rf"{stem}(\d+)-{_host()}\.[0-9a-f]{{8}}\.part{suffix}")
    with suppress(OSError):
        for part in path.parent.iterdir():
            match = own.fullmatch(part.name)
            if match is not None and part.name not in _MADE and _is_left(part, int(match[1])):
                part.unlink(missing_ok=True)


def _short_stem(path: Path) -> str:
    # file systems take 255 bytes or characters
    return path.stem.encode()[:_STEM_BYTES].decode(errors="ignore")


def _host() -> str:
    """Eight digits for this computer; a container is one of its own."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_left(part: Path, process: int) -> bool:
    """Whether the process that wrote ``part`` has ended."""
    if sys.platform == "win32":  # no harmless way to ask for a process; open files stay there
        return time.time() - part.stat().st_mtime > _UNTOUCHED
    if process == os.getpid():  # the first process of a container always has the same number
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return False


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
