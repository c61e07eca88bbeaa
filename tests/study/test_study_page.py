"""The voting page in headless Chromium: fourteen simulated raters whose preferences the report must
find again."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.studies import METHODS, Server, build, link_paths, serving
from helpers.webdriver import MISSING, Browser, browsing

from lipsync_core.study.create import CreatedStudy
from lipsync_core.study.report import StudyReport, report_study
from lipsync_core.study.store import QUESTIONS, open_study

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

STRENGTHS = np.array([0.7, 0.22, 0.08])
MEANS = np.array([[4.4, 3.2, 4.0], [3.4, 4.2, 3.4], [1.8, 2.0, 2.2]])
RATERS, CLIPS = 14, 5

# What a rater sees: which method each clip is, told by its colour (the page itself cannot know).
LOOK = """
return videos.map((video) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return [r, g, b].indexOf(Math.max(r, g, b));
});
"""
TOO_SMALL = """
return [...document.querySelectorAll("#judging :is(button, .scale label, .choice label)")].filter(
  (e) => !e.hidden && (e.offsetHeight < 44 || e.offsetWidth < 40)).map((e) => e.outerHTML);
"""
READY = (
    "return task && !task.finished && task.task !== arguments[0] && videos.every((v) => "
    "v.readyState >= 3) && task.task"
)
SEEN = "return watched.size === videos.length"
NEXT = "return task && (task.finished ? 'finished' : task.task !== arguments[0])"
ON = "return task.finished || task.task !== arguments[0]"


@dataclass
class Crowd:
    """Raters with a known taste, and what they have answered: {task: (preferred, ratings by
    place)}."""

    chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))
    answers: dict[str, tuple[int, list[list[int]]]] = field(default_factory=dict)

    def judge(self, task: str, shown: list[int]) -> tuple[int, list[list[int]]]:
        chances = STRENGTHS[shown] / STRENGTHS[shown].sum()
        drawn = np.clip(np.round(MEANS[shown] + self.chance.normal(0, 0.6, (len(shown), 3))), 1, 5)
        self.answers[task] = (
            int(self.chance.choice(len(shown), p=chances)),
            drawn.astype(int).tolist(),
        )
        return self.answers[task]


@dataclass
class Study:
    created: CreatedStudy
    server: Server
    crowd: Crowd

    def url(self, rater: int) -> str:
        return f"http://127.0.0.1:{self.server.port}{link_paths(self.created)[rater]}"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    created = build(tmp_path_factory.mktemp("study"), clips=CLIPS, raters=RATERS)
    with serving(created.folder) as server:
        yield Study(created, server, Crowd())


@pytest.fixture(scope="module")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("desktop")) as browser:
        yield browser


def watch(browser: Browser, before: str = "") -> tuple[str, list[int]]:
    """Play the next question's clips to the end by key; (task, methods)."""
    task = browser.until(READY, before)
    browser.press("Space")
    browser.until(SEEN)
    return task, browser.run(LOOK)


def type_answers(browser: Browser, preferred: int, ratings: list[list[int]]) -> None:
    """The rows go question by question, in each clip by clip."""
    keys = [str(rating[q]) for q in range(len(QUESTIONS)) for rating in ratings]
    browser.press(*keys, "ab"[preferred])


def judge_by_keyboard(study: Study, browser: Browser, before: str = "") -> str:
    task, shown = watch(browser, before)
    type_answers(browser, *study.crowd.judge(task, shown))
    browser.press("Enter")
    browser.until(ON, task)
    return task


def judge_all(study: Study, browser: Browser, rater: int) -> None:
    browser.open(study.url(rater))
    task = ""
    while browser.until(NEXT, task) != "finished":
        task = judge_by_keyboard(study, browser, task)
    assert "All your answers are saved" in browser.run("return document.body.innerText")


def stored(study: Study) -> dict[str, tuple[int, list[list[int]]]]:
    found: dict[str, Any] = {}
    with open_study(study.created.folder) as db:
        for task, preferred in db.execute("SELECT task, preferred FROM vote").fetchall():
            ratings = db.execute(
                "SELECT place, question, value FROM rating WHERE task = ?", (task,)
            ).fetchall()
            by_place = {(place, question): value for place, question, value in ratings}
            found[task] = (
                preferred,
                [[by_place[p, q] for q in QUESTIONS] for p in range(len(ratings) // 3)],
            )
    return found


def test_a_rater_needs_only_the_keyboard_and_nothing_is_saved_half(
    study: Study, desktop: Browser
) -> None:
    desktop.open(study.url(0))
    task = desktop.until(READY, "")
    desktop.press("Enter")
    assert "play clip A to its end" in desktop.until("return $('status').textContent")
    assert desktop.run("return document.activeElement.id") == "play"
    task, shown = watch(desktop)
    preferred, ratings = study.crowd.judge(task, shown)
    desktop.press(*[str(r[0]) for r in ratings], "Enter")
    assert "5 answers are missing" in desktop.run("return $('status').textContent")
    assert stored(study) == {}
    # The first open row has the focus: the arrows and Tab of every web form answer it, too.
    assert desktop.run("return document.activeElement.name") == "quality-0"
    desktop.press("Space", *["Right"] * (ratings[0][1] - 1), "Tab")
    assert desktop.run("return document.activeElement.name") == "quality-1"
    desktop.press(
        *[str(v) for v in (ratings[1][1], ratings[0][2], ratings[1][2])], "ab"[preferred], "Enter"
    )
    desktop.until(ON, task)
    assert stored(study) == study.crowd.answers
    judge_all(study, desktop, 0)
    assert stored(study) == study.crowd.answers and len(study.crowd.answers) == CLIPS


def test_clips_play_together_and_one_is_heard(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(1))
    desktop.until(READY, "")
    assert desktop.run("return videos.map((v) => v.muted)") == [False, True]
    desktop.press("s")
    assert desktop.run("return videos.map((v) => v.muted)") == [True, False]
    assert desktop.run(
        "return [...document.querySelectorAll('.clip button')].map((b) => b.ariaPressed)"
    ) == [
        "false",
        "true",
    ]
    # else they are over at once
    desktop.run("videos.forEach((v) => { v.loop = true; v.playbackRate = 0.25; })")
    desktop.press("Space")
    desktop.until("return videos.every((v) => !v.paused && v.currentTime > 0.03)")
    desktop.press("Space")
    assert desktop.until("return videos.every((v) => v.paused)")
    times = desktop.run("return videos.map((v) => v.currentTime)")
    assert abs(times[0] - times[1]) < 0.08
    desktop.press("r")
    assert desktop.run("return videos.every((v) => !v.paused)")
    desktop.run("$('shortcuts').checked = false")
    desktop.press("Space", "s", "3")
    assert desktop.run("return videos.map((v) => v.muted)") == [True, False]
    assert desktop.run("return open().length") == 7


def test_everything_has_a_name_and_an_order(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(1))
    desktop.until(READY, "")
    order = []
    for _ in range(15):
        desktop.press("Tab")
        order.append(
            desktop.run(
                "return document.activeElement.id || document.activeElement.name || "
                "document.activeElement.innerText"
            )
        )
    questions = [f"{q}-{place}" for q in QUESTIONS for place in range(2)]
    assert [o.split("\n")[0].split(" sound")[0].split(" tap")[0] for o in order[:2]] == [
        "Clip A",
        "Clip B",
    ]
    assert order[2:13] == ["play", "restart", "sound", *questions, "preferred", "save"]
    unnamed = """return [...document.querySelectorAll("input, button, video, progress, [role=radiogroup]")].filter(
        (e) => !(e.ariaLabel || e.innerText || e.labels?.length)).length"""
    assert desktop.run(unnamed) == 0
    assert desktop.run("return $('status').role + document.documentElement.lang") == "statusen"


def test_half_an_answer_survives_closing_the_page(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(1))
    task, shown = watch(desktop)
    preferred, ratings = study.crowd.judge(task, shown)
    desktop.press(*[str(rating[0]) for rating in ratings])
    desktop.open("about:blank")
    desktop.open(study.url(1))
    assert desktop.until(READY, "") == task
    assert desktop.run("return [answerOf('sync-0'), answerOf('sync-1')]") == [
        str(rating[0]) for rating in ratings
    ]
    assert desktop.run("return [open().length, watched.size]") == [5, 2]
    desktop.press(*[str(rating[q]) for q in (1, 2) for rating in ratings], "ab"[preferred], "Enter")
    desktop.until(ON, task)
    assert stored(study)[task] == study.crowd.answers[task]


def test_a_phone_shows_all_and_takes_taps(study: Study, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile", width=390, height=844, phone=True) as phone:
        phone.open(study.url(2))
        task = ""
        for _ in range(CLIPS):
            task = phone.until(READY, task)
            assert phone.run(
                "return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390"
            )
            assert phone.run(TOO_SMALL) == []
            phone.click("#play")
            phone.until(SEEN)
            preferred, ratings = study.crowd.judge(task, phone.run(LOOK))
            for place, values in enumerate(ratings):
                for question, value in zip(QUESTIONS, values, strict=True):
                    phone.click(f"input[name={question}-{place}][value='{value}']")
            phone.click(f"input[name=preferred][value='{preferred}']")
            phone.click("#save")
            phone.until(ON, task)
        assert phone.run("return task.finished")
    assert stored(study) == study.crowd.answers


def test_a_killed_server_loses_nothing_and_the_page_goes_on(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(3))
    first = judge_by_keyboard(study, desktop)
    task, shown = watch(desktop, first)
    type_answers(desktop, *study.crowd.judge(task, shown))
    study.server.kill()
    desktop.press("Enter")
    desktop.until("return $('status').textContent.startsWith('Not saved yet')")
    assert stored(study).keys() == study.crowd.answers.keys() - {task}  # all that were acknowledged
    study.server.start()
    desktop.until(ON, task)
    assert stored(study) == study.crowd.answers
    third = desktop.until(READY, task)
    desktop.open("about:blank")
    desktop.open(study.url(3))  # the link alone leads back to the third question
    assert desktop.until(READY, "") == third
    assert desktop.run("return $('where').textContent") == f"Question 3 of {CLIPS}"
    judge_all(study, desktop, 3)


def test_nobody_votes_in_anothers_session(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(1))
    before = stored(study)
    task = desktop.until(READY, "")
    desktop.open(study.url(4))
    desktop.until(READY, "")
    vote = """return fetch(arguments[0] + "/vote", {method: "POST", headers: {"content-type": "application/json"}, body:
        JSON.stringify({task: arguments[1], preferred: 0, ratings: Array(2).fill({sync: 1, quality: 1, overall: 1})})})
        .then((answer) => answer.status)"""
    mine = link_paths(study.created)[4]
    assert desktop.run(vote, mine, task) == 403
    assert desktop.run(vote, "/s/guessed", task) == 404
    desktop.open(f"http://127.0.0.1:{study.server.port}/s/guessed")
    assert "not a valid link" in desktop.run("return document.body.innerText")
    assert stored(study) == before


def test_what_the_browser_gets_names_no_method(study: Study, desktop: Browser) -> None:
    desktop.open(study.url(1))
    desktop.until(READY, "")
    fetched = """const urls = performance.getEntriesByType("resource").map((e) => e.name).concat(location.href);
        return Promise.all(urls.filter((u) => u.startsWith("http")).map((u) => fetch(u).then((a) => a.text())
        .then((text) => [u, [...text.matchAll(/method-|\\d\\.mp4/g)].length])))"""
    found = desktop.run(fetched)
    assert len(found) >= 5 and all(count == 0 for _, count in found)
    assert all(url.startswith(f"http://127.0.0.1:{study.server.port}/") for url, _ in found)


def test_fourteen_raters_and_the_report_finds_their_taste(study: Study, desktop: Browser) -> None:
    started = time.monotonic()
    for rater in range(RATERS):
        judge_all(study, desktop, rater)
    assert time.monotonic() - started < 300
    assert stored(study) == study.crowd.answers and len(study.crowd.answers) == RATERS * CLIPS
    check(report_study(study.created.folder))


def check(report: StudyReport) -> None:
    assert (report.finished, report.votes, report.unplayable) == (RATERS, RATERS * CLIPS, 0)
    assert [m.method for m in report.methods] == list(METHODS)
    strengths = [m.strength.value for m in report.methods]
    assert strengths == sorted(strengths, reverse=True)
    for m, found in enumerate(report.methods):
        assert found.strength.low <= STRENGTHS[m] <= found.strength.high
        for q, question in enumerate(QUESTIONS):
            assert abs(found.opinions[question].value - MEANS[m, q]) < 0.3
    assert all(alpha.low > 0.3 for alpha in report.agreement.values())
