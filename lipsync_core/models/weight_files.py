"""Find weight files: bundled with this package, pulled, or given by path."""

from pathlib import Path

from ..errors import WeightsError
from . import hub

_ASSETS = Path(__file__).parents[1] / "assets"
_NAMES = ("mini", "mini-2", "judge", "face_detector", "face_landmarks")
BUNDLED = {name: _ASSETS / f"{name}.safetensors" for name in _NAMES}


def weights_file(name_or_path: str | Path) -> Path:
    """Return the path of weights.

    Args:
        name_or_path: a bundled name, a public name of ``hub.HUB`` (pulled before; its hash is
            checked), or a path.

    Raises:
        WeightsError: If the name is unknown, or the public file is missing or damaged.
    """
    name = str(name_or_path)
    if name in BUNDLED:
        return BUNDLED[name]
    if name in hub.HUB:
        return hub.find_file(name)
    path = Path(name_or_path)
    if not path.exists() and path.name == name and not path.suffix:
        names = ", ".join([*BUNDLED, *hub.HUB])
        raise WeightsError(
            f"no weights are called {name!r}, and there is no such file; known names: {names}"
        )
    return path


def check_weights(name_or_path: str | Path) -> None:
    """Check that weights are on this machine, without reading them.

    Args:
        name_or_path: a bundled name, a public name, or a path.

    Raises:
        WeightsError: If they are not.
    """
    if str(name_or_path) in hub.HUB:
        hub.locate_file(str(name_or_path))
    else:
        check_weights_path(weights_file(name_or_path))


def check_weights_path(path: Path) -> None:
    """Check that a weight file exists.

    Raises:
        WeightsError: If it does not, or is a folder.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected a weight file"
        )
