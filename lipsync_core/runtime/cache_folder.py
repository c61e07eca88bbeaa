"""The folder in which this program keeps what it can make or fetch again."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def find_cache_folder(variable: str) -> Path:
    """Return the cache folder, which may not exist yet.

    Args:
        variable: an environment variable that names another folder.

    Returns:
        That folder if the variable is set, else ``lipsync`` in the platform's cache folder:
        ``LOCALAPPDATA`` on Windows, ``~/Library/Caches`` on macOS, ``XDG_CACHE_HOME`` or
        ``~/.cache`` elsewhere.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    return user_cache_path("lipsync", appauthor=False)
