"""Convert IMAGE, AUDIO, BOUNDING_BOX, FACE_LANDMARKS and MASK to types of the core, and back.

The host's values are checked here, because every pack makes its own. Only this module drops an
alpha channel.
"""

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..lipsync_core.errors import MediaError
from ..lipsync_core.faces.external import five_points_from_mesh
from ..lipsync_core.faces.selection import rows_by_scene
from ..lipsync_core.image.landmarks import (
    INNER_LIPS,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE_BASE,
    NOSE_BRIDGE,
    OUTER_LIPS,
    POINTS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from ..lipsync_core.types import Audio, FaceTrack, Frames
from . import host

_log = logging.getLogger("lipsync.nodes")


def rate(fps: float) -> Fraction:
    """Convert a widget's frames per second to a fraction: 29.97 is 30000/1001."""
    for base in (24, 30, 48, 60, 120):
        ntsc = Fraction(base * 1000, 1001)
        if abs(fps - ntsc) < 0.006:
            return ntsc
    return Fraction(fps).limit_denominator(1000)


def seconds(value: float) -> Fraction:
    """Convert a widget's seconds, or another decimal, to a fraction."""
    return Fraction(value).limit_denominator(1_000_000)


def frames(image: Tensor) -> Frames:
    """Convert an IMAGE to frames.

    Args:
        image: (B,H,W,C) float: one channel is gray, a fourth one (alpha) is dropped. Values outside
            [0,1] and NaN are clamped as ComfyUI's own preview does, with a warning.

    Returns:
        (B,H,W,3) float in [0,1].

    Raises:
        ValueError: The shape or type is another.
    """
    if image.ndim != 4 or image.shape[3] not in (1, 3, 4) or not image.is_floating_point():
        raise ValueError(
            f"the image is {tuple(image.shape)} {image.dtype}; expected (frames, height, width, 3) "
            "float"
        )
    if 0 in image.shape:
        raise ValueError(
            f"the image is {tuple(image.shape)}: it holds no pixel; connect a batch with frames in "
            "it"
        )
    pixels = image[..., :3]
    pixels = pixels.expand(*pixels.shape[:3], 3)
    low, high = (float(value) for value in pixels.aminmax())  # NaN where there is one
    if not (low >= 0 and high <= 1):
        _log.warning(
            "the image has values from %g to %g; expected 0 to 1: they are clamped, NaN is black",
            low,
            high,
        )
        pixels = pixels.nan_to_num(0.0).clamp(0, 1)
    return Frames(pixels.detach())


def image(pixels: Tensor) -> Tensor:
    """Convert pixels to an IMAGE on the host's output device.

    Args:
        pixels: (N,H,W,3), or one picture (H,W,3), uint8 in [0,255] or float in [0,1].

    Returns:
        (N,H,W,3) float32 in [0,1].
    """
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    whole = pixels.dtype == torch.uint8
    pixels = pixels.to(host.output_device(), torch.float32)
    return pixels / 255 if whole else pixels.contiguous()


def mask(opacity: Tensor) -> Tensor:
    """Convert opacities (N,H,W) in [0,1] to a MASK on the host's output device."""
    return opacity.to(host.output_device(), torch.float32)


def audio(value: Any, what: str = "the audio", index: int | None = None) -> Audio:
    """Convert an AUDIO to samples on the CPU.

    Args:
        value: {"waveform": (1,C,T) float, "sample_rate": Hz}; also such a mapping that reads the
            sound on first access.
        what: Its name in errors.
        index: Which sound of a batch is taken; None if there must be only one.

    Raises:
        MediaError: There is no audio, or it is empty.
        ValueError: It is not an AUDIO.
    """
    waveform, sample_rate = _sound_parts(value, what)
    if not isinstance(waveform, Tensor) or waveform.ndim != 3:
        shape = tuple(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
        raise ValueError(
            f"the waveform of {what} is {shape}; expected (1, channels, samples) float"
        )
    if not waveform.is_floating_point():
        raise ValueError(
            f"the waveform of {what} is {waveform.dtype}; expected float from -1 to 1: divide "
            "whole numbers by their largest value (32768 for int16) where the sound is made"
        )
    batch, channels, length = waveform.shape
    if index is None and batch > 1:
        raise ValueError(
            f"{what} is a batch of {batch} sounds; expected one: choose it by 'index' in 'Load "
            "Audio (LipSync)', whose input 'audio' takes the batch"
        )
    if not batch or not channels or not length:
        raise MediaError(
            f"{what} is empty ({batch} sounds, {channels} channels, {length} samples); {_CONNECT}"
        )
    if index is not None and index >= batch:
        raise ValueError(f"{what} has no sound {index}; its {batch} count from 0 to {batch - 1}")
    samples = waveform[index or 0].detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(samples).all()):
        _log.warning("%s has samples that are NaN or infinite: they are made silent", what)
        samples = samples.nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return Audio(samples, int(sample_rate))


_CONNECT = "connect an audio with sound, for example of 'Load Audio (LipSync)'"


def _sound_parts(value: Any, what: str) -> tuple[Any, Any]:
    """The waveform and the sample rate of an AUDIO, which may be read only now."""
    if value is None:
        raise MediaError(f"{what} is missing: the video has no sound; {_CONNECT}")
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{what} is {type_name(value)}; expected an AUDIO with waveform and sample_rate"
        )
    try:
        return value["waveform"], value["sample_rate"]
    except KeyError as error:
        raise ValueError(
            f"{what} has no {error} (only {', '.join(map(str, value)) or 'nothing'}); expected an "
            "AUDIO with waveform and sample_rate"
        ) from error
    except Exception as error:  # of the pack that made it, which reads the file on first access
        host.cancel_point()
        raise MediaError(
            f"{what} cannot be read ({error}); most often its video has no sound: {_CONNECT}"
        ) from error


def type_name(value: Any) -> str:
    """Name what a socket got, such as "an AUDIO" or "a list"."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        kinds = {"waveform": "an AUDIO", "samples": "a LATENT"}
        found = [kind for key, kind in kinds.items() if key in set(value)]
        return (found or ["a dictionary"])[0]
    return "nothing" if value is None else f"a {type(value).__name__}"


def audio_value(sound: Audio) -> dict[str, Any]:
    """Convert samples to an AUDIO on the host's output device."""
    return {"waveform": sound.samples[None].to(host.output_device()), "sample_rate": sound.rate}


def boxes_by_frame(value: Any) -> list[Tensor]:
    """Convert a BOUNDING_BOX to boxes by frame.

    Args:
        value: A box, a list of boxes (both for one frame), or a list of boxes for each frame.

    Returns:
        (F,4) xyxy for each frame.

    Raises:
        ValueError: It is of another form.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(
            f"bboxes is a {type(value).__name__}; expected a box, a list of boxes, or a list for "
            "each frame"
        )
    if all(isinstance(item, Mapping) for item in value):
        return [_boxes(value)]
    if not all(isinstance(item, Sequence) and not isinstance(item, str) for item in value):
        raise ValueError(
            "bboxes mixes boxes and lists; expected a box, a list of boxes, or a list for each "
            "frame"
        )
    return [_boxes(item) for item in value]


def _boxes(items: Sequence[Any]) -> Tensor:
    rows: list[list[float]] = []
    for item in items:
        try:
            x, y, width, height = (float(item[key]) for key in ("x", "y", "width", "height"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"a bounding box is {item!r}; expected numbers x, y, width and height"
            ) from error
        if not (width > 0 and height > 0 and abs(x) + abs(y) + width + height < float("inf")):
            raise ValueError(
                f"a bounding box is {item!r}; expected finite numbers, width and height above 0"
            )
        rows.append([x, y, x + width, y + height])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def bounding_boxes(tracks: Sequence[FaceTrack], count: int) -> list[list[dict[str, Any]]]:
    """Convert tracks to a BOUNDING_BOX.

    Args:
        tracks: The tracks.
        count: Number of frames.

    Returns:
        A list of boxes for each frame, each labeled with the number that 'Select Face' uses: its
        place in the row of the scene.
    """
    by_frame: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for number, track in (
        (place, track) for row in rows_by_scene(tracks) for place, track in enumerate(row)
    ):
        for index in track.visible.nonzero().flatten().tolist():
            x0, y0, x1, y1 = track.boxes[index].tolist()
            box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": str(number)}
            if 0 <= track.start + index < count:
                by_frame[track.start + index].append(box)
    return by_frame


def landmarks_by_frame(value: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Convert a FACE_LANDMARKS of ComfyUI's own node, or of 'Detect Faces', to tensors by frame.

    Args:
        value: FACE_LANDMARKS.

    Returns:
        For each frame the boxes (F,4), the five points (F,5,2), and the whole mesh (F,468,2) or our
        own points (F,102,2).

    Raises:
        ValueError: It is of another form.
    """
    frames = value.get("frames") if isinstance(value, Mapping) else None
    if not isinstance(frames, Sequence):
        raise ValueError(
            f"face_landmarks is a {type(value).__name__}; expected that of ComfyUI's own face "
            "landmark node"
        )
    try:
        boxes = [_rows([face["bbox_xyxy"] for face in faces], 4) for faces in frames]
        meshes = [
            [torch.as_tensor(face["landmarks_xy"]).float() for face in faces] for faces in frames
        ]
        points = [_rows([five_points_from_mesh(mesh) for mesh in faces], 5, 2) for faces in meshes]
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"face_landmarks cannot be read ({error!r}); expected those of ComfyUI's own node"
        ) from error
    size = min([_MESH, *(len(mesh) for faces in meshes for mesh in faces)])
    return boxes, points, [_rows([mesh[:size] for mesh in faces], size, 2) for faces in meshes]


def face_landmarks(
    tracks: Sequence[FaceTrack], count: int, width: int, height: int
) -> dict[str, Any]:
    """Convert dense points of tracks to the FACE_LANDMARKS of ComfyUI's own face landmark node.

    Depth and blendshapes, which only a whole mesh has, and faces without clear landmarks are left
    out.

    Args:
        tracks: The tracks.
        count: Number of frames.
        width: Width of the frames in px.
        height: Height of the frames in px.

    Returns:
        A list of faces for each frame, with box, points and confidence; and which points are joined
        to parts of a face, by which the host's nodes draw and mask.
    """
    frames: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for track in tracks:
        if track.dense is None or track.dense.shape[1] != POINTS:
            continue
        for index in track.visible.nonzero().flatten().tolist():
            score = 1.0 if track.dense_scores is None else float(track.dense_scores[index])
            face = {
                "bbox_xyxy": track.boxes[index].float().numpy(),
                "landmarks_xy": track.dense[index].float().numpy(),
            }
            if 0 <= track.start + index < count:
                frames[track.start + index].append(
                    {**face, "score": score, "presence": score, "blendshapes": {}}
                )
    return {"frames": frames, "image_size": (height, width), "connection_sets": CONNECTIONS}


def _path(*points: slice, closed: bool = False) -> frozenset[tuple[int, int]]:
    """The pairs of neighbours among ``points``, one row after another."""
    row = [point for part in points for point in range(part.start, part.stop)]
    return frozenset(pairwise([*row, row[0]] if closed else row))


# As ComfyUI's own node names them: left is the person's, so the picture's right. The brows are the
# upper edge of the oval.
_PARTS = {
    "face_oval": frozenset(
        pairwise(
            [*range(JAW.start, JAW.stop), *range(RIGHT_BROW.stop - 1, LEFT_BROW.start - 1, -1), 40]
        )
    ),
    "lips": _path(OUTER_LIPS, closed=True) | _path(INNER_LIPS, closed=True),
    "left_eye": _path(RIGHT_EYE, closed=True),
    "right_eye": _path(LEFT_EYE, closed=True),
    "left_eyebrow": _path(RIGHT_BROW),
    "right_eyebrow": _path(LEFT_BROW),
}
_CONTOURS = frozenset[tuple[int, int]]().union(*_PARTS.values())
_NOSE = _path(NOSE_BRIDGE) | _path(NOSE_BASE)
_NONE = frozenset[tuple[int, int]]()  # an iris is one point here, and there is no wire frame
CONNECTIONS = {
    **_PARTS,
    "contours": _CONTOURS,
    "nose": _NOSE,
    "irises": _NONE,
    "tesselation": _NONE,
    "all": _CONTOURS | _NOSE,
}


_MESH = 468  # points of MediaPipe's mesh; ten more are irises, which look about


def _rows(values: Sequence[Any], *shape: int) -> Tensor:
    return (
        torch.stack([torch.as_tensor(v).float() for v in values])
        if values
        else torch.empty(0, *shape)
    )
