"""train/harness.py: in which order a recipe's functions are called, with what, and what a folder
keeps."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lipsync_core.errors import TrainingError
from lipsync_core.models.precision import Precision
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.logger import Evaluation
from lipsync_core.training.loop import Draws, Plan
from train import harness
from train.harness import Job, Networks, Recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    rate: float = 0.1
    clip_norm: float = 1.0
    decay: float = 0.0
    precision: Precision = "float32"
    plan: Plan


RUN = "rate = {rate}\n[plan]\nsteps = 2\nevaluate_every = 9\ntensorboard = false\n"


def make_recipe(called: list[str], *, draws: int = 0, refused: str = "") -> Recipe:
    """A line through the origin; ``read`` draws some random numbers, as reading a network may."""

    def note(name: str) -> None:
        called.append(name)
        if name == refused:
            raise TrainingError("refused")

    def parse(argv: list[str] | None) -> argparse.Namespace:
        note("parse")
        return harness.parse_arguments("A test", argv, judge=harness.JUDGE)

    def read(job: Job[Settings]) -> int:
        note("read")
        torch.rand(draws)
        return 3

    def build(job: Job[Settings], data: int) -> Networks:
        note("build")
        optimizer = partial(torch.optim.SGD, lr=job.settings.rate)
        student = harness.make_student(job, nn.Linear(data, 1, bias=False), optimizer)
        critic = harness.make_opponent(job, nn.Linear(1, 1), optimizer)
        return Networks(student, {"critic": critic})

    def step(run: Any, batch: Tensor, step: int) -> dict[str, Tensor]:
        note(f"step {step}")
        loss = run.student.wrapped(batch).square().mean()
        return {"loss": loss, "gradient": run.student.learn(loss, step)}

    def evaluate(run: Any, step: int) -> Evaluation:
        note("evaluate")
        return Evaluation(0.5, {"steps": float(step)})

    def describe(run: Any) -> str:
        note("describe")
        return f"a line in {run.data} dimensions, {harness.describe_processes(run.world)}"

    return Recipe(
        name="line",
        settings=Settings,
        network=lambda settings, out: nn.Linear(3, 1, bias=False),
        parse=parse,
        read=read,
        build=build,
        batches=lambda run: Draws(lambda step: torch.full((2, 3), 1.0 + step)),
        step=step,
        evaluate=evaluate,
        describe=describe,
        finish=lambda run: note("finish"),
    )


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run, given its folder."""

    def make(out: str, *, rate: float = 0.1) -> list[str]:
        run = tmp_path / f"{rate}.toml"
        run.write_text(RUN.format(rate=rate), encoding="utf-8")
        return [str(run), "shards", str(tmp_path / out), "--device", "cpu"]

    return make


def test_functions_are_called_in_order_and_the_folder_tells_what_was_run(
    tmp_path: Path, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []
    harness.run(make_recipe(called), command("a"))
    steps = ["step 0", "step 1"]
    assert called == ["parse", "read", "build", "describe", *steps, "evaluate", "finish"]
    assert "a line in 3 dimensions, 1 processes on cpu" in capsys.readouterr().out
    settings = json.loads((tmp_path / "a" / "settings.json").read_text(encoding="utf-8"))
    assert (settings["recipe"], settings["rate"], settings["plan"]["steps"]) == ("line", 0.1, 2)
    began = json.loads((tmp_path / "a" / "began" / "settings.json").read_text(encoding="utf-8"))
    assert began["judge"] == "judge" and began["expert"] is None
    parts = torch.load(tmp_path / "a" / "last.pt", weights_only=True)["parts"]
    assert list(parts) == [
        *("model", "average", "optimiser", "critic", "critic_optimiser", "loader")
    ]
    trained = make_recipe([]).load_trained(tmp_path / "a" / "last.pt")
    assert torch.equal(trained.weight, parts["average"]["weight"])


def test_random_numbers_of_reading_change_no_weights(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    for name, draws in (("a", 0), ("b", 7)):
        harness.run(make_recipe([], draws=draws), command(name))
    one, other = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["parts"]["model"]["weight"]
        for name in ("a", "b")
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("where", ["read", "build"])
def test_a_run_that_is_refused_leaves_no_folder(
    tmp_path: Path, command: Callable[..., list[str]], where: str
) -> None:
    with pytest.raises(TrainingError, match="refused"):
        harness.run(make_recipe([], refused=where), command("a"))
    assert not (tmp_path / "a").exists()


def test_other_settings_and_arguments_are_refused_before_anything_is_read(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    harness.run(make_recipe([]), command("a"))
    for given, match in (
        (command("a", rate=0.2), "rate was 0.1 and is 0.2"),
        ([*command("a"), "--judge", "other"], "judge was judge and is other"),
    ):
        called: list[str] = []
        with pytest.raises(TrainingError, match=match):
            harness.run(make_recipe(called), given)
        assert called == ["parse"]
    assert load_state(tmp_path / "a" / "last.pt", {}).step == 2
