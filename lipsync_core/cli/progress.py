"""The progress bar of the commands."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar on stderr; call it with (stage, done, total)."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("start", total=None)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a stage are finished."""
        self._bar.update(self._task, description=stage, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
