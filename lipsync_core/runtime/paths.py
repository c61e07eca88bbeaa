"""Compare paths."""

from pathlib import Path


def same_file(first: object, second: object) -> bool:
    """Return whether two values are paths of one file, however they are spelled.

    Args:
        first: A path, or anything else, which is no file.
        second: The same.

    Returns:
        True for other spellings, links and, where the file system ignores it, another case.
    """
    if not isinstance(first, Path) or not isinstance(second, Path):
        return False
    try:
        return first.samefile(second)
    except OSError:  # one does not exist
        return first == second
