"""Run inside the host's interpreter: make its torchvision and torchaudio what the test wants, then
start ComfyUI.

    python prepare.py (working|broken) COMFYUI_DIR [flags of ComfyUI ...]

A ComfyUI whose torch is a CPU build often has wheels of torchvision and torchaudio that were linked
against CUDA: their Python is whole, their native libraries do not load. Nothing below changes a
host where they do.
"""

import builtins
import runpy
import sys
import types
from pathlib import Path
from typing import Any

KEPT: list[Any] = []  # a torch.library.Library takes its schemas with it when it dies


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def prepare_torchvision() -> None:
    """Its import registers shape functions of two operators whose schemas live in the native
    library."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        forget("torchvision")
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)


def prepare_torchaudio() -> None:
    """Without its native library it can do all but forced alignment; told that there is none, it
    imports."""
    try:
        import torchaudio  # noqa: F401
    except (OSError, RuntimeError):
        forget("torchaudio")
        extension = types.ModuleType("torchaudio._extension")
        vars(extension).update(
            _IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda function: function
        )
        sys.modules[extension.__name__] = extension


def break_torchaudio() -> None:
    """Everybody's ``import torchaudio`` fails as it does beside a torch of another CUDA version,
    but that of ``comfy``: the newest hosts import it at the top of comfy.sd (LTX's sound, Gemma's)
    and would not start at all. Their own sound nodes (comfy_extras.nodes_audio: LoadAudio,
    SaveAudio ...) are then missing, as they really are on such machines."""
    honest = builtins.__import__

    def guarded(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:
        importer = ((globals or {}).get("__name__") or "").split(".")[0]
        if name.split(".")[0] == "torchaudio" and importer not in ("comfy", "torchaudio"):
            raise OSError(
                "libc10_cuda.so: cannot open shared object file: No such file or directory"
            )
        return honest(name, globals, *rest, **options)

    builtins.__import__ = guarded


def main() -> None:
    torchaudio, folder, *flags = sys.argv[1:]
    prepare_torchvision()
    prepare_torchaudio()
    if torchaudio == "broken":
        break_torchaudio()
    program = Path(folder) / "main.py"
    sys.path[0] = folder
    sys.argv = [str(program), *flags]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
