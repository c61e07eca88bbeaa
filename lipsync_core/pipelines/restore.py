"""Face restoration, the last stage of a dub: faces are cut out as the restoration networks know
them, restored and put back. Tensors in, tensors out; ``restorers`` opens the files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ..blend.blender import Blend, Blender, BlendState, FaceCrops, Mouth
from ..blend.masks import MaskKind
from ..errors import WeightsError
from ..image.affine import FFHQ, Framing, apply, compose, crop_to_frame, invert, scale_of, unit_maps
from ..image.crop import crop_frames, sample_affine
from ..models import checkpoint, hub
from ..models.precision import Precision, choose_dtype
from ..models.weights import weights_file
from ..runtime.options import Option
from ..types import AnyFrames, FaceTrack, Frames, References, YuvFrames
from .roles import ReferenceCrops, values_at, visible_in

# px of the crops, and the soft edge in them, in which is seen what lies before a face
_COMPARED, _EDGE = 96, 0.08
SIZE = 512  # px of a restored face: what GFPGAN, RestoreFormer and CodeFormer draw
# The mouth alone, unless asked; on a face the soft edge is as wide as a dub's (0.08 of a crop of
# 2.4 eye distances, this one being of 4.07). Its detail is what it was restored for.
MOUTH = Blend(feather=0.047, detail=0, grain=0)


@dataclass(frozen=True, slots=True, eq=False)
class Restorer:
    """A face restoration network, and how it is put back: ``network`` maps faces (N,3,512,512), RGB
    in [0,1], cut out as ``FFHQ`` says, to the same faces restored, on ``device``; ``blend``: under
    which mask, and how much of them is seen. ``name`` and ``licence`` are for reports.
    ``bfloat16``: convolutions run in that."""

    network: Callable[[Tensor], Tensor]
    name: str
    licence: str
    blend: Blend = MOUTH
    device: torch.device = torch.device("cpu")
    bfloat16: bool = False

    @torch.inference_mode()
    def __call__(self, faces: Tensor) -> Tensor:
        """(N,3,512,512) float32 where ``faces`` lie; nothing says that it stays within [0,1].
        ValueError for a network that gives another shape."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            made = self.network(faces.to(self.device))
        if made.shape != faces.shape:
            raise ValueError(
                f"{self.name} made {tuple(made.shape)} of {tuple(faces.shape)}; wanted the same shape"
            )
        return made.to(faces.device, torch.float32)


@torch.inference_mode()
def restored(
    frames: Iterable[AnyFrames],
    tracks: Sequence[FaceTrack],
    *,
    restorer: Restorer,
    shown: Sequence[Tensor | None] = (),
    clear: Sequence[References | None] = (),
    fps: Fraction = Fraction(25),
) -> Iterator[AnyFrames]:
    """``frames`` with the faces of ``tracks`` restored as ``restorer.blend`` says; frames in which
    no track is visible come back as they are. The stream does not depend on how the frames are cut
    into chunks.

    shown: for each track (T,) in [0,1], as in ``FaceDub``, or None for all of it; empty: None for
    each. A mouth that is not shown is not restored. clear: for each track what ``FaceDub.unoccluded`` is,
    for a blend whose occlusion is ``compare``. fps: of the frames, for what is eased over time.
    Every chunk is one batch; the faces travel to the restorer's device.
    """
    if shown and len(shown) != len(tracks):
        raise ValueError(
            f"shown has {len(shown)} entries for {len(tracks)} tracks; wanted one for each, or none at all"
        )
    nothing = [None] * len(tracks)
    faces = [
        _Face(track, opacity, _start(restorer, reference, fps))
        for track, opacity, reference in zip(
            tracks, shown or nothing, clear or nothing, strict=True
        )
    ]
    for chunk in frames:
        for face in faces:
            chunk = _restore_face(chunk, face, restorer)
        yield chunk


def enlargement(track: FaceTrack) -> float:
    """Frame pixels to one of a restored face, where the largest face of ``track`` is seen: above 1
    a face has more pixels than the network draws, and loses sharpness. 0 where nobody is seen."""
    seen = track.visible
    if not seen.any():
        return 0.0
    return float(
        scale_of(
            crop_to_frame(track.boxes[seen].float(), track.points[seen].float(), FFHQ, SIZE)
        ).amax()
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """A face while it is restored.

    Attributes:
        track: Where it is.
        opacity: (T,) in [0,1] of the restored face; None: 1.
        state: What its last frame hands to the next chunk.
    """

    track: FaceTrack
    opacity: Tensor | None
    state: BlendState


def _start(restorer: Restorer, reference: References | None, fps: Fraction) -> BlendState:
    crops = ReferenceCrops.of(reference, Framing(), _COMPARED)
    return Blender(restorer.blend, SIZE).start(
        fps, reference=None if crops is None else crops.crop(0)
    )


def _find_occlusion(
    frames: Frames | YuvFrames, points: Tensor, matrices: Tensor, index: Tensor, state: BlendState
) -> Tensor:
    """Return (N,1,SIZE,SIZE) the occlusion of faces in crops that ``matrices`` place.

    Compared in crops as a dub cuts them.
    """
    n = len(points)
    maps = crop_to_frame(points.new_zeros(n, 4), points, Framing(), _COMPARED)
    pixels = crop_frames(frames, maps, _COMPARED)
    faces = FaceCrops(maps, apply(invert(maps), points), pixels=pixels)
    blender = Blender(Blend(occlusion="compare", feather=_EDGE), _COMPARED)
    hidden = blender.find_occlusion(faces, index, state)
    assert hidden is not None
    squares = unit_maps(
        compose(invert(maps), matrices), [(_COMPARED, _COMPARED)] * n, [(SIZE, SIZE)] * n
    )
    return sample_affine(hidden, squares, (SIZE, SIZE))


def _restore_face(frames: AnyFrames, face: _Face, restorer: Restorer) -> AnyFrames:
    """Return frames with one face restored."""
    visible, track_index = visible_in(frames, face.track)
    index = torch.arange(len(visible)) + frames.start
    opacity = values_at(face.opacity, index)
    if opacity is not None:
        visible = visible & (opacity > 0)
        opacity = opacity[visible]
    if not visible.any() or not restorer.blend.strength:
        return frames
    whole, index = bool(visible.all()), index[visible]
    selected = frames if whole else replace(frames, pixels=frames.pixels[visible])
    boxes, points = (
        x[track_index[visible]].float().to(frames.pixels.device)
        for x in (face.track.boxes, face.track.points)
    )
    matrices = crop_to_frame(boxes, points, FFHQ, SIZE)
    pixels = crop_frames(selected, matrices, SIZE)
    faces = FaceCrops(matrices, apply(invert(matrices), points), pixels=pixels)
    blender = Blender(replace(restorer.blend, occlusion="ignore"), SIZE)
    mask = blender.make_mask(faces, index, face.state)
    if restorer.blend.occlusion == "compare":
        hidden = _find_occlusion(selected, points, matrices, index, face.state)
        mask = replace(mask, hidden=hidden)
    mouth = Mouth(restorer(pixels))
    out = blender.composite(selected, mouth, faces, mask, index, face.state, opacity)
    if whole:
        return out
    merged = frames.pixels.clone()
    merged[visible] = out.pixels
    return replace(frames, pixels=merged)


_WANTED = (
    "one that restores faces: GFPGAN, RestoreFormer, or CodeFormer through spandrel_extra_arches"
)
_PURPOSES = {  # spandrel's words
    "SR": "enlarges pictures",
    "Restoration": "restores pictures of any kind",
    "Inpainting": "fills holes in pictures",
}
# Architectures that we call ourselves, as the scripts of their authors do (gfpgan/utils.py,
# inference_codeformer.py): the picture in [-1,1], the result the first of two. spandrel's own call
# gives GFPGAN and CodeFormer a picture in [0,1], and lets GFPGAN draw fresh noise for every
# picture, which would flicker; with its stored noise a face is always the same.
_OPTIONS: dict[str, dict[str, Any]] = {
    "GFPGAN": {"return_rgb": False, "randomize_noise": False},
    "RestoreFormer": {},
    "CodeFormer": {"weight": 0.5},  # its authors' balance of quality (0) and likeness (1)
}
_CODEFORMER = {"position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight"}


@dataclass(frozen=True, slots=True)
class Restore:
    """Faces restored after the dub by ``network``, a public name (gfpgan, restoreformer,
    codeformer; pulled before) or a file (.pth, .safetensors); ``strength`` in [0,1] how much of the
    restored face is seen, under which ``mask``."""

    network: Annotated[
        Path | str,
        Option(
            "Sharpen the faces afterwards with gfpgan, restoreformer, codeformer or a weight file.",
            name="restore",
            metavar="NAME[:STRENGTH[:MASK]]",
        ),
    ]
    strength: Annotated[
        float,
        Option(
            "Opacity of the restored face: 0 shows the generated one.",
            minimum=0,
            maximum=1,
            step=0.05,
            name="restore_strength",
            hidden=True,
        ),
    ] = 1.0
    mask: Annotated[
        MaskKind,
        Option(
            "How much of the face is restored.",
            "mouth: mouth and chin. lower: its lower half. face: the whole face. box: the square.",
            name="restore_mask",
            hidden=True,
        ),
    ] = "mouth"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; wanted 0 (as it is) to 1 (restored)")


def load_restorer(
    restore: Restore, device: str | torch.device = "cpu", *, precision: Precision = "auto"
) -> Restorer:
    """The network that ``restore`` names. precision: see ``choose_dtype``; a network that spandrel
    does not let run in bfloat16 runs in float32.

    Nothing is downloaded and no code of a file is run. Raises WeightsError, which says what the
    file is instead, and ImportError without spandrel.
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
        found.supports_bfloat16 and choose_dtype(weight, precision) == torch.bfloat16,
    )


def restorer_for(
    restore: Restore | Restorer | None,
    blend: Blend,
    device: str | torch.device = "cpu",
    *,
    precision: Precision = "auto",
) -> Restorer | None:
    """The network that ``restore`` names, put back as it says, but not over what ``blend``, a
    dub's, finds before the faces by comparing; a parser does not look at them again. None for None.
    Raises as ``load_restorer``."""
    restorer = (
        load_restorer(restore, device, precision=precision)
        if isinstance(restore, Restore)
        else restore
    )
    if restorer is None or blend.occlusion != "compare":
        return restorer
    return replace(restorer, blend=replace(restorer.blend, occlusion="compare"))


def _licence(architecture: str, *, named: bool) -> str:
    public = hub.HUB.get(architecture.lower())
    if public is None:
        return "not stated by the file; ask whoever trained it"
    return (
        public.licence
        if named
        else f"not stated by the file; of the public weights: {public.licence}"
    )


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
            raise ImportError(
                'restoring faces needs spandrel: pip install "lipsync-core[restore]"'
            ) from error
        raise ImportError(
            f"spandrel does not import here ({str(error).partition(chr(10))[0]}); it needs a torchvision that was built for "
            f'torch {torch.__version__}: pip install "lipsync-core[restore]", with torch and torchvision of one release'
        ) from error
    # a host may have put the others there already
    known, reason = spandrel.MAIN_REGISTRY.copy(), ""
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
    """WeightsError unless spandrel's descriptor is of a network that restores faces and keeps their
    size."""
    if found.purpose != "FaceSR":
        does = _PURPOSES.get(found.purpose, f"is for {found.purpose}")
        raise WeightsError(
            f"{path} holds {found.architecture.name}, which {does}; wanted {_WANTED}"
        )
    shape = (found.input_channels, found.output_channels, found.scale)
    if shape != (3, 3, 1):
        got = "{} channels in, {} out, {} times the size".format(*shape)
        raise WeightsError(
            f"{path} holds {found.architecture.name} with {got}; wanted RGB in and out, of one size"
        )
    for key, tensor in found.model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: {key} holds numbers that are not finite; the file is damaged or mistrained"
            )


def _call(architecture: str, found: Any, module: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """The network as a function of faces in [0,1]; of other architectures, as spandrel calls it."""
    if architecture not in _OPTIONS:
        return found
    options = _OPTIONS[architecture]
    return lambda faces: (module(faces * 2 - 1, **options)[0] + 1) / 2
