"""A cache of face tracks on disk, because detection is slow and clips are dubbed repeatedly.

One safetensors file per clip and settings, in the user's cache folder; about 60 bytes per face and
frame, and 8 for each dense point. Any file may be deleted at any time.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..faces.tracking import cut_tracks
from ..runtime.cache_folder import find_cache_folder
from ..types import FaceTrack, Overlays

_VERSION = 5
"""Version of the file and of the tracking; raise it when either changes, to ignore old entries."""

_log = logging.getLogger("lipsync.faces")

Setting = str | int | float | bool | None


def cache_dir() -> Path:
    """Return the folder of the tracks: ``LIPSYNC_CACHE``, else the platform's cache folder."""
    return find_cache_folder("LIPSYNC_CACHE")


def track_key(
    source: Path, *, detector: str, weights_sha256: str, settings: Mapping[str, Setting]
) -> str:
    """Compute the key of the tracks of a file.

    The file is hashed whole: samples of it would miss an edit in place, and 0.7 GB a second (one
    core of a 2.8 GHz Xeon) is a hundred times faster than face detection. Its name and date do not
    matter.

    Args:
        source: The video.
        detector: Name of the detector.
        weights_sha256: Hash of its weights.
        settings: Everything else that changes the tracks, such as fps, reduced size and start; not
            the end, which an entry states itself.

    Returns:
        64 hex digits.

    Raises:
        OSError: The file cannot be read.
        TypeError: JSON does not know a setting (pass a Fraction as its str).
    """
    with source.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {
        "version": _VERSION,
        "content": content,
        "detector": detector,
        "weights": weights_sha256,
    }
    text = json.dumps({**parts, "settings": dict(settings)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_key(key: str, **more: Setting) -> str:
    """Compute the key of a result of the tracks under ``key`` that also depends on ``more``."""
    return hashlib.sha256(json.dumps([key, more], sort_keys=True).encode()).hexdigest()


def has_tracks(key: str) -> bool:
    """Whether tracks are stored under ``key``."""
    return _path(key).is_file()


def load_tracks(key: str, stop: int | None = None) -> tuple[list[FaceTrack], int] | None:
    """Load tracks from the cache.

    Args:
        key: Key of ``track_key`` or ``derived_key``.
        stop: Number of frames that are wanted, from the first on; None for those that are stored.

    Returns:
        The tracks in these frames, and their number, which is smaller where the clip ends before;
        None if there is no entry, if a search of fewer frames is stored, or, with a warning, if the
        entry is damaged.
    """
    entry = _read(key)
    if entry is None or stop is None:
        return None if entry is None else (entry.tracks, entry.frames)
    if entry.frames < stop and not entry.ended:
        return None
    return cut_tracks(entry.tracks, stop), min(entry.frames, stop)


def store_tracks(key: str, tracks: list[FaceTrack], frames: int, *, ended: bool = False) -> None:
    """Store tracks in the cache, in one step, unless a search of more frames is stored.

    A folder that cannot be written causes a warning.

    Args:
        key: Key of ``track_key`` or ``derived_key``.
        tracks: The tracks.
        frames: Number of frames that were searched.
        ended: Whether the file holds no more frames.
    """
    path = _path(key)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = _read(key) if path.is_file() else None
        if stored is not None and stored.frames > frames:
            return
        # A name of its own for each writer; closed before the rename, as Windows wants it.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=key[:8], suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(save(_pack(_Entry(tracks, frames, ended), key)))
        temporary.replace(path)
    except OSError as error:
        _log.warning("cannot store the face tracks in %s (%s); going on without", path, error)
    finally:  # also when interrupted
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Entry:
    """``tracks`` in the first ``frames`` frames, after which a file may have ``ended``."""

    tracks: list[FaceTrack]
    frames: int
    ended: bool


def _read(key: str) -> _Entry | None:
    """The entry under ``key``; None if there is none, or, with a warning, a damaged one."""
    path = _path(key)
    try:
        return _unpack(load(path.read_bytes()), key)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning(
            "cannot read the stored face tracks %s (%s); finding the faces again", path, error
        )
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        _log.warning(
            "the stored face tracks %s are damaged (%s); finding the faces again", path, error
        )
    return None


def _path(key: str) -> Path:
    return cache_dir() / "tracks" / f"{key}.safetensors"


def _pack(entry: _Entry, key: str) -> dict[str, Tensor]:
    tracks = entry.tracks
    spans = [(track.start, track.visible.shape[0], track.scene) for track in tracks]
    tensors = {
        "frames": torch.tensor(entry.frames),
        "ended": torch.tensor(entry.ended),
        "spans": torch.tensor(spans, dtype=torch.int64).reshape(-1, 3),  # start, length, scene
        "boxes": torch.cat([torch.zeros(0, 4), *(track.boxes.float().cpu() for track in tracks)]),
        "points": torch.cat(
            [torch.zeros(0, 5, 2), *(track.points.float().cpu() for track in tracks)]
        ),
        "visible": torch.cat(
            [torch.zeros(0, dtype=torch.bool), *(track.visible.cpu() for track in tracks)]
        ),
    }
    # without dense points the file is as it was before they existed
    if any(track.dense is not None for track in tracks):
        dense = [
            track.boxes.new_zeros(0) if track.dense is None else track.dense.float().flatten()
            for track in tracks
        ]
        kinds = [0 if track.dense is None else track.dense.shape[1] for track in tracks]
        tensors |= {
            "dense": torch.cat([part.cpu() for part in dense]),
            "layouts": torch.tensor(kinds),
        }
    scores = [track.dense_scores for track in tracks]
    if any(score is not None for score in scores):
        parts = [torch.zeros(0) if score is None else score.float().cpu() for score in scores]
        tensors |= {
            "dense_scores": torch.cat(parts),
            "scored": torch.tensor([s is not None for s in scores]),
        }
    tensors |= _pack_overlays(tracks)
    return {**tensors, "digest": _digest(tensors, key)}


def _pack_overlays(tracks: list[FaceTrack]) -> dict[str, Tensor]:
    """What lies over faces; nothing if nothing does."""
    if all(track.overlays is None for track in tracks):
        return {}
    packed: dict[str, Tensor] = {}
    for number, track in enumerate(tracks):
        if track.overlays is not None:
            packed[f"overlays.{number}.index"] = track.overlays.index
            packed[f"overlays.{number}.places"] = track.overlays.places.float().contiguous()
            packed[f"overlays.{number}.masks"] = torch.stack(
                [(mask * 255).round().to(torch.uint8) for mask in track.overlays.masks]
            )
    return packed


def _unpack_overlays(tensors: dict[str, Tensor], number: int) -> Overlays | None:
    index = tensors.get(f"overlays.{number}.index")
    if index is None:
        return None
    masks = tensors[f"overlays.{number}.masks"]
    places = tensors[f"overlays.{number}.places"]
    return Overlays(index, tuple(mask.float() / 255 for mask in masks), places)


def _unpack(tensors: dict[str, Tensor], key: str) -> _Entry:
    if not torch.equal(tensors.pop("digest"), _digest(tensors, key)):
        raise ValueError("its digest does not fit its content")
    starts, lengths, scenes = tensors["spans"].T.tolist()
    parts = (tensors[name].split(lengths) for name in ("boxes", "points", "visible"))
    kinds = tensors["layouts"].tolist() if "layouts" in tensors else [0] * len(starts)
    sizes = [2 * kind * length for kind, length in zip(kinds, lengths, strict=True)]
    flat = tensors["dense"].split(sizes) if any(sizes) else [None] * len(starts)
    dense = [
        part.view(-1, kind, 2) if part is not None and kind else None
        for part, kind in zip(flat, kinds, strict=True)
    ]
    scored = tensors["scored"].tolist() if "scored" in tensors else [False] * len(starts)
    counts = [length if there else 0 for length, there in zip(lengths, scored, strict=True)]
    rated = tensors["dense_scores"].split(counts) if any(scored) else [None] * len(starts)
    scores = [part if there else None for part, there in zip(rated, scored, strict=True)]
    over = [_unpack_overlays(tensors, number) for number in range(len(starts))]
    tracks = [
        FaceTrack(*values)
        for values in zip(*parts, starts, scenes, dense, scores, over, strict=True)
    ]
    return _Entry(tracks, int(tensors["frames"]), bool(tensors["ended"]))


def _digest(tensors: dict[str, Tensor], key: str) -> Tensor:
    """(32,) uint8: the format has no checksum of its own."""
    digest = hashlib.sha256(key.encode())
    for name in sorted(tensors):
        digest.update(
            name.encode()
            + str(tuple(tensors[name].shape)).encode()
            + tensors[name].numpy().tobytes()
        )
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
