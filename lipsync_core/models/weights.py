"""Load and save weights.

Our files are safetensors whose metadata key ``lipsync`` holds JSON {kind, config, framing, licence,
source, sha256}; the config and the framing in it build the network, so a file needs nothing beside
it. Other formats go through ``checkpoint.py``.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import WeightsError
from ..runtime.atomic import atomic_write
from ..runtime.config import from_dict
from . import architectures, checkpoint, hub
from .face_parsing import FaceParsingConfig
from .generator import TalkingFace
from .inception import InceptionConfig
from .quality_discriminator import WAV2LIP_DISCRIMINATOR
from .registry import MODELS
from .s3fd import S3FDConfig
from .sync_expert import WAV2LIP_EXPERT
from .syncnet import SyncNetConfig
from .wav2lip import WAV2LIP
from .weight_files import weights_file

_log = logging.getLogger("lipsync.weights")

# The kinds that ``dub`` and ``bench`` can use.
TALKING_FACES = tuple(
    kind for kind, (_, network) in MODELS.items() if issubclass(network, TalkingFace)
)

# The shapes of the public files, by kind.
PUBLIC: dict[str, Any] = {
    "generator": WAV2LIP,
    "sync_expert": WAV2LIP_EXPERT,
    "quality_discriminator": WAV2LIP_DISCRIMINATOR,
    "s3fd": S3FDConfig(),
    "fid_inception": InceptionConfig(),
    "syncnet": SyncNetConfig(),
    "face_parsing": FaceParsingConfig(),
}


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata of a weight file.

    Attributes:
        kind: a key of ``MODELS``.
        config: the network's config with the framing in it.
        licence: licence of the weights.
        source: where the weights come from.
        sha256: hash of the file they were converted from, None if we trained them.
    """

    kind: str
    config: Any
    licence: str
    source: str
    sha256: str | None

    def to_json(self) -> str:
        """Return the metadata as JSON."""
        config = dataclasses.asdict(self.config)
        framing = config.pop("framing", None)
        facts = {"licence": self.licence, "source": self.source, "sha256": self.sha256}
        return json.dumps({"kind": self.kind, "config": config, "framing": framing, **facts})


def header_from_json(text: str) -> Header:
    """Parse the JSON of ``Header.to_json``, strictly.

    Raises:
        ValueError: If a field is unknown, missing or of another type.
    """
    fields = json.loads(text)
    wanted = {"kind", "config", "framing", "licence", "source", "sha256"}
    if (
        not isinstance(fields, dict)
        or set(fields) != wanted
        or not isinstance(fields["config"], dict)
    ):
        raise ValueError(
            f"{text[:60]} ...; expected exactly the fields {', '.join(sorted(wanted))}"
        )
    kind = from_dict(str, fields["kind"], "kind")
    if kind not in MODELS:
        raise ValueError(f"kind {kind!r}; known: {', '.join(MODELS)}")
    config_type = MODELS[kind][0]
    framed = "framing" in config_type.__dataclass_fields__
    if not framed and fields["framing"] is not None:
        raise ValueError(f"a framing, which {config_type.__name__} has not")
    parts = fields["config"] | ({"framing": fields["framing"]} if framed else {})
    config = from_dict(config_type, parts, "config")
    facts = {key: from_dict(str, fields[key], key) for key in ("licence", "source")}
    return Header(kind, config, sha256=from_dict(str | None, fields["sha256"], "sha256"), **facts)


def save_model(
    model: nn.Module,
    path: str | Path,
    *,
    licence: str,
    source: str,
    origin_sha256: str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network to a file, whole or not at all.

    Args:
        model: its class is in ``MODELS``, its config at ``model.config``.
        path: the file.
        licence: licence of the weights.
        source: where they come from.
        origin_sha256: hash of the file they were converted from.
        dtype: type in which floating tensors are stored (float16 halves the file); None keeps
            theirs.

    Raises:
        WeightsError: If the file cannot be written.
    """
    kind = next((key for key, (_, network) in MODELS.items() if type(model) is network), None)
    if kind is None:
        raise ValueError(
            f"{type(model).__name__} is not a network of this package; known: {', '.join(MODELS)}"
        )
    header = Header(kind, model.config, licence, source, origin_sha256)
    # a config that does not survive must not be written
    assert header_from_json(header.to_json()) == header
    tensors = {key: _stored(tensor, dtype) for key, tensor in model.state_dict().items()}
    try:
        with atomic_write(Path(path)) as part:
            part.write_bytes(
                save(tensors, {"lipsync": header.to_json()})
            )  # its own writer makes a file that other users cannot read
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be written ({error}); make room, or give a folder that is there"
        ) from error


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", wanted, copy=True).contiguous()


def read_header(path: str | Path) -> Header:
    """Read the metadata of one of our files, without its tensors.

    Raises:
        WeightsError: If it is another kind of file.
    """
    path = Path(path)
    file_format = checkpoint.file_format(path)
    text = _metadata(path) if file_format == "safetensors" else None
    if text is None:
        raise WeightsError(
            f"{path} is a {file_format} without our header; run `lipsync models convert {path} OUT`"
        )
    try:
        return header_from_json(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} has a header that this version does not read: {error}; convert it again or "
            "update lipsync-core"
        ) from error


def _metadata(path: Path) -> str | None:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("lipsync")
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or truncated safetensors ({error}); get it again"
        ) from error


def load_model(
    name_or_path: str | Path,
    *,
    kind: str | tuple[str, ...] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Load the network of a weight file, in eval mode.

    Nothing is downloaded and no code of a file is run.

    Args:
        name_or_path: a name of ``BUNDLED`` (``mini``, ``face_landmarks`` ...), a public name
            (``lipsync models list``), or any file of ours or of the public networks.
        kind: the key of ``MODELS`` that the caller needs, or several of which any will do.
        device: device of the network.
        dtype: type of its floating tensors.

    Returns:
        The network.

    Raises:
        WeightsError: If the file is something else; the message says what.
    """
    path = weights_file(name_or_path)
    if checkpoint.file_format(path) == "safetensors" and _metadata(path) is not None:
        header = read_header(path)
        found, config, tensors = header.kind, header.config, checkpoint.read_safetensors(path)
    else:
        found, config, tensors = _read_foreign(path)
    wanted = (kind,) if isinstance(kind, str) else kind
    if wanted is not None and found not in wanted:
        raise WeightsError(
            f"{path} holds {_title(found)}; expected {' or '.join(map(_title, wanted))}"
        )
    return _build(found, config, tensors, path).to(device, dtype)


def load_talking_face(
    name_or_path: str | Path, *, device: str | torch.device = "cpu"
) -> TalkingFace:
    """Load a network that draws faces, of any kind; see ``load_model``."""
    network = load_model(name_or_path, kind=TALKING_FACES, device=device)
    assert isinstance(network, TalkingFace)
    return network


def _title(kind: str) -> str:
    public = next(
        (network.title for network in architectures.NETWORKS if network.kind == kind), None
    )
    return f"{public} ({kind})" if public else f"a {kind}"


def _read_foreign(path: Path) -> tuple[str, Any, dict[str, Tensor]]:
    tensors = checkpoint.read_tensors(path)
    network = architectures.recognize(tensors, path)
    if network.untested:
        _log.warning(
            "%s looks like %s: its layers are known from public code, and no real file was ever "
            "tried here; look at what it draws before you rely on it",
            *(path, network.title),
        )
    return (
        network.kind,
        network.config or PUBLIC[network.kind],
        architectures.to_our_names(network, tensors),
    )


def _build(kind: str, config: Any, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The network with these weights, in eval mode."""
    network = MODELS[kind][1]
    try:
        # shapes without memory: a damaged config could ask for terabytes
        with torch.device("meta"):
            model = network(config)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise WeightsError(
            f"{path} has a config that builds no {network.__name__}: {error}"
        ) from error
    _check_fit(tensors, model.state_dict(), path, network.__name__)
    # nothing is drawn at random only to be overwritten
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def _check_fit(
    tensors: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, network: str
) -> None:
    """Names, shapes and number kinds agree, and every number is finite.

    WeightsError names the first that is not.
    """
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise WeightsError(
            f"{path} does not fit {network}: {len(missing)} tensors missing "
            f"({', '.join(missing[:3])}), {len(extra)} unknown ({', '.join(extra[:3])}); is it of "
            "a fork with other layers?"
        )
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            got, want = tuple(tensor.shape), tuple(wanted[key].shape)
            raise WeightsError(
                f"{path}: {key} has shape {got}; expected {want}; is it of a fork with other sizes?"
            )
        if tensor.is_floating_point() != wanted[key].is_floating_point():
            raise WeightsError(f"{path}: {key} is {tensor.dtype}; expected {wanted[key].dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: {key} holds numbers that are not finite; the file is damaged or "
                "mistrained"
            )


def convert_checkpoint(source: str | Path, target: str | Path) -> Header:
    """Write a public checkpoint as a file of ours, with its hash in the header.

    Reads the public networks that ``PUBLIC`` has a shape for. Licence and source come from the Hub
    table if the hash is in it. An existing ``target`` is replaced only by a complete file.

    Args:
        source: a file, or a pulled public name.
        target: the file to write.

    Returns:
        The header.

    Raises:
        WeightsError: If the checkpoint cannot be read or is of an unknown network.
    """
    path = weights_file(source)
    digest = hub.file_sha256(path)
    if checkpoint.file_format(path) == "safetensors" and _metadata(path) is not None:
        raise WeightsError(f"{path} is a file of ours already; nothing to convert")
    kind, config, tensors = _read_foreign(path)
    entry = next((entry for entry in hub.HUB.values() if entry.sha256 == digest), None)
    licence = entry.licence if entry else _unknown_licence(kind)
    origin = "/".join(entry.places[0][:2]) if entry else path.name
    save_model(
        _build(kind, config, tensors, path),
        target,
        licence=licence,
        source=origin,
        origin_sha256=digest,
    )
    return read_header(target)


def _unknown_licence(kind: str) -> str:
    if kind not in PUBLIC:
        return "not stated by the file; ask its author"
    public = hub.HUB[
        {"fid_inception": "fid-inception"}.get(kind, kind if kind in hub.HUB else "wav2lip")
    ]
    return f"not stated by the file; of the public weights: {public.licence}"
