"""``lipsync score``: measure the sync of lips and sound, and correct it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..media.paths import PLOT_SUFFIXES, check_output_path
from ..options import Cut, Finding
from .checks import check_inputs, check_video_output
from .options import Device, Only, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from ..pipelines.score import ScoreReport


@expand_options
def score_command(  # noqa: PLR0913
    video: Annotated[Path, typer.Argument(help="Video with a face.")],
    finding: Annotated[Finding, Only("detector", "min_score", "cache")],
    cut: Annotated[Cut, Only("audio_track")],
    audio: Annotated[Path | None, typer.Argument(help="Sound; by default the video's own.")] = None,
    scorer: Annotated[
        str, typer.Option(help="judge (bundled), syncnet, or a weight file.")
    ] = "judge",
    mode: Annotated[
        Literal["exact", "reference"],
        typer.Option(help="reference: LSE-D and LSE-C like the public scripts; SyncNet only."),
    ] = "exact",
    whole_frame: Annotated[
        bool,
        typer.Option(
            "--whole-frame", help="For reference: frames are face crops already (LRS2, LRS3, LRW)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Plot confidence and offset: a .png, .svg or .pdf.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write the video with its sound moved into sync.")
    ] = None,
    search_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=20,
            help="How far to each side the offset is searched; by default 15 frames (0.6 s).",
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.")
    ] = False,
) -> None:
    """Measure by how many frames the sound is early or late, for every face."""
    if plot is not None:
        check_output_path(plot, overwrite=overwrite, suffixes=PLOT_SUFFIXES)
    if fix is not None:
        check_video_output(fix, video, audio, overwrite=overwrite)
    check_inputs(video, audio, weights=(scorer,), finding=finding)
    from ..pipelines.score import score
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as on_progress:
        report = score(
            video,
            audio,
            scorer=scorer,
            mode=mode,
            whole_frame=whole_frame,
            cut=cut,
            finding=finding,
            device=device,
            on_progress=on_progress,
            search_seconds=search_seconds,
        )
    typer.echo(report.to_json()) if as_json else _print(report)
    if plot is not None:
        _plot(report, plot, overwrite)
    if fix is not None:
        _fix(report, fix, cut.audio_track, overwrite)


def _print(report: "ScoreReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from ..pipelines.score import explain_score

    table = Table(
        title=f"{report.video.name}, by {report.scorer}, mode {report.mode}, "
        f"frames of {report.scorer_fps} fps"
    )
    names = ("LSE-D", "LSE-C") if report.mode == "reference" else ("distance", "confidence")
    for column in ("face", "seen", "offset", "±", "searched", *names):
        table.add_column(column, justify="right")
    for track in report.tracks:
        score = track.score
        face = f"{track.centre[0]},{track.centre[1]}"
        typer.echo(
            f"face at {face}, frames {track.first_frame} to {track.last_frame}: "
            f"{explain_score(score, report.fps)}"
        )
        table.add_row(
            face,
            f"{track.first_frame} to {track.last_frame}",
            "none" if score.offset_frames is None else f"{score.offset_frames:+d}",
            "" if score.uncertainty is None else f"{score.uncertainty:.1f}",
            f"±{score.search_frames}",
            f"{score.distance:.3f}",
            f"{score.confidence:.3f}",
        )
    Console().print(table)
    if report.audio_track is not None:
        typer.echo(f"sound: {report.audio_track}")


def _plot(report: "ScoreReport", path: Path, overwrite: bool) -> None:
    from ..pipelines.score_plot import plot_scores

    plot_scores(report, path, overwrite=overwrite)
    typer.echo(f"wrote {path}", err=True)


def _fix(report: "ScoreReport", out: Path, audio_track: int | None, overwrite: bool) -> None:
    from ..pipelines.score import explain_score, shift_sound

    best = report.best().score
    assert best.offset_frames is not None and best.offset_ms is not None
    for track in report.tracks:
        if (
            abs((track.score.offset_ms or best.offset_ms) - best.offset_ms)
            > 1000 / report.scorer_fps
        ):
            frames = f"frames {track.first_frame} to {track.last_frame}"
            typer.echo(
                f"one shift does not correct all faces: the face at {track.centre[0]},"
                f"{track.centre[1]}, {frames}: {explain_score(track.score, report.fps)}",
                err=True,
            )
    shift_sound(
        report.video,
        out,
        best.offset_frames,
        report.scorer_fps,
        audio=report.audio,
        track=audio_track,
        overwrite=overwrite,
    )
    typer.echo(f"wrote {out}, its sound shifted by {best.offset_ms:+.0f} ms (> 0: later)", err=True)
