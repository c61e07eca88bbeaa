"""Prepare a folder of videos: find sources, cut clips, write shards and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ...errors import LipSyncError
from ...runtime.atomic import exclusive_dir
from ...runtime.jobs import Cluster, run_jobs
from ...types import ProgressCallback
from .report import Counts, write_report
from .settings import Settings
from .sources import Source, find_sources, given_split, speaker_names
from .stages import JOBS, Preparing, job_of, read_settings, unfinished
from .write_shards import gather, is_there


@dataclass(frozen=True, slots=True)
class Splitting:
    """How clips are divided among train, val and test.

    Attributes:
        speaker: rule for speakers' names, see ``speaker_names``.
        by: ``shared`` divides the speakers; ``given`` takes the first folder below the root as
            the split; ``time`` takes the last parts of every speaker's footage for ``val`` and
            ``test``.
        val: share of all frames for val, in [0,1).
        test: share of all frames for test, in [0,1).
        seed: seed of ``shared``.
    """

    speaker: str | None = None
    by: Literal["shared", "given", "time"] = "shared"
    val: float = 0.05
    test: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.val < 0 or self.test < 0 or self.val + self.test >= 1:
            raise ValueError(
                f"val {self.val} and test {self.test}; expected parts of 1 that leave some for "
                "train"
            )

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of each split; the three sum to 1."""
        return {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}


def prepare(  # noqa: PLR0913
    root: Path,
    out: Path,
    *,
    only: Sequence[Source] | None = None,
    settings: Settings = Settings(),
    splitting: Splitting = Splitting(),
    processes: int = 1,
    cluster: Cluster | None = None,
    again: bool = False,
    device: str = "cpu",
    command: str = "",
    on_progress: ProgressCallback | None = None,
) -> Counts:
    """Prepare videos and preprocessed folders as shards and a report.

    Writes ``out/train``, ``out/val``, ``out/test`` and ``out/report.html``. The run can be
    killed and started again at any time: what is done is kept. Sources that are added later go
    into further shards; speakers stay in their split.

    Args:
        root: the folder of sources.
        out: the folder of the shards.
        only: the sources to prepare; all below ``root`` by default.
        settings: how clips are cut and judged.
        splitting: how clips are divided.
        processes: number of processes on this machine.
        cluster: the machines that share the work, if any.
        again: whether sources that failed are tried once more.
        device: device of the detector and the judge.
        command: the command line that the report shows.
        on_progress: gets the progress.

    Returns:
        The figures of the report.

    Raises:
        LipSyncError: ``root`` has no sources; ``out`` has other settings or another process
            uses it; the disk is full; no clip was left (the report exists in that case too).
    """
    say = on_progress or (lambda *_: None)
    root, out = root.resolve(), out.resolve()  # workers may stand elsewhere
    if out == root:
        raise LipSyncError(
            f"{out} is what there is to prepare; give another folder for the shards, if only one "
            "in it"
        )
    sources = find_sources(root, leave=out) if only is None else list(only)
    names = [source.name for source in sources]
    given = {name: given_split(name) for name in names} if splitting.by == "given" else None
    plain = {name: name.partition("/")[2] if given is not None else name for name in names}
    told = speaker_names([plain[name] for name in names], splitting.speaker)
    with exclusive_dir(out):
        read_settings(out, settings, root, asdict(splitting))
        try:
            outcomes = run_jobs(
                [job_of(source, root, settings) for source in sources],
                Preparing(root, out, settings, device),
                out / JOBS,
                attempts=1,
                again=again,
                still=is_there(out),
                threads=1,
                processes=processes,
                cluster=cluster,
                on_progress=lambda done, total: say("prepare", done, total),
            )
            if waiting := sum(map(unfinished, outcomes)):
                raise LipSyncError(
                    f"the disk of {out} is full: {len(outcomes) - waiting} of {len(outcomes)} "
                    "sources are done and kept; free disk space and run the same command again"
                )
            duplicates = gather(
                out,
                outcomes,
                settings,
                speakers={name: told[plain[name]] for name in names},
                shares=splitting.shares,
                given=given,
                by_time=splitting.by == "time",
                seed=splitting.seed,
                on_progress=lambda done, total: say("gather", done, total),
            )
            counts = write_report(out, outcomes, duplicates, command=command)
        except OSError as error:
            raise LipSyncError(
                f"{out} cannot be written ({error}); free disk space or fix the cause, and run the "
                "command again: nothing is lost"
            ) from error
    if not counts.clips:
        reasons = "; ".join(
            f"{reason} ({number})" for reason, (number, _) in counts.dropped.items()
        )
        raise LipSyncError(
            f"no clip is left of {counts.sources} sources: {reasons}; see {out / 'report.html'}"
        )
    return counts
