"""``lipsync models``: list, inspect, download and convert weight files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..models import hub
from ..models.weight_files import BUNDLED, check_weights, check_weights_path, weights_file

app = typer.Typer(
    help="List, inspect, download and convert weight files.",
    no_args_is_help=True,
    add_completion=False,
)


def list_models() -> None:
    """List all known names, whether they are on this machine, and their licences."""
    for name, path in BUNDLED.items():
        state = "bundled" if path.is_file() else "missing"
        typer.echo(f"{name:14} {state:11} ours")
    for entry in hub.HUB.values():
        here = (hub.weights_folder() / entry.filename).is_file()
        verified = "" if entry.sha256 else "; unverified"
        typer.echo(
            f"{entry.name:14} {'here' if here else 'not pulled':11} {entry.title}; "
            f"{entry.licence}{verified}"
        )


def info(
    name_or_path: Annotated[
        str, typer.Argument(help="A name of `models list`, or a safetensors file of this package.")
    ],
) -> None:
    """Show the type, source and licence of a weight file."""
    if name_or_path in hub.HUB:
        typer.echo(_public(hub.HUB[name_or_path]))
        return
    path = weights_file(name_or_path)
    check_weights_path(path)
    from ..models.weights import read_header

    header = read_header(path)
    typer.echo(f"{path}: {path.stat().st_size} bytes, {header.kind}")
    typer.echo(
        f"licence   {header.licence}\nsource    {header.source}\n"
        f"origin    {header.sha256 or 'trained by us'}"
    )
    typer.echo(f"config    {header.config}")


def _public(entry: hub.HubFile) -> str:
    path = hub.weights_folder() / entry.filename
    here = "here" if path.is_file() else f"not here; lipsync models pull {entry.name}"
    rows = {
        "licence": entry.licence,
        "sha256": entry.sha256
        or "not published: unverified, the hash is recorded at the first pull",
        "bytes": str(entry.size or "not published"),
        "from": ", else ".join(f"{repo}/{file}" for repo, file, _ in entry.places),
        "file": f"{path} ({here})",
    }
    return "\n".join(
        [f"{entry.name}: {entry.title}", *(f"{key:9} {text}" for key, text in rows.items())]
    )


def pull(
    names: Annotated[list[str], typer.Argument(help="Public names of `models list`.")],
    allow_unverified: Annotated[
        bool,
        typer.Option(
            "--allow-unverified", help="Accept files without a published hash, and record it."
        ),
    ] = False,
) -> None:
    """Download public weights, after showing the licence, and check their hash."""
    for name in names:
        path = hub.pull(
            name,
            allow_unverified=allow_unverified,
            on_progress=_show if sys.stderr.isatty() else None,
            on_licence=lambda text: typer.echo(f"Licence of {text}", err=True),
        )
        typer.echo(path)


def _show(done: int, total: int | None) -> None:
    of = f" of {total / 1e6:.1f}" if total else ""
    typer.echo(f"\r{done / 1e6:.1f}{of} MB", nl=done == total, err=True)


def convert(
    source: Annotated[
        str, typer.Argument(help="A public checkpoint, or the name of a pulled one.")
    ],
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Convert a public checkpoint to safetensors with type, source and licence."""
    if target.exists() and not overwrite:
        raise typer.BadParameter(f"{target} exists; give another name or --overwrite")
    check_weights(source)
    from ..models.weights import convert_checkpoint

    header = convert_checkpoint(source, target)
    typer.echo(f"{target}: {header.kind}, licence {header.licence}")


for _name, _command in {
    "list": list_models,
    "info": info,
    "pull": pull,
    "convert": convert,
}.items():
    app.command(_name)(_command)
