"""Check output paths, and move whole files to them."""

import os
from pathlib import Path

from ..errors import MediaError

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # those of the tables in ``mux``


def check_output_path(path: Path, *, overwrite: bool, suffixes: tuple[str, ...] = SUFFIXES) -> None:
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


def move_into_place(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Rename the whole file ``partial``, which must be closed (Windows needs that), to ``path``."""
    check_output_path(path, overwrite=overwrite)
    try:
        partial.replace(path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be put in place ({error.strerror}); is it open elsewhere?"
        ) from error


def container_options(path: Path) -> dict[str, str]:
    """Return FFmpeg's options for the container of ``path``.

    use_metadata_tags keeps keys that MP4 has no box for; faststart lets players begin before the
    end has arrived.
    """
    return (
        {"movflags": "use_metadata_tags+faststart"}
        if path.suffix.lower() in {".mp4", ".m4v", ".mov"}
        else {}
    )
