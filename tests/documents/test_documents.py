"""Documents say what is true: their commands parse and run, their links, files and names exist."""

import argparse
import ast
import importlib
import re
import runpy
import shlex
import shutil
import sys
import tomllib
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import typer
from typer.testing import CliRunner

from lipsync_core.cli.main import app
from lipsync_core.media import VideoWriter
from lipsync_core.types import Frames, VideoInfo

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "train" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "lipsync_core" / "assets").glob("*.md")),
]
PROGRAM = re.compile(r"(\w+=\S+ )*(lipsync|(\S+/)?python3?|torchrun|pip|py) ")
FORBIDDEN = re.compile(
    r"\b(somebody|nobody|whoever|anew|hears|mend|mends|mended|lies before|what becomes of)\b", re.I
)

# Commands that are parsed and not run, by how they begin, with the reason.
NOT_RUN = {
    "lipsync models pull": "needs a network",
    "lipsync models convert": "needs a public checkpoint; run by tests of the conversion",
    "lipsync score talk.mp4 --scorer syncnet": "needs weights from a network",
    "lipsync quality dub.mp4 original.mp4 --landmarks": "needs InsightFace's landmark file",
    "lipsync quality dub.mp4 --truth": "needs clips of three people; run by its own tests",
    "lipsync bench": "minutes, and some need LRS2; run by its own tests",
    "lipsync expert": "needs a folder of clips in sync; run by its own tests",
    "lipsync study": "create and report run in their own tests; serve does not end",
    "lipsync dub face.mp4 speech.wav --model wav2lip-gan": "needs weights from a network",
    "lipsync dub FACE SPEECH --model mine.safetensors": "needs weights of a training run",
    "python -m train.": "hours; recipes run for a few steps in their own tests",
    "python train/label_landmarks.py": "needs MediaPipe in an environment of its own",
    "torchrun": "hours",
    "python -m benchmarks.structure . --dub": "half a minute; without --dub it runs here",
    "python -m benchmarks.": "minutes, on footage",
    "python -m pytest": "these tests",
    "python -m mkdocs": "run by `bootstrap.py test`",
    "python3 bootstrap.py": "makes an environment and runs these tests",
    "pip install": "needs a network",
}


@dataclass(frozen=True)
class Command:
    """A command in a document; ``whole`` if it stands in a block, else it may be a mention."""

    text: str
    whole: bool

    @property
    def words(self) -> list[str]:
        """Its words without variables before it; every Python is ``python``."""
        words = shlex.split(self.text, comments=True)
        while "=" in words[0]:
            words = words[1:]
        program = Path(words[0]).name
        return ["python" if program in ("py", "python3") else program, *words[1:]]


def newest(path: Path) -> str:
    """The document's text; of the changelog the newest section alone."""
    text = path.read_text(encoding="utf-8")
    return text.split("\n## ")[1] if path.name == "CHANGELOG.md" else text


def split_code(text: str) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """The lines of blocks, the inline code, and the fenced blocks with their languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for language, block in fenced if language == "sh" for line in block.splitlines()]
    lines += [line.strip() for line in rest.splitlines() if line.startswith("    ")]
    inline = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)]
    return lines, inline, fenced


def commands() -> list[Command]:
    found: dict[str, bool] = {}
    for path in DOCUMENTS:
        lines, inline, _ = split_code(newest(path))
        for text in lines:
            if PROGRAM.match(text):
                found[shlex.join(shlex.split(text, comments=True))] = True
                found[text.split("  #")[0].strip()] = True
        for text in inline:
            if PROGRAM.match(text):
                found.setdefault(text, False)
    by_words: dict[tuple[str, ...], Command] = {}
    for text, whole in found.items():
        try:
            command = Command(text, whole)
            words = tuple(command.words)
        except ValueError:  # an apostrophe lost its quotes
            continue
        if words not in by_words or whole:
            by_words[words] = command
    return list(by_words.values())


COMMANDS = commands()


class Parsed(Exception):
    """The arguments of a script were parsed."""


def script_parser(
    monkeypatch: pytest.MonkeyPatch, module: str, words: list[str]
) -> argparse.ArgumentParser:
    """Let ``module`` parse ``words`` as its command line and stop there; return its parser."""
    used: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *arguments: object) -> None:
        used.append(parser)
        if words != ["--nothing"]:
            parse(parser, *arguments)  # type: ignore[arg-type]
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [module, *words])
        with pytest.raises(Parsed):
            importlib.import_module(module).main()
    return used[0]


def parse_lipsync(words: list[str], *, whole: bool) -> None:
    """Parse by the real command line; a mention may lack arguments."""
    group = typer.main.get_command(app)
    context = None
    while hasattr(group, "commands"):
        if not words and not whole:
            return
        assert words and words[0] in group.commands, f"no command {words[:1]}"
        group, words = group.commands[words[0]], words[1:]
    try:
        group.make_context(group.name, list(words), parent=context)
    except typer.BadParameter.__base__ as error:
        if whole or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise
    except typer.Exit:  # --help
        pass


def parse_python(monkeypatch: pytest.MonkeyPatch, words: list[str], *, whole: bool) -> None:
    """Parse the arguments of `python`: a module of ours, a tool, or a script."""
    if words[0] == "bootstrap.py":
        assert words[1] in importlib.import_module("bootstrap").TASKS
    elif words[0] != "-m":
        assert (ROOT / words[0]).exists(), words[0]
    elif words[1] == "pytest":
        marks = {mark.split(":")[0] for mark in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
        if "-m" in words[2:]:
            expression = words[words.index("-m", 2) + 1]
            assert set(re.findall(r"\w+", expression)) - {"and", "or", "not"} <= marks
        assert all((ROOT / word).exists() for word in words[2:] if word.startswith("tests/"))
    elif words[1].split(".")[0] in ("train", "benchmarks", "examples"):
        assert (ROOT / f"{words[1].replace('.', '/')}.py").exists(), words[1]
        if words[1].split(".")[0] != "examples" and (whole or len(words) > 2):
            script_parser(monkeypatch, words[1], words[2:])
        configs = [word for word in words if word.startswith("train/configs/")]
        assert all((ROOT / config).exists() for config in configs), configs
    else:
        assert words[1] in ("mkdocs", "lipsync_core"), words[1]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_commands_parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command.words
    if program == "torchrun":
        program, words = "python", words[words.index("-m") :]
    if program == "lipsync":
        parse_lipsync(words, whole=command.whole)
    elif program == "python":
        parse_python(monkeypatch, words, whole=command.whole)
    else:
        extras = PROJECT["project"]["optional-dependencies"]
        named = [name for word in words for name in re.findall(r"\[(\w+)\]", word)]
        assert words[0] == "install" and set(named) <= set(extras)


def why_not_run(command: Command) -> str | None:
    text = " ".join(command.words)
    return next(
        (
            why
            for start, why in NOT_RUN.items()
            if text.startswith(start.replace("python3", "python"))
        ),
        None if command.whole else "a mention",
    )


RUN = [command for command in COMMANDS if why_not_run(command) is None]


def test_every_reason_for_not_running_is_needed() -> None:
    texts = [" ".join(command.words) for command in COMMANDS]
    unused = [
        start
        for start in NOT_RUN
        if not any(text.startswith(start.replace("python3", "python")) for text in texts)
    ]
    assert unused == []
    assert len(RUN) >= 12


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, talking_head: Path) -> Path:
    """The files that the commands name: small clips of a photo, half a second of sound."""
    folder = tmp_path_factory.mktemp("inputs")
    time = np.arange(8000) / 16000
    sound = 8000 * np.sign(np.sin(2 * np.pi * 140 * time)) * np.sin(2 * np.pi * 3 * time)
    for name in ("speech", "anna", "ben"):
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(sound.astype("<i2").tobytes())
    shutil.copy(folder / "speech.wav", folder / "speech.mp3")
    shutil.copy(Path(skimage.data.__file__).parent / "astronaut.png", folder / "photo.jpg")
    photo = torch.from_numpy(skimage.data.astronaut()[:240, 100:340])
    pictures = {"face": photo, "two": torch.cat([photo, photo], 1), "dub": photo, "original": photo}
    for name, picture in pictures.items():
        write_clip(folder / f"{name}.mp4", picture, 16, Fraction(25))
    write_clip(folder / "long.mp4", photo, 110, Fraction(1))
    shutil.copy(talking_head, folder / "talk.mp4")
    (folder / "talk.srt").write_text(
        "1\n00:00:00,000 --> 00:00:00,400\nAnna: Hello.\n\n2\n00:00:00,4 --> 00:00:01,0\nBen: Yes.\n"
    )
    (folder / "jobs.csv").write_text("face,audio,out\nface.mp4,speech.wav,batch.mp4\n")
    return folder


def write_clip(path: Path, picture: torch.Tensor, count: int, fps: Fraction) -> None:
    height, width = picture.shape[:2]
    pixels = picture[None].expand(count, -1, -1, -1)
    with VideoWriter(path, VideoInfo(width, height, fps, count)) as writer:
        writer.write(Frames(pixels.contiguous()))


@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_commands_run(
    command: Command,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, *words = command.words
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LIPSYNC_CACHE", str(inputs.parent / "cache"))
    if program == "python":
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", words[1:])
        importlib.import_module(words[1]).main()
        assert capsys.readouterr().out
        return
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for option in ("-o", "--plot", "--fix"):
        if option in words:
            assert (tmp_path / words[words.index(option) + 1]).exists()


def test_options_named_in_documents_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest_options = {"--dist", "--no-loadscope-reorder"}
    known = {*pytest_options, *options_of(typer.main.get_command(app))}
    for path in [*ROOT.glob("train/*.py"), *ROOT.glob("benchmarks/*.py")]:
        text = path.read_text(encoding="utf-8")
        if re.search(r"^(def main\(|main = )", text, re.M) and re.search(
            r"ArgumentParser|parse_arguments", text
        ):
            parser = script_parser(monkeypatch, f"{path.parent.name}.{path.stem}", ["--nothing"])
            known |= set(parser._option_string_actions)
    named = {
        (path.name, option)
        for path in DOCUMENTS
        for code in split_code(newest(path))[1]
        for option in re.findall(r"^--[a-z-]+", code)
    }
    assert named and {pair for pair in named if pair[1] not in known} == set()


def options_of(command: object) -> Iterator[str]:
    for parameter in getattr(command, "params", []):
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from options_of(inner)


def test_links_lead_to_files() -> None:
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target
        and not (path.parent / target).exists()
        and not re.fullmatch(r"(api/.*|commands)\.md", target)  # pages that the site makes
    ]
    assert dead == []


def find_source(name: str) -> Path | None:
    """The file or folder that a document means by ``name``."""
    bases = (
        ROOT,
        ROOT / "lipsync_core",
        ROOT / "lipsync_nodes",
        ROOT / "train",
        ROOT / "tests/host",
    )
    return next((base / name for base in bases if (base / name).exists()), None)


def test_files_and_names_in_documents_exist() -> None:
    wrong: list[str] = []
    for path in DOCUMENTS:
        text = newest(path)
        for code in split_code(text)[1]:
            missing = re.fullmatch(r"[\w./]+(\.py|/)", code) and find_source(code) is None
            if missing and code not in ("utils.py", "tensorboard/"):  # ours has none; of a run
                wrong.append(f"{path.name}: {code}")
        for file, names in re.findall(r"`([\w/]+\.py)` \(((?:`\w+`(?:, )?)+)\)", text):
            defined = defined_names(find_source(file))
            missing = [name for name in re.findall(r"\w+", names) if name not in defined]
            wrong += [f"{path.name}: {file} has no {name}" for name in missing]
    assert wrong == []


def test_guides_list_every_place() -> None:
    """The sections of docs/howto.md name all source files in which their example stands."""
    text = (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")
    sources = [
        path
        for folder in ("lipsync_core", "lipsync_nodes", "train")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    sections = [section for section in text.split("\n## ") if "<!-- places of: " in section]
    assert len(sections) == 7
    for section in sections:
        pattern = re.search(r"<!-- places of: (.*) -->", section)
        assert pattern
        places = {
            path.relative_to(ROOT).as_posix()
            for path in sources
            if re.search(pattern[1], path.read_text(encoding="utf-8"))
        }
        assert places, pattern[1]
        assert {place for place in places if f"`{place}`" not in section} == set(), pattern[1]


def defined_names(path: Path | None) -> set[str]:
    """Functions, classes, methods and module-level names of a source file."""
    if path is None:
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_python_blocks_run(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {
        block
        for path in DOCUMENTS
        for language, block in split_code(newest(path))[2]
        if language == "python"
    }
    assert len(blocks) == 1
    write_clip(tmp_path / "face.mp4", torch.from_numpy(skimage.data.astronaut()), 75, Fraction(25))
    shutil.copy(inputs / "speech.wav", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "block.py").write_text(blocks.pop(), encoding="utf-8")
    runpy.run_path("block.py")
    assert (tmp_path / "out.mp4").exists()


def test_named_runs_exist() -> None:
    text = (ROOT / "train" / "README.md").read_text(encoding="utf-8")
    runs = re.findall(r"train/configs/([\w-]+\.toml)", text)
    assert "wav2lip-gan.toml" in runs
    assert all((ROOT / "train" / "configs" / name).exists() for name in runs)


def test_documents_use_plain_words() -> None:
    pages = sorted((ROOT / "lipsync_nodes" / "web" / "docs").glob("*.md"))
    found = []
    for path in [*DOCUMENTS, *pages]:
        text = path.read_text(encoding="utf-8").split("## Our old word")[0]
        text = text.replace("whoever speaks", "")  # a value of an input, kept for saved workflows
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in FORBIDDEN.finditer(text)]
    assert found == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
