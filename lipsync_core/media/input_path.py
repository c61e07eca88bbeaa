"""Check input paths, before any media library is loaded."""

from pathlib import Path

from ..errors import MediaError


def check_input_path(path: Path) -> None:
    """Check that ``path`` is a file with content.

    Raises:
        MediaError: If it is a folder, missing or empty.
    """
    if path.is_dir():
        raise MediaError(f"{path} is a folder; expected a file")
    if not path.is_file():
        raise MediaError(f"{path}: no such file; check the name")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy or download it again")
