"""The host's side: folders. The only importer of comfy.* and folder_paths."""

import os
from pathlib import Path

import folder_paths

from ..lipsync_core.hub import HUB

_FOLDER = "lipsync"
_SUFFIXES = {".safetensors", ".pth", ".pt"}
_HUB_MODELS = ("wav2lip", "wav2lip-gan")
_BUNDLED = "mini (bundled)"


def register_model_folder() -> None:
    """models/lipsync, beside whatever the user's extra_model_paths.yaml says."""
    known = folder_paths.folder_names_and_paths
    known.setdefault(_FOLDER, ([], set()))
    own = Path(folder_paths.models_dir) / _FOLDER
    folder_paths.add_model_folder_path(_FOLDER, str(own), is_default=True)
    known[_FOLDER][1].update(_SUFFIXES)


def model_names() -> list[str]:
    """What 'Load Lip Sync Model' offers."""
    hub = [f"{name} (Hub)" for name in _HUB_MODELS if name in HUB]
    return [_BUNDLED, *hub, *folder_paths.get_filename_list(_FOLDER)]


def input_files(kinds: list[str]) -> list[str]:
    """Files of the input folder whose names say that they are of these ``kinds`` (audio, video)."""
    folder = folder_paths.get_input_directory()
    if not Path(folder).is_dir():
        return []
    files = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return sorted(folder_paths.filter_files_content_types(files, kinds))


def video_folders() -> list[str]:
    """What 'Load Video Folder' offers."""
    folder = Path(folder_paths.get_input_directory())
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return ["demo", "(input folder)", *inside]
