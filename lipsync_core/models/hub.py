"""Public weight files: their places, hashes, and download.

Nothing is ever downloaded unless ``pull`` is called. Files lie flat in one folder, so that a
machine without a network is served by copying them there. ``public_weights.toml`` has the places,
hashes and licenses.
"""

import hashlib
import logging
import os
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..runtime.cache_folder import find_cache_folder

log = logging.getLogger("lipsync.hub")

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class HubFile:
    """One public file.

    Attributes:
        name: its name in our table.
        title: what it is.
        places: (repository, path, revision), tried in turn.
        licence: licence of the weights.
        sha256: its hash; None, which makes the entry unverified, if no source we trust publishes
            it.
        size: bytes, None if unknown.
    """

    name: str
    title: str
    places: tuple[tuple[str, str, str], ...]
    licence: str
    sha256: str | None = None
    size: int | None = None

    @property
    def filename(self) -> str:
        """Return the file's name in the weights folder."""
        return self.places[0][1].rpartition("/")[2]

    @property
    def record(self) -> Path:
        """Return where the hash of an unverified file is kept from its first pull on.

        It has the form that ``sha256sum -c`` reads.
        """
        return weights_folder() / f"{self.filename}.sha256"


def _read_table() -> dict[str, HubFile]:
    table = tomllib.loads(Path(__file__).with_name("public_weights.toml").read_text("utf-8"))
    entries: dict[str, HubFile] = {}
    for name, entry in table.items():
        places = tuple((repo, path, revision) for repo, path, revision in entry.pop("places"))
        entries[name] = HubFile(name, places=places, **entry)
    return entries


HUB = _read_table()


def weights_folder() -> Path:
    """Return the folder of public weights.

    It is ``LIPSYNC_WEIGHTS`` if that is set, else the platform's cache folder. Earlier versions
    used ``~/.cache/lipsync`` on every platform: if that folder exists it is used, so that nothing
    is downloaded again.
    """
    earlier = Path.home() / ".cache" / "lipsync"
    if not os.environ.get("LIPSYNC_WEIGHTS") and earlier.is_dir():
        return earlier
    return find_cache_folder("LIPSYNC_WEIGHTS")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hub_file(name: str) -> HubFile:
    """Return the table's entry of a name.

    Raises:
        WeightsError: If the name is unknown; the message lists the known ones.
    """
    if name not in HUB:
        raise WeightsError(f"no public weights are called {name!r}; known: {', '.join(HUB)}")
    return HUB[name]


def locate_file(name: str) -> Path:
    """Return the path of a pulled file, without reading it.

    Raises:
        WeightsError: If it is missing; the message says how to get it.
    """
    entry = hub_file(name)
    path = weights_folder() / entry.filename
    if not path.is_file():
        raise WeightsError(
            f"{name} is not on this machine; run `{_pull_command(entry)}`, or "
            f"{_by_hand(entry, None)}"
        )
    return path


def find_file(name: str) -> Path:
    """Return the path of a pulled file after checking its hash.

    Raises:
        WeightsError: If it is missing or damaged; the message says how to get it.
    """
    entry, path = hub_file(name), locate_file(name)
    wanted = entry.sha256 or _recorded(entry)
    if wanted is None:
        raise WeightsError(
            f"{path} has no recorded hash; run `{_pull_command(entry)}`, which records it"
        )
    _check_hash(path, wanted)
    return path


def pull(
    name: str,
    *,
    allow_unverified: bool = False,
    endpoint: str | None = None,
    on_progress: Progress | None = None,
    on_licence: Callable[[str], None] = log.warning,
) -> Path:
    """Download a public file into ``weights_folder()``, unless it lies there already.

    A connection that breaks is resumed. A file that is incomplete or has another hash is not kept.

    Args:
        name: its name in the table.
        allow_unverified: needed for entries without a known hash; theirs is written beside the file
            and checked from then on.
        endpoint: the Hub's address; None for ``HF_ENDPOINT``, else huggingface.co.
        on_progress: called with bytes done and total.
        on_licence: called with one sentence before the first download.

    Returns:
        The path of the file.

    Raises:
        WeightsError: If it cannot be had, or its hash differs.
    """
    entry = hub_file(name)
    path = weights_folder() / entry.filename
    wanted = entry.sha256 or _recorded(entry)
    if wanted is None and not allow_unverified:
        raise WeightsError(
            f"{name} is unverified: no source we trust has published its sha256; "
            f"`{_pull_command(entry)}` takes it as it is and records the hash"
        )
    if path.is_file():
        if wanted is None:
            _write_record(entry, file_sha256(path))
        return find_file(name)
    on_licence(f"{entry.filename}: {entry.licence}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as staging:
        fetched = _fetch(entry, Path(staging), wanted, endpoint, on_progress)
        if wanted is None:
            _write_record(entry, file_sha256(fetched))
        fetched.replace(path)
    return path


def _fetch(
    entry: HubFile,
    staging: Path,
    wanted: str | None,
    endpoint: str | None,
    on_progress: Progress | None,
) -> Path:
    """The file in ``staging``, from the first place that has it whole and with the wanted hash."""
    # heavy, and only pulling needs it
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    failures: list[str] = []
    stopped: list[BaseException] = []
    for number, (repo, path, revision) in enumerate(entry.places):
        url = hf_hub_url(repo, path, revision=revision, endpoint=endpoint)
        try:
            # fails at once where hf_hub_download retries half a minute
            get_hf_file_metadata(url, endpoint=endpoint)
            fetched = hf_hub_download(
                repo,
                path,
                revision=revision,
                endpoint=endpoint,
                local_dir=staging / str(number),
                tqdm_class=_bar(on_progress, stopped),
            )
            if stopped:
                raise stopped[0]
            if wanted is not None:
                _check_hash(Path(fetched), wanted)
            return Path(fetched)
        except Exception as error:
            if stopped:  # on_progress raised: the caller wants no more of it
                raise stopped[0] from None
            # the errors of a broken line belong to whichever HTTP library the Hub client uses
            log.info("%s: %r", url, error)
            failures.append(f"{url}: {_first_line(error)}")
    raise WeightsError(
        f"cannot pull {entry.name}. "
        + "; ".join(failures)
        + f". To do it {_by_hand(entry, endpoint)}"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _by_hand(entry: HubFile, endpoint: str | None) -> str:
    repo, path, revision = entry.places[0]
    host = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    url = f"{host.rstrip('/')}/{repo}/resolve/{revision}/{path}"
    check = f"check that its sha256 is {entry.sha256} and " if entry.sha256 else ""
    after = "" if entry.sha256 else f" and run `{_pull_command(entry)}` to record its hash"
    return f"by hand: download {url}, {check}save it as {weights_folder() / entry.filename}{after}"


def _pull_command(entry: HubFile) -> str:
    return f"lipsync models pull {entry.name}" + ("" if entry.sha256 else " --allow-unverified")


def _check_hash(path: Path, wanted: str) -> None:
    got = file_sha256(path)
    if got != wanted:
        raise WeightsError(
            f"{path.name} has sha256 {got}; expected {wanted}; delete {path} and pull it again"
        )


def _recorded(entry: HubFile) -> str | None:
    return entry.record.read_text("utf-8").split()[0] if entry.record.is_file() else None


def _write_record(entry: HubFile, digest: str) -> None:
    log.warning("%s is unverified; its sha256 is %s", entry.filename, digest)
    entry.record.write_text(f"{digest}  {entry.filename}\n", "utf-8")


def _bar(on_progress: Progress | None, stopped: list[BaseException]) -> Any:
    """A progress bar class that draws nothing and reports bytes instead.

    ``stopped`` gets what ``on_progress`` raises: a download may run in threads that swallow it.
    """
    from huggingface_hub.utils import tqdm

    most = 0

    class Bar(tqdm):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.done = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            nonlocal most
            self.done += int(n or 0)
            # Xet storage counts the same bytes on two bars
            if on_progress is not None and self.done > most:
                most = self.done
                try:
                    on_progress(self.done, None if self.total is None else int(self.total))
                except BaseException as error:
                    stopped.append(error)
                    raise

    return Bar
