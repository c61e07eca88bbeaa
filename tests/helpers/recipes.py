"""What the tests of recipes share: a terminal that asks a run to end, two processes as torchrun
starts them, and networks that are thin enough to be quick."""

import io
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from lipsync_core.models.layers import Stage
from lipsync_core.models.weights import save_model

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
    """Two processes that run a recipe with thin networks on the CPU; every line comes when it is
    written."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "helpers.thin_script", f"train.{recipe}", *arguments, "--device", "cpu"]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0", "PYTHONUNBUFFERED": "1"}
    environment |= {"PYTHONPATH": paths}
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


def thin(config: Any) -> Any:
    """A network's config with an eighth of the channels, at least 4."""

    def narrow(value: Any) -> Any:
        if isinstance(value, Stage):
            return replace(value, channels=max(4, value.channels // 8))
        return tuple(map(narrow, value)) if isinstance(value, tuple) else value

    names = {"face", "audio", "decoder", "blocks"} & {field.name for field in fields(config)}
    return replace(config, **{name: narrow(getattr(config, name)) for name in names})


def saved(model: nn.Module, path: Path) -> str:
    """Where the weights file of a network lies, made without a seed of its own."""
    save_model(model, path, licence="none", source="a test")
    return str(path)
