"""The file that a writer makes: under a temporary name until it is whole."""

import os
from pathlib import Path

from ..errors import MediaError
from .mux import SUFFIXES


def check_output_path(path: Path, *, overwrite: bool) -> None:
    """MediaError when ``path`` may not be written."""
    folder, suffix = path.parent, path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MediaError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; use {', '.join(SUFFIXES)}"
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
    """MediaError when ``path`` is one of the ``inputs``: whatever may be overwritten, those may
    not."""
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise MediaError(f"{path} is what is read; write to another file")


def move_into_place(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Renames the whole file ``partial``, closed by now, as Windows wants it."""
    check_output_path(path, overwrite=overwrite)
    try:
        partial.replace(path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be put in place ({error.strerror}); is it open elsewhere?"
        ) from error


def container_options(path: Path) -> dict[str, str]:
    """use_metadata_tags keeps keys that MP4 has no box for; faststart lets players begin before the
    end has arrived."""
    return (
        {"movflags": "use_metadata_tags+faststart"}
        if path.suffix.lower() in {".mp4", ".m4v", ".mov"}
        else {}
    )
