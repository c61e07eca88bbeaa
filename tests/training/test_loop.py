"""The loop: what is resumed, stopped, judged and kept."""

import copy
import json
import math
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipsync_core.errors import LipSyncError, TrainingError
from lipsync_core.training.checkpoints import Progress, load_state, resume, save_batch, save_state
from lipsync_core.training.logger import Evaluation, TrainingLogger
from lipsync_core.training.loop import Draws, Plan, generator, seed_step, train
from lipsync_core.training.optim import (
    NotFiniteError,
    constant,
    step_optimizer,
    update_ema,
    warmup_cosine,
)
from lipsync_core.training.pictures import grid, mouths
from lipsync_core.training.signals import stopping


class Batch(NamedTuple):
    x: Tensor
    y: Tensor


def draw(step: int) -> Batch:
    x = torch.randn(16, 4, generator=generator(7, step))
    return Batch(x, x.sum(1, keepdim=True))


class Run:
    """A little network with all that makes resuming hard: batch norm, dropout, momentum, an
    average, and loose draws."""

    def __init__(self, out: Path, *, steps: int = 12, seed: int = 0, **plan: int) -> None:
        seed_step(seed)
        self.out, self.lines, self.drawn = out, list[str](), list[float]()
        self.plan = Plan(
            **{
                "steps": steps,
                "seed": seed,
                "evaluate_every": 4,
                "save_every": 3,
                "tensorboard": False,
            }
            | plan
        )
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = torch.optim.AdamW(self.model.parameters())
        self.before: Callable[[Batch, int], Batch] = lambda batch, step: batch
        self.scores: Callable[[int], float] = lambda step: self.average(draw(999).x).mean().item()
        self.loader = Draws(draw)

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        batch = self.before(batch, step)
        self.model.train()
        noise = random.random() + float(np.random.random())
        self.drawn.append(noise)
        loss = (self.model(batch.x) - batch.y * noise).square().mean()
        rate = 0.05 * warmup_cosine(self.plan.steps, warmup=3)(step)
        norm = step_optimizer(loss, self.optimiser, rate=rate, clip_norm=1.0)
        update_ema(self.average, self.model, step, decay=0.9)
        return {"loss": loss, "norm": norm}

    def evaluate(self, step: int) -> Evaluation:
        torch.randn(3), random.random()  # must not change what is learnt
        score = self.scores(step)
        return Evaluation(score, {"error": -score}, {"faces": grid(torch.rand(1, 2, 3, 4, 4))})

    def go(self) -> Progress:
        parts = {"model": self.model, "average": self.average, "optimiser": self.optimiser}
        return train(
            self.learn,
            self.loader,
            plan=self.plan,
            parts=parts,
            evaluate=self.evaluate,
            out=self.out,
            say=self.lines.append,
        )

    def state(self) -> dict[str, Tensor]:
        moments = {
            f"{i}.{name}": value
            for i, state in self.optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }
        average = {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return {
            **self.model.state_dict(),
            **average,
            **moments,
            "position": torch.tensor(self.loader.state_dict()["step"]),
        }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def evaluations(out: Path) -> list[dict[str, float]]:
    return [
        json.loads(line)
        for line in (out / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def stop_at(wanted: int, how: Callable[[], None]) -> Callable[[Batch, int], Batch]:
    def before(batch: Batch, step: int) -> Batch:
        if step == wanted:
            how()
        return batch

    return before


def test_a_run_that_is_asked_to_end_goes_on_to_the_same_state(tmp_path: Path) -> None:
    """SIGTERM after every other step; signal.raise_signal delivers it on Windows too."""
    whole = Run(tmp_path / "whole")
    assert whole.go().step == 12 and not (tmp_path / "whole" / "tensorboard").exists()
    for step in range(1, 12, 2):
        part = Run(tmp_path / "parts")
        part.before = stop_at(step, lambda: signal.raise_signal(signal.SIGTERM))
        assert part.go().step == min(step + 1, 12)
    assert "asked to end after step 12: saved" in part.lines[-1]
    assert equal(whole.state(), part.state())
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "parts")
    names = {"last.pt", "best.pt", "evaluations.jsonl", ".lock"}
    # nothing half-written stays
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names


def test_a_run_that_is_killed_loses_nothing_before_its_checkpoint(tmp_path: Path) -> None:
    """An error in the middle of step 11 is what a kill is to the files: last.pt is of step 9, a
    line of step 8 is kept, and half a line of one that died while writing is dropped."""
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed", save_every=7)

    def die() -> None:
        raise KeyError("killed")

    whole.go()
    killed.before = stop_at(10, die)
    with pytest.raises(KeyError):
        killed.go()
    assert [line["step"] for line in evaluations(tmp_path / "killed")] == [4, 8]
    with (tmp_path / "killed" / "evaluations.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 12, "sco')
    again = Run(tmp_path / "killed", save_every=7)
    assert load_state(tmp_path / "killed" / "last.pt", {}).step == 7
    again.go()
    assert equal(whole.state(), again.state())
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "killed")


def test_seeds_give_equal_runs_and_evaluating_changes_nothing(tmp_path: Path) -> None:
    runs = [
        Run(tmp_path / "a"),
        Run(tmp_path / "b", evaluate_every=1, save_every=1, report_every=1),
        Run(tmp_path / "c", seed=1),
    ]
    for run in runs:
        run.go()
    assert equal(runs[0].state(), runs[1].state()) and runs[0].drawn == runs[1].drawn
    assert not equal(runs[0].state(), runs[2].state()) and len(set(runs[0].drawn)) == 12


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    Run(tmp_path).go()
    before = (tmp_path / "last.pt").read_bytes()
    again = Run(tmp_path)
    assert (
        again.go().step == 12
        and again.drawn == []
        and (tmp_path / "last.pt").read_bytes() == before
    )


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Ctrl-C raises, also where a shell's background job was told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_a_second_signal_ends_the_process_as_ever_but_an_echo_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), stopping() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        now[0] += 1
        signal.raise_signal(signal.SIGINT)  # torchrun passes on what came from the terminal already
        now[0] += 60
        signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_nan_stops_with_the_batch_saved_and_nothing_harmed(tmp_path: Path) -> None:
    def poison(batch: Batch, step: int) -> Batch:
        return Batch(batch.x, batch.y * torch.nan) if step == 7 else batch

    run = Run(tmp_path)
    run.before = poison
    with pytest.raises(
        NotFiniteError,
        match=r"step 7: the loss is nan .*not_finite_step00000007_rank0.pt; what was saved",
    ):
        run.go()
    saved = torch.load(tmp_path / "not_finite_step00000007_rank0.pt", weights_only=True)
    assert saved["step"] == 7 and torch.equal(saved["batch"]["x"], draw(7).x)
    assert all(bool(value.isfinite().all()) for value in run.state().values())
    again = Run(tmp_path)
    assert again.go().step == 12  # from step 6 on


def test_the_best_is_kept_beside_the_last(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.scores = lambda step: {4: 0.5, 8: math.nan, 12: 0.2}[step]
    assert run.go() == Progress(12, 0.5)
    assert load_state(tmp_path / "best.pt", {}) == Progress(4, 0.5)
    assert load_state(tmp_path / "last.pt", {}) == Progress(12, 0.5)
    rows = evaluations(tmp_path)
    assert [(row["step"], row["best"], row["error"]) for row in rows] == [
        (4, True, -0.5),
        (8, False, None),
        (12, False, -0.2),
    ]


def test_reports_tell_means_and_where_time_went(tmp_path: Path) -> None:
    run = Run(tmp_path, report_every=5)
    run.go()
    reports = [line for line in run.lines if "held out" not in line]
    assert [line.split()[0] for line in reports] == ["5", "10", "12"]
    words = reports[0].split()
    told = dict(zip(words[1::2], map(float, words[2::2]), strict=True))
    assert set(told) == {"loss", "norm", "step_seconds", "data_wait"}
    assert 0 < told["step_seconds"] < 10 and 0 <= told["data_wait"] <= 1


def test_tensorboard_gets_curves_and_pictures_and_forgets_what_is_made_again(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Run(tmp_path, tensorboard=True, report_every=2, save_every=6)
    first.before = stop_at(10, lambda: (_ for _ in ()).throw(KeyError("killed")))
    with pytest.raises(KeyError):
        first.go()
    Run(tmp_path, tensorboard=True, report_every=2, save_every=6).go()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/step_seconds", "train/data_wait", "held out/error"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in events.Images("faces")] == [4, 8, 12]


def test_without_tensorboard_a_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        TrainingError, match=r"pip install 'lipsync-core\[train\]', or set tensorboard = false"
    ):
        Run(tmp_path, tensorboard=True).go()


def test_the_loader_s_position_is_what_was_taken_not_what_was_prepared() -> None:
    loader = Draws(lambda step: step, depth=5)
    batches = iter(loader)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    other = Draws(lambda step: step)
    other.load_state_dict(loader.state_dict())
    assert next(iter(other)) == 3


def test_a_checkpoint_that_is_damaged_or_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    assert resume(path, {}) == Progress()
    with pytest.raises(TrainingError, match="does not exist; expected last"):
        load_state(path, {})
    save_state(path, Progress(3), {"model": nn.Linear(2, 2)})
    for parts in ({"model": nn.Linear(3, 2)}, {"other": nn.Linear(2, 2)}):
        with pytest.raises(TrainingError, match="damaged or of another run"):
            load_state(path, parts)
    for content in (b"", b"nothing", path.read_bytes()[:-200]):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="delete it to start again"):
            load_state(path, {})


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()  # a name that no file can take stands for a disk that refuses
    (tmp_path / "last.pt" / "kept").write_text("x", encoding="utf-8")
    with pytest.raises(TrainingError, match="could not be written"):
        save_state(tmp_path / "last.pt", Progress(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    with pytest.raises(ValueError, match=r"a batch holds a .*Path"):
        save_batch(tmp_path / "batch.pt", 1, {"a": [tmp_path]})


def test_rates() -> None:
    factor = warmup_cosine(1000, warmup=100, least=0.02)
    assert factor(0) == pytest.approx(0.01) and factor(99) == pytest.approx(factor(100), rel=0.02)
    assert factor(500) == pytest.approx(0.51) and factor(1000) == factor(5000) == pytest.approx(
        0.02
    )
    assert [constant(warmup=4)(step) for step in (0, 1, 3, 4, 9999)] == [0.25, 0.5, 1, 1, 1]
    assert constant()(0) == 1


def test_descending_takes_the_rate_and_clips_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = torch.optim.SGD([weight], lr=99)
    norm = step_optimizer((weight.square().sum()) / 2, optimiser, rate=0.5, clip_norm=1.0)
    assert float(norm) == pytest.approx(5)
    torch.testing.assert_close(weight.detach(), torch.tensor([2.7, 3.6]))
    step_optimizer(
        weight.sum(), optimiser, rate=1.0
    )  # old gradients are gone, and nothing is clipped
    torch.testing.assert_close(weight.detach(), torch.tensor([1.7, 2.6]))
    with pytest.raises(NotFiniteError, match="the loss is inf"):
        step_optimizer(weight.sum() / 0, optimiser, rate=1.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([1.7, 2.6]))


def test_an_average_follows_fast_at_first_and_takes_counters_as_they_are() -> None:
    model = nn.BatchNorm1d(1)
    average = copy.deepcopy(model)
    with torch.no_grad():
        model.weight.fill_(2)
        model.num_batches_tracked.fill_(41)
    update_ema(average, model, 0, decay=0.99)
    assert average.weight.item() == pytest.approx(1.9) and int(average.num_batches_tracked) == 41
    update_ema(average, model, 10**6, decay=0.99)
    assert average.weight.item() == pytest.approx(1.901)
    update_ema(average, model, 5, decay=0.0)
    assert average.weight.item() == 2 and not average.weight.grad_fn


def test_pictures() -> None:
    faces = torch.zeros(2, 3, 3, 96, 96)
    faces[1, 2, 0] = 1
    picture = grid(faces)
    assert picture.shape == (3, 192, 288) and picture.dtype == torch.uint8
    assert (picture[0, 96:, 192:] == 255).all() and int(picture.sum()) == 255 * 96 * 96
    faces = torch.zeros(1, 1, 3, 96, 96)
    faces[..., 60:72, 36:60] = 1  # lips
    close = mouths(faces)
    assert close.shape == faces.shape and float(close.sum() / faces.sum()) == pytest.approx(
        4, rel=0.05
    )


def test_plans_are_checked() -> None:
    with pytest.raises(ValueError, match="save_every is 0; expected 1 or more"):
        Plan(steps=3, save_every=0)


def test_a_folder_is_one_run_s_alone_and_is_cleared_of_what_was_cut_off(tmp_path: Path) -> None:
    left = tmp_path / ".last.0123abcd.part.pt"
    left.touch()
    (tmp_path / ".other.part.pt").touch()  # not ours
    run = Run(tmp_path)

    def again(batch: Batch, step: int) -> Batch:
        if step == 1:
            with pytest.raises(LipSyncError, match="another process is at work in"):
                Run(tmp_path).go()
        return batch

    run.before = again
    assert run.go().step == 12
    assert {path.name for path in tmp_path.glob(".*")} == {".lock", ".other.part.pt"}


SMALL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_loop import Run, TrainingError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    Run(Path(sys.argv[2])).go()
except TrainingError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are Unix's")
def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    """A limit of what a file may hold is to a writer what a full disk is."""
    command = [sys.executable, "-c", SMALL_DISK, str(Path(__file__).parent), str(tmp_path / "out")]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (
        done.returncode == 1
        and "last.pt could not be written" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert not list((tmp_path / "out").glob("*.part*"))
    run, whole = Run(tmp_path / "out"), Run(tmp_path / "whole")
    assert run.go() == whole.go() and equal(run.state(), whole.state())


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a device that is always full is Linux's"
)
def test_a_journal_on_a_full_disk_says_so(tmp_path: Path) -> None:
    with TrainingLogger(tmp_path, step=0, tensorboard=False) as journal:
        (tmp_path / "evaluations.jsonl").unlink()
        (tmp_path / "evaluations.jsonl").symlink_to("/dev/full")
        with pytest.raises(
            TrainingError, match=r"evaluations.jsonl could not be written .*disk space"
        ):
            journal.evaluated(1, Evaluation(0.5, {}), best=True)


def test_a_journal_keeps_what_json_can_say_and_drops_what_is_no_line_of_it(tmp_path: Path) -> None:
    (tmp_path / "evaluations.jsonl").write_bytes(b'{"step": 1}\n3\n[]\n{}\n\xff\xfe\n{"step": 9}\n')
    with TrainingLogger(tmp_path, step=1, tensorboard=False) as journal:
        journal.evaluated(2, Evaluation(math.nan, {"error": math.inf}), best=False)
    lines = [
        json.loads(line, parse_constant=int)
        for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()
    ]
    assert lines == [{"step": 1}, {"step": 2, "score": None, "error": None, "best": False}]
