"""Start a real ComfyUI on the CPU with this pack alone, wait until it answers, keep its log, and
stop it again.

The environment names the host: COMFYUI_DIR a checkout, COMFYUI_PYTHON the interpreter that has its
requirements (default: the one that runs the tests).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from helpers.webdriver import PATIENCE

ROOT = Path(__file__).parents[2]
# what a download, a copy and a version number leave behind: spaces, dots, brackets
PACK = "My-Pack.v2 (1)"
PLAIN = "lipsync"  # what the Manager leaves behind
HOST = Path(os.environ["COMFYUI_DIR"]).resolve() if os.environ.get("COMFYUI_DIR") else None
PYTHON = os.environ.get("COMFYUI_PYTHON") or sys.executable
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "tests", "train"
)
SETTINGS = {  # for pictures: no welcome, map or figures over the page
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.0.0",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}
Torchaudio = Literal["working", "broken"]


@dataclass(frozen=True, slots=True)
class Server:
    """A running host."""

    url: str
    base: Path  # its folders: input, output, temp, models, custom_nodes, user
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def pack(self) -> str:
        """The name of our folder."""
        (folder,) = (
            path.name
            for path in (self.base / "custom_nodes").iterdir()
            if path.name != "__pycache__"
        )
        return folder

    def work(self) -> float:
        """CPU seconds that the host has spent, in all its threads; elsewhere than on Linux the
        seconds that passed."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2]
        except OSError:
            return time.monotonic()
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def path(self, item: Mapping[str, str]) -> Path:
        """Where the file lies that an output of the history names."""
        return self.base / item["type"] / item.get("subfolder", "") / item["filename"]


def version() -> str:
    """The host's own, such as 0.33.0."""
    assert HOST is not None
    scope: dict[str, str] = {}
    for line in (HOST / "comfyui_version.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            scope["version"] = line.split("=")[1].strip().strip("\"'")
    return scope["version"]


def furnish(base: Path, name: str = PACK) -> Path:
    """Make the folders of a fresh host under ``base``, with a copy of this pack in its
    custom_nodes."""
    for folder in ("custom_nodes", "input", "output", "temp", "models", "user/default"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "user/default/comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    shutil.copytree(ROOT, base / "custom_nodes" / name, ignore=LEFT_OUT)
    return base


@contextmanager
def serving(
    base: Path,
    *,
    torchaudio: Torchaudio = "working",
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    seconds: float = 180,
) -> Iterator[Server]:
    """The host on the folders that ``furnish`` made. It answers when this yields, and is gone when
    it ends."""
    assert HOST is not None, "COMFYUI_DIR names no checkout of ComfyUI"
    port = free_port()
    log_file = base / "server.log"
    command = [
        *(
            PYTHON,
            str(Path(__file__).with_name("prepare.py")),
            torchaudio,
            str(HOST),
            "--cpu",
            "--disable-api-nodes",
        ),
        *("--base-directory", str(base), "--port", str(port)),
        *("--database-url", f"sqlite:///{(base / 'user/comfyui.db').as_posix()}", *flags),
    ]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"PYTHONIOENCODING": "utf-8", "LIPSYNC_CACHE": str(base / "cache"), "HF_HUB_OFFLINE": "1"}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=HOST,
            env={**inherited, **own, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", base, log_file, process)
    try:
        wait_until_it_answers(server, seconds)
        yield server
    finally:
        stop(process)


def wait_until_it_answers(server: Server, seconds: float) -> None:
    end = time.monotonic() + seconds * PATIENCE
    while True:
        assert server.process.poll() is None, f"the host ended:\n{server.log()[-4000:]}"
        assert time.monotonic() < end, (
            f"the host does not answer within {seconds} s:\n{server.log()[-4000:]}"
        )
        try:
            with urllib.request.urlopen(f"{server.url}/system_stats", timeout=10):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, then insist: on Windows both end it at once."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
