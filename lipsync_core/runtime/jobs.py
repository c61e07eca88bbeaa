"""Run a list of jobs here, in other processes or on Ray, and resume it from its results file.

Results are appended as JSON lines while they come.
"""

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

from ..errors import LipSyncError
from .fingerprint import Fingerprint, changed_files, fingerprint_files

_log = logging.getLogger("lipsync.jobs")

Json = Any
Work = Callable[[Mapping[str, Json]], Mapping[str, Json]]
"""What does a job: its arguments to its result, both of which JSON can hold."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do.

    Attributes:
        id: Its name, unique in the list and the same in every run.
        arguments: Everything that its result depends on, besides the content of files.
        inputs: Paths of the files that it reads; if their content changes, it is done again.
    """

    id: str
    arguments: Mapping[str, Json]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a job, one line of the results file.

    Attributes:
        id: Of the job.
        arguments: Of the job.
        result: What it returned, None if it failed.
        error: Of the last attempt, None if it succeeded.
        attempts: How often it was tried.
        seconds: Duration of all attempts.
        host: Name of the machine.
        inputs: Fingerprints of the job's inputs before it was done; None in files of earlier
            versions.
    """

    id: str
    arguments: Mapping[str, Json]
    result: Mapping[str, Json] | None
    error: str | None
    attempts: int
    seconds: float
    host: str
    inputs: Mapping[str, Fingerprint | None] | None = None

    def to_json(self) -> str:
        """Return the line without its end."""
        return json.dumps(asdict(self), ensure_ascii=False)


Outcomes = Yields[Outcome, None, None]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster; folders must have the same path on all its machines.

    Attributes:
        address: "local" starts two or more workers on this machine, "auto" finds the cluster that
            this machine belongs to, else HOST:PORT or ray://HOST:PORT.
        workers: None for one per GPU of the cluster, or, without GPUs, one per ``threads`` cores.
    """

    address: str = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"local|auto|(ray://)?[^\s/:]+:\d+", self.address):
            raise ValueError(
                f"{self.address!r} is not an address of a Ray cluster; "
                "expected local, auto, HOST:PORT or ray://HOST:PORT"
            )
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"{self.workers} workers; expected at least 1")


def run_jobs(  # noqa: PLR0913
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
    """Do jobs, or take their outcomes from an earlier run.

    A job that ``results`` has a line for, with the same arguments and unchanged inputs, is not done
    again.

    Args:
        jobs: What to do.
        prepare: Makes the function that does a job (it loads the models), once here or once in each
            other process or Ray actor, to which it must be picklable.
        results: File of JSON lines; each outcome is appended as it comes.
        attempts: How often a job that raises is tried; one whose process dies twice at least. A
            failure is a line too.
        again: Try again the jobs that failed in an earlier run.
        still: Returns whether the files of an earlier outcome still exist; else the job is redone.
        threads: Of torch in each worker; None leaves them as they are here, and is 1 elsewhere.
        processes: 2 and more work beside this one.
        cluster: Run on Ray.
        on_progress: Called with the jobs done and their total.

    Returns:
        The outcomes in the order of ``jobs``.

    Raises:
        LipSyncError: If ``results`` is damaged or cannot be written, or Ray is missing.
        ValueError: For two jobs with one id.
    """
    if len({job.id for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same id; expected each once")
    known = read_outcomes(results)
    done = _usable_outcomes(jobs, known, again, still, results)
    todo = [job for job in jobs if job.id not in done]
    say = on_progress or (lambda *_: None)
    say(len(done), len(jobs))
    if not todo:
        return [done[job.id] for job in jobs]
    if cluster is not None:
        outcomes = _run_on_ray(todo, prepare, attempts, threads or 1, cluster)
    elif processes > 1:
        outcomes = ProcessWorkers(prepare, attempts, threads or 1, min(processes, len(todo))).run(
            todo
        )
    else:
        outcomes = _run_here(todo, prepare, attempts, threads)
    with _open_results(results) as write, closing(outcomes):
        for outcome in outcomes:
            write(outcome)
            done[outcome.id] = outcome
            say(len(done), len(jobs))
    return [done[job.id] for job in jobs]


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Read a results file.

    Args:
        path: JSON lines; a last line without an end was cut off while being written and is ignored.

    Returns:
        The last outcome of each id; empty without a file.

    Raises:
        LipSyncError: For any other line that is no outcome, and a file that cannot be read.
    """
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
                f"{path}, line {number} is not a result ({error}); correct or remove the line, or "
                "name another file"
            ) from error
        found[outcome.id] = outcome
    return found


def _usable_outcomes(
    jobs: Sequence[Job],
    known: Mapping[str, Outcome],
    again: bool,
    still: Callable[[Outcome], bool] | None,
    results: Path,
) -> dict[str, Outcome]:
    """Choose the outcomes of an earlier run that still count, and warn of the others."""
    done: dict[str, Outcome] = {}
    counts = {"were done with other settings": 0, "have other inputs now": 0, "lost a file": 0}
    for job in jobs:
        outcome = known.get(job.id)
        if outcome is None:
            continue
        # as JSON gives them back: a tuple is a list there
        if outcome.arguments != json.loads(json.dumps(dict(job.arguments))):
            counts["were done with other settings"] += 1
        elif changed_files(outcome.inputs or {}):
            counts["have other inputs now"] += 1
        elif still and outcome.result is not None and not still(outcome):
            counts["lost a file"] += 1
        elif not (again and outcome.error):
            done[job.id] = outcome
    for reason, count in counts.items():
        if count:
            _log.warning("%s: %d jobs %s and are done again", results, count, reason)
    return done


@contextmanager
def _open_results(path: Path) -> Yields[Callable[[Outcome], None], None, None]:
    """Append whole lines, after removing half a line left by an interruption."""
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
    began, error, host = time.perf_counter(), "", platform.node()
    inputs = fingerprint_files(job.inputs)  # before the work: what changes meanwhile has changed
    for attempt in range(1, attempts + 1):
        try:
            result = work(job.arguments)
        # any error belongs into the results, and the other jobs go on
        except Exception as problem:
            error = str(problem) if isinstance(problem, (LipSyncError, ValueError)) else ""
            # messages of other libraries may say too little without their type
            error = error or f"{type(problem).__name__}: {problem}"
            _log.debug("%s, attempt %d of %d", job.id, attempt, attempts, exc_info=True)
        else:
            seconds = _elapsed(began)
            return Outcome(job.id, job.arguments, result, None, attempt, seconds, host, inputs)
    return Outcome(job.id, job.arguments, None, error, attempts, _elapsed(began), host, inputs)


def _elapsed(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _run_here(
    jobs: Sequence[Job], prepare: Callable[[], Work], attempts: int, threads: int | None
) -> Outcomes:
    import torch  # not above: commands read their tables with this module before torch is loaded

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        work = prepare()
        for job in jobs:
            yield _attempt(work, job, attempts)
    finally:
        torch.set_num_threads(before)


_work: Work | Exception | None = None  # of a process of ProcessWorkers, or why it has none


def _start_process(prepare: Callable[[], Work], threads: int) -> None:
    """Set up a new process."""
    global _work
    parent = os.getppid()

    # a killed parent closes nothing that would wake its workers; on Windows it keeps its number
    def orphan() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=orphan, daemon=True).start()
    _limit_threads(threads)
    try:
        _work = prepare()
    except Exception as error:  # no fault of a job: it is raised where the jobs are handed out
        _work = error


def _limit_threads(threads: int) -> None:
    """Give torch so many threads, now or when it is imported, which takes seconds."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def _run_in_process(job: Job, attempts: int) -> Outcome:
    if isinstance(_work, Exception):
        raise _work
    assert _work is not None
    return _attempt(_work, job, attempts)


class ProcessWorkers:
    """Does jobs in processes on this machine.

    Each process is an executor of one, so that it is known whose job ended it; the next job gets a
    new one. ``joblib`` and a plain executor of many do not tell, and lose the other jobs with it.

    Args:
        prepare: Makes the function that does a job; called once in each process.
        attempts: How often a job is tried.
        threads: Threads of torch in each process.
        count: Number of processes.
    """

    def __init__(
        self, prepare: Callable[[], Work], attempts: int, threads: int, count: int
    ) -> None:
        self._prepare, self._threads, self._count = prepare, threads, count
        self._attempts = attempts
        # the first death may be the machine's fault: too little memory, or a kill by the user
        self._deaths = max(attempts, 2)
        self._free: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def run(self, jobs: Sequence[Job]) -> Outcomes:
        """Yield the outcomes as they come; closing the generator cancels the jobs that wait."""
        for _ in range(self._count):
            self._free.put(self._start())
        threads = ThreadPoolExecutor(self._count)
        try:
            for future in as_completed([threads.submit(self._do, job) for job in jobs]):
                if (outcome := future.result()) is not None:
                    yield outcome
        finally:
            self._stopped.set()
            threads.shutdown(cancel_futures=True)
            while not self._free.empty():
                self._free.get().shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # With a number of tasks, however large, processes are spawned; forked ones inherit torch's
        # locks but not its threads.
        return ProcessPoolExecutor(
            1,
            max_tasks_per_child=sys.maxsize,
            initializer=_start_process,
            initargs=(self._prepare, self._threads),
        )

    def _do(self, job: Job) -> Outcome | None:
        """Do one job in a free process, or return None after a stop."""
        began, death = time.perf_counter(), ""
        for _ in range(self._deaths):
            if self._stopped.is_set():
                return None
            worker, began = self._free.get(), time.perf_counter()
            try:
                outcome = worker.submit(_run_in_process, job, self._attempts).result()
            except BrokenProcessPool as error:
                worker.shutdown()
                self._free.put(self._start())
                death = f"its process died: {error}"
            except BaseException:  # not the job's fault: cancel the other workers
                self._stopped.set()
                self._free.put(worker)
                raise
            else:
                self._free.put(worker)
                return outcome
        seconds, host = _elapsed(began), platform.node()
        inputs = fingerprint_files(job.inputs)
        return Outcome(job.id, job.arguments, None, death, self._deaths, seconds, host, inputs)


class _Worker:
    """A Ray actor: one process that holds the models; it prepares again if Ray restarts it."""

    def __init__(self, prepare: Callable[[], Work], attempts: int, threads: int) -> None:
        _limit_threads(threads)
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
    """Run jobs on Ray; a worker that dies is restarted with its job up to ``attempts``."""
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
            # the error does not name the job: those left without an outcome have failed
            except ray.exceptions.RayError as error:
                last = str(error).strip()
                continue
            del waiting[outcome.id]
            yield outcome
        for job in waiting.values():
            death, inputs = f"its worker died: {last}", fingerprint_files(job.inputs)
            yield Outcome(job.id, job.arguments, None, death, attempts, 0.0, "", inputs)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise LipSyncError(
            f"Ray is missing ({error}); install it with pip install 'lipsync-core[ray]', "
            "or leave --ray out"
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
    """Divide a cluster among workers.

    Args:
        cluster: Gives the number of workers, if any.
        resources: Ray's "CPU" and "GPU" of the whole cluster.
        threads: Cores for each worker.
        jobs: How many there are to do.

    Returns:
        Number of workers, and cores and GPUs of each: a whole GPU, or a part if workers outnumber
        GPUs.

    Raises:
        ValueError: If so many workers do not fit.
    """
    cores, cards = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    fit = cores // threads
    workers = min(cluster.workers or cards or fit, jobs)
    if workers > fit or workers < 1:
        raise ValueError(
            f"{max(workers, 1)} workers of {threads} threads do not fit the {cores} cores of the "
            "cluster; give fewer --workers or --threads"
        )
    return workers, threads, 1 / -(-workers // cards) if cards else 0
