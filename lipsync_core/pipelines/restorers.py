"""Face restoration networks in files: whatever `spandrel` (MIT) knows as one, and CodeFormer through spandrel_extra_arches.

spandrel builds the network. It never opens the file: of its own readers one unpickles and one runs TorchScript, and
``foreign`` reads tensors and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..blend.blender import Blend
from ..blend.masks import MaskKind
from ..errors import WeightsError
from ..models import checkpoint, hub
from ..models.precision import Precision, arithmetic
from ..models.weights import weights_file
from .restore import MOUTH, Restorer

_WANTED = "one that restores faces: GFPGAN, RestoreFormer, or CodeFormer through spandrel_extra_arches"
_PURPOSES = {  # spandrel's words
    "SR": "enlarges pictures",
    "Restoration": "restores pictures of any kind",
    "Inpainting": "fills holes in pictures",
}
# Architectures that we call ourselves, as the scripts of their authors do (gfpgan/utils.py, inference_codeformer.py): the
# picture in [-1,1], the result the first of two. spandrel's own call gives GFPGAN and CodeFormer a picture in [0,1], and
# lets GFPGAN draw fresh noise for every picture, which would flicker; with its stored noise a face is always the same.
_OPTIONS: dict[str, dict[str, Any]] = {
    "GFPGAN": {"return_rgb": False, "randomize_noise": False},
    "RestoreFormer": {},
    "CodeFormer": {"weight": 0.5},  # its authors' balance of quality (0) and likeness (1)
}
_CODEFORMER = {"position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight"}


@dataclass(frozen=True, slots=True)
class Restore:
    """Faces restored after the dub by ``network``, a public name (gfpgan, restoreformer, codeformer; pulled before) or a file
    (.pth, .safetensors); ``strength`` in [0,1] how much of the restored face is seen, under which ``mask``."""

    network: Path | str
    strength: float = 1.0
    mask: MaskKind = "mouth"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; wanted 0 (as it is) to 1 (restored)")


def load_restorer(restore: Restore, device: str | torch.device = "cpu", *, precision: Precision = "auto") -> Restorer:
    """The network that ``restore`` names. precision: see ``arithmetic``; a network that spandrel does not let run in
    bfloat16 runs in float32.

    Nothing is downloaded and no code of a file is run. Raises WeightsError, which says what the file is instead, and
    ImportError without spandrel.
    """
    path = weights_file(restore.network)
    checkpoint.file_format(path)  # refuses what is no weight file before anything heavy is imported
    found = _described(path)
    _check(found, path)
    module = found.model.eval().requires_grad_(False).to(device)
    weight = next(module.parameters())
    architecture = str(found.architecture.id)
    return Restorer(
        _call(architecture, found, module),
        architecture,
        _licence(architecture, named=str(restore.network) in hub.HUB),
        replace(MOUTH, mask=restore.mask, strength=restore.strength),
        weight.device,
        found.supports_bfloat16 and arithmetic(weight, precision) == torch.bfloat16,
    )


def restorer_for(
    restore: Restore | Restorer | None,
    blend: Blend,
    device: str | torch.device = "cpu",
    *,
    precision: Precision = "auto",
) -> Restorer | None:
    """The network that ``restore`` names, put back as it says, but not over what ``blend``, a dub's, finds before the faces by
    comparing; a parser does not look at them again. None for None. Raises as ``load_restorer``."""
    restorer = load_restorer(restore, device, precision=precision) if isinstance(restore, Restore) else restore
    if restorer is None or blend.occlusion != "compare":
        return restorer
    return replace(restorer, blend=replace(restorer.blend, occlusion="compare"))


def _licence(architecture: str, *, named: bool) -> str:
    public = hub.HUB.get(architecture.lower())
    if public is None:
        return "not stated by the file; ask whoever trained it"
    return public.licence if named else f"not stated by the file; of the public weights: {public.licence}"


def _described(path: Path) -> Any:
    """spandrel's descriptor of the network in a file."""
    try:
        import spandrel
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # beside another build of torch, torchvision fails with all three
        if isinstance(error, ModuleNotFoundError) and error.name == "spandrel":
            raise ImportError('restoring faces needs spandrel: pip install "lipsync-core[restore]"') from error
        raise ImportError(
            f"spandrel does not import here ({str(error).partition(chr(10))[0]}); it needs a torchvision that was built for "
            f'torch {torch.__version__}: pip install "lipsync-core[restore]", with torch and torchvision of one release'
        ) from error
    known, reason = spandrel.MAIN_REGISTRY.copy(), ""  # a host may have put the others there already
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError as error:
        reason = str(error)
    else:
        known.add(*(support for support in EXTRA_REGISTRY if support.architecture.id not in known))
    tensors = checkpoint.read_as_named(path)
    if "CodeFormer" not in known and set(tensors) >= _CODEFORMER:
        raise WeightsError(
            f"{path} holds CodeFormer, which spandrel leaves to another package, and that does not import here ({reason}): "
            f"pip install spandrel_extra_arches. Licence of CodeFormer: {hub.HUB['codeformer'].licence}"
        )
    try:
        return known.load(tensors)
    except spandrel.UnsupportedModelError as error:
        names = ", ".join(list(tensors)[:3])
        raise WeightsError(
            f"{path} holds no network that spandrel knows (tensors {names} ...); wanted {_WANTED}"
        ) from error
    except (RuntimeError, ValueError, LookupError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} does not fit the network that spandrel takes it for ({reason}); wanted {_WANTED}"
        ) from error


def _check(found: Any, path: Path) -> None:
    """WeightsError unless spandrel's descriptor is of a network that restores faces and keeps their size."""
    if found.purpose != "FaceSR":
        does = _PURPOSES.get(found.purpose, f"is for {found.purpose}")
        raise WeightsError(f"{path} holds {found.architecture.name}, which {does}; wanted {_WANTED}")
    shape = (found.input_channels, found.output_channels, found.scale)
    if shape != (3, 3, 1):
        got = "{} channels in, {} out, {} times the size".format(*shape)
        raise WeightsError(f"{path} holds {found.architecture.name} with {got}; wanted RGB in and out, of one size")
    for key, tensor in found.model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: {key} holds numbers that are not finite; the file is damaged or mistrained")


def _call(architecture: str, found: Any, module: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """The network as a function of faces in [0,1]; of other architectures, as spandrel calls it."""
    if architecture not in _OPTIONS:
        return found
    options = _OPTIONS[architecture]
    return lambda faces: (module(faces * 2 - 1, **options)[0] + 1) / 2
