"""``lipsync quality``: measure the image quality of a dub, alone or against a reference."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..options import Finding
from .checks import check_inputs
from .options import AsJson, Device, Only, Which, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from ..pipelines.mouth_following import MouthReport
    from ..pipelines.quality import QualityReport

_MEANING = {
    "sharpness": ("mouth sharpness", "detail of the mouth over that of the face; ↑"),
    "border_jitter": ("border jitter", "levels per frame squared at the seam; ↓"),
    "mouth_motion": ("motion in silence", "levels per 1/25 s; ↓"),
    "psnr_db": ("PSNR", "dB, of the {region}; ↑"),
    "ssim": ("SSIM", "of the {region}, 1 is equal; ↑"),
    "lmd": ("LMD", "hundredths of the distance between the eyes; ↓"),
    "fid": ("FID", "of the {region}; ↓"),
}
_MOUTH_MEANING = {
    "truth": ("truth", "correlation with the true speaker's lips; ↑"),
    "truth_lag": ("lag", "1/25 s by which the dub is late; 0"),
    "leak": ("leak", "correlation with the old lips; no more than chance"),
    "chance": ("chance", "correlation of the old lips with the true speaker's"),
    "old": ("old", "share of the old lips; 0"),
    "new": ("new", "share of the true speaker's lips; 1"),
    "movement": ("movement", "over the true speaker's; 1"),
    "closure_recall": ("closures found", "of the true speaker's closed frames; ↑"),
    "closure_precision": ("closures right", "of the dub's closed frames; ↑"),
}


@expand_options
def quality_command(  # noqa: PLR0913
    video: Annotated[Path, typer.Argument(help="Video with a face, such as a dub.")],
    finding: Annotated[Finding, Only("detector", "min_score", "cache")],
    real: Annotated[
        Path | None, typer.Argument(help="The original or true clip, of the same size.")
    ] = None,
    which: Which = "largest",
    region: Annotated[
        Literal["face", "frame"],
        typer.Option(help="Part of the picture for PSNR, SSIM and FID."),
    ] = "face",
    landmarks: Annotated[
        Path | None,
        typer.Option(help="InsightFace's 2d106det.onnx, to compute LMD; needs REAL."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Video of the speaker of the new speech, to compare lips with."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="The video before the dub, to compare lips with."),
    ] = None,
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """Measure the image quality of a dub, and whether its lips follow the speech.

    Blur, jitter of the seam and lip motion in silence; PSNR, SSIM, LMD and FID against REAL; lips
    against the true speaker (--truth) and the old lips (--source).
    """
    check_inputs(video, real, truth, source, faces=(which,), finding=finding)
    from dataclasses import replace

    from ..pipelines.mouth_following import measure_following
    from ..pipelines.quality import measure_quality
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as on_progress:
        report = measure_quality(
            video,
            real,
            face=which,
            region=region,
            landmarks=landmarks,
            finding=finding,
            device=device,
            on_progress=on_progress,
        )
        if truth is not None or source is not None:
            mouth = measure_following(
                video,
                truth=truth,
                source=source,
                face=which,
                finding=finding,
                device=device,
                on_progress=on_progress,
            )
            report = replace(report, mouth=mouth)
    typer.echo(report.to_json()) if as_json else _print(report)


def _print(report: "QualityReport") -> None:
    from rich.console import Console
    from rich.table import Table

    x, y = report.centre
    count = f"{report.with_face} of {report.frames} frames at {float(report.fps):g} fps"
    table = Table(title=f"{report.video.name}: face at {x},{y} in {count}")
    table.add_column("")
    table.add_column("video", justify="right")
    if report.real is not None:
        table.add_column("real", justify="right")
    table.add_column("unit; better")
    for name, figure in report.figures.items():
        title, meaning = _MEANING[name]
        values = [figure.value] if report.real is None else [figure.value, figure.real]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        table.add_row(title, *cells, meaning.format(region=report.region))
    Console().print(table)
    for name, figure in report.figures.items():
        if figure.reason is not None:
            typer.echo(f"{_MEANING[name][0]}: {figure.reason}")
    if report.mouth is not None:
        _print_mouth(report.mouth)


def _print_mouth(report: "MouthReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from ..pipelines.mouth_following import explain_following

    table = Table(title=f"Lips, by {report.landmarks}")
    for heading in ("", "dub", "meaning; ideal"):
        table.add_column(heading, justify="right" if heading == "dub" else "left")
    found = report.following
    for name, (title, meaning) in _MOUTH_MEANING.items():
        value = getattr(found, name)
        shown = "–" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"
        table.add_row(title, shown, meaning)
    Console().print(table)
    typer.echo(explain_following(found))
    for reason in dict.fromkeys(found.reasons.values()):
        names = ", ".join(
            _MOUTH_MEANING[name][0] for name, why in found.reasons.items() if why == reason
        )
        typer.echo(f"{names}: {reason}")
