"""Read the tensors of TorchScript archives without running their code.

``torch.load`` refuses these files, and ``torch.jit.load`` would run what is in them. An archive is
a zip file with the object tree as a pickle in data.pkl and each storage in data/<number>. An
unpickler that can describe tensors, lists and modules' attributes, and nothing else, reads the
tree; every tensor is checked against its storage.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..errors import WeightsError


class _Storage(NamedTuple):
    kind: object
    dtype: object
    key: object
    location: object
    elements: object


class _View(NamedTuple):
    """A tensor as the pickle describes it.

    Nothing in it is believed before ``_Archive.tensor`` has checked it.
    """

    storage: object
    offset: object
    shape: object
    strides: object


class _ScriptObject:
    """A module of the archive: its attributes, none of its code."""

    __slots__ = ("attributes",)
    attributes: dict[object, object]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module's state is not a dictionary")
        self.attributes = state


class _Maker:
    """A function that a pickle may call and cannot alter.

    BUILD could set attributes of a plain one.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: object) -> object:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle may not alter a function")


_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_ALLOWED: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(lambda *args: _View(*args[:4])),
    ("collections", "OrderedDict"): _Maker(dict),
    **{
        ("torch.jit._pickle", name): _Maker(lambda value, *_: value)
        for name in (
            "build_intlist",
            "build_tensorlist",
            "build_doublelist",
            "build_boollist",
            "restore_type_tag",
        )
    },
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}
# What torch's own writer of TorchScript emits (torch/csrc/jit/serialization/pickler.cpp); DUP,
# INST, EXT and the rest have no business here.
_EMITTED = (
    "PROTO STOP MARK GLOBAL NEWOBJ BUILD REDUCE BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_TUPLE TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS"
)
_OPCODES = frozenset(_EMITTED.split())
_MAX_PICKLE = 64 << 20  # bytes; the generator's is 0.1 MB
# visited; a pickle can nest so that its tree is exponentially larger than itself
_MAX_ATTRIBUTES = 100_000
_MAX_NAME = 1000  # characters, for the same reason


_BROKEN = (
    *(
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        NotImplementedError,
    ),
    *(ValueError, TypeError, AttributeError, LookupError, OverflowError, RuntimeError),
)


class _Unpickler(pickle.Unpickler):
    """Builds lists, dictionaries, ``_View``, ``_ScriptObject``.

    Imports nothing, reads nothing, calls nothing else.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "__torch__" or module_name.startswith("__torch__."):
            return _ScriptObject
        found = _ALLOWED.get((module_name, global_name))
        if found is None:
            raise pickle.UnpicklingError(
                f"its pickle asks for {module_name}.{global_name}, which is refused"
            )
        return found

    def persistent_load(self, pid: Any, /) -> Any:
        return _Storage(*pid)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive; none of its code is run.

    Raises:
        WeightsError: If it holds anything else, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).tensors()
    except _BROKEN as error:
        raise WeightsError(
            f"{path} is a TorchScript archive; it was refused and not run: {error}"
        ) from error


class _Archive:
    """The tensors of an open archive of ``size`` bytes."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.unread = size
        self.folder = next(
            name for name in archive.namelist() if name.endswith("/data.pkl")
        ).partition("/")[0]
        self.storages: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the root module by its path of attribute names."""
        order = f"{self.folder}/byteorder"
        if order in self.archive.namelist() and self.read(order) != b"little":
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
        data = self.read(f"{self.folder}/data.pkl")
        _check_opcodes(data)
        waiting: list[tuple[str, object]] = [("", _Unpickler(io.BytesIO(data)).load())]
        found: dict[str, Tensor] = {}
        visited = 0
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, _View):
                found[name] = self.tensor(value)
            elif isinstance(value, _ScriptObject):
                inside = getattr(value, "attributes", {})
                visited += len(inside)
                if visited > _MAX_ATTRIBUTES or len(name) > _MAX_NAME:
                    raise ValueError(
                        f"over {_MAX_ATTRIBUTES} attributes, or names over {_MAX_NAME} characters"
                    )
                waiting += [
                    (f"{name}.{_name(key)}" if name else _name(key), part)
                    for key, part in inside.items()
                ]
        if not found:
            raise ValueError(
                "no named tensors in it (a frozen module keeps none); expected one that was not "
                "frozen"
            )
        return found

    def tensor(self, view: _View) -> Tensor:
        """Return the tensor after checking that it is inside its storage and no larger than it.

        A stride of 0 could claim terabytes.
        """
        shape, strides, (offset,) = (
            _naturals(view.shape),
            _naturals(view.strides),
            _naturals((view.offset,)),
        )
        storage = self.storage(view.storage)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if math.prod(shape) > storage.numel() or (0 not in shape and last >= storage.numel()):
            raise ValueError(
                f"a tensor of shape {shape} reaches beyond its {storage.numel()} stored numbers"
            )
        return torch.as_strided(storage, shape, strides, offset).clone()

    def storage(self, storage: object) -> Tensor:
        if not isinstance(storage, _Storage) or storage.dtype not in _DTYPES.values():
            raise ValueError("a tensor without a storage of a known type")
        dtype = cast(torch.dtype, storage.dtype)
        key, (elements,) = _name(storage.key), _naturals((storage.elements,))
        if not re.fullmatch(r"[0-9]+", key):
            raise ValueError(f"a storage called {key!r}; expected a number")
        if key not in self.storages:
            data = bytearray(self.read(f"{self.folder}/data/{key}"))
            if len(data) != elements * dtype.itemsize:
                raise ValueError(
                    f"storage {key} has {len(data)} bytes; expected {elements} numbers of {dtype}"
                )
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]

    def read(self, name: str) -> bytes:
        """An entry's bytes. Entries are stored as they are.

        Together they cannot be larger than the file.
        """
        entry = self.archive.getinfo(name)
        self.unread -= entry.file_size
        plain = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        if not plain or self.unread < 0:
            raise ValueError(f"{name} claims {entry.file_size} bytes, more than are there")
        return self.archive.read(entry)


def _name(value: object) -> str:
    # never shown: its text could be exponentially long
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise ValueError("a name that is not a short text")
    return value


def _naturals(values: object) -> tuple[int, ...]:
    if (
        not isinstance(values, tuple)
        or len(values) > 8
        or not all(type(n) is int and n >= 0 for n in values)
    ):
        raise ValueError("a tensor whose shape, strides, offset or size are no whole numbers")
    return values


def _check_opcodes(data: bytes) -> None:
    """ValueError for a pickle that torch would not write.

    PUT takes its memory from its argument, up to 2**32 slots.
    """
    if len(data) > _MAX_PICKLE:
        raise ValueError(f"its pickle has {len(data)} bytes; expected at most {_MAX_PICKLE}")
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle uses {opcode.name}, which is refused")
        if isinstance(argument, int) and opcode.name.endswith("BINPUT") and argument > len(data):
            raise ValueError(f"its pickle asks for {argument} memory slots")
