"""One list of jobs, done here, in processes beside this one, or on Ray; its results kept as JSON
lines while they come."""

import json
import logging
import os
import platform
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Generator as Yields
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import LipSyncError

_log = logging.getLogger("lipsync.jobs")

Json = Any
Work = Callable[[Mapping[str, Json]], Mapping[str, Json]]
"""What does a job: its arguments to its result, both of which JSON can hold."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do: ``id`` names it once and for all, ``arguments`` are everything that its
    result depends on."""

    id: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its ``result``, or the ``error`` of the last of ``attempts``. One line
    of the results."""

    id: str
    arguments: Mapping[str, Json]
    result: Mapping[str, Json] | None
    error: str | None
    attempts: int
    seconds: float
    host: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


Outcomes = Yields[Outcome, None, None]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Ray runs: ``address`` "local" starts two or more workers on this machine, "auto" finds
    the cluster that this machine belongs to, else HOST:PORT or ray://HOST:PORT. ``workers`` None:
    one for each GPU of the cluster, or, where it has none, one for every ``threads`` of its cores.
    Folders must have the same path on all its machines."""

    address: str = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"local|auto|(ray://)?[^\s/:]+:\d+", self.address):
            raise ValueError(
                f"{self.address!r} is no address of a Ray cluster; wanted local, auto, HOST:PORT "
                "or ray://HOST:PORT"
            )
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"{self.workers} workers; wanted at least 1")


def run_jobs(
    jobs: Sequence[Job],
    prepare: Callable[[], Work],
    results: Path,
    *,
    attempts: int = 2,
    again: bool = False,
    still: Callable[[Outcome], bool] | None = None,
    threads: int | None = None,
    processes: int = 1,
    cluster: Cluster | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Does ``jobs`` and returns their outcomes in their order; each is appended to ``results`` as
    it comes.

    ``prepare`` makes what does a job, once here or once in each other process or Ray actor, which
    it must be able to travel to: it holds the models. A job that ``results`` has a line for, with
    the same arguments, is not done again, unless ``again`` asks for those that failed, or ``still``
    says of its outcome that what it made is no longer there. A job that raises is tried
    ``attempts`` times, one whose process dies twice at least, and its failure is a line too.
    threads: of torch, in each worker (None: left as it is here, 1 elsewhere). processes: 2 and more
    work beside this one. on_progress(done, total).

    Raises LipSyncError when ``results`` is damaged or cannot be written, and when Ray is wanted and
    not there.
    """
    if len({job.id for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same id; wanted each once")
    known = read_outcomes(results)
    done = {
        job.id: known[job.id]
        for job in jobs
        if job.id in known and _is_current(known[job.id], job, again)
    }
    gone = {
        id
        for id, outcome in done.items()
        if still and outcome.result is not None and not still(outcome)
    }
    if gone:
        _log.warning("%s: what %d jobs made is gone; they are done again", results, len(gone))
        done = {id: outcome for id, outcome in done.items() if id not in gone}
    todo = [job for job in jobs if job.id not in done]
    if changed := sum(job.id in known and known[job.id].arguments != job.arguments for job in todo):
        _log.warning(
            "%s: %d jobs were done with other settings and are done again", results, changed
        )
    say = on_progress or (lambda *_: None)
    say(len(done), len(jobs))
    if not todo:
        return [done[job.id] for job in jobs]
    if cluster is not None:
        outcomes = _run_on_ray(todo, prepare, attempts, threads or 1, cluster)
    elif processes > 1:
        outcomes = _beside(todo, prepare, attempts, threads or 1, min(processes, len(todo)))
    else:
        outcomes = _run_here(todo, prepare, attempts, threads)
    with _open_results(results) as write, closing(outcomes):
        for outcome in outcomes:
            write(outcome)
            done[outcome.id] = outcome
            say(len(done), len(jobs))
    return [done[job.id] for job in jobs]


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """The outcomes kept in ``path`` by id, the last of each; none when there is no such file. A
    last line without an end was cut off while being written: it does not count. Raises LipSyncError
    for any other line that is no outcome."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LipSyncError(
            f"{path} cannot be read ({error}); name another file for results"
        ) from error
    found: dict[str, Outcome] = {}
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            outcome = Outcome(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise LipSyncError(
                f"{path}, line {number} is no result ({error}); mend or remove the line, or name "
                "another file"
            ) from error
        found[outcome.id] = outcome
    return found


def _is_current(outcome: Outcome, job: Job, again: bool) -> bool:
    # as JSON gives them back: a tuple is a list there
    return outcome.arguments == json.loads(json.dumps(dict(job.arguments))) and not (
        again and outcome.error
    )


@contextmanager
def _open_results(path: Path) -> Yields[Callable[[Outcome], None], None, None]:
    """Writes whole lines at the end of ``path``, after cutting off the half of one that an
    interruption left there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)

            def write(outcome: Outcome) -> None:
                file.write(outcome.to_json().encode() + b"\n")
                file.flush()

            yield write
    except OSError as error:
        raise LipSyncError(f"{path} cannot be written ({error}); give a folder that can") from error


def _attempt(work: Work, job: Job, attempts: int) -> Outcome:
    began, error = time.perf_counter(), ""
    for attempt in range(1, attempts + 1):
        try:
            result = work(job.arguments)
        except (
            Exception
        ) as problem:  # whatever it is belongs into the results, and the other jobs go on
            error = str(problem) if isinstance(problem, (LipSyncError, ValueError)) else ""
            # a stranger's words alone may say too little
            error = error or f"{type(problem).__name__}: {problem}"
            _log.debug("%s, attempt %d of %d", job.id, attempt, attempts, exc_info=True)
        else:
            return Outcome(
                job.id, job.arguments, result, None, attempt, _elapsed(began), platform.node()
            )
    return Outcome(job.id, job.arguments, None, error, attempts, _elapsed(began), platform.node())


def _elapsed(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _run_here(
    jobs: Sequence[Job], prepare: Callable[[], Work], attempts: int, threads: int | None
) -> Outcomes:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        work = prepare()
        for job in jobs:
            yield _attempt(work, job, attempts)
    finally:
        torch.set_num_threads(before)


_work: Work | Exception | None = None  # of a process that _beside started, or why it has none


def _start_process(prepare: Callable[[], Work], threads: int) -> None:
    """What such a process does first."""
    global _work
    parent = os.getppid()

    # a killed parent closes nothing that would wake its workers; on Windows it keeps its number
    def orphan() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=orphan, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _work = prepare()
    except Exception as error:  # no fault of a job: it is raised where the jobs are handed out
        _work = error


def _run_in_process(job: Job, attempts: int) -> Outcome:
    if isinstance(_work, Exception):
        raise _work
    assert _work is not None
    return _attempt(_work, job, attempts)


def _beside(
    jobs: Sequence[Job], prepare: Callable[[], Work], attempts: int, threads: int, processes: int
) -> Outcomes:
    """Each process is a pool of one, so that it is known whose job killed it; the next job gets a
    new one."""

    def pool() -> ProcessPoolExecutor:
        # With a number of tasks, however large, processes are spawned; forked ones inherit torch's
        # locks but not its threads.
        return ProcessPoolExecutor(
            1,
            max_tasks_per_child=sys.maxsize,
            initializer=_start_process,
            initargs=(prepare, threads),
        )

    # the first may have been the machine's: its memory was short, or somebody killed it
    deaths = max(attempts, 2)
    free: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
    stopped = threading.Event()

    def do(job: Job) -> Outcome | None:
        for attempt in range(1, deaths + 1):
            if stopped.is_set():
                return None
            worker, began = free.get(), time.perf_counter()
            try:
                outcome = worker.submit(_run_in_process, job, attempts).result()
                free.put(worker)
                return outcome
            except BrokenProcessPool as error:
                worker.shutdown()
                free.put(pool())
                if attempt == deaths:
                    return Outcome(
                        job.id,
                        job.arguments,
                        None,
                        f"its process died: {error}",
                        deaths,
                        _elapsed(began),
                        platform.node(),
                    )
            except (
                BaseException
            ):  # no fault of the job's: nobody goes on, and nobody waits for this worker
                stopped.set()
                free.put(worker)
                raise
        return None

    for _ in range(processes):
        free.put(pool())
    hands = ThreadPoolExecutor(processes)
    try:
        for future in as_completed([hands.submit(do, job) for job in jobs]):
            if (outcome := future.result()) is not None:
                yield outcome
    finally:
        stopped.set()
        hands.shutdown(cancel_futures=True)
        while not free.empty():
            free.get().shutdown(cancel_futures=True)


class _Worker:
    """A Ray actor: one process that holds the models. Ray may start it anew after any job, so it
    prepares when asked."""

    def __init__(self, prepare: Callable[[], Work], attempts: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self._prepare, self._attempts = prepare, attempts
        self._work: Work | None = None

    def prepare(self) -> None:
        self._work = self._work or self._prepare()

    def run(self, job: Job) -> Outcome:
        self.prepare()
        assert self._work is not None
        return _attempt(self._work, job, self._attempts)


def _run_on_ray(
    jobs: Sequence[Job], prepare: Callable[[], Work], attempts: int, threads: int, cluster: Cluster
) -> Outcomes:
    """Ray's own pool hands the jobs out; Ray makes a worker that dies anew, and its job with it,
    ``attempts`` times."""
    ray = _import_ray()
    with _connect(ray, cluster, threads):
        workers, cpus, gpus = share_resources(cluster, ray.cluster_resources(), threads, len(jobs))
        lasting = {"max_restarts": -1, "max_task_retries": max(attempts, 2) - 1}
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus, **lasting)(_Worker)
        actors = [actor.remote(prepare, attempts, threads) for _ in range(workers)]
        try:
            ray.get([each.prepare.remote() for each in actors])
        except ray.exceptions.RayError as error:
            raise LipSyncError(
                f"the workers cannot begin: {getattr(error, 'cause', error)}"
            ) from error
        pool, waiting, last = ray.util.ActorPool(actors), {job.id: job for job in jobs}, ""
        for job in jobs:
            pool.submit(lambda each, one: each.run.remote(one), job)
        while pool.has_next():
            try:
                outcome = pool.get_next_unordered()
            except (
                ray.exceptions.RayError
            ) as error:  # it does not say whose job it was; those without an outcome are
                last = str(error).strip()
                continue
            del waiting[outcome.id]
            yield outcome
        for job in waiting.values():
            yield Outcome(
                job.id, job.arguments, None, f"its worker died: {last}", attempts, 0.0, ""
            )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise LipSyncError(
            f"Ray is not here ({error}); install it with pip install 'lipsync-core[ray]', or leave "
            "--ray out"
        ) from error
    return ray


@contextmanager
def _connect(ray: Any, cluster: Cluster, threads: int) -> Yields[None, None, None]:
    if ray.is_initialized():  # by the program that calls us, whose it stays
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    cores = {"num_cpus": max(os.cpu_count() or 1, (cluster.workers or 1) * threads)}
    try:
        ray.init(
            cluster.address,
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            **(cores if cluster.address == "local" else {}),
        )
    except (ConnectionError, RuntimeError) as error:
        raise LipSyncError(
            f"no Ray cluster at {cluster.address} ({error}); start one, or use --ray local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def share_resources(
    cluster: Cluster, resources: Mapping[str, float], threads: int, jobs: int
) -> tuple[int, int, float]:
    """How many workers, and the cores and GPUs of each: a whole GPU, or, with more workers than
    GPUs, the n-th part."""
    cores, cards = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    fit = cores // threads
    workers = min(cluster.workers or cards or fit, jobs)
    if workers > fit or workers < 1:
        raise ValueError(
            f"{max(workers, 1)} workers of {threads} threads do not fit the {cores} cores of the "
            "cluster; "
            "give fewer --workers or --threads"
        )
    return workers, threads, 1 / -(-workers // cards) if cards else 0
