"""train/baselines/table3.py itself, on noise, one step a run."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.shards import write_noise

from lipsync_core.training.settings import read_settings
from train import expert, wav2lip
from train.baselines import table3

ROOT = Path(__file__).parents[2]


def short(settings: table3.Settings) -> table3.Settings:
    plan = {"steps": 1, "save_every": 9, "evaluate_every": 9, "tensorboard": False}
    teaching, learning = settings.expert, settings.generator
    return replace(
        settings,
        expert=replace(
            teaching,
            contrastive_steps=1,
            clips=2,
            windows=2,
            stretch=6,
            plan=replace(teaching.plan, **plan),
        ),
        generator=replace(learning, windows=2, judged_clips=1, plan=replace(learning.plan, **plan)),
        judged_clips=2,
    )


def test_settings_become_the_toml_that_gives_them_back(tmp_path: Path) -> None:
    settings = read_settings(ROOT / "train" / "configs" / "table3.toml", table3.Settings)
    for part, kind in ((settings.expert, expert.Settings), (settings.generator, wav2lip.Settings)):
        assert read_settings(table3.run_file(tmp_path / "run.toml", part), kind) == part


@pytest.mark.slow
def test_six_rows_and_nothing_is_made_twice(tmp_path: Path) -> None:
    shards, out = write_noise(tmp_path / "shards", train="ab", val="cd"), tmp_path / "out"
    run = table3.run_file(
        tmp_path / "run.toml",
        short(read_settings(ROOT / "train" / "configs" / "table3.toml", table3.Settings)),
    )
    with redirect_stdout(io.StringIO()) as told:
        table3.main([run, str(shards), str(out)])
    assert told.getvalue().count("2 clips, ") == 9  # three experts, six generators
    rows = json.loads((out / "table3.json").read_text(encoding="utf-8"))
    assert [(row["window"], row["learns"]) for row in rows] == [
        (w, f) for w in (1, 3, 5) for f in (True, False)
    ]
    assert all(
        row["dub_distance"]["count"] == 2 and 0 < row["dub_distance"]["mean"] < 2 for row in rows
    )
    fine_tuned, frozen = (
        torch.load(out / f"generator-1-{kind}" / "last.pt", weights_only=True)["parts"]
        for kind in ("fine-tuned", "frozen")
    )
    assert "expert" in fine_tuned and "expert" not in frozen
    text = (out / "table3.md").read_text(encoding="utf-8")
    assert "55.6 / 10.33 / 3.19" in text and text.count("fine-tuned") == 3
    with redirect_stdout(io.StringIO()) as told:
        table3.main([run, str(shards), str(out)])
    assert (
        told.getvalue().count("2 clips, ") == 0
        and (out / "table3.md").read_text(encoding="utf-8") == text
    )
