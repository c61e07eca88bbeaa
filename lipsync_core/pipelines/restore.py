"""Face restoration, the last stage of a dub: crop faces, restore them, blend them in again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..blend.blender import Blender, BlendState, FaceCrops, Mouth
from ..errors import WeightsError
from ..image.affine import FFHQ, Framing, apply, compose, crop_to_frame, invert, scale_of, unit_maps
from ..image.crop import crop_frames, sample_affine
from ..models import checkpoint, hub
from ..models.precision import Precision, choose_dtype
from ..models.weights import weights_file
from ..options import Blend, Restore
from ..types import AnyFrames, FaceTrack, Frames, References, YuvFrames
from .roles import ReferenceCrops, values_at, visible_in

# px of the crops in which occluders are found, and their soft edge as a fraction of it
_COMPARED, _EDGE = 96, 0.08
SIZE = 512  # px of a restored face, the output of GFPGAN, RestoreFormer and CodeFormer
# By default only the mouth. The soft edge is as wide as a dub's (0.08 of a crop of 2.4 eye
# distances; this crop has 4.07). No texture is added: the network's detail is the purpose of
# restoration.
MOUTH = Blend(feather=0.047, detail=0, grain=0)


@dataclass(frozen=True, slots=True, eq=False)
class Restorer:
    """A face restoration network, and how its faces are blended in.

    Attributes:
        network: Maps faces (N,3,512,512), RGB in [0,1], framed by ``FFHQ``, to restored ones.
        name: For reports.
        licence: For reports.
        blend: Mask and strength.
        device: Of the network.
        bfloat16: Whether convolutions run in bfloat16.
    """

    network: Callable[[Tensor], Tensor]
    name: str
    licence: str
    blend: Blend = MOUTH
    device: torch.device = torch.device("cpu")
    bfloat16: bool = False

    @torch.inference_mode()
    def __call__(self, faces: Tensor) -> Tensor:
        """Restore faces.

        Args:
            faces: (N,3,512,512) RGB in [0,1].

        Returns:
            (N,3,512,512) float32 on the device of ``faces``; it may exceed [0,1].

        Raises:
            ValueError: If the network returns another shape.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            restored = self.network(faces.to(self.device))
        if restored.shape != faces.shape:
            raise ValueError(
                f"{self.name} returned {tuple(restored.shape)} for {tuple(faces.shape)}; expected "
                "the same shape"
            )
        return restored.to(faces.device, torch.float32)


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
    """Restore the faces of a stream.

    The result does not depend on how the frames are divided into chunks. Every chunk is one batch;
    the faces travel to the restorer's device.

    Args:
        frames: Chunks of consecutive frames.
        tracks: The faces.
        restorer: The network, and how its faces are blended in.
        shown: For each track (T,) opacity in [0,1], or None for 1; empty: None for each. A mouth
            with opacity 0 is not restored.
        clear: For each track ``FaceDub.unoccluded``, for a blend whose occlusion is ``compare``.
        fps: Frame rate, for temporal smoothing.

    Yields:
        The chunks with restored faces; frames that show no track are unchanged.

    Raises:
        ValueError: If ``shown`` has another number of entries than ``tracks``.
    """
    if shown and len(shown) != len(tracks):
        raise ValueError(
            f"shown has {len(shown)} entries for {len(tracks)} tracks; expected one each, or none"
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
    """Return frame pixels per pixel of a restored face, for the largest face of a track.

    Above 1 a face has more pixels than the network's output, and loses sharpness. 0 if no frame
    shows the face.
    """
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
    matrices = crop_to_frame(boxes, points, FFHQ, SIZE, aspect=face.track.pixel_aspect)
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


_EXPECTED = (
    "one that restores faces: GFPGAN, RestoreFormer, or CodeFormer through spandrel_extra_arches"
)
_PURPOSES = {  # by spandrel's name of the purpose
    "SR": "enlarges pictures",
    "Restoration": "restores pictures of any kind",
    "Inpainting": "fills holes in pictures",
}
# Architectures that are called here as in the scripts of their authors (gfpgan/utils.py,
# inference_codeformer.py): the picture in [-1,1], the result the first of two. spandrel's own call
# passes GFPGAN and CodeFormer a picture in [0,1], and lets GFPGAN use new noise for every picture,
# which would flicker; with its stored noise a face is always the same.
_OPTIONS: dict[str, dict[str, Any]] = {
    "GFPGAN": {"return_rgb": False, "randomize_noise": False},
    "RestoreFormer": {},
    "CodeFormer": {"weight": 0.5},  # its authors' balance of quality (0) and likeness (1)
}
_CODEFORMER = {"position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight"}


def load_restorer(
    restore: Restore, device: str | torch.device = "cpu", *, precision: Precision = "auto"
) -> Restorer:
    """Load a restoration network; nothing is downloaded and no code of a file is run.

    Args:
        restore: Name or file of the network, and how it is blended in.
        device: Of the network.
        precision: See ``choose_dtype``; a network that spandrel does not run in bfloat16 runs in
            float32.

    Returns:
        The network.

    Raises:
        WeightsError: If the file holds no such network; the message says what it holds.
        ImportError: Without spandrel.
    """
    path = weights_file(restore.network)
    checkpoint.file_format(path)  # raises for other files before anything heavy is imported
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
    """Load a restoration network that leaves occluders uncovered if the dub's blend does.

    Occluders are found by comparison; a parser is not run again.

    Args:
        restore: What to load; a loaded network; or None.
        blend: Of the dub.
        device: Of the network.
        precision: See ``choose_dtype``.

    Returns:
        The network, or None for None.

    Raises:
        WeightsError: See ``load_restorer``.
        ImportError: Without spandrel.
    """
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
        return "not stated by the file; ask its author"
    return (
        public.licence
        if named
        else f"not stated by the file; of the public weights: {public.licence}"
    )


def _described(path: Path) -> Any:
    """Return spandrel's descriptor of the network in a file."""
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
            f"spandrel does not import here ({str(error).partition(chr(10))[0]}); it needs a "
            f"torchvision that was built for torch {torch.__version__}: pip install "
            '"lipsync-core[restore]", with torch and torchvision of one release'
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
            f"{path} holds CodeFormer, which needs another package beside spandrel, and that does "
            f"not import here ({reason}): pip install spandrel_extra_arches. Licence of "
            f"CodeFormer: {hub.HUB['codeformer'].licence}"
        )
    try:
        return known.load(tensors)
    except spandrel.UnsupportedModelError as error:
        names = ", ".join(list(tensors)[:3])
        raise WeightsError(
            f"{path} holds no network that spandrel knows (tensors {names} ...); expected "
            f"{_EXPECTED}"
        ) from error
    except (RuntimeError, ValueError, LookupError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} does not fit the network that spandrel takes it for ({reason}); expected "
            f"{_EXPECTED}"
        ) from error


def _check(found: Any, path: Path) -> None:
    """Raise WeightsError unless a network restores faces and keeps their size."""
    if found.purpose != "FaceSR":
        does = _PURPOSES.get(found.purpose, f"is for {found.purpose}")
        raise WeightsError(
            f"{path} holds {found.architecture.name}, which {does}; expected {_EXPECTED}"
        )
    shape = (found.input_channels, found.output_channels, found.scale)
    if shape != (3, 3, 1):
        got = "{} channels in, {} out, {} times the size".format(*shape)
        raise WeightsError(
            f"{path} holds {found.architecture.name} with {got}; expected RGB in and out, "
            "of one size"
        )
    for key, tensor in found.model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: {key} holds numbers that are not finite; the file is damaged, or its "
                "training failed"
            )


def _call(architecture: str, found: Any, module: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Return the network as a function of faces in [0,1]; others as spandrel calls them."""
    if architecture not in _OPTIONS:
        return found
    options = _OPTIONS[architecture]
    return lambda faces: (module(faces * 2 - 1, **options)[0] + 1) / 2
