"""``lipsync bench``, ``lipsync batch``, ``lipsync expert``: many clips, locally or on Ray."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ..faces.selector import parse_face
from ..runtime.text_file import read_text_file
from .checks import check_folder, check_inputs
from .dub import DubOptions, dub_command, parse_pair, run_dub
from .options import Device, build_options
from .progress import Bar

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair
    from ..models.generator import TalkingFace
    from ..runtime.jobs import Cluster, Job, Outcome, Work

_LOCAL = "local"
_INTERRUPTED = 130  # exit code of shells after Ctrl-C


class OptionalAddress(TyperCommand):
    """A command whose ``--ray`` may have no address, which typer's options do not support."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fill in the address where it is missing."""
        filled: list[str] = []
        for arg, following in zip(args, [*args[1:], "--"], strict=False):
            filled += [arg, _LOCAL] if arg == "--ray" and following.startswith("-") else [arg]
        return super().parse_args(ctx, filled)


Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Run on a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; without a value, on this "
        "machine.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Workers on Ray; by default one per GPU or core.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads per worker.")]
Attempts = Annotated[int, typer.Option(min=1, help="Attempts per job.")]
Again = Annotated[
    bool, typer.Option("--retry-failed", help="Repeat what failed in an earlier run.")
]


def bench_command(  # noqa: PLR0913
    root: Annotated[Path, typer.Option(help="Folder with the videos.")],
    pairs: Annotated[
        Path | None, typer.Argument(help="File with pairs; without one, random pairs are used.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A name or weight file; can be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")] = Path("results"),
    order: Annotated[
        Literal["auto", "audio-video", "video-audio"],
        typer.Option(help="Order of the files in a line of PAIRS."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the random pairs.")] = 0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of random pairs; by default one per video.")
    ] = None,
    scorer: Annotated[
        str, typer.Option(help="judge (bundled), syncnet, or a weight file.")
    ] = "judge",
    mode: Annotated[
        Literal["exact", "reference"],
        typer.Option(help="reference: dub and score like the paper's scripts."),
    ] = "exact",
    whole_frame: Annotated[
        bool,
        typer.Option(
            "--whole-frame",
            help="For --mode reference: frames are face crops already (LRS2, LRS3, LRW).",
        ),
    ] = False,
    fid: Annotated[
        Literal["face", "frame"], typer.Option(help="Part of the picture for FID.")
    ] = "face",
    silence: Annotated[
        bool,
        typer.Option(
            "--silence", help="Also dub every face with silence, which shows old lips that leak."
        ),
    ] = False,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Dubs that another tool made: NUMBER.mp4 (five digits) or FACE--SPEECH.mp4; can "
            "be repeated.",
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]COMMAND",
            help="A program that makes one dub, with {face}, {audio} and {out} in its words; no "
            "shell reads it; can be repeated.",
        ),
    ] = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
    attempts: Attempts = 2,
    again: Again = False,
    device: Device = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Frames generated at once.")] = 8,
) -> None:
    """Dub faces with the speech of others, score the dubs and compare with the paper."""
    from ..evaluation.pairs import draw_pairs, read_pairs

    check_folder(root)
    folders, commands = _read_peers(outputs, command)
    listed = None if pairs is None else read_pairs(pairs, order=order)
    check_inputs(weights=(*(model or ["mini"]), scorer))
    from ..evaluation.benchmark import Benchmark
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
        silence=silence,
        outputs=folders,
        commands=commands,
    )
    cluster = _cluster(ray, workers)
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
    outcomes = run_and_report(
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
        f"wrote {out / 'table.md'}, table.html and distributions.png; every result is in "
        "results.jsonl",
        err=True,
    )
    if all(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(1)


def _read_peers(
    outputs: list[str] | None, commands: list[str] | None
) -> tuple[tuple[tuple[str, Path], ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Read --outputs and --command; typer.BadParameter for what cannot be meant."""
    from ..evaluation.peers import parse_command, parse_outputs

    try:
        folders = [parse_outputs(text) for text in outputs or []]
        found = tuple(parse_command(text) for text in commands or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    for _, folder in folders:
        check_folder(folder)
    return tuple((name, folder.resolve()) for name, folder in folders), found


def batch_command(
    jobs: Annotated[
        Path, typer.Argument(help="CSV with the columns face, audio, out, and any option of `dub`.")
    ],
    results: Annotated[
        Path | None, typer.Option(help="JSON lines file; by default beside JOBS.")
    ] = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
    attempts: Attempts = 1,
    again: Again = False,
) -> None:
    """Dub a list of clips; run it again to resume.

    Paths are relative to the folder of JOBS. Columns are named like the options of `dub` without
    dashes; the column of its --face is `which`. Switches are true or false, empty cells mean the
    default, and ";" separates several values in a cell.
    """
    cluster = _cluster(ray, workers)
    rows = read_rows(jobs)
    results = results or jobs.with_suffix(".results.jsonl")
    outcomes = run_and_report(
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
    folder: Annotated[Path, typer.Argument(help="Folder with videos in sync.")],
    expert: Annotated[
        str, typer.Option(help="judge (bundled), or a weight file of an expert.")
    ] = "judge",
    apart: Annotated[
        int, typer.Option(min=1, help="Minimum frames between true and false sound.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the choice of false sound.")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure how often an expert recognizes sound that is in sync (the paper's table 3)."""
    check_folder(folder)
    check_inputs(weights=(expert,))
    from ..evaluation.expert_accuracy import measure_accuracy
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as bar:
        report = measure_accuracy(
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
    """Read the jobs of a CSV or tab-separated file, one per row, named by their outputs.

    Args:
        path: The file. Its columns are options of `lipsync dub`.

    Returns:
        The jobs, checked.

    Raises:
        typer.BadParameter: For unknown columns, invalid cells, and outputs named by two rows.
    """
    from ..runtime.jobs import Job

    if path.is_dir():
        raise typer.BadParameter(
            f"{path} is a folder; expected a CSV file with the columns face, audio and out"
        )
    try:
        text = read_text_file(path)
        separator = "\t" if "\t" in text.lstrip().partition("\n")[0] else ","
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise typer.BadParameter(f"{path} cannot be read as CSV ({error})") from error
    (_, header), *rows = lines or [(1, [])]
    columns = _columns(path, header)
    if not rows:
        raise typer.BadParameter(f"{path} has no rows below its header; expected one for each clip")
    found: list[Job] = []
    written: dict[Path, int] = {}
    dub_rows = DubRows()
    for number, row in rows:
        if len(row) != len(columns):
            raise typer.BadParameter(
                f"{path}, line {number} has {len(row)} cells; expected {len(columns)}, as the "
                "header"
            )
        cells = {key: cell.strip() for key, cell in zip(columns, row, strict=True)}
        arguments = {"folder": str(path.parent.resolve()), **cells}
        try:
            options = dub_rows.options(arguments)
        except (ValueError, typer.BadParameter) as error:
            raise typer.BadParameter(f"{path}, line {number}: {_words_of(error)}") from error
        out = options.out.resolve()
        if out in written:
            raise typer.BadParameter(
                f"{path}, lines {written[out]} and {number} both write {cells['out']}"
            )
        written[out] = number
        inputs = tuple(str(file) for file in options.input_files())
        found.append(Job(cells["out"], arguments, inputs))
    return found


def _columns(path: Path, header: list[str]) -> list[str]:
    """Names of the columns, spelled like the parameters of ``dub_command``."""
    names = [name.lower().strip().lstrip("-").replace("-", "_") for name in header]
    known = {parameter.name for parameter in _dub_parser().params} - {"as_json", "help"}
    problems = {
        "no options of dub": [
            repr(name) for name in header if names[header.index(name)] not in known
        ],
        "missing": [
            name
            for name in ("face", "audio", "out")
            if name not in names and not (name == "audio" and "pair" in names)
        ],
        "there twice": sorted({name for name in names if names.count(name) > 1}),
    }
    said = "; ".join(
        f"{problem}: {', '.join(found)}" for problem, found in problems.items() if found
    )
    if said:
        hint = (
            "; its columns are separated by semicolons; expected commas or tabs"
            if ";" in "".join(header)
            else ""
        )
        raise typer.BadParameter(f"{path}, columns {said}{hint}")
    return names


def _words_of(error: Exception) -> str:
    """Message of an error, with the option that typer attributes it to."""
    return error.format_message() if isinstance(error, typer.BadParameter) else str(error)


class DubRows:
    """Run the jobs of ``read_rows``, keeping their models loaded."""

    def __init__(self) -> None:
        self._parser = _dub_parser()
        self._models: dict[tuple[str, str], TalkingFace] = {}

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Dub one row and return its report, without the seconds, which the job measures itself."""
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
        folder, cells = (
            Path(arguments["folder"]),
            {key: arguments[key] for key in arguments if key != "folder"},
        )
        if missing := [name for name in ("face", "out") if not cells[name]]:
            raise ValueError(f"no {' and no '.join(missing)}; expected a file")
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
        for name in ("model", "speakers", "restore", "landmarks"):  # files, or words
            if values[name] is not None and (folder / values[name]).is_file():
                values[name] = type(values[name])(folder / values[name])
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
    """A cell as words of the command line; none for arguments and empty cells."""
    if not cell or parameter.param_type_name == "argument":
        return []
    if not parameter.is_flag:
        values = cell.split(";") if parameter.multiple else [cell]
        return [f"{parameter.opts[0]}={value.strip()}" for value in values]
    switch = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        cell.lower()
    )
    if switch is None:
        raise ValueError(f"{parameter.name} is {cell!r}; expected true or false")
    return parameter.opts[:1] if switch else parameter.secondary_opts[:1]


def _dub_parser() -> TyperCommand:
    app = typer.Typer(add_completion=False)
    app.command()(dub_command)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _make_folder(out: Path, drawn: "Sequence[Pair] | None") -> None:
    """Create the folder for results and write the random pairs into it."""
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


def run_and_report(
    jobs: "Sequence[Job]",
    prepare: "Callable[[], Work]",
    results: Path,
    *,
    stage: str,
    again: bool = False,
    **how: Any,
) -> "list[Outcome]":
    """Run jobs with a progress bar; report earlier failures, and what is done after Ctrl-C.

    Args:
        jobs: What to do.
        prepare: Makes the function that does a job.
        results: File of the outcomes, from which a run resumes.
        stage: Label of the bar.
        again: Whether to repeat jobs that failed before.
        how: Passed to ``run_jobs``.

    Returns:
        One outcome per job.
    """
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
        typer.echo(f"{finished} of {len(jobs)} done; run it again to resume", err=True)
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
        raise typer.BadParameter("--workers needs --ray")
    return None if address is None else Cluster(address, workers)


def _threads(threads: int | None, cluster: "Cluster | None") -> int | None:
    """The given threads; without any, limit this process like `dub` does, except on Ray."""
    from ..runtime.prefetch import share_cores

    if threads is None and cluster is None:
        share_cores()
    return threads
