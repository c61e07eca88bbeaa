"""Notice that files have changed, by size and time, and by content where the time is not enough."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

Fingerprint = dict[str, Any]
"""{"size": bytes, "mtime_ns": time of the last change, "sha256": hash of the content}."""


def fingerprint_files(paths: Iterable[str]) -> dict[str, Fingerprint | None]:
    """Describe the content of files.

    Args:
        paths: The files.

    Returns:
        The fingerprint of each path; None for those that cannot be read.
    """
    return {path: _fingerprint(Path(path)) for path in paths}


def changed_files(recorded: Mapping[str, Fingerprint | None]) -> list[str]:
    """List the files whose content is another than recorded.

    A file is hashed only if its time differs and its size does not. Files that are gone have
    not changed: nothing could be made of them again.

    Args:
        recorded: Result of ``fingerprint_files``.

    Returns:
        The paths.
    """
    return [path for path, before in recorded.items() if _has_changed(Path(path), before)]


def _has_changed(path: Path, before: Fingerprint | None) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    if before is None or now.st_size != before["size"]:
        return True
    if now.st_mtime_ns == before["mtime_ns"]:
        return False
    return (_fingerprint(path) or before)["sha256"] != before["sha256"]


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        facts = path.stat()
        digest = _sha256(path, facts.st_size, facts.st_mtime_ns)
    except OSError:
        return None
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "sha256": digest}


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file; size and time tell files of the same name apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
