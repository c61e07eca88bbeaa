"""Shards: prepared clips in tar files, read at random from disk or object storage.

The format is WebDataset's: files of one base name in a tar are one sample, here ``NAME.faces.npy``,
``NAME.mel.npy``, ``NAME.sound.npy``, ``NAME.print.npy`` and ``NAME.json``. Judged in November 2026
by the needs of a training run:

- WebDataset (BSD-3, its reader; chosen): needs nothing, since tar and npy are in Python and numpy;
  alive (1.0.2 on PyPI, 75 kB); read by Hugging Face datasets, DALI and every tar; parts are whole
  and uncompressed at known offsets.
- Lance (Apache-2.0): needs pylance, 85 MB, and pyarrow, 55 MB; alive (14.0.2); random rows from
  object storage, versions; but a clip is read through Arrow buffers, and two wheels must match
  every platform.
- Parquet (Apache-2.0): needs pyarrow, 55 MB; alive; made for columns of small values: one window of
  a clip costs the whole page that holds it.
- safetensors (Apache-2.0): needs nothing, is here; alive; ranges can be read too, but it has no
  convention for many samples, nothing streams it, and other tools see only tensors.

Arrays are raw (npy), not JPEG: a window is then one contiguous range of bytes, which the disk's
cache gives at the speed of memory; decoding ten crops of 112 px would alone take longer than all
else. That costs 0.94 MB a second of face at 112 px (3.4 GB an hour). A tar has no table of
contents, so ``index.json`` beside the shards says where each array begins; a reader that only
streams does not need it.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..errors import LipSyncError, NoClipsError
from ..runtime.atomic import atomic_write, temporary_name

Array = npt.NDArray[Any]
Source = Path | str
"""A folder, or a URL that fsspec opens, such as s3://bucket/shards/train."""

INDEX = "index.json"
# a shard is closed when it holds this much: few files, yet many for ranks and parallel copying
SHARD_BYTES = 256 << 20
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array is in a shard.

    Attributes:
        offset: its first byte.
        dtype: its dtype as numpy writes it.
        shape: its shape.
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The byte after its last."""
        return (
            self.offset + int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a split.

    Attributes:
        name: its name.
        speaker: its speaker.
        shard: name of the file that holds it.
        facts: the contents of NAME.json.
        arrays: places of its arrays in ``shard``.
    """

    name: str
    speaker: str
    shard: str
    facts: Mapping[str, Any]
    arrays: Mapping[str, Place]


class Rows(Protocol):
    """An array (N,...) that is read in slices of rows: in memory, mapped from disk, or fetched."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Array: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """Rows of an array in a shard on object storage; every slice is one request for its bytes."""

    url: str
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.place.shape

    def __len__(self) -> int:
        return self.place.shape[0]

    def __getitem__(self, rows: slice, /) -> Array:
        first, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows {rows} of a remote array; expected neighboring ones")
        place = self.part(first, max(first, stop)).place
        data = _remote(self.url, place.offset, place.stop) if place.shape[0] else b""
        return np.frombuffer(data, place.dtype).reshape(place.shape)

    def part(self, first: int, stop: int) -> "Fetched":
        """Return the rows ``first`` to ``stop-1`` as another array; nothing is fetched."""
        rest = self.shape[1:]
        row = int(np.prod(rest, dtype=np.int64)) * np.dtype(self.place.dtype).itemsize
        return Fetched(
            self.url,
            Place(self.place.offset + first * row, self.place.dtype, (stop - first, *rest)),
        )


def part(rows: Rows, first: int, stop: int) -> Rows:
    """Return the rows ``first`` to ``stop-1``, not yet read."""
    return rows.part(first, stop) if isinstance(rows, Fetched) else rows[first:stop]


def read_index(source: Source) -> list[Entry]:
    """Return the clips of a prepared split, by name.

    Args:
        source: a folder or a URL.

    Returns:
        The entries.

    Raises:
        LipSyncError: there are none, or the index has another format.
    """
    where = _named(source, INDEX)
    try:
        data = where.read_bytes() if isinstance(where, Path) else _remote(where)
        found = json.loads(data)
        if found["format"] != _FORMAT:
            raise LipSyncError(
                f"{where} has format {found['format']}; this version reads {_FORMAT}: prepare again"
            )
        rows = [_entry(row) for row in found["clips"]]
    except FileNotFoundError as error:
        raise NoClipsError(
            f"{source} holds no prepared clips (no {INDEX}); run python -m train.prepare first"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LipSyncError(
            f"{where} cannot be read as an index of shards ({error}); prepare again"
        ) from error
    return sorted(rows, key=lambda row: row.name)


def _entry(row: dict[str, Any]) -> Entry:
    places = {name: Place(int(o), d, tuple(s)) for name, (o, d, s) in row["arrays"].items()}
    return Entry(row["name"], row["speaker"], row["shard"], row["facts"], places)


def load_arrays(
    source: Source, entries: Iterable[Entry], fields: Iterable[str]
) -> list[dict[str, Rows]]:
    """Return arrays of clips, not yet read.

    On disk every shard is mapped once, whatever the number of its clips.

    Args:
        source: a folder or a URL.
        entries: the clips.
        fields: names of the arrays; a clip may lack some.

    Returns:
        Per clip, its arrays by name.

    Raises:
        LipSyncError: a shard is missing or shorter than the index says.
    """
    maps: dict[str, Array] = {}
    wanted = list(fields)

    def array(entry: Entry, field: str) -> Rows:
        where, place = _named(source, entry.shard), entry.arrays[field]
        if not isinstance(where, Path):
            return Fetched(where, place)
        if entry.shard not in maps:
            try:
                maps[entry.shard] = np.memmap(where, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise LipSyncError(
                    f"{where} cannot be read ({error}); copy the shards again, or prepare again"
                ) from error
        held = maps[entry.shard]
        if place.stop > len(held):
            raise LipSyncError(
                f"{where} has {len(held)} bytes; its index wants {place.stop} or more: copy the "
                "shards again"
            )
        return held[place.offset : place.stop].view(place.dtype).reshape(place.shape)

    return [
        {field: array(entry, field) for field in wanted if field in entry.arrays}
        for entry in entries
    ]


class ShardWriter:
    """Adds clips to the split in ``folder``, in new shards beside the existing ones.

    Used as a context. Shards get their name when they are complete, the index last of all: an
    interruption leaves the split as it was, and the same clips in the same order give the same
    bytes.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._most = folder, shard_bytes
        self._entries = read_index(folder) if (folder / INDEX).exists() else []
        self._count = len({entry.shard for entry in self._entries})
        self._tar: tarfile.TarFile | None = None

    def add(
        self, name: str, *, speaker: str, facts: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> None:
        """Add one clip.

        Args:
            name: without dots, which in this format separate a sample's name from its parts'.
            speaker: name of the speaker.
            facts: contents of NAME.json.
            arrays: arrays by name.
        """
        if "." in name or "/" in name:
            raise ValueError(f"a clip is called {name!r}; expected a name without dots and slashes")
        tar = self._tar or self._opened()
        places: dict[str, Place] = {}
        for field, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            head = buffer.tell() - array.nbytes
            places[field] = Place(
                _put(tar, f"{name}.{field}.npy", buffer) + head, array.dtype.str, array.shape
            )
        _put(tar, f"{name}.json", io.BytesIO(json.dumps({"speaker": speaker, **facts}).encode()))
        self._entries.append(Entry(name, speaker, f"{self._count:06}.tar", facts, places))
        if tar.offset >= self._most:
            self._close()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ):
        if kind is not None:
            self._drop()
            return
        self._close()
        rows = [
            {
                **asdict(entry),
                "arrays": {f: [p.offset, p.dtype, p.shape] for f, p in entry.arrays.items()},
            }
            for entry in self._entries
        ]
        with atomic_write(self._folder / INDEX) as index:
            index.write_text(json.dumps({"format": _FORMAT, "clips": rows}), encoding="utf-8")

    def _opened(self) -> tarfile.TarFile:
        self._part = temporary_name(self._folder / f"{self._count:06}.tar")
        self._file = self._part.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        return self._tar

    def _close(self) -> None:
        if self._tar is None:
            return
        try:
            self._tar.close()
            self._file.close()
        except OSError:
            self._drop()
            raise
        self._part.replace(self._folder / f"{self._count:06}.tar")
        self._tar, self._count = None, self._count + 1

    def _drop(self) -> None:
        if self._tar is not None:
            self._tar = None
            with suppress(OSError):  # of a full disk: what it holds back cannot be written either
                self._file.close()
            self._part.unlink(missing_ok=True)


def _put(tar: tarfile.TarFile, name: str, data: io.BytesIO) -> int:
    """Add a file and return the offset of its first byte."""
    info = tarfile.TarInfo(name)
    info.size = data.getbuffer().nbytes
    data.seek(0)
    tar.addfile(info, data)
    return tar.offset - -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _named(source: Source, name: str) -> Path | str:
    return (
        f"{source.rstrip('/')}/{name}"
        if isinstance(source, str) and "://" in source
        else Path(source) / name
    )


def _remote(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return bytes of a file on object storage.

    Fsspec comes with torch; the packages for a scheme (s3fs, gcsfs ...) do not.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        return bytes(system.cat_file(path, start=start, end=stop))
    except (ImportError, ValueError) as error:  # the latter: fsspec knows no such scheme
        raise LipSyncError(f"{url} cannot be opened: {error}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LipSyncError(
            f"{url} cannot be read ({error}); try again, or copy the shards to a disk"
        ) from error
