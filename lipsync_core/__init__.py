"""Lip sync: make any face speak any speech.

Importing this does no I/O and loads no network; torch and the media library come with the first
name that needs them.
"""

from typing import TYPE_CHECKING

from ._version import __version__ as __version__
from .runtime.lazy_names import import_on_use

if TYPE_CHECKING:
    from .errors import LipSyncError, MediaError, NoFaceError, WeightsError
    from .models.weights import load_model
    from .options import Blend, Cut, Encoding, Finding
    from .pipelines.dub import DubReport, dub
    from .pipelines.lipsync import LipSync
    from .types import Audio, FaceTrack, Frames

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
    "errors": ("LipSyncError", "MediaError", "NoFaceError", "WeightsError"),
    "models.weights": ("load_model",),
    "options": ("Blend", "Cut", "Encoding", "Finding"),
    "pipelines.dub": ("DubReport", "dub"),
    "pipelines.lipsync": ("LipSync",),
    "types": ("Audio", "FaceTrack", "Frames"),
}

__getattr__ = import_on_use(globals(), _HOMES)
