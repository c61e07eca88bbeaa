"""``lipsync check``: whether a face and a speech can be dubbed well."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Cut, Finding
from .checks import check_inputs
from .options import AsJson, Device, FaceFile, Only, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from ..pipelines.input_check import InputReport


@expand_options
def check_command(
    face: FaceFile,
    audio: Annotated[Path, typer.Argument(help="Speech: any file with sound.")],
    finding: Annotated[Finding, Only("detector", "min_score", "cache")],
    cut: Annotated[Cut, Only("start", "end", "audio_track")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say before a dub what face and speech lack; exit with 6 if it will fail."""
    check_inputs(face, audio, cut=cut, finding=finding)
    from ..pipelines.input_check import check_dub_inputs
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as bar:
        report = check_dub_inputs(
            face, audio, cut=cut, finding=finding, device=device, on_progress=bar
        )
    typer.echo(report.to_json()) if as_json else _print(report)
    if report.outlook == "will fail":
        raise typer.Exit(6)


def _print(report: "InputReport") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.face.name}, {report.audio.name}: {report.outlook}")
    for column in ("of", "what", "value", "outlook", "what to do"):
        table.add_column(column)
    for row in report.rows:
        value = "" if row.value is None else f"{row.value:g}"
        table.add_row(row.subject, row.what, value, row.outlook, row.advice)
    Console().print(table)
