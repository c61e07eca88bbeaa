"""What the tests of recipes share: a terminal that asks a run to end, and two processes as torchrun
starts them."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class AskedToEnd(io.StringIO):
    """A terminal from which SIGTERM comes as soon as a line that begins with ``row``, the report of
    a step, is written."""

    def __init__(self, row: str) -> None:
        super().__init__()
        self._row = row

    def write(self, text: str) -> int:
        if text.startswith(self._row):
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


def started(recipe: str, *arguments: str) -> subprocess.Popen[str]:
    """Two processes that run a recipe on the CPU; every line comes when it is written."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", f"train.{recipe}", *arguments, "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(recipe: str, *arguments: str) -> str:
    """What a recipe says that two processes run to its end."""
    with started(recipe, *arguments) as running:
        try:
            told, errors = running.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
    assert running.returncode == 0, errors
    assert told.count("2 processes on cpu") == 1
    return told
