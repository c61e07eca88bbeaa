"""Everything that uses ComfyUI's own modules: folders, progress, memory and models.

The nodes are listed when ComfyUI starts and used later, if at all: what only a run needs of the
core is imported in the function that needs it.
"""

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import nn

from ..lipsync_core.errors import LipSyncError, MediaError, WeightsError

if TYPE_CHECKING:
    from ..lipsync_core.types import Frames, YuvFrames

_log = logging.getLogger("lipsync.nodes")
T = TypeVar("T")

# the second is what packs that restore faces have
_MODELS, _RESTORERS = "lipsync", "facerestore_models"
_SUFFIXES = {".safetensors", ".pth", ".pt"}
BUNDLED = "mini (bundled)"
BUNDLED_TOO = {"mini-2 (bundled)": "mini-2"}  # what was bundled before, for one more release
HUB = {f"{name} (Hub)": name for name in ("wav2lip", "wav2lip-gan")}
HUB_RESTORERS = {f"{name} (Hub)": name for name in ("gfpgan", "restoreformer", "codeformer")}
INPUT_FOLDER = "(input folder)"
DEMO_FOLDER = "demo"
# an empty list would leave the widget without a value, and the graph invalid
NO_FILE = "(upload a file)"


# ---- folders and names


def register_model_folders() -> None:
    """Register models/lipsync and models/facerestore_models, besides folders of other packs."""
    known = folder_paths.folder_names_and_paths
    for name in (_MODELS, _RESTORERS):
        known.setdefault(name, ([], set()))
        own = Path(folder_paths.models_dir) / name
        folder_paths.add_model_folder_path(name, str(own), is_default=name == _MODELS)
        if name == _MODELS:  # so that a user finds where weights go
            with suppress(OSError):  # a folder that cannot be written to
                own.mkdir(parents=True, exist_ok=True)
        known[name][1].update(_SUFFIXES)


def model_names() -> list[str]:
    """Return the choices of 'Load LipSync Model'."""
    return [BUNDLED, *HUB, *BUNDLED_TOO, *folder_paths.get_filename_list(_MODELS)]


def model_file(name: str) -> Path:
    """Return a file of models/lipsync; WeightsError unless ComfyUI lists it."""
    if name not in folder_paths.get_filename_list(_MODELS) or not _is_plain(name):
        raise WeightsError(
            f"models/lipsync has no file {name!r}; reload the page to see what it has"
        )
    return Path(folder_paths.get_full_path_or_raise(_MODELS, name))


def restorer_names() -> list[str]:
    """Return the choices of 'Load Face Restorer'."""
    return [
        *HUB_RESTORERS,
        *dict.fromkeys(name for names in _restorer_files().values() for name in names),
    ]


def restorer_file(name: str) -> Path:
    """Return a file of models/facerestore_models or models/lipsync, or raise WeightsError."""
    for folder, names in _restorer_files().items():
        if name in names and _is_plain(name):
            return Path(folder_paths.get_full_path_or_raise(folder, name))
    raise WeightsError(
        f"neither models/{_RESTORERS} nor models/lipsync has a file {name!r}; reload the page to "
        "see the files"
    )


def _restorer_files() -> dict[str, list[str]]:
    """Weight files by folder; other packs keep other kinds of files there."""
    files = {folder: folder_paths.get_filename_list(folder) for folder in (_RESTORERS, _MODELS)}
    return {
        folder: [name for name in names if Path(name).suffix in _SUFFIXES]
        for folder, names in files.items()
    }


def input_names(kinds: list[str]) -> list[str]:
    """Return the input folder's files of these ``kinds`` (audio, video), or ``NO_FILE``."""
    folder = Path(folder_paths.get_input_directory())
    return (_files(folder, kinds) if folder.is_dir() else []) or [NO_FILE]


def input_file(name: str | None) -> Path:
    """Return the file that a widget names, in ComfyUI's input folder (or "[output]", "[temp]").

    Raises:
        MediaError: If it does not exist or is outside these folders; workflows are not trusted.
    """
    if name is None or name == NO_FILE:
        raise MediaError("no file is chosen; upload one, or connect a video")
    plain, folder = folder_paths.annotated_filepath(name)
    path = _inside(Path(folder or folder_paths.get_input_directory()), str(plain).strip())
    if not path.is_file():
        raise MediaError(
            f"{name!r} is not in ComfyUI's input folder; upload it again, or choose another file"
        )
    return path


def video_folders() -> list[str]:
    """Return the choices of 'Load Video Folder'."""
    folder = Path(folder_paths.get_input_directory())
    entries = folder.iterdir() if folder.is_dir() else ()
    return [
        DEMO_FOLDER,
        INPUT_FOLDER,
        *sorted(entry.name for entry in entries if entry.is_dir() and _stays(entry)),
    ]


def videos_in(name: str) -> list[Path]:
    """Return the videos of a folder of ``video_folders``, sorted by name.

    Raises:
        MediaError: If there is no such folder, or no video in it.
    """
    base = Path(folder_paths.get_input_directory())
    folder = base.resolve() if name == INPUT_FOLDER else _inside(base, name)
    if not folder.is_dir():
        raise MediaError(
            f"{name!r} is not a folder in ComfyUI's input folder; reload the page and choose "
            "another"
        )
    videos = [folder / file for file in _files(folder, ["video"])]
    if not videos:
        raise MediaError(f"the folder {name!r} holds no video; put some there, or choose 'demo'")
    return videos


def _files(folder: Path, kinds: list[str]) -> list[str]:
    """Names of the files of these ``kinds`` in an input folder, without links to elsewhere."""
    named = folder_paths.filter_files_content_types([path.name for path in folder.iterdir()], kinds)
    return sorted(name for name in named if (folder / name).is_file() and _stays(folder / name))


def _stays(path: Path) -> bool:
    """Whether ``path``, with links resolved, is in the input folder."""
    return path.resolve().is_relative_to(Path(folder_paths.get_input_directory()).resolve())


def _is_plain(name: str) -> bool:
    """Whether ``name`` stays below its start, read as Windows and as POSIX read it.

    This is checked before the disk is accessed: a UNC name makes Windows log in to that server.
    """
    path = PureWindowsPath(name)
    streams = os.name == "nt" and ":" in name  # NTFS keeps others beside a file's own
    return bool(path.parts) and not (
        path.drive or path.root or ".." in path.parts or "\0" in name or streams
    )


def _inside(base: Path, name: str) -> Path:
    """Resolve ``base``/``name``; MediaError if that leaves ``base``, by name or by a link."""
    base = base.resolve()
    path = (base / name).resolve() if _is_plain(name) else None
    if path is None or not path.is_relative_to(base):
        raise MediaError(
            f"{name!r} does not lie in ComfyUI's folders; choose a file of its input folder"
        )
    return path


def input_stamp(name: str | None) -> str:
    """Return a value that changes with the file of ``input_file``."""
    return _stamp(lambda: [] if name is None else [input_file(name)])


def model_stamp(name: str | None) -> str:
    """Return a value that changes with the file of ``model_file``."""
    return _stamp(
        lambda: [] if name is None or name in (BUNDLED, *BUNDLED_TOO, *HUB) else [model_file(name)]
    )


def restorer_stamp(name: str | None) -> str:
    """Return a value that changes with the file of ``restorer_file``."""
    return _stamp(lambda: [] if name is None or name in HUB_RESTORERS else [restorer_file(name)])


def folder_stamp(name: str | None) -> str:
    """Return a value that changes with the videos of ``videos_in``."""
    return _stamp(lambda: [] if name is None or name == DEMO_FOLDER else videos_in(name))


def _stamp(paths: Callable[[], list[Path]]) -> str:
    try:
        found = [(path.name, path.stat()) for path in paths()]
    except (LipSyncError, OSError):
        return "missing"
    return "\n".join(f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in found)


def temp_folder(name: str = "") -> Path:
    """Create a folder in ComfyUI's temporary folder, which is emptied when ComfyUI starts."""
    folder = Path(folder_paths.get_temp_directory()) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def temp_file(suffix: str, of: Path | None = None) -> Path:
    """Return an unused file name in ComfyUI's temporary folder, begun with that of ``of``."""
    stem = "" if of is None else f"{_MADE.sub('', of.stem)[:80]}-"
    return temp_folder() / f"{stem}lipsync-{secrets.token_hex(8)}{suffix}"


_MADE = re.compile(r"-?lipsync-[0-9a-f]{16}$")  # of a file that we made


# ---- progress


class Progress:
    """One progress bar for the stages of a run; call it like ``on_progress`` of the core.

    Every call raises ComfyUI's exception if the user pressed Cancel.

    Args:
        stages: Share of the time that each stage takes.
    """

    def __init__(self, stages: Mapping[str, float]) -> None:
        ends = list(accumulate(stages.values(), initial=0.0))
        self._spans = {
            stage: (ends[i] / ends[-1], ends[i + 1] / ends[-1]) for i, stage in enumerate(stages)
        }
        self._bar = comfy.utils.ProgressBar(_STEPS)
        self._at = 0.0
        self._shown = 0.0  # seconds: when the last picture went out

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Move the bar to ``done`` of ``total`` steps of a stage."""
        cancel_point()
        if stage in self._spans:
            begin, end = self._spans[stage]
            self._at = max(
                self._at, begin + (end - begin) * min(1.0, done / total if total else 0.0)
            )
        self._bar.update_absolute(round(self._at * _STEPS), _STEPS)

    def show(self, frames: "Frames | YuvFrames") -> None:
        """Show the last of ``frames`` on the node, at most twice a second."""
        cancel_point()
        now = time.monotonic()
        if now - self._shown >= _PREVIEW_SECONDS:
            self._shown = now
            self._bar.update_absolute(
                round(self._at * _STEPS), _STEPS, ("JPEG", _picture(frames), _PREVIEW_SIDE)
            )


_STEPS = 1000
_PREVIEW_SECONDS = 0.5
_PREVIEW_SIDE = 512  # px


def cancel_point() -> None:
    """Raise ComfyUI's exception if the user pressed Cancel."""
    mm.throw_exception_if_processing_interrupted()


def _picture(frames: "Frames | YuvFrames") -> Image.Image:
    """The last frame as a small PIL image."""
    from ..lipsync_core.image.yuv import to_rgb
    from ..lipsync_core.types import YuvFrames

    if isinstance(frames, YuvFrames):
        step = max(1, frames.chroma.shape[3] // (_PREVIEW_SIDE // 2))
        luma, chroma = (
            frames.luma[-1:, :, :: 2 * step, :: 2 * step],
            frames.chroma[-1:, :, ::step, ::step],
        )
        height, width = (min(a, b) for a, b in zip(luma.shape[2:], chroma.shape[2:], strict=True))
        codes = torch.cat([luma[..., :height, :width], chroma[..., :height, :width]], 1).float()
        small = to_rgb(codes, frames.colour)[0].permute(1, 2, 0) * 255
    else:
        step = max(1, frames.pixels.shape[2] // _PREVIEW_SIDE)
        small = frames.pixels[-1, ::step, ::step].float()
        small = small if frames.pixels.dtype == torch.uint8 else small * 255
    return Image.fromarray(small.round().clamp(0, 255).to("cpu", torch.uint8).contiguous().numpy())


# ---- memory and models


def device() -> torch.device:
    """Return the device on which models run."""
    return mm.get_torch_device()


def output_device() -> torch.device:
    """Return the device of tensors that are passed between nodes."""
    return mm.intermediate_device()


def refuse_unless_fits(wanted_bytes: int, what: str, instead: str) -> None:
    """Check that a node's output fits into the free memory, with a reserve of a tenth.

    Raises:
        LipSyncError: If it does not, with the sizes and ``instead``: what to do.
    """
    free = _free_bytes(output_device())
    if wanted_bytes > 0.9 * free:
        figures = f"{what} would take {wanted_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise LipSyncError(f"{figures}; {instead}")


def _free_bytes(where: torch.device) -> int:
    free = int(mm.get_free_memory(where))
    if where.type != "cpu":
        return free
    # a container's limit, of which psutil, and so the host, knows nothing
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (
            int((group / name).read_text("ascii")) for name in ("memory.max", "memory.current")
        )
        stat = dict(
            line.split() for line in (group / "memory.stat").read_text("ascii").splitlines()
        )
        # what files take can be had back
        return min(free, most - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return free


def managed(model: nn.Module) -> Any:
    """Wrap ``model`` for ComfyUI's memory management, which moves it on and off the device."""
    return comfy.model_patcher.ModelPatcher(model, mm.get_torch_device(), mm.unet_offload_device())


def loaded(patcher: Any) -> nn.Module:
    """Return the model of ``patcher``, on its device.

    A batch of 96 px faces takes a few MB, which ComfyUI's own reserve covers.
    """
    mm.load_models_gpu([patcher], force_full_load=True)
    return patcher.model


def halving(batch: int, run: Callable[[int], T]) -> T:
    """Call ``run(batch)``, halving the batch while the device is out of memory, down to 1."""
    while True:
        try:
            return run(batch)
        except mm.OOM_EXCEPTION:
            if batch == 1:
                raise
        batch //= 2
        _log.warning("the device's memory does not suffice; going on with batches of %d", batch)
        mm.soft_empty_cache()


@lru_cache(maxsize=2)
def bundled_model(name: str = "mini") -> Any:
    """Load a bundled model once, managed by ComfyUI."""
    from ..lipsync_core.models.weights import load_talking_face

    return managed(load_talking_face(name))


def generator(name: str, progress: Progress) -> Any:
    """Load a model of ``model_names``, managed by ComfyUI; WeightsError if that fails."""
    from ..lipsync_core.models.weights import load_talking_face

    if name == BUNDLED:
        return bundled_model()
    if name in BUNDLED_TOO:
        return bundled_model(BUNDLED_TOO[name])
    path = pull_weights(HUB[name], progress) if name in HUB else model_file(name)
    return managed(load_talking_face(path))


def restorer(name: str, progress: Progress) -> Path | str:
    """Return the network argument of ``Restore`` for a name of ``restorer_names``.

    Downloads it if it is missing.

    Raises:
        WeightsError: If there is no such file.
        LipSyncError: If a required package is missing.
    """
    _require_package("spandrel", "ComfyUI's own requirements name it")
    if name not in HUB_RESTORERS:
        return restorer_file(name)
    if HUB_RESTORERS[name] == "codeformer":
        _require_package(
            "spandrel_extra_arches", "its licence is that of CodeFormer, non-commercial use only"
        )
    pull_weights(HUB_RESTORERS[name], progress)
    return HUB_RESTORERS[name]


def _require_package(package: str, note: str) -> None:
    if find_spec(package) is None:
        raise LipSyncError(
            f"this face restorer needs the package {package} ({note}); install it with ComfyUI's "
            f"Python: python -m pip install {package}"
        )


def free_device_memory(wanted_bytes: int) -> None:
    """Ask ComfyUI to free device memory, for a network that it does not manage."""
    if mm.get_torch_device().type != "cpu":
        mm.free_memory(wanted_bytes, mm.get_torch_device())


def pull_weights(name: str, progress: Progress) -> Path:
    """Return a weight file of the core's table of public files; download it if missing."""
    from ..lipsync_core.models.hub import pull

    return pull(name, on_progress=lambda done, total: progress("pull", done, total))


def blocked(message: str) -> ExecutionBlocker:
    """Return an output that shows ``message`` on the nodes connected to it."""
    return ExecutionBlocker(message)
