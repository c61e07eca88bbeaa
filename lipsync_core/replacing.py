"""Files that appear under their name when they are whole."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def partial_of(path: Path) -> Path:
    """A temporary name beside ``path``, with its suffix, which tells writers the format."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix.lower()}")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary name beside ``path``, which takes its place when the block ends, and is removed if it raises."""
    part = partial_of(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
