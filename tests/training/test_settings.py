"""Named runs: strict TOML into frozen settings, and a folder that remembers its run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lipsync_core.errors import TrainingError
from lipsync_core.training.loop import Plan
from lipsync_core.training.settings import read_settings, save_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    network: Literal["small", "large"]
    rate: float = 1e-3
    half: Literal[0, 1] | None = None
    sides: tuple[int, ...] = (96,)
    plan: Plan


def settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, Settings)


def test_a_run_is_read_and_what_it_leaves_out_has_its_default(tmp_path: Path) -> None:
    text = 'network = "small"\nrate = 1\nhalf = 1\nsides = [96, 192]\n[plan]\nsteps = 7\n'
    got = settings(tmp_path, text)
    assert got == Settings(network="small", rate=1.0, half=1, sides=(96, 192), plan=Plan(steps=7))
    assert type(got.rate) is float


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'network = "small"\nraet = 1.0\n[plan]\nsteps = 7',
            r"run.toml: the run has .*'raet'.*expected.*'rate'",
        ),
        ('network = "small"\n[plan]\nsteps = 7\nsaev = 1', "the run.plan has"),
        ('network = "huge"\n[plan]\nsteps = 7', 'the run.network is "huge"; expected'),
        ('network = "small"\nrate = "1"\n[plan]\nsteps = 7', "the run.rate is"),
        ('network = "small"\nrate = nan\n[plan]\nsteps = 7', "the run.rate is NaN"),
        ('network = "small"\nhalf = true\n[plan]\nsteps = 7', "the run.half is true"),
        ('network = "small"\n[plan]\nsteps = 7.0', "the run.plan.steps is 7.0"),
        ('network = "small"\n[plan]\nsteps = 0', "steps is 0; expected 1 or more"),
        ('network = "small"', "the run has"),
        ("network = small", "run.toml: "),
    ],
)
def test_a_run_with_an_error_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        settings(tmp_path, text)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none"):
        read_settings(tmp_path / "none.toml", Settings)


def test_a_run_may_come_from_notepad(tmp_path: Path) -> None:
    """A byte order mark, and lines as Windows ends them."""
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfnetwork = "small"\r\n[plan]\r\nsteps = 7\r\n')
    assert read_settings(path, Settings) == Settings(network="small", plan=Plan(steps=7))


def test_runs_outlive_settings_that_are_added_but_not_what_is_no_settings(tmp_path: Path) -> None:
    one = Settings(network="small", plan=Plan(steps=7))
    save_settings(tmp_path, one)
    path = tmp_path / "settings.json"
    (tmp_path / "last.pt").touch()
    kept = json.loads(path.read_text(encoding="utf-8"))
    del kept["rate"]
    path.write_text(json.dumps(kept), encoding="utf-8")
    save_settings(tmp_path, one)
    for text in ("", "[]", '{"netw', "{}"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(TrainingError, match="no run of this kind"):
            save_settings(tmp_path, one)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        save_settings(tmp_path / "file" / "run", one)


def test_what_lies_in_a_folder_of_the_run_belongs_to_it(tmp_path: Path) -> None:
    one, other = (Settings(network="small", rate=rate, plan=Plan(steps=7)) for rate in (1e-3, 2e-3))
    save_settings(tmp_path / "began", one, run=tmp_path)
    save_settings(tmp_path / "began", other, run=tmp_path)
    (tmp_path / "last.pt").touch()
    save_settings(tmp_path / "began", other, run=tmp_path)
    with pytest.raises(
        TrainingError, match=r"rate was 0.002 and is 0.001\).*delete began/settings.json"
    ):
        save_settings(tmp_path / "began", one, run=tmp_path)


def test_a_folder_remembers_its_run(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    one = Settings(network="small", plan=Plan(steps=7))
    # a run that never came to its first checkpoint
    save_settings(out, Settings(network="small", plan=Plan(steps=8)))
    save_settings(out, one)
    (out / "best.pt").touch()
    save_settings(out, one)
    other = Settings(network="small", rate=2e-3, plan=Plan(steps=7))
    with pytest.raises(TrainingError, match=r"rate was 0.001 and is 0.002\).*delete settings.json"):
        save_settings(out, other)
    (out / "settings.json").unlink()
    save_settings(out, other)
