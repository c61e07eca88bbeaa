"""``lipsync bench``, ``lipsync batch`` and ``lipsync expert``: many clips, here or on Ray."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from .dub import DubOptions, dub_command, parse_pair, run_dub
from .options import Device, build_options
from .progress import Bar

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair
    from ..models.generator import TalkingFace
    from ..runtime.jobs import Cluster, Job, Outcome, Work

_LOCAL = "local"
_INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


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
Workers = Annotated[
    int | None, typer.Option(min=1, help="Workers on Ray; by default as many as its GPUs or cores.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of the networks in each worker.")
]
Attempts = Annotated[int, typer.Option(min=1, help="How often a job is tried.")]
Again = Annotated[
    bool, typer.Option("--retry-failed", help="Do again what failed in an earlier run.")
]


def bench_command(
    root: Annotated[Path, typer.Option(help="The folder below which the videos lie.")],
    pairs: Annotated[
        Path | None, typer.Argument(help="A list of pairs; without one, pairs are drawn.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A name or weight file; may be given again.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")] = Path("results"),
    order: Annotated[
        Literal["auto", "audio-video", "video-audio"],
        typer.Option(help="What comes first in each line of PAIRS."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Pairs to draw; one for each video by default.")
    ] = None,
    scorer: Annotated[
        str, typer.Option(help="judge (bundled), syncnet, or a weight file.")
    ] = "judge",
    mode: Annotated[
        Literal["exact", "reference"],
        typer.Option(help="reference: dub and score as the paper's scripts do."),
    ] = "exact",
    whole_frame: Annotated[
        bool,
        typer.Option(
            "--whole-frame",
            help="Mode reference: score frames that are faces already (LRS2, LRS3, LRW).",
        ),
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
    from ..evaluation.benchmark import Benchmark
    from ..evaluation.pairs import draw_pairs, read_pairs
    from ..evaluation.report import write_report

    plan = Benchmark(
        root.resolve(),
        out.resolve(),
        tuple(model or ["mini"]),
        scorer,
        mode,
        whole_frame,
        fid,
        device,
        batch,
    )
    cluster = _cluster(ray, workers)
    listed = None if pairs is None else read_pairs(pairs, order=order)
    # with its models loaded, because reading all videos for the draw takes long; Ray's workers may
    # have other devices
    bench = (plan if cluster is None else replace(plan, device="cpu")).prepare()
    if listed is not None and pairs is not None:
        chosen, unpaired, source = listed, {}, pairs.name
    else:
        drawn = draw_pairs(root, seed=seed, count=count, leave=out / "videos")
        chosen, unpaired, source = (
            drawn.pairs,
            drawn.unpaired,
            f"{len(drawn.pairs)} drawn with seed {seed}",
        )
    _make_folder(out, None if listed else chosen)
    outcomes = run_and_tell(
        plan.jobs(chosen),
        plan.prepare if cluster else lambda: bench,
        out / "results.jsonl",
        stage="jobs",
        attempts=attempts,
        again=again,
        still=plan.holds,
        threads=_threads(threads, cluster),
        cluster=cluster,
    )
    typer.echo(write_report(plan, outcomes, pairs=source, unpaired=unpaired))
    typer.echo(
        f"wrote {out / 'table.md'} and distributions.png; every result is in results.jsonl",
        err=True,
    )
    if all(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(1)


def batch_command(
    jobs: Annotated[
        Path, typer.Argument(help="CSV with the columns face, audio, out, and any option of `dub`.")
    ],
    results: Annotated[
        Path | None, typer.Option(help="JSON lines; beside JOBS by default.")
    ] = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
    attempts: Attempts = 1,
    again: Again = False,
) -> None:
    """Dub a list of clips; run it again to go on where it stopped.

    Paths count from the folder of JOBS. Columns are named as the options of `dub` without dashes;
    `which` is its --face. Switches say true or false, empty cells mean the default, several values
    of one cell are parted by ";".
    """
    cluster = _cluster(ray, workers)
    rows = read_rows(jobs)
    results = results or jobs.with_suffix(".results.jsonl")
    outcomes = run_and_tell(
        rows,
        DubRows,
        results,
        stage="clips",
        attempts=attempts,
        again=again,
        still=lambda outcome: outcome.result is not None and Path(outcome.result["out"]).is_file(),
        threads=_threads(threads, cluster),
        cluster=cluster,
    )
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        typer.echo(f"{outcome.id}: {outcome.error}", err=True)
    typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} dubbed; see {results}")
    if failed:
        raise typer.Exit(1)


def expert_command(
    folder: Annotated[Path, typer.Argument(help="Videos in sync.")],
    expert: Annotated[
        str, typer.Option(help="judge (bundled), or a weight file of an expert.")
    ] = "judge",
    apart: Annotated[int, typer.Option(min=1, help="Least frames from true to false sound.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the draw of false sound.")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say how often an expert tells sound in sync from sound that is not (the paper's table 3)."""
    from ..evaluation.expert_accuracy import expert_accuracy
    from ..runtime.prefetch import share_cores

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
    """The jobs of a CSV file, one a row, named by what they write: their arguments are those of
    `lipsync dub`. Raises BadParameter for columns that `dub` has not, for cells that it would not
    take, and for outputs that two rows name."""
    from ..runtime.jobs import Job

    if path.is_dir():
        raise typer.BadParameter(
            f"{path} is a folder; wanted a CSV file with the columns face, audio and out"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [
                (reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise typer.BadParameter(f"{path} cannot be read as CSV ({error})") from error
    (_, header), *rows = lines or [(1, [])]
    columns = _columns(path, header)
    if not rows:
        raise typer.BadParameter(f"{path} has no rows below its header; wanted one for each clip")
    found: list[Job] = []
    written: dict[Path, int] = {}
    dub_rows = DubRows()
    for number, row in rows:
        if len(row) != len(columns):
            raise typer.BadParameter(
                f"{path}, line {number} has {len(row)} cells; wanted {len(columns)}, as the header"
            )
        cells = {key: cell.strip() for key, cell in zip(columns, row, strict=True)}
        job = Job(cells["out"], {"folder": str(path.parent.resolve()), **cells})
        try:
            out = dub_rows.options(job.arguments).out.resolve()
        except (ValueError, typer.BadParameter) as error:
            raise typer.BadParameter(f"{path}, line {number}: {_words_of(error)}") from error
        if out in written:
            raise typer.BadParameter(
                f"{path}, lines {written[out]} and {number} both write {cells['out']}"
            )
        written[out] = number
        found.append(job)
    return found


def _columns(path: Path, header: list[str]) -> list[str]:
    """The columns as the parameters of ``dub_command`` are named."""
    names = [name.lower().strip().lstrip("-").replace("-", "_") for name in header]
    known = {parameter.name for parameter in _dub_parser().params} - {"as_json", "help"}
    problems = {
        "no options of dub": [
            repr(name) for name in header if names[header.index(name)] not in known
        ],
        "missing": [name for name in ("face", "out") if name not in names],
        "there twice": sorted({name for name in names if names.count(name) > 1}),
    }
    said = "; ".join(
        f"{problem}: {', '.join(found)}" for problem, found in problems.items() if found
    )
    if said:
        hint = (
            "; its columns are parted by semicolons, wanted commas"
            if ";" in "".join(header)
            else ""
        )
        raise typer.BadParameter(f"{path}, columns {said}{hint}")
    return names


def _words_of(error: Exception) -> str:
    """What an error says, with the option that typer knows it to be about."""
    return error.format_message() if isinstance(error, typer.BadParameter) else str(error)


class DubRows:
    """Does the jobs of ``read_rows``: dubs clips, and holds the models that they name."""

    def __init__(self) -> None:
        self._parser = _dub_parser()
        self._models: dict[tuple[str, str], TalkingFace] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The report of one dub, as JSON; its seconds are those of the whole run of the job."""
        options = self.options(arguments)
        report = run_dub(options, model=self._model(options.model, options.device))
        result = json.loads(report.to_json())
        del result["seconds"]
        return result

    def options(self, arguments: Mapping[str, Any]) -> DubOptions:
        """Parse a row as the options of `lipsync dub`.

        Raises:
            typer.BadParameter: If `lipsync dub` would refuse a cell.
            ValueError: If a cell is missing or names no face.
        """
        from ..faces.selection import parse_face

        folder, cells = (
            Path(arguments["folder"]),
            {key: arguments[key] for key in arguments if key != "folder"},
        )
        if missing := [name for name in ("face", "out") if not cells[name]]:
            raise ValueError(f"no {' and no '.join(missing)}; wanted a file")
        words: list[str] = []
        for parameter in self._parser.params:
            words += _words(parameter, cells.get(parameter.name, ""))
        files = [cells[name] for name in ("face", "audio") if cells.get(name)]
        with self._parser.make_context(
            "dub", [*words, "--", *files]
        ) as context:  # -- because names may begin with a dash
            values = dict(context.params)
        for name in ("face", "audio", "out"):
            values[name] = values[name] and folder / values[name]
        if (folder / values["model"]).is_file():
            values["model"] = str(folder / values["model"])
        pairs = [text.partition("=") for text in values["pair"] or []]
        values["pair"] = [f"{face}={folder / audio}" if audio else face for face, _, audio in pairs]
        options = build_options(DubOptions, values)
        options.dub_arguments()
        for face in [options.which, *(parse_pair(text)[1] for text in options.pair or [])]:
            parse_face(face)
        return options

    def _model(self, name: str, device: str) -> "TalkingFace":
        from ..models.weights import load_talking_face
        from ..pipelines.track_faces import select_device

        if (name, device) not in self._models:
            self._models[name, device] = load_talking_face(name, device=select_device(device))
        return self._models[name, device]


def _words(parameter: Any, cell: str) -> list[str]:
    """A cell as words of the command line, where it is an option's."""
    if not cell or parameter.param_type_name == "argument":
        return []
    if not parameter.is_flag:
        values = cell.split(";") if parameter.multiple else [cell]
        return [f"{parameter.opts[0]}={value.strip()}" for value in values]
    switch = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        cell.lower()
    )
    if switch is None:
        raise ValueError(f"{parameter.name} is {cell!r}; wanted true or false")
    return parameter.opts[:1] if switch else parameter.secondary_opts[:1]


def _dub_parser() -> TyperCommand:
    app = typer.Typer(add_completion=False)
    app.command()(dub_command)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _make_folder(out: Path, drawn: "Sequence[Pair] | None") -> None:
    """The folder for results, and in it the pairs that were drawn."""
    from ..errors import LipSyncError
    from ..evaluation.pairs import write_pairs

    try:
        out.mkdir(parents=True, exist_ok=True)
        if drawn is not None:
            write_pairs(list(drawn), out / "pairs.txt")
    except OSError as error:
        raise LipSyncError(
            f"{out} cannot be a folder for results ({error}); give another with --out"
        ) from error


def run_and_tell(
    jobs: "Sequence[Job]",
    prepare: "Callable[[], Work]",
    results: Path,
    *,
    stage: str,
    again: bool = False,
    **how: Any,
) -> "list[Outcome]":
    """``run_jobs`` under a bar, with words about the failures that it kept and, at Ctrl-C, about
    how much is done."""
    from ..runtime.jobs import read_outcomes, run_jobs

    before, finished = read_outcomes(results), 0

    def say(done: int, total: int) -> None:
        nonlocal finished
        finished = done
        bar(stage, done, total)

    try:
        with Bar() as bar:
            outcomes = run_jobs(jobs, prepare, results, again=again, on_progress=say, **how)
    except KeyboardInterrupt:
        typer.echo(f"{finished} of {len(jobs)} done; run it again to go on", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    kept = sum(
        outcome.error is not None and before.get(outcome.id) == outcome for outcome in outcomes
    )
    if kept and not again:
        typer.echo(f"{kept} failed before and were not tried again; --retry-failed does", err=True)
    return outcomes


def _cluster(address: str | None, workers: int | None) -> "Cluster | None":
    from ..runtime.jobs import Cluster

    if address is None and workers is not None:
        raise typer.BadParameter("--workers are Ray's; give --ray too")
    return None if address is None else Cluster(address, workers)


def _threads(threads: int | None, cluster: "Cluster | None") -> int | None:
    """What `dub` takes on this machine where nothing is said; None where that is Ray's affair, or
    ours already."""
    from ..runtime.prefetch import share_cores

    if threads is None and cluster is None:
        share_cores()
    return threads
