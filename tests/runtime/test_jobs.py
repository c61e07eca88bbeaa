"""Lists of jobs: here and on Ray, resumed, tried again, failures kept."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import lipsync_core
from lipsync_core.errors import LipSyncError
from lipsync_core.runtime.jobs import Cluster, Job, read_outcomes, run_jobs, share_resources

JOBS = [Job(f"{i:02}", {"number": i}) for i in range(6)]
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'lipsync-core[ray]'"
)


def squares() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda arguments: {"square": arguments["number"] ** 2}


class Broken:
    """Fails at 3 always, at 4 as long as no file tells that it was tried before, and takes its
    process along at 5."""

    def __init__(self, folder: Path, *, deadly: bool = False) -> None:
        self.folder, self.deadly = folder, deadly

    def __call__(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        return self.work

    def work(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        number = arguments["number"]
        tried = self.folder / f"tried-{number}"
        if number == 3 or (number == 4 and not tried.exists()):
            tried.touch()
            raise RuntimeError(f"no {number} today")
        if number == 5 and self.deadly:
            os._exit(1)
        return {"square": number**2}


def test_results_are_lines_and_come_back_in_order(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    results = tmp_path / "new folder" / "results.jsonl"
    outcomes = run_jobs(
        JOBS, squares, results, on_progress=lambda done, total: told.append((done, total))
    )
    assert [outcome.result for outcome in outcomes] == [{"square": i * i} for i in range(6)]
    assert told == [(i, 6) for i in range(7)]
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [job.id for job in JOBS] and lines[2]["result"] == {
        "square": 4
    }


def test_a_run_resumes_where_it_was_cut_off_in_the_middle_of_a_line(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run_jobs(JOBS[:4], squares, results)
    whole = results.read_bytes()
    results.write_bytes(whole[:-20])
    calls: list[int] = []

    def counted() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        return lambda arguments: (
            calls.append(arguments["number"]) or {"square": arguments["number"] ** 2}
        )

    outcomes = run_jobs(JOBS, counted, results)
    assert calls == [3, 4, 5] and [outcome.result for outcome in outcomes] == [
        {"square": i * i} for i in range(6)
    ]
    assert results.read_bytes().startswith(whole[: whole.index(b'{"id": "03"')])
    assert len(read_outcomes(results)) == 6


def test_failures_are_tried_again_and_kept(tmp_path: Path) -> None:
    outcomes = run_jobs(JOBS, Broken(tmp_path), tmp_path / "r.jsonl", attempts=2)
    assert [(o.attempts, o.error) for o in outcomes[2:5]] == [
        (1, None),
        (2, "RuntimeError: no 3 today"),
        (2, None),
    ]
    assert outcomes[3].result is None and outcomes[4].result == {"square": 16}
    kept = run_jobs(JOBS, squares, tmp_path / "r.jsonl")
    assert kept[3].error == "RuntimeError: no 3 today"  # done is done
    assert run_jobs(JOBS, squares, tmp_path / "r.jsonl", again=True)[3].result == {"square": 9}


def test_other_arguments_are_another_job(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run_jobs(JOBS, squares, results)
    (outcome,) = run_jobs([Job("02", {"number": 7})], squares, results)
    assert outcome.result == {"square": 49} and read_outcomes(results)["02"].result == {
        "square": 49
    }


def sized(calls: list[str]) -> Callable[[], Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """Work that fails without its file."""

    def work(arguments: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(arguments["file"])
        return {"size": Path(arguments["file"]).stat().st_size}

    return lambda: work


def test_jobs_whose_inputs_changed_are_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results, calls = tmp_path / "results.jsonl", list[str]()
    files = [tmp_path / name for name in ("a", "b", "later")]
    jobs = [Job(file.name, {"file": str(file)}, (str(file),)) for file in files]

    def run(**how: Any) -> list[int | None]:
        calls.clear()
        found = run_jobs(jobs, sized(calls), results, attempts=1, **how)
        return [outcome.result and outcome.result["size"] for outcome in found]

    files[0].write_bytes(b"12")
    files[1].write_bytes(b"34")
    assert run() == [2, 2, None] and len(calls) == 3
    assert run() == [2, 2, None] and calls == []  # failures are tried again only on request
    os.utime(files[1], ns=(1, 1))  # another time, the same content
    assert run() == [2, 2, None] and calls == []
    files[1].write_bytes(b"56")  # the same size, another content
    files[0].write_bytes(b"123")
    assert run() == [3, 2, None] and calls == [str(files[0]), str(files[1])]
    assert "2 jobs have other inputs now" in caplog.text
    files[2].write_bytes(b"7")  # what was missing is there
    assert run() == [3, 2, 1] and calls == [str(files[2])]
    files[0].unlink()  # its result stays: nothing could be made of it again
    assert run() == [3, 2, 1] and calls == []


def test_results_of_earlier_versions_count_whatever_their_inputs(tmp_path: Path) -> None:
    results, calls = tmp_path / "results.jsonl", list[str]()
    file = tmp_path / "a"
    file.write_bytes(b"12")
    job = Job("a", {"file": str(file)}, (str(file),))
    run_jobs([job], sized(calls), results)
    line = json.loads(results.read_text(encoding="utf-8"))
    assert line.pop("inputs")[str(file)]["size"] == 2
    results.write_text(json.dumps(line) + "\n", encoding="utf-8")
    file.write_bytes(b"123")
    (outcome,) = run_jobs([job], sized(calls), results)
    assert outcome.result == {"size": 2} and len(calls) == 1


def test_what_is_gone_is_made_again(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run_jobs(JOBS, Broken(tmp_path), results, attempts=1)
    whole = results.read_bytes()
    run_jobs(JOBS, squares, results, still=lambda outcome: outcome.id != "02")
    lines = results.read_bytes().removeprefix(whole).splitlines()
    # failures made nothing that could be gone
    assert [json.loads(line)["id"] for line in lines] == ["02"]


def test_errors_of_ours_stand_without_the_names_of_their_classes(tmp_path: Path) -> None:
    def refuses(arguments: Mapping[str, Any]) -> dict[str, Any]:
        raise LipSyncError("no face") if arguments["number"] else KeyError("pads")

    outcomes = run_jobs(JOBS[:2], lambda: refuses, tmp_path / "r.jsonl")
    assert [outcome.error for outcome in outcomes] == ["KeyError: 'pads'", "no face"]


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "00"}\n', encoding="utf-8")
    with pytest.raises(LipSyncError, match=r"r\.jsonl, line 1"):
        run_jobs(JOBS, squares, tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match="same id"):
        run_jobs([JOBS[0], JOBS[0]], squares, tmp_path / "s.jsonl")
    with pytest.raises(LipSyncError, match="cannot be read"):
        run_jobs(JOBS, squares, tmp_path)


@pytest.mark.parametrize("text", ["pairs.txt", "host", "", "ftp://host:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Cluster(text)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers find these tests and the library that they test."""
    folders = [Path(__file__).parent, Path(lipsync_core.__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))


@pytest.mark.slow
@needs_ray
@pytest.mark.usefixtures("importable")
def test_two_workers_of_ray_do_what_is_done_here_and_survive_one_that_dies(tmp_path: Path) -> None:
    results = tmp_path / "ray.jsonl"
    outcomes = run_jobs(JOBS, Broken(tmp_path, deadly=True), results, cluster=Cluster("local", 2))
    assert [o.result and o.result["square"] for o in outcomes] == [0, 1, 4, None, 16, None]
    assert outcomes[3].error == "RuntimeError: no 3 today" and "its worker died" in str(
        outcomes[5].error
    )
    assert set(read_outcomes(results)) == {job.id for job in JOBS}
    rest = run_jobs(JOBS, squares, results, again=True, cluster=Cluster("local", 2))
    assert [o.result for o in rest] == [{"square": i * i} for i in range(6)]


@needs_ray
@pytest.mark.usefixtures("importable")
def test_workers_that_cannot_begin_are_told(tmp_path: Path) -> None:
    with pytest.raises(LipSyncError, match="cannot begin: nothing to work with"):
        run_jobs(JOBS, unprepared, tmp_path / "r.jsonl", cluster=Cluster("local", 1))


def unprepared() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    raise RuntimeError("nothing to work with")


def test_workers_share_the_cluster() -> None:
    assert share_resources(Cluster("auto"), {"CPU": 16.0}, 4, 100) == (4, 4, 0)
    assert share_resources(Cluster("auto"), {"CPU": 16.0, "GPU": 2.0}, 1, 100) == (2, 1, 1)
    assert share_resources(Cluster("auto", 5), {"CPU": 16.0, "GPU": 2.0}, 1, 100) == (5, 1, 1 / 3)
    assert share_resources(Cluster("auto"), {"CPU": 16.0}, 1, 3) == (3, 1, 0)
    for cluster, threads in ((Cluster("auto", 5), 4), (Cluster("auto"), 32)):
        with pytest.raises(ValueError, match="do not fit the 16 cores"):
            share_resources(cluster, {"CPU": 16.0}, threads, 100)


def test_processes_beside_find_the_same_and_one_that_dies_costs_its_own_job(tmp_path: Path) -> None:
    outcomes = run_jobs(JOBS, Broken(tmp_path, deadly=True), tmp_path / "r.jsonl", processes=2)
    assert [o.result for o in outcomes[:3]] == [{"square": i * i} for i in range(3)]
    assert [o.error for o in outcomes[3:5]] == ["RuntimeError: no 3 today", None]
    assert "its process died" in str(outcomes[5].error)
    again = run_jobs(JOBS, Broken(tmp_path), tmp_path / "r.jsonl", processes=2, again=True)
    assert again[5].result == {"square": 25} and again[3].error is not None


class Mortal(Broken):
    """Takes its process along at 5, the first time."""

    def work(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        tried = self.folder / "killed"
        if arguments["number"] == 5 and not tried.exists():
            tried.touch()
            os._exit(1)
        return {"square": arguments["number"] ** 2}


def test_a_killed_process_costs_nothing_even_where_errors_are_not_tried_again(
    tmp_path: Path,
) -> None:
    outcomes = run_jobs(JOBS[3:], Mortal(tmp_path), tmp_path / "r.jsonl", processes=2, attempts=1)
    assert [outcome.result for outcome in outcomes] == [{"square": i * i} for i in (3, 4, 5)]


@pytest.mark.usefixtures("importable")
def test_processes_that_cannot_begin_are_no_failure_of_the_jobs(tmp_path: Path) -> None:
    """More jobs than processes; in a process of its own, which can be ended should no other code
    end it."""
    script = (
        "import sys; from test_jobs import *; run_jobs(JOBS, unprepared, Path(sys.argv[1]), "
        "processes=2)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "r.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "RuntimeError: nothing to work with" in done.stderr
    assert read_outcomes(tmp_path / "r.jsonl") == {}
