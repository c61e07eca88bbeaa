"""The command line: arguments -> functions, and their errors -> exit codes."""

import logging
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .cli_models import app as models_app
from .errors import LipSyncError, MediaError, NoFaceError, WeightsError

app = typer.Typer(
    help="Make any face speak any speech.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
app.add_typer(models_app, name="models")

_EXIT_CODES = {NoFaceError: 3, MediaError: 4, WeightsError: 5, ValueError: 2}
_errors = Console(stderr=True)


def parse_time(text: str) -> Fraction:
    """Seconds, m:s or h:m:s, each part a decimal number, as an exact number of seconds."""
    parts = text.split(":")
    try:
        values = [Fraction(part) for part in parts]
    except (ValueError, ZeroDivisionError):
        values = []
    if not 1 <= len(values) <= 3 or any(v < 0 for v in values) or any(v >= 60 for v in values[1:]):
        raise typer.BadParameter(f"{text!r} is no time; wanted seconds or h:m:s, such as 12.5 or 0:01:30")
    return sum((v * 60**k for k, v in enumerate(reversed(values))), Fraction(0))


def parse_fps(text: str) -> Fraction:
    """A frame rate such as 25, 29.97 or 30000/1001."""
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise typer.BadParameter(f"{text!r} is no frame rate; wanted a number or a ratio, such as 25 or 30000/1001")
    return fps


def parse_pair(text: str) -> tuple[Path, str]:
    """FACE=AUDIO -> (audio, face)."""
    face, equals, audio = text.partition("=")
    if not equals or not audio:
        raise typer.BadParameter(f"{text!r} is no pair; wanted FACE=AUDIO, such as left=anna.wav")
    return Path(audio), face


def _pads(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        top, bottom, left, right = (int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} are no pads; wanted 'top bottom left right' in px, such as '0 10 0 0'"
        ) from None
    return top, bottom, left, right


@app.command("dub")
def dub_command(
    face: Annotated[Path, typer.Argument(help="Video or photo (PNG, JPEG, WebP) with the face.")],
    audio: Annotated[Path | None, typer.Argument(help="Speech: any file with sound.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The dubbed video: .mp4, .mov, .mkv or .webm.")] = Path(
        "dubbed.mp4"
    ),
    pair: Annotated[
        list[str] | None, typer.Option(help="FACE=AUDIO, once for each speaker; instead of AUDIO and --face.")
    ] = None,
    which: Annotated[str, typer.Option("--face", help="largest | left | right | INDEX | x,y")] = "largest",
    model: Annotated[str, typer.Option(help="A name (see `lipsync models list`) or a weight file.")] = "mini",
    mask: Annotated[Literal["mouth", "lower", "face", "box"], typer.Option(help="What is redrawn.")] = "mouth",
    blend: Annotated[Literal["paste", "feather"], typer.Option(help="How it joins its frame.")] = "feather",
    feather: Annotated[float, typer.Option(help="Width of the soft edge, as a part of the crop.")] = 0.08,
    colour_match: Annotated[bool, typer.Option(help="Bring the colours of the new skin to the old's.")] = False,
    pads: Annotated[
        str | None, typer.Option(help="'top bottom left right' px round the detector's box (wav2lip weights).")
    ] = None,
    lead_ms: Annotated[
        int | None, typer.Option(help="Sound heard this long before its frame; 40 mends wav2lip's early lips.")
    ] = None,
    start: Annotated[str, typer.Option(help="Cut the video: from here (seconds or h:m:s).")] = "0",
    end: Annotated[str | None, typer.Option(help="Cut the video: to here.")] = None,
    fps: Annotated[str | None, typer.Option(help="Frames per second; the source's average by default.")] = None,
    longer: Annotated[
        Literal["pingpong", "loop", "hold", "trim"],
        typer.Option("--when-audio-is-longer", help="What the picture does then."),
    ] = "pingpong",
    detector: Annotated[Literal["mini", "yunet", "s3fd"], typer.Option(help="Face detector.")] = "mini",
    min_score: Annotated[float, typer.Option(help="Least score of a face.")] = 0.7,
    cache: Annotated[bool, typer.Option(help="Keep and reuse where the faces are.")] = True,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda | mps")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames at a time.")] = 16,
    codec: Annotated[str | None, typer.Option(help="FFmpeg encoder; H.264 for MP4 by default.")] = None,
    crf: Annotated[float, typer.Option(help="Quality, lower is better and larger.")] = 18,
    preset: Annotated[str, typer.Option(help="Encoder preset.")] = "veryfast",
    tag: Annotated[bool, typer.Option(help="Say in the metadata that the picture is generated.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make the face of a video or photo speak."""
    from .dubbing import Cut, Encoding, Finding, dub
    from .pipeline import Blend

    if (audio is None) == (not pair):
        raise typer.BadParameter("give either AUDIO or --pair FACE=AUDIO", param_hint="AUDIO")
    with _progress() as show:
        report = dub(
            face,
            audio if audio is not None else [parse_pair(text) for text in pair or []],
            out,
            model=model,
            select=which,
            blend=Blend(mask, blend, feather, colour_match),
            cut=Cut(
                parse_time(start), None if end is None else parse_time(end), parse_fps(fps) if fps else None, longer
            ),
            finding=Finding(detector, min_score, cache),
            encoding=Encoding(codec, crf, preset, tag, overwrite),
            pads=_pads(pads),
            lead_ms=lead_ms,
            device=device,
            batch=batch,
            on_progress=show,
        )
    if as_json:
        print(report.to_json())
        return
    table = Table(title=str(report.out), show_header=False)
    table.add_row("frames", f"{report.frames} at {float(report.fps):g} fps")
    table.add_row("dubbed", f"{report.dubbed}; {report.passed_through} passed through without the face")
    table.add_row("model", f"{report.model}, faces by {report.detector}")
    table.add_row("seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items()))
    Console().print(table)


@app.command("demo")
def demo_command(
    folder: Annotated[Path, typer.Argument(help="Where demo.mp4 and demo.png go.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite/--keep", help="Replace an earlier demo.")] = True,
) -> None:
    """Dub a photograph with the bundled speech and weights; needs no network."""
    from .demo import demo

    with _progress() as show:
        video, sheet = demo(folder, overwrite=overwrite, on_progress=show)
    print(f"wrote {video} and {sheet}")


class _progress:
    """A progress bar on stderr, as the callback (stage, done, total)."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=_errors, transient=True)
        self._task = self._bar.add_task("start", total=None)

    def __enter__(self) -> "_progress":
        self._bar.start()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=stage, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def main() -> None:
    """Entry point of `lipsync`. Exit codes: 2 usage, 3 no face, 4 media, 5 weights, 1 anything else."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except (LipSyncError, ValueError) as error:
        _errors.print(f"lipsync: {error}", style="red", markup=False, highlight=False)
        sys.exit(next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1))
