"""Import the names of a package with the first use of one."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_use(
    package: dict[str, Any], homes: Mapping[str, tuple[str, ...]]
) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package whose names come from its modules.

    Args:
        package: The ``globals()`` of its ``__init__``, where a name stays once it was imported.
        homes: The names of each module, which is written as seen from the package.

    Returns:
        The function. It raises AttributeError for other names.
    """
    here = str(package["__name__"])
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {here!r} has no attribute {name!r}")
        value = getattr(import_module(f".{home_of[name]}", here), name)
        package[name] = value
        return value

    return get
