"""Lip sync: make any face speak any speech.

Importing this does no I/O and loads no network; torch and the media library come with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blend.blender import Blend
    from .errors import LipSyncError, MediaError, NoFaceError, WeightsError
    from .models.weights import load_model
    from .pipelines.dub import Cut, DubReport, Encoding, Finding, dub
    from .pipelines.lipsync import LipSync
    from .types import Audio, FaceTrack, Frames

__version__ = "0.1.0"

__all__ = [
    "Audio",
    "Blend",
    "Cut",
    "DubReport",
    "Encoding",
    "FaceTrack",
    "Finding",
    "Frames",
    "LipSync",
    "LipSyncError",
    "MediaError",
    "NoFaceError",
    "WeightsError",
    "dub",
    "load_model",
]

_HOMES = {
    "dubbing": ("Cut", "DubReport", "Encoding", "Finding", "dub"),
    "errors": ("LipSyncError", "MediaError", "NoFaceError", "WeightsError"),
    "blending": ("Blend",),
    "pipeline": ("LipSync",),
    "types": ("Audio", "FaceTrack", "Frames"),
    "weights": ("load_model",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
