"""Nothing half-written stays, and nothing of a run that goes on is removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_core.runtime.atomic import remove_stale, temporary_name

_WRITING = """
import signal, sys, time
from pathlib import Path
from lipsync_core.cli import main as commands
from lipsync_core.runtime.atomic import atomic_write, temporary_name

def write():
    with atomic_write(Path(sys.argv[1])) as part:
        part.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)

if hasattr(signal, "SIGHUP"):  # ignored under nohup, and so by its children
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
commands.app = write
commands.main()
"""


def writing(out: Path) -> "subprocess.Popen[str]":
    """A command that has begun to write ``out``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITING, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without asking")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_told_to_end_leaves_nothing(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    process = writing(tmp_path / "out.mp4")
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be removed there anyway")
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    killed, other = writing(out), writing(tmp_path / "other.mp4")
    killed.kill()
    killed.wait(20)
    other.kill()
    other.wait(20)
    assert len(list(tmp_path.iterdir())) == 2
    remove_stale(out)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".other.")


def test_files_of_runs_that_go_on_stay(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    own = temporary_name(out)
    parent = own.with_name(own.name.replace(f".{os.getpid()}-", f".{os.getppid()}-"))
    elsewhere = tmp_path / ".out.99999999-00000000.01234567.part.mp4"
    before = tmp_path / ".out.01234567.part.mp4"
    for part in (own, parent, elsewhere, before):
        part.write_bytes(b"half")
    remove_stale(out)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_long_name_has_a_temporary_name(tmp_path: Path) -> None:
    out = tmp_path / ("\N{GREEK SMALL LETTER OMEGA}" * 120 + ".mp4")
    temporary_name(out).write_bytes(b"half")
    assert temporary_name(out) != temporary_name(out)
