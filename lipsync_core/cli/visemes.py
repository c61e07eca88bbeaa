"""``lipsync visemes``: mouth shapes for drawn and rendered characters."""

from pathlib import Path
from typing import Annotated

import typer

from ..media.paths import check_output_path, refuse_inputs
from ..runtime.timecode import parse_fps
from .checks import check_inputs
from .options import Device


def visemes_command(
    speech: Annotated[Path, typer.Argument(help="Speech: a sound, or a video with sound.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A .json (mouth shapes and curves), .tsv (mouth shapes) or .csv (a line a frame).",
        ),
    ],
    fps: Annotated[
        str, typer.Option(metavar="RATE", help="Frame rate of the animation, such as 24 or 29.97.")
    ] = "25",
    audio_track: Annotated[
        int | None, typer.Option(min=1, help="Sound track of a file with several.")
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write the mouth shapes of speech (A to F and X, as Rhubarb Lip Sync names them)."""
    refuse_inputs(out, speech)
    check_output_path(out, overwrite=overwrite, suffixes=(".json", ".tsv", ".csv"))
    rate = parse_fps(fps)
    check_inputs(speech)
    from ..pipelines.visemes import predict_visemes, write_visemes

    track = predict_visemes(
        speech,
        fps=rate,
        device=device,
        audio_track=audio_track,
        on_warning=lambda text: typer.echo(f"warning: {text}", err=True),
    )
    write_visemes(track, out, overwrite=overwrite)
    shapes = "1 mouth shape" if len(track.cues) == 1 else f"{len(track.cues)} mouth shapes"
    typer.echo(f"{out}: {shapes} in {track.duration:.2f} s")
