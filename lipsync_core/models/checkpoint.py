"""Read public checkpoints, recognized by their content and never by their name.

Classic ``.pth`` files (zip and the older plain kind) go through ``torch.load(weights_only=True)``.
TorchScript archives go through ``torchscript``, which runs none of their code.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import WeightsError
from ..runtime.wrong_file import HEAD, describe_wrong_file
from .torchscript import read_torchscript
from .weight_files import check_weights_path

Format = Literal["safetensors", "checkpoint", "TorchScript archive"]


# pickled magic number 0x1950a86a20f9469cfc6c
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
_NOT_WEIGHTS = (
    (b"GGUF", "a GGUF file (language models)"),
    (b"\x89HDF", "an HDF5 file (Keras weights, as those of LipGAN), which is not read here"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
)


def file_format(path: Path) -> Format:
    """Return how a file is to be read.

    Raises:
        WeightsError: If it holds no weights; the message says what it is.
    """
    check_weights_path(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK"):
        return _zip_format(path)
    if head.startswith(_LEGACY):
        return "checkpoint"
    # safetensors' own limit
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return "safetensors"
    raise WeightsError(f"{path} is {_what(head)}; expected safetensors or a PyTorch checkpoint")


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(
            f"{path} is a truncated or damaged zip archive ({error}); get it again"
        ) from error
    if "data.pkl" not in names:
        raise WeightsError(
            f"{path} is a zip archive without data.pkl, so no checkpoint; unpack it if it holds one"
        )
    return "TorchScript archive" if "constants.pkl" in names else "checkpoint"


def _what(head: bytes) -> str:
    for magic, text in _NOT_WEIGHTS:
        if head.startswith(magic):
            return text
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if (wrong := describe_wrong_file(head)) is not None:
        return wrong
    # ModelProto: ir_version, then producer_name or graph
    if re.match(rb"\x08[\x01-\x20][\x12\x3a]", head):
        return "an ONNX model, which is used as it is and not loaded as weights"
    if re.match(rb"\x80[\x02-\x05]", head):
        return (
            "a Python pickle that torch.save did not write; it is not opened, for pickles can run "
            "code"
        )
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return f"text beginning {head[:40].decode('ascii', 'replace')!r}"
    return f"of no known kind (it begins with {head[:8].hex(' ')})"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all weights of a file on the CPU, their names freed of ``module.`` and of wrappers.

    Raises:
        WeightsError: If the file holds no weights or is damaged.
    """
    return _plain_names(read_as_named(path), path)


def read_as_named(path: Path) -> dict[str, Tensor]:
    """Read all weights of a file on the CPU under the file's own names.

    Raises:
        WeightsError: If the file holds no weights or is damaged.
    """
    match file_format(path):
        case "safetensors":
            return read_safetensors(path)
        case "checkpoint":
            return _state_dict(_load_checkpoint(path), path)
        case "TorchScript archive":
            return read_torchscript(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file on the CPU."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or truncated safetensors ({error}); get it again"
        ) from error


def _load_checkpoint(path: Path) -> object:
    try:
        with path.open("rb") as file:  # given the path, torch would believe a suffix .safetensors
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises a dozen types for damaged files; none of them is ours to hide from
        wanted = re.search(r"GLOBAL ([a-z_]\w*(\.\w+)+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and wanted:
            raise WeightsError(
                f"{path} holds more than tensors: its pickle asks for {wanted[1]}, which was "
                "refused and not run; expected a file of tensors alone, such as a saved state dict"
            ) from error
        # the pickle errors of torch advise to load the file with its code: never repeat that
        reason = (
            "its pickle is broken"
            if isinstance(error, pickle.UnpicklingError)
            else str(error).partition("\n")[0]
        )
        detail = f" ({reason})" if reason else ""
        raise WeightsError(
            f"{path} is a damaged or truncated checkpoint{detail}; get it again"
        ) from error


def _state_dict(value: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict itself, or the one inside a training checkpoint."""
    if _is_state_dict(value):
        return value
    if not isinstance(value, Mapping):
        raise WeightsError(f"{path} holds a {type(value).__name__}; expected a state dict")
    inner = {str(key): part for key, part in value.items() if _is_state_dict(part)}
    # Lightning's, and BasicSR's average of the weights beside the last ones
    for name in ("state_dict", "params_ema"):
        if name in inner:
            return inner[name]
    if len(inner) == 1:
        return next(iter(inner.values()))
    found = (
        f"several: {', '.join(inner)}"
        if inner
        else f"none; its keys are {', '.join(map(str, list(value)[:6]))}"
    )
    raise WeightsError(f"{path}: expected one state dict; found {found}")


def _is_state_dict(value: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(part, Tensor) for key, part in value.items())
    )


def _plain_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Strip ``module.`` segments from keys, and segments that all keys share.

    DataParallel puts ``module.`` anywhere.
    """
    names = {key: [part for part in key.split(".") if part != "module"] for key in tensors}
    while (
        len(names) > 1
        and len({parts[0] for parts in names.values()}) == 1
        and all(p[1:] for p in names.values())
    ):
        names = {key: parts[1:] for key, parts in names.items()}
    plain = {".".join(parts): tensors[key] for key, parts in names.items()}
    if len(plain) != len(tensors):
        raise WeightsError(
            f"{path}: tensors share names once `module.` is taken off; expected one network's "
            "weights"
        )
    return plain
