"""The command line: finds the module of a command and maps errors to exit codes."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ..errors import LipSyncError, MediaError, NoFaceError, WeightsError

# In the order of `lipsync --help`: the module and the Typer app or function in it.
_HOMES = {
    "dub": ("dub", "dub_command"),
    "bench": ("bench", "bench_command"),
    "batch": ("bench", "batch_command"),
    "expert": ("bench", "expert_command"),
    "mask": ("mask", "mask_command"),
    "quality": ("quality", "quality_command"),
    "score": ("score", "score_command"),
    "speakers": ("speakers", "speakers_command"),
    "visemes": ("visemes", "visemes_command"),
    "demo": ("main", "demo_command"),
    "models": ("models", "app"),
    "study": ("study", "app"),
}
_WITH_RAY = ("bench", "batch")
_EXIT_CODES = {NoFaceError: 3, MediaError: 4, WeightsError: 5, ValueError: 2}


class _Commands(MutableMapping[str, Any]):
    """Commands by name; the module of each is imported when it is first used."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load_command(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


class _LazyGroup(TyperGroup):
    """A group that loads only the command that is called, so that it answers at once."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()


app = typer.Typer(
    cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)


@app.callback()
def lipsync() -> None:
    """Make any face speak any speech."""


def _load_command(name: str) -> Any:
    """Import the command ``name`` and return it as typer's parser takes it."""
    module, attribute = _HOMES[name]
    found = getattr(import_module(f".{module}", __package__), attribute)
    if isinstance(found, typer.Typer):
        command = typer.main.get_command(found)
        command.name = name
        return command
    single = typer.Typer(add_completion=False)
    if name in _WITH_RAY:
        from .bench import OptionalAddress

        single.command(name, cls=OptionalAddress)(found)
    else:
        single.command(name)(found)
    return typer.main.get_command(single)


def demo_command(
    folder: Annotated[Path, typer.Argument(help="Folder for demo.mp4 and demo.png.")] = Path(),
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--keep", help="Replace an earlier demo.")
    ] = True,
) -> None:
    """Dub a photograph with the bundled speech and weights; works offline."""
    from ..pipelines.demo import demo
    from .progress import Bar

    with Bar() as bar:
        video, sheet = demo(folder, overwrite=overwrite, on_progress=bar)
    print(f"wrote {video} and {sheet}")


def exit_on_signals() -> None:
    """Let requests to end, of a container or a closed session, clean up as Ctrl-C does.

    The exit code is 128 and the signal's number: 143 for SIGTERM. Further requests are ignored
    while files are removed. Windows ends processes without asking.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP")
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    for one in signals:
        if signal.getsignal(one) is signal.SIG_DFL:  # nohup, and hosts, keep their own
            signal.signal(one, leave)


def main() -> None:
    """Run `lipsync`.

    Exit codes: 2 usage, 3 no face, 4 media, 5 weights, 6 ``--fail-on``, 130 Ctrl-C, 143 SIGTERM,
    1 anything else.
    """
    exit_on_signals()
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    try:
        app()
    except (LipSyncError, ValueError, ImportError) as error:
        # ImportError: of an optional package, which the message names
        from rich.console import Console

        Console(stderr=True).print(
            f"lipsync: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1))
