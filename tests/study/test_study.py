"""The human study without a browser: the plan's balance, what the server tells and keeps, and what
the report finds."""

import json
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.studies import (
    GOOD,
    METHODS,
    Server,
    build,
    link_paths,
    serving,
    vote_on,
    write_clip,
    write_methods,
)
from typer.testing import CliRunner

from lipsync_core.cli.main import app
from lipsync_core.errors import MediaError
from lipsync_core.media import read_audio, read_frames
from lipsync_core.study.create import CreatedStudy, create_study
from lipsync_core.study.measures import compare_measures, read_measures
from lipsync_core.study.plan import draw_plan, make_latin_rows
from lipsync_core.study.report import report_study
from lipsync_core.study.server import make_application, serve
from lipsync_core.study.store import (
    QUESTIONS,
    AlreadyVoted,
    Refused,
    StudyError,
    Vote,
    find_next_question,
    find_rater,
    open_study,
    record_vote,
)

PLANS = [
    (14, 10, 2, 2, None),
    (14, 7, 3, 2, None),
    (14, 12, 5, 2, 9),
    (6, 5, 3, 3, None),
    (3, 1, 4, 3, None),
]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_latin_rows_put_everything_everywhere_and_after_everything(n: int) -> None:
    rows = make_latin_rows(n)
    places = Counter((item, place) for row in rows for place, item in enumerate(row))
    assert set(places.values()) == {len(rows) // n} and len(places) == n * n
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == n * (n - 1) and len(set(neighbours.values())) <= 1


@pytest.mark.parametrize(("raters", "clips", "methods", "side_by_side", "per_rater"), PLANS)
def test_the_plan_is_balanced(
    raters: int, clips: int, methods: int, side_by_side: int, per_rater: int | None
) -> None:
    tasks = draw_plan(
        raters, clips, methods, side_by_side=side_by_side, clips_per_rater=per_rater, seed=3
    )

    def spread(counts: Counter[object], cells: int) -> int:
        values = [*counts.values(), *[0] * (cells - len(counts))]
        return max(values) - min(values)

    kinds = len({t.methods for t in draw_plan(200, clips, methods, side_by_side=side_by_side)})
    assert spread(Counter(t.methods for t in tasks), kinds) <= 1
    assert spread(Counter(t.clip for t in tasks), clips) <= 1
    for clip in range(clips):
        assert spread(Counter(t.methods for t in tasks if t.clip == clip), kinds) <= 1
    for rater in range(raters):
        own = [t for t in tasks if t.rater == rater]
        assert [t.position for t in own] == list(range(per_rater or clips))
        assert len({t.clip for t in own}) == len(own)
        assert spread(Counter(t.methods for t in own), kinds) <= 2
    assert all(len(set(t.methods)) == side_by_side for t in tasks)


def test_a_whole_square_of_raters_sees_every_clip_in_every_place() -> None:
    tasks = draw_plan(12, 6, 2)
    assert set(Counter((t.clip, t.position) for t in tasks).values()) == {2}


def test_plans_come_from_their_seed() -> None:
    assert draw_plan(14, 9, 3, seed=1) == draw_plan(14, 9, 3, seed=1) != draw_plan(14, 9, 3, seed=2)


@pytest.mark.parametrize("numbers", [(0, 5, 2, 2), (1, 0, 2, 2), (1, 5, 2, 3), (1, 5, 2, 1)])
def test_impossible_plans_are_refused(numbers: tuple[int, int, int, int]) -> None:
    raters, clips, methods, side_by_side = numbers
    with pytest.raises(ValueError, match="expected at"):
        draw_plan(raters, clips, methods, side_by_side=side_by_side)


def test_missing_clips_are_named_and_left_out_only_on_request(tmp_path: Path) -> None:
    methods = write_methods(tmp_path, 3, methods=2)
    (methods[METHODS[1]] / "2.mp4").unlink()
    (methods[METHODS[0]] / "notes.txt").write_text("no clip", encoding="utf-8")
    with pytest.raises(
        StudyError, match=r"method-fair has no 2\.mp4; add them, or take the 2 common"
    ):
        create_study(tmp_path / "study", methods)
    created = create_study(tmp_path / "study", methods, common_only=True)
    assert created.clips == 2 and created.warnings == ("left out: method-fair has no 2.mp4",)
    with pytest.raises(StudyError, match="exists"):
        create_study(tmp_path / "study", methods, common_only=True)


def test_odd_clips_are_reported_and_broken_ones_leave_nothing_behind(tmp_path: Path) -> None:
    methods = write_methods(tmp_path, 1, methods=2)
    write_clip(methods[METHODS[0]] / "long.mp4", 0, frames=20)
    write_clip(methods[METHODS[1]] / "long.mp4", 1, sound=False)
    created = create_study(tmp_path / "study", methods, raters=1)
    assert any("long.mp4 has no sound" in w for w in created.warnings)
    assert (
        any("long.mp4 lasts from 0.32 to 0.80 s" in w for w in created.warnings)
        and len(created.warnings) == 2
    )
    for path in methods.values():
        (path / "0.mp4").write_bytes(b"broken")
    with pytest.raises(MediaError):
        create_study(tmp_path / "other", methods)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["method-best", "method-fair", "study"]


def test_copies_tell_no_method_and_play_the_same(tmp_path: Path) -> None:
    source = write_methods(tmp_path, 1, methods=2)
    study = create_study(tmp_path / "study", source, raters=1).folder
    assert b"method-best" in (source["method-best"] / "0.mp4").read_bytes()
    copies = sorted((study / "media").iterdir())
    assert len(copies) == 2
    pictures = []
    for copy in copies:
        assert b"method-" not in copy.read_bytes() and copy.stat().st_mtime == 0
        pictures.append(torch.cat([f.pixels for f in read_frames(copy)]))
    first = torch.cat([f.pixels for f in read_frames(source["method-best"] / "0.mp4")])
    (same,) = (i for i, p in enumerate(pictures) if torch.equal(p, first))
    assert torch.equal(
        read_audio(copies[same]).samples, read_audio(source["method-best"] / "0.mp4").samples
    )


@pytest.fixture(scope="module")
def two_raters(tmp_path_factory: pytest.TempPathFactory) -> CreatedStudy:
    """Two raters, each with one clip of their own."""
    return build(tmp_path_factory.mktemp("two"), clips=2, raters=2, methods=2, clips_per_rater=1)


@pytest.fixture(scope="module")
def server(two_raters: CreatedStudy) -> Iterator[Server]:
    with serving(two_raters.folder) as running:
        yield running


def test_the_page_is_closed_to_others_and_works_offline(
    server: Server, two_raters: CreatedStudy
) -> None:
    link, _ = link_paths(two_raters)
    status, headers, page = server.ask("GET", link)
    assert status == 200 and b"http" not in page.replace(b"http-equiv", b"")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert (headers["referrer-policy"], headers["x-content-type-options"]) == (
        "no-referrer",
        "nosniff",
    )
    assert (headers["cache-control"], headers["x-frame-options"]) == ("no-store", "DENY")
    assert "set-cookie" not in headers
    assert server.ask("GET", f"{link}/task")[1]["cache-control"] == "no-store"
    for name in ("page.css", "page.js"):
        status, headers, body = server.ask("GET", f"/page/{name}")
        assert status == 200 and b"http" not in body and headers["content-type"].startswith("text/")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/s/",
            "/s/wrong",
            "/s/wrong/task",
            "/s/wrong/media/x",
            "/s/%ff%00",
            "/s/../../links.csv",
            "/media",
        ),
        *(
            "/links.csv",
            "/study.sqlite",
            "/page/",
            "/page/server.py",
            "/page/..%2fserver.py",
            "/page/../server.py",
        ),
    ],
)
def test_there_is_nothing_without_a_link(server: Server, path: str) -> None:
    status, headers, body = server.ask("GET", path)
    assert status == 404 and b"method-" not in body and len(body) < 200
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["..%2fstudy.sqlite", "../study.sqlite", "..%2f..%2flinks.csv", "%2fetc%2fpasswd", "x"]
)
def test_no_path_leads_out_of_the_media(
    server: Server, two_raters: CreatedStudy, name: str
) -> None:
    assert server.ask("GET", f"{link_paths(two_raters)[0]}/media/{name}")[0] == 404


def test_clips_come_in_ranges_and_only_to_those_who_judge_them(
    server: Server, two_raters: CreatedStudy
) -> None:
    mine, other = link_paths(two_raters)
    task = server.task(mine)
    assert set(task) == {
        "title",
        "finished",
        "task",
        "media",
        "done",
        "total",
    } and "method" not in json.dumps(task)
    path = f"{mine}/media/{task['media'][0]}"
    status, headers, whole = server.ask("GET", path)
    assert (status, headers["accept-ranges"], headers["content-type"]) == (
        200,
        "bytes",
        "video/mp4",
    )
    for wanted, part in {
        "bytes=0-1": whole[:2],
        "bytes=100-": whole[100:],
        "bytes=-50": whole[-50:],
    }.items():
        status, headers, body = server.ask("GET", path, range=wanted)
        assert (
            status == 206 and body == part and headers["content-range"].endswith(f"/{len(whole)}")
        )
    assert server.ask("GET", path, range=f"bytes={len(whole)}-")[0] == 416
    assert server.ask("GET", f"{other}/media/{task['media'][0]}")[0] == 404


def test_votes_of_others_and_from_elsewhere_are_refused(
    server: Server, two_raters: CreatedStudy
) -> None:
    mine, other = link_paths(two_raters)
    vote = vote_on(server.task(mine))
    assert server.ask("POST", f"{other}/vote", vote)[0] == 403
    assert server.ask("POST", "/s/wrong/vote", vote)[0] == 404
    assert (
        server.ask("POST", f"{mine}/vote", vote, content_type="application/x-www-form-urlencoded")[
            0
        ]
        == 415
    )
    assert server.ask("POST", f"{mine}/vote", vote, content_type="text/plain")[0] == 415
    assert server.ask("POST", f"{mine}/vote", vote, sec_fetch_site="cross-site")[0] == 403
    assert server.ask("POST", f"{mine}/vote", {**vote, "note": "x" * 20_000})[0] == 413
    assert server.ask("GET", f"{mine}/vote")[0] == 405
    assert server.task(mine)["done"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"preferred": 2},
        {"preferred": True},
        {"preferred": "0"},
        {"preferred": None},
        {"ratings": []},
        {"ratings": [GOOD]},
        {"ratings": [GOOD, {**GOOD, "sync": 6}]},
        {"ratings": [GOOD, {**GOOD, "sync": 2.5}]},
        {"ratings": [GOOD, {**GOOD, "sync": True}]},
        {"ratings": [GOOD, {"sync": 1}]},
        {"ratings": [GOOD, {**GOOD, "more": 1}]},
        {"ratings": 5},
        {"task": 5},
    ],
)
def test_incomplete_votes_are_refused(
    server: Server, two_raters: CreatedStudy, wrong: dict[str, object]
) -> None:
    mine = link_paths(two_raters)[0]
    status, _, answer = server.ask("POST", f"{mine}/vote", {**vote_on(server.task(mine)), **wrong})
    assert status == 400 and json.loads(answer)["error"].startswith("the vote")
    assert server.task(mine)["done"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"task": "x"}', b"\xff", b"[" * 9000]
)
def test_unreadable_votes_are_refused(
    server: Server, two_raters: CreatedStudy, body: bytes
) -> None:
    assert server.ask("POST", f"{link_paths(two_raters)[0]}/vote", body)[0] == 400


def test_a_vote_sent_twice_counts_once_and_the_first_one_stays(tmp_path: Path) -> None:
    created = build(tmp_path, clips=2, raters=1, methods=2)
    (token,) = (path.removeprefix("/s/") for path in link_paths(created))

    def record_now(task: str, vote: Vote, rater: int = 0) -> str:
        with open_study(created.folder, writing=True) as db:
            assert find_rater(db, token) == 0 and find_rater(db, token + "x") is None
            return record_vote(db, rater, task, vote)

    with open_study(created.folder) as db:
        question = find_next_question(db, 0)
    assert question is not None and (question.done, question.total, len(question.media)) == (
        0,
        2,
        2,
    )
    vote = Vote(1, (GOOD, GOOD))
    assert [record_now(question.task, vote), record_now(question.task, vote)] == [
        "saved",
        "repeated",
    ]
    for other in (Vote(0, (GOOD, GOOD)), Vote(1, (GOOD, {**GOOD, "sync": 1})), Vote(None, ())):
        with pytest.raises(AlreadyVoted):
            record_now(question.task, other)
    with pytest.raises(Refused):
        record_now(question.task, vote, rater=1)
    with open_study(created.folder) as db:
        following = find_next_question(db, 0)
    assert following is not None and following.done == 1 and following.task != question.task
    assert record_now(following.task, Vote(None, ())) == "saved"
    report = report_study(created.folder)
    assert (report.votes, report.unplayable, report.finished) == (2, 1, 1)
    assert sum(m.ratings for m in report.methods) == 2 and report.places == (0, 1)
    assert all(m.strength.low is None for m in report.methods)  # one rater: no interval


def test_no_acknowledged_vote_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """Fourteen raters vote at once while the server is killed again and again; each goes on where
    it was."""
    created = build(tmp_path, clips=6, raters=14, methods=2)
    acknowledged: list[str] = []
    with serving(created.folder) as server, ThreadPoolExecutor(14) as pool:

        def judge(link: str) -> None:
            while True:
                try:
                    task = server.task(link)
                    if task["finished"]:
                        return
                    status, _, _ = server.ask("POST", f"{link}/vote", vote_on(task))
                    assert status == 200
                    acknowledged.append(task["task"])
                except (OSError, HTTPException):
                    time.sleep(0.05)  # the server is down: the page tries again, too

        judging = [pool.submit(judge, link) for link in link_paths(created)]
        for goal in (10, 30, 60):
            while len(acknowledged) < goal:
                assert not any(j.done() and j.exception() for j in judging)
                time.sleep(0.005)
            server.kill()
            with open_study(created.folder) as db:
                kept = {task for (task,) in db.execute("SELECT task FROM vote")}
            assert set(acknowledged) <= kept
            server.start()
        for j in judging:
            j.result(timeout=120)
    report = report_study(created.folder)
    assert (report.finished, report.votes, len(set(acknowledged))) == (14, 84, len(acknowledged))
    assert sum(m.ratings for m in report.methods) == 2 * 84


def test_votes_are_flushed_at_every_commit(two_raters: CreatedStudy) -> None:
    with open_study(two_raters.folder) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_the_database_itself_refuses_what_was_not_shown(two_raters: CreatedStudy) -> None:
    with pytest.raises(sqlite3.IntegrityError), open_study(two_raters.folder, writing=True) as db:
        (task,) = db.execute("SELECT id FROM task").fetchone()
        db.execute("INSERT INTO vote VALUES (?, 7, '')", (task,))


def test_links_are_not_in_the_database(two_raters: CreatedStudy) -> None:
    content = (two_raters.folder / "study.sqlite").read_bytes()
    tokens = [path.removeprefix("/s/") for path in link_paths(two_raters)]
    assert (
        all(len(token) >= 43 and token.encode() not in content for token in tokens)
        and len(set(tokens)) == 2
    )


def test_the_report_finds_what_simulated_raters_prefer(tmp_path: Path) -> None:
    """Opinions are drawn around known means with own leanings of raters and clips, choices by known
    strengths."""
    truth, means = (
        np.array([0.6, 0.3, 0.1]),
        np.array([[4.2, 3.0, 4.0], [3.2, 4.0, 3.5], [2.0, 2.0, 2.2]]),
    )
    created = build(tmp_path, clips=20, raters=14)
    chance = np.random.default_rng(5)
    leanings, clips = chance.normal(0, 0.25, 14), chance.normal(0, 0.25, 20)
    with open_study(created.folder, writing=True) as db:
        about = {m: (c, k) for m, c, k in db.execute("SELECT id, clip, method FROM media")}
        for rater in range(14):
            while (question := find_next_question(db, rater)) is not None:
                shown = [about[m][1] for m in question.media]
                lean = leanings[rater] + clips[about[question.media[0]][0]]
                ratings = [
                    np.clip(np.round(means[k] + lean + chance.normal(0, 0.6, 3)), 1, 5)
                    for k in shown
                ]
                named = tuple(
                    {q: int(v) for q, v in zip(QUESTIONS, r, strict=True)} for r in ratings
                )
                preferred = int(chance.choice(len(shown), p=truth[shown] / truth[shown].sum()))
                record_vote(db, rater, question.task, Vote(preferred, named))
    report = report_study(created.folder)
    assert (report.finished, report.votes, report.tasks) == (14, 280, 280)
    assert abs(report.places[0] - 140) < 30  # no rater favors a side
    for m, name in enumerate(METHODS):
        found = report.methods[m]
        assert found.method == name and abs(found.strength.value - truth[m]) < 0.1
        assert found.strength.low <= truth[m] <= found.strength.high
        for q, question in enumerate(QUESTIONS):
            assert (
                found.opinions[question].low - 0.1
                <= means[m, q]
                <= found.opinions[question].high + 0.1
            )
            assert 0.1 < found.opinions[question].high - found.opinions[question].low < 1
    for alpha in report.agreement.values():
        assert 0.3 < alpha.low < alpha.value < alpha.high < 0.9
    shares = [m.share.value for m in report.methods]
    assert shares == sorted(shares, reverse=True)
    # a measure that says what raters were made to prefer, its reverse, and noise
    rows = ["method,clip,good,bad,noise"]
    for m, name in enumerate(METHODS):
        for clip in names_of_clips(created.folder):
            value = means[m, 0] + chance.normal(0, 0.1)
            rows.append(f"{name},{clip},{value},{-value},{chance.normal()}")
    (tmp_path / "measures.csv").write_text("\n".join(rows), encoding="utf-8")
    compared = report_study(created.folder, measures=tmp_path / "measures.csv")
    assert replace(compared, measures=()).to_json() == report.to_json()
    found = {one.measure: one for one in compared.measures}
    assert found["good"].count == 60 and list(found)[-1] == "noise"
    good, noise = found["good"], found["noise"]
    assert good.correlations["sync"] > 0.75 and abs(noise.correlations["sync"]) < 0.35
    assert found["bad"].correlations["sync"] == pytest.approx(-good.correlations["sync"])
    low, high = good.intervals["sync"]
    assert 0.6 < low < good.correlations["sync"] < high < 1
    assert "| good | 60 | 0." in compared.to_markdown()


def names_of_clips(study: Path) -> list[str]:
    with open_study(study) as db:
        return [name for (name,) in db.execute("SELECT name FROM clip ORDER BY id")]


def test_measures_of_the_benchmark_are_read_and_others_refused(tmp_path: Path) -> None:
    line = {"arguments": {"method": "mini", "pair": 3}, "result": None}
    good = {**line, "result": {"confidence": 0.5, "frames": 9, "mouth": {"new": 1, "reasons": {}}}}
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, (line, good))))
    unit = ("mini", "00003")
    assert read_measures(tmp_path / "results.jsonl") == {
        "confidence": {unit: 0.5},
        "mouth new": {unit: 1.0},
    }
    for text in ("a,b\n1,2\n", "method,clip,x\nm,c,word\n", "method,clip,x\n"):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(StudyError, match="expected"):
            read_measures(tmp_path / "m.csv")
    with pytest.raises(StudyError, match="names of methods and clips"):
        compare_measures({q: {} for q in QUESTIONS}, {"x": {unit: 1.0}})


def test_a_method_that_nobody_has_seen_yet_has_no_figures(tmp_path: Path) -> None:
    created = build(tmp_path, clips=1, raters=1)
    with open_study(created.folder, writing=True) as db:
        question = find_next_question(db, 0)
        assert question is not None
        record_vote(db, 0, question.task, Vote(0, (GOOD, GOOD)))
    report = report_study(created.folder)
    (unseen,) = (m for m in report.methods if m.shown == 0)
    figures = [unseen.share, unseen.strength, *unseen.opinions.values()]
    assert all(f.value is None and f.low is None for f in figures)
    assert f"| {unseen.method} | none | none | none | 0 of 0: none | none |" in report.to_markdown()


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["study", *map(str, args)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands(tmp_path: Path) -> None:
    folders = write_methods(tmp_path, 2, methods=2)
    study = tmp_path / "study"
    methods = [
        text for name, folder in folders.items() for text in ("--method", f"{name}={folder}")
    ]
    assert "2 clips, 4 raters, 8 screens" in run("create", study, *methods, "--raters", 4)
    assert "expected NAME=FOLDER" in run("create", study, "--method", "nothing", code=2)
    with pytest.raises(StudyError, match="no votes yet"):
        report_study(study)
    with pytest.raises(StudyError, match=r"holds no study\.sqlite"):
        report_study(tmp_path)
    with open_study(study, writing=True) as db:
        for rater in range(3):
            question = find_next_question(db, rater)
            assert question is not None
            record_vote(db, rater, question.task, Vote(0, (GOOD, GOOD)))
    text = run("report", study, "--out", tmp_path / "out")
    assert "0 of 4 raters finished; 3 of 8 screens are answered" in text and "method-best" in text
    assert "| Krippendorff's alpha | none | none | none |" in text
    found = json.loads(run("report", study, "--json", "--out", tmp_path / "out"))
    assert found["votes"] == 3 and found["methods"][0]["opinions"]["sync"]["value"] == 4
    assert found["agreement"]["sync"]["value"] is None  # everybody gave the same: 0/0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.json",
        "report.md",
        "report.png",
    ]
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_another_version_of_the_file_is_refused(tmp_path: Path) -> None:
    created = build(tmp_path, clips=1, raters=1, methods=2)
    with closing(sqlite3.connect(created.folder / "study.sqlite")) as db, db:
        db.execute("UPDATE study SET version = 99")
    with (
        pytest.raises(StudyError, match="is of version 99; this program reads 1"),
        open_study(created.folder),
    ):
        pass


def test_a_broken_file_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").write_bytes(b"no database at all" * 50)
    with pytest.raises(StudyError, match="is not a study"), open_study(tmp_path):
        pass


def test_a_port_in_use_is_told_before_the_links(tmp_path: Path) -> None:
    created = build(tmp_path, clips=1, raters=1, methods=2)
    told: list[bool] = []
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(StudyError, match="give another --port"),
    ):
        serve(created.folder, port=taken.getsockname()[1], on_ready=lambda: told.append(True))
    assert not told


def test_the_application_says_which_packages_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "starlette.applications", None)
    with pytest.raises(StudyError, match=r"pip install 'lipsync-core\[study\]'"):
        make_application(tmp_path)
