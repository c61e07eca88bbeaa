"""``lipsync speakers``: find who speaks when, as a table for `lipsync dub --speakers`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Cut, Finding
from .checks import check_inputs, check_side_output
from .options import AsJson, Device, Only, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from ..pipelines.speakers import SpeakersReport


@expand_options
def speakers_command(  # noqa: PLR0913
    video: Annotated[Path, typer.Argument(help="Video with one or more faces.")],
    finding: Annotated[Finding, Only("detector", "min_score", "cache")],
    cut: Annotated[Cut, Only("start", "end", "audio_track")],
    audio: Annotated[Path | None, typer.Option(help="Sound; by default the video's own.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="CSV file to write, with start, end and face."),
    ] = None,
    scorer: Annotated[
        str, typer.Option(help="judge (bundled), or the weight file of another expert.")
    ] = "judge",
    as_json: AsJson = False,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing table.")
    ] = False,
) -> None:
    """Find who speaks when, by scoring each face against the sound."""
    if out is not None:
        check_side_output(out, video, audio, overwrite=overwrite)
    check_inputs(video, audio, weights=(scorer,), cut=cut, finding=finding)
    from ..pipelines.speakers import speakers
    from ..pipelines.turn_table import write_turns
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as on_progress:
        report = speakers(
            video,
            audio,
            scorer=scorer,
            cut=cut,
            finding=finding,
            device=device,
            on_progress=on_progress,
        )
    typer.echo(report.to_json()) if as_json else _print(report)
    if out is not None:
        write_turns(out, report.rows, overwrite=overwrite)


def _print(report: "SpeakersReport") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{report.video.name}, by {report.scorer}: "
        f"{len(report.rows)} turns, {report.faces} faces"
    )
    for column in ("start", "end", "face"):
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(f"{float(row.start):.2f}", f"{float(row.end):.2f}", str(row.face))
    Console().print(table)
    if report.audio_track is not None:
        typer.echo(f"sound: {report.audio_track}")
