"""The command line: registers the commands and maps errors to exit codes."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import LipSyncError, MediaError, NoFaceError, WeightsError
from .bench import OptionalAddress, batch_command, bench_command, expert_command
from .dub import dub_command
from .mask import mask_command
from .models import app as models_app
from .progress import Bar
from .quality import quality_command
from .score import score_command
from .speakers import speakers_command
from .study import app as study_app

app = typer.Typer(
    help="Make any face speak any speech.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models_app, name="models")
app.add_typer(study_app, name="study")
app.command("dub")(dub_command)
app.command("bench", cls=OptionalAddress)(bench_command)
app.command("batch", cls=OptionalAddress)(batch_command)
app.command("expert")(expert_command)
app.command("mask")(mask_command)
app.command("quality")(quality_command)
app.command("score")(score_command)
app.command("speakers")(speakers_command)

_EXIT_CODES = {NoFaceError: 3, MediaError: 4, WeightsError: 5, ValueError: 2}
_errors = Console(stderr=True)


@app.command("demo")
def demo_command(
    folder: Annotated[Path, typer.Argument(help="Folder for demo.mp4 and demo.png.")] = Path(),
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--keep", help="Replace an earlier demo.")
    ] = True,
) -> None:
    """Dub a photograph with the bundled speech and weights; works offline."""
    from ..pipelines.demo import demo

    with Bar() as bar:
        video, sheet = demo(folder, overwrite=overwrite, on_progress=bar)
    print(f"wrote {video} and {sheet}")


def main() -> None:
    """Run `lipsync`. Exit codes: 2 usage, 3 no face, 4 media, 5 weights, 1 anything else."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    try:
        app()
    except (LipSyncError, ValueError, ImportError) as error:
        # ImportError: of an optional package, which the message names
        _errors.print(
            f"lipsync: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1))
