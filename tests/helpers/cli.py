"""Run the command line in this process, which spares the seconds that importing torch takes."""

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from lipsync_core.cli.main import main


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: object) -> Finished:
    """Run ``lipsync ARGUMENTS`` as a user's shell would, with its exit code.

    An exception that the command does not handle is raised here, where a shell would show a
    traceback.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["lipsync", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(code, out.getvalue(), err.getvalue())
