"""Check paths, before any media library is loaded."""

import os
from pathlib import Path

from ..errors import MediaError
from ..runtime.wrong_file import HEAD, describe_wrong_file

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # those of the tables in ``mux``


def check_input_path(path: Path) -> None:
    """Check that ``path`` is a file with content of its own.

    Raises:
        MediaError: If it is a folder, missing, empty, a web page or a git-lfs pointer.
    """
    if path.is_dir():
        raise MediaError(f"{path} is a folder; expected a file")
    if not path.is_file():
        raise MediaError(f"{path}: no such file; check the name")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy or download it again")
    with path.open("rb") as file:
        wrong = describe_wrong_file(file.read(HEAD))
    if wrong is not None:
        raise MediaError(f"{path} is {wrong}")


def check_output_path(
    path: Path, *, overwrite: bool, suffixes: tuple[str, ...] = VIDEO_SUFFIXES
) -> None:
    """Check that ``path`` may be written.

    Args:
        path: File to write.
        overwrite: Whether an existing file is replaced.
        suffixes: Those that can be written.

    Raises:
        MediaError: If the suffix is another, the file exists without ``overwrite``, or its folder
            is missing or read-only.
    """
    folder, suffix = path.parent, path.suffix.lower()
    if suffix not in suffixes:
        raise MediaError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; use {', '.join(suffixes)}"
        )
    if not folder.is_dir():
        raise MediaError(f"{path}: the folder {folder} does not exist; create it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise MediaError(
            f"{path}: exists already; choose another name or allow overwriting (--overwrite)"
        )
    if not os.access(folder, os.W_OK):
        raise MediaError(f"{path}: the folder {folder} is not writable; choose another one")


def refuse_inputs(path: Path, *inputs: Path) -> None:
    """Check that ``path`` is none of ``inputs``, which are never overwritten.

    Raises:
        MediaError: If it is.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise MediaError(f"{path} is what is read; write to another file")
