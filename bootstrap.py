"""One command from a fresh clone: set up .venv with the tested versions, then run the demo or the
tests.

    python3 bootstrap.py demo
    python3 bootstrap.py test

Needs Python 3.11 or newer and a network for packages; nothing else. Uses only the standard library.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# A process a core, a file of tests in one process: what is made for a file is made once. Long files
# begin first (conftest).
TESTS = [
    "-m",
    "pytest",
    "-n",
    "auto",
    "--maxprocesses",
    "8",
    "--dist",
    "loadfile",
    "--no-loadscope-reorder",
]
TASKS = {
    "demo": (".", [["-m", "lipsync_core", "demo"]]),
    "test": (
        ".[dev,docs]",
        [
            ["-m", "ruff", "check", "."],
            ["-m", "ruff", "format", "--check", "."],
            ["-m", "pyright"],
            ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", "build/site"],
            TESTS,
        ],
    ),
}


def main() -> int:
    if sys.version_info < (3, 11):
        print(f"Python is {sys.version.split()[0]}; wanted 3.11 or newer")
        return 2
    if len(sys.argv) != 2 or sys.argv[1] not in TASKS:
        print(__doc__)
        return 2
    package, commands = TASKS[sys.argv[1]]
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        "constraints.txt",
        "-e",
        package,
    ]
    for command in [install, *commands]:
        print("$ python", *command, flush=True)
        code = subprocess.run([str(PYTHON), *command], cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
