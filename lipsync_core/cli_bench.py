"""``lipsync bench``, ``lipsync batch`` and ``lipsync expert``: many clips, here or on Ray."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from .cli_dub import dub_as_told, dub_command
from .cli_progress import Bar

if TYPE_CHECKING:
    from .evaluation.jobs import Cluster, Job
    from .models.generator import Generator

_LOCAL = "local"


class OptionalAddress(TyperCommand):
    """A command whose ``--ray`` may stand without an address, which typer's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled: list[str] = []
        for arg, following in zip(args, [*args[1:], "--"], strict=False):
            filled += [arg, _LOCAL] if arg == "--ray" and following.startswith("-") else [arg]
        return super().parse_args(ctx, filled)


Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Share the work on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; alone: workers on this machine.",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Workers on Ray; by default as many as its GPUs or cores.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the networks in each worker.")]
Attempts = Annotated[int, typer.Option(min=1, help="How often a job is tried.")]
Again = Annotated[bool, typer.Option("--retry-failed", help="Do again what failed in an earlier run.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda | mps")]


def bench_command(
    root: Annotated[Path, typer.Option(help="The folder below which the videos lie.")],
    pairs: Annotated[Path | None, typer.Argument(help="A list of pairs; without one, pairs are drawn.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A name or weight file; may be given again.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")] = Path("results"),
    order: Annotated[
        Literal["auto", "audio-video", "video-audio"], typer.Option(help="What comes first in each line of PAIRS.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    count: Annotated[int | None, typer.Option(min=1, help="Pairs to draw; one for each video by default.")] = None,
    scorer: Annotated[str, typer.Option(help="judge (bundled), syncnet, or a weight file.")] = "judge",
    mode: Annotated[
        Literal["exact", "reference"], typer.Option(help="reference: dub and score as the paper's scripts do.")
    ] = "exact",
    whole_frame: Annotated[
        bool,
        typer.Option("--whole-frame", help="Mode reference: score frames that are faces already (LRS2, LRS3, LRW)."),
    ] = False,
    fid: Annotated[Literal["face", "frame"], typer.Option(help="What FID looks at.")] = "face",
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
    attempts: Attempts = 2,
    again: Again = False,
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames at a time.")] = 8,
) -> None:
    """Dub pairs of faces and strangers' speech, score them, and set them beside the paper."""
    from .evaluation.benchmark import Benchmark
    from .evaluation.jobs import run_jobs
    from .evaluation.pairs import draw_pairs, read_pairs, write_pairs
    from .evaluation.report import write_report

    plan = Benchmark(
        root.resolve(), out.resolve(), tuple(model or ["mini"]), scorer, mode, whole_frame, fid, device, batch
    )
    cluster = _cluster(ray, workers)
    out.mkdir(parents=True, exist_ok=True)
    if pairs is not None:
        chosen, unpaired, source = read_pairs(pairs, order=order), {}, pairs.name
    else:
        drawn = draw_pairs(root, seed=seed, count=count)
        chosen, unpaired, source = drawn.pairs, drawn.unpaired, f"{len(drawn.pairs)} drawn with seed {seed}"
        write_pairs(chosen, out / "pairs.txt")
    with Bar() as bar:
        outcomes = run_jobs(
            plan.jobs(chosen),
            plan.prepare,
            out / "results.jsonl",
            attempts=attempts,
            again=again,
            threads=_threads(threads, cluster),
            cluster=cluster,
            on_progress=lambda done, total: bar("jobs", done, total),
        )
    typer.echo(write_report(plan, outcomes, pairs=source, unpaired=unpaired))
    typer.echo(f"wrote {out / 'table.md'} and distributions.png; every result is in results.jsonl", err=True)


def batch_command(
    jobs: Annotated[Path, typer.Argument(help="CSV with the columns face, audio, out, and any option of `dub`.")],
    results: Annotated[Path | None, typer.Option(help="JSON lines; beside JOBS by default.")] = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
    attempts: Attempts = 1,
    again: Again = False,
) -> None:
    """Dub a list of clips; run it again to go on where it stopped.

    Paths count from the folder of JOBS. Columns are named as the options of `dub` without dashes; `which` is its --face.
    Switches say true or false, empty cells mean the default, several values of one cell are parted by ";".
    """
    from .evaluation.jobs import run_jobs

    cluster = _cluster(ray, workers)
    results = results or jobs.with_suffix(".results.jsonl")
    with Bar() as bar:
        outcomes = run_jobs(
            read_rows(jobs),
            DubRows,
            results,
            attempts=attempts,
            again=again,
            threads=_threads(threads, cluster),
            cluster=cluster,
            on_progress=lambda done, total: bar("clips", done, total),
        )
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        typer.echo(f"{outcome.id}: {outcome.error}", err=True)
    typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} dubbed; see {results}")
    if failed:
        raise typer.Exit(1)


def expert_command(
    folder: Annotated[Path, typer.Argument(help="Videos in sync.")],
    expert: Annotated[str, typer.Option(help="judge (bundled), or a weight file of an expert.")] = "judge",
    apart: Annotated[int, typer.Option(min=1, help="Least frames from true to false sound.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the draw of false sound.")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say how often an expert tells sound in sync from sound that is not (the paper's table 3)."""
    from .evaluation.expert_accuracy import expert_accuracy
    from .prefetch import share_cores

    share_cores()
    with Bar() as bar:
        report = expert_accuracy(
            folder,
            expert=expert,
            apart=apart,
            seed=seed,
            device=device,
            on_progress=lambda done, total: bar("clips", done, total),
        )
    typer.echo(json.dumps(report.to_json()) if as_json else report.table())
    for name, reason in report.skipped.items():
        typer.echo(f"skipped {name}: {reason}", err=True)


def read_rows(path: Path) -> "list[Job]":
    """The jobs of a CSV file, one a row, named by what they write: their arguments are those of `lipsync dub`. Raises
    BadParameter for columns that `dub` has not and for outputs that two rows name."""
    from .evaluation.jobs import Job

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise typer.BadParameter(f"{path} cannot be read as CSV ({error})") from error
    options = {name.lower().strip().lstrip("-").replace("-", "_"): name for name in columns}
    known = {parameter.name: parameter for parameter in _dub_parser().params}
    wrong = [name for key, name in options.items() if key not in known or key in ("as_json", "help")]
    missing = [name for name in ("face", "out") if name not in options]
    if wrong or missing:
        raise typer.BadParameter(f"{path}: columns {wrong} are no options of dub, and {missing} are missing")
    found: list[Job] = []
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise typer.BadParameter(f"{path}, line {number} has not as many cells as the {len(columns)} columns")
        cells = {key: row[name].strip() for key, name in options.items()}
        found.append(Job(cells["out"], {"folder": str(path.parent.resolve()), **cells}))
    if twice := {job.id for job in found if sum(other.id == job.id for other in found) > 1}:
        raise typer.BadParameter(f"{path}: several rows write {', '.join(sorted(twice))}")
    return found


class DubRows:
    """Does the jobs of ``read_rows``: dubs clips, and holds the models that they name."""

    def __init__(self) -> None:
        self._parser = _dub_parser()
        self._models: dict[tuple[str, str], Generator] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The report of one dub, as JSON; its seconds are those of the whole run of the job."""
        options = self._options(arguments)
        report = dub_as_told(options, model=self._model(options["model"], options["device"]))
        told = json.loads(report.to_json())
        del told["seconds"]
        return told

    def _options(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        folder, cells = Path(arguments["folder"]), {key: arguments[key] for key in arguments if key != "folder"}
        words: list[str] = []
        for parameter in self._parser.params:
            words += _words(parameter, cells.get(parameter.name, ""))
        try:
            with self._parser.make_context("dub", words) as context:
                options = dict(context.params)
        except typer.BadParameter as error:
            raise ValueError(error.format_message()) from error  # which names the option
        for name in ("face", "audio", "out"):
            options[name] = options[name] and folder / options[name]
        if (folder / options["model"]).is_file():
            options["model"] = str(folder / options["model"])
        pairs = [text.partition("=") for text in options["pair"] or []]
        options["pair"] = [f"{face}={folder / audio}" if audio else face for face, _, audio in pairs]
        return options

    def _model(self, name: str, device: str) -> "Generator":
        from .finding import device_named
        from .models.generator import Generator
        from .weights import load_model

        if (name, device) not in self._models:
            network = load_model(name, kind="generator", device=device_named(device))
            assert isinstance(network, Generator)
            self._models[name, device] = network
        return self._models[name, device]


def _words(parameter: Any, cell: str) -> list[str]:
    """A cell as words of the command line."""
    if not cell:
        return []
    if parameter.param_type_name == "argument":
        return [cell]
    if not parameter.is_flag:
        values = cell.split(";") if parameter.multiple else [cell]
        return [f"{parameter.opts[0]}={value.strip()}" for value in values]
    switch = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(cell.lower())
    if switch is None:
        raise ValueError(f"{parameter.name} is {cell!r}; wanted true or false")
    return parameter.opts[:1] if switch else parameter.secondary_opts[:1]


def _dub_parser() -> TyperCommand:
    app = typer.Typer(add_completion=False)
    app.command()(dub_command)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _cluster(address: str | None, workers: int | None) -> "Cluster | None":
    from .evaluation.jobs import Cluster

    if address is None and workers is not None:
        raise typer.BadParameter("--workers are Ray's; give --ray too")
    return None if address is None else Cluster(address, workers)


def _threads(threads: int | None, cluster: "Cluster | None") -> int | None:
    """What `dub` takes on this machine where nothing is said; None where that is Ray's affair, or ours already."""
    from .prefetch import share_cores

    if threads is None and cluster is None:
        share_cores()
    return threads
