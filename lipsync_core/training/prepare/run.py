"""A folder of videos becomes shards: look, work, gather, report."""

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
    """Who goes where. ``speaker``: a rule (see ``speaker_names``).

    ``by``: ``shared``, speakers are shared out, ``val`` and ``test`` being their parts of all
    frames (``seed``: of that); ``given``, the first folder below the root is the split; ``time``,
    the last parts of everybody's footage are ``val`` and ``test``.
    """

    speaker: str | None = None
    by: Literal["shared", "given", "time"] = "shared"
    val: float = 0.05
    test: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.val < 0 or self.test < 0 or self.val + self.test >= 1:
            raise ValueError(
                f"val {self.val} and test {self.test}; wanted parts of 1 that leave some for train"
            )

    @property
    def shares(self) -> Mapping[str, float]:
        return {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}


def prepare(
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
    """Every video and every preprocessed folder below ``root`` as shards ``out/train``,
    ``out/val``, ``out/test``, and ``out/report.html``. ``only``: not every one, but these.

    Can be killed and started again at any time: what is done is kept. Sources that are added later
    go into further shards; speakers stay in their split. again: those that failed are tried once
    more. command: what the report calls it. Raises LipSyncError for a root without sources, an
    ``out`` of other settings or where another process is at work, a full disk, and when not one
    clip was left; the report is there then too.
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
                    "sources are done and kept; "
                    "make room and run the same command again"
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
                f"{out} cannot be written ({error}); make room, or mend that, and run the same "
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
