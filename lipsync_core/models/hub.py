"""Public weight files: their places, hashes, and download.

Nothing is ever downloaded unless ``pull`` is called. Files lie flat in one folder, so that a
machine without a network is served by copying them there. The hashes, repositories and mirrors are
those published with the files on the Hub.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..runtime.cache_folder import find_cache_folder

log = logging.getLogger("lipsync.hub")

Progress = Callable[[int, int | None], None]

# github.com/Rudrabha/Wav2Lip has no licence file; its README allows "research/personal" use because
# of LRS2.
LRS2 = (
    "research and personal use only, never commercial: trained on the BBC's LRS2 (README of "
    "Rudrabha/Wav2Lip)"
)


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


_WAV2LIP = "camenduru/Wav2Lip"
# Copies of what syncnet_python's download_model.sh fetches from
# robots.ox.ac.uk/~vgg/software/lipsync/data. The hashes are those that several projects measured on
# the files of both places and published.
_LATENTSYNC = ("ByteDance/LatentSync-1.6", "ByteDance/LatentSync-1.5")
# Copies of the releases of TencentARC/GFPGAN (v1.3.4) and sczhou/CodeFormer (v0.1.0); hashes and
# sizes are those that the Hub shows for them.
_RESTORERS = (
    ("fofr/comfyui", "e58fb05ba53e59feafb6939039ffa4a74a81b5cf"),
    ("martintomov/comfy", "1d85b6851d4882d0b344642de89832d80feb6f0f"),
)
HUB: dict[str, HubFile] = {
    entry.name: entry
    for entry in (
        HubFile(
            "wav2lip",
            "Wav2Lip generator",
            ((_WAV2LIP, "checkpoints/wav2lip.pth", "main"),),
            LRS2,
            "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
        ),
        HubFile(
            "wav2lip-gan",
            "Wav2Lip generator, trained with the quality discriminator",
            (
                (_WAV2LIP, "checkpoints/wav2lip_gan.pth", "main"),
                ("Nekochu/Wav2Lip", "wav2lip_gan.pth", "main"),
            ),
            LRS2,
            "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
        ),
        HubFile(
            "expert",
            "Wav2Lip lip-sync expert",
            ((_WAV2LIP, "checkpoints/lipsync_expert.pth", "main"),),
            LRS2,
        ),
        HubFile(
            "s3fd",
            "S3FD face detector",
            ((_WAV2LIP, "checkpoints/s3fd-619a316812.pth", "main"),),
            "none known to us for the weights, which were trained on WIDER FACE; ask its authors "
            "before commercial use",
            "619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543",
            89_843_225,
        ),
        HubFile(
            "yunet",
            "YuNet face detector (ONNX)",
            (
                (
                    "opencv/face_detection_yunet",
                    "face_detection_yunet_2023mar.onnx",
                    "3cc26e7f1014a5ee5d74a42acee58bafc9d0a310",
                ),
            ),
            "MIT (README of opencv/face_detection_yunet)",
            "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            232_589,
        ),
        HubFile(
            "syncnet",
            "SyncNet v2 sync scorer",
            tuple((repo, "auxiliary/syncnet_v2.model", "main") for repo in _LATENTSYNC),
            "none known to us for the weights of Chung and Zisserman (2016), which were trained on "
            "BBC broadcasts; the "
            "code of joonson/syncnet_python is MIT",
            "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
            54_573_114,
        ),
        HubFile(
            "sfd_face",
            "S3FD face detector of syncnet_python",
            tuple((repo, "auxiliary/sfd_face.pth", "main") for repo in _LATENTSYNC),
            "none known to us for the weights, which were trained on WIDER FACE; the code of "
            "joonson/syncnet_python is MIT",
            "d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
            89_844_381,
        ),
        # pytorch-fid and torch-fidelity publish the same bytes under pt_inception-... and
        # weights-inception-...
        HubFile(
            "fid-inception",
            "FID Inception network",
            (("toshas/torch-fidelity", "weights-inception-2015-12-05-6726825d.pth", "main"),),
            "Apache-2.0, as pytorch-fid publishes it; TensorFlow's inception-2015-12-05, trained "
            "on ImageNet",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
        ),
        HubFile(
            "gfpgan",
            "GFPGAN 1.4 face restoration",
            tuple(
                (repo, "facerestore_models/GFPGANv1.4.pth", commit) for repo, commit in _RESTORERS
            ),
            "Apache-2.0, but for parts after StyleGAN2 and DFDNet, which are for non-commercial "
            "use (LICENSE of "
            "TencentARC/GFPGAN)",
            "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
            348_632_874,
        ),
        HubFile(
            "restoreformer",
            "RestoreFormer face restoration",
            tuple(
                (repo, "facerestore_models/RestoreFormer.pth", commit)
                for repo, commit in _RESTORERS
            ),
            "Apache-2.0 (LICENSE of wzhouxiff/RestoreFormer)",
            "07404d446d62ca3d5ed38b1de09a947a1e77d46dbccec961a74d713a8f24ace0",
            290_785_322,
        ),
        HubFile(
            "codeformer",
            "CodeFormer face restoration (needs spandrel_extra_arches)",
            tuple(
                (repo, "facerestore_models/codeformer.pth", commit) for repo, commit in _RESTORERS
            ),
            "S-Lab License 1.0: non-commercial use only (LICENSE of sczhou/CodeFormer)",
            "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
            376_637_898,
        ),
        # Copies of the file on Google Drive that the README of zllrunning/face-parsing.PyTorch
        # links. Several projects published the same hash and size of it; one compared the original
        # with the first copy. facexlib's release has the same bytes as parsing_bisenet.pth.
        HubFile(
            "face_parsing",
            "BiSeNet face parser",
            tuple(
                (repo, "79999_iter.pth", "main")
                for repo in ("vivym/face-parsing-bisenet", "ManyOtherFunctions/face-parse-bisent")
            ),
            "non-commercial research only: trained on CelebAMask-HQ, whose agreement says so of "
            "the data and what is derived "
            "from it; the code of zllrunning/face-parsing.PyTorch is MIT, and of its weights it "
            "says nothing",
            "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
            53_289_463,
        ),
    )
}


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
            f"`{_pull_command(entry)}` takes it as it "
            "is and records the hash"
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
            f"{path.name} has sha256 {got}; wanted {wanted}; delete {path} and pull it again"
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
