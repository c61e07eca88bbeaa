"""``lipsync study``: a study in which people compare methods."""

import csv
import socket
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Let people judge methods, blind and side by side.",
    no_args_is_help=True,
    add_completion=False,
)

Study = Annotated[Path, typer.Argument(metavar="STUDY_FOLDER", help="The study's folder.")]


def parse_method(text: str) -> tuple[str, Path]:
    """Split NAME=FOLDER into (name, folder)."""
    name, equals, folder = text.partition("=")
    if not name or not equals or not folder:
        raise typer.BadParameter(
            f"{text!r} is not a method; expected NAME=FOLDER, such as wav2lip=results/wav2lip"
        )
    return name, Path(folder)


def create(
    folder: Study,
    method: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a method's clips, once per method.")
    ],
    raters: Annotated[
        int, typer.Option(min=1, help="Number of raters, each with a link; 14 in the paper.")
    ] = 14,
    side_by_side: Annotated[
        int,
        typer.Option(
            min=2,
            help="Clips on one screen: 2 suits phones; the paper shows all methods.",
        ),
    ] = 2,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Clips that each rater judges; by default all.")
    ] = None,
    common_only: Annotated[
        bool,
        typer.Option(
            "--common-only", help="Leave out clips that a method lacks, instead of stopping."
        ),
    ] = False,
    title: Annotated[
        str, typer.Option(help="Question shown to raters.")
    ] = "Which talking face looks right?",
    seed: Annotated[int, typer.Option(help="Seed of the random order of clips.")] = 0,
) -> None:
    """Build a study from the clips of several methods.

    The same clip must have the same file name in every folder.
    """
    from ..study.create import create_study

    methods = dict(parse_method(text) for text in method)
    if len(methods) < len(method):
        raise typer.BadParameter("two methods have one name", param_hint="--method")
    made = create_study(
        folder,
        methods,
        raters=raters,
        side_by_side=side_by_side,
        clips_per_rater=clips,
        common_only=common_only,
        title=title,
        seed=seed,
    )
    for warning in made.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{made.folder}: {made.clips} clips, {raters} raters, {made.tasks} screens")
    typer.echo(
        f'{made.links} has one secret link per rater; next: lipsync study serve "{made.folder}"'
    )


def serve(
    folder: Study,
    host: Annotated[
        str,
        typer.Option(
            help="127.0.0.1: this machine; 0.0.0.0: the network, unencrypted (use a TLS proxy)."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8765,
    url: Annotated[str | None, typer.Option(help="Address for the printed links.")] = None,
) -> None:
    """Serve the voting page until Ctrl-C.

    Every acknowledged vote is on the disk; the server can be started again at any time.
    """
    from ..study.server import serve as serve_study

    def ready() -> None:
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        base = (url or f"http://{name}:{port}").rstrip("/")
        links = folder / "links.csv"
        if not links.is_file():  # the owner may keep it elsewhere
            typer.echo(f"serving {base}; {links} is not here, so no links are shown")
            return
        with links.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                typer.echo(f"rater {row['rater']:>3}  {base}{row['path']}")

    serve_study(folder, host=host, port=port, on_ready=ready)


def report(
    folder: Study,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.md, .json and .png; by default the study."),
    ] = None,
    measures: Annotated[
        Path | None,
        typer.Option(
            help="Measures of the same clips: results.jsonl of bench, or CSV with the columns "
            "method, clip and one for each measure; their rank correlation with people is reported."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.")
    ] = False,
) -> None:
    """Report opinion scores, preference and agreement so far.

    This is the only command that names the methods.
    """
    from ..study.plot import save_report
    from ..study.report import report_study

    found = report_study(folder, measures=measures)
    save_report(found, folder if out is None else out)
    typer.echo(found.to_json() if as_json else found.to_markdown())


for _name, _command in {"create": create, "serve": serve, "report": report}.items():
    app.command(_name)(_command)
