"""What the README says runs."""

import re
import shlex
from pathlib import Path

import skimage.data
import typer
from helpers.dubs import FRESH, tone
from typer.testing import CliRunner

from lipsync_core import dub
from lipsync_core.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_link_and_picture_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets and all((ROOT / target).exists() for target in targets if "://" not in target)


def test_the_commands_and_their_options_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["lipsync"]:
            command = commands[words[1]]
            command = getattr(command, "commands", {}).get(words[2], command)
            known = {
                option
                for parameter in command.params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert {w for w in words if w.startswith("-")} <= known, line
        elif words[0] == "python3":
            assert words[1] == "bootstrap.py" and words[2] in {"demo", "test"}
        else:
            assert words[:2] == ["python", "-m"] and words[2].startswith("train.")
    options = set(re.findall(r"`(--[a-z-]+)", README))
    known = {
        o
        for command in commands.values()
        for p in command.params
        for o in (*p.opts, *p.secondary_opts)
    }
    assert options <= known


def test_the_scripts_and_named_runs_of_training_exist() -> None:
    told = README + (ROOT / "train" / "README.md").read_text(encoding="utf-8")
    scripts, runs = (
        set(re.findall(r"-m train\.(\w+)", told)),
        set(re.findall(r"train/configs/([\w-]+\.toml)", told)),
    )
    assert {
        "prepare",
        "expert",
        "wav2lip",
        "export",
        "evaluate",
        "curves",
    } <= scripts and "wav2lip-gan.toml" in runs
    assert all((ROOT / "train" / f"{name}.py").exists() for name in scripts)
    assert all((ROOT / "train" / "configs" / name).exists() for name in runs)


def test_the_python_block_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    tone(tmp_path / "long.wav", 3)
    photo = Path(skimage.data.__file__).parent / "astronaut.png"
    dub(photo, "long.wav", "face.mp4", finding=FRESH)
    tone(tmp_path / "speech.wav", 0.2)
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "out.mp4").exists()


def test_models_list_runs() -> None:
    done = CliRunner().invoke(app, ["models", "list"])
    assert done.exit_code == 0 and "mini" in done.output and "wav2lip-gan" in done.output
