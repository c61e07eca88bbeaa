"""Options of the command line: one table, panels, aliases, and help that shows as written."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from rich.emoji import Emoji
from typer.testing import CliRunner

from lipsync_core import Blend, Cut, Encoding, Finding, dub
from lipsync_core.cli.dub import DubOptions, dub_command
from lipsync_core.cli.main import app
from lipsync_core.cli.options import build_options, expand_options
from lipsync_core.options import Restore
from lipsync_core.runtime.options import Option, option_fields


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All commands with their full names."""
    if not hasattr(group, "commands"):
        yield name.strip(), group
    for inner, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {inner}")


COMMANDS = dict(commands(typer.main.get_command(app)))


def parse(*words: str) -> DubOptions:
    """The options of a dub of face.mp4 with speech.wav."""
    context = COMMANDS["dub"].make_context("dub", ["face.mp4", "speech.wav", *words])
    return build_options(DubOptions, context.params)


def parameter(command: str, flag: str) -> Any:
    """The parameter of a command with this spelling."""
    return next(p for p in COMMANDS[command].params if flag in p.opts)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_text_becomes_a_picture_or_markup(command: str) -> None:
    texts = [COMMANDS[command].help or ""]
    texts += [getattr(parameter, "help", None) or "" for parameter in COMMANDS[command].params]
    for text in texts:
        assert Emoji.replace(text) == text and not re.search(r"\[[a-z ]+[:\]]", text), text
        assert text == "" or len(text) > 5


@pytest.mark.parametrize("command", ["", "models", "study", *COMMANDS])
def test_help_is_shown_without_pictures(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert len(shown) > 100
    assert not re.findall("[\u24c2\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001ffff]", shown)


@pytest.mark.parametrize(("command", "most"), [("dub", 18), ("mask", 18)])
def test_few_options_are_shown_first_and_the_others_in_panels(command: str, most: int) -> None:
    panels: dict[str | None, list[str]] = {}
    for option in COMMANDS[command].get_params(typer.Context(COMMANDS[command])):
        if option.param_type_name == "option" and not option.hidden:
            panels.setdefault(option.rich_help_panel, []).append(option.opts[0])
    assert len(panels.pop(None)) <= most
    assert set(panels) <= {"Faces", "Blending", "Encoding", "Advanced"} and panels


def test_defaults_are_those_of_dub() -> None:
    arguments = parse().dub_arguments()
    for name, value in signature(dub).parameters.items():
        if name in arguments and name not in ("face", "audio", "out", "model_name"):
            assert arguments[name] == value.default, name


@pytest.mark.parametrize(
    ("words", "blend"),
    [
        ("--feather 0.2", Blend(feather=0.2)),
        ("--feather 12px", Blend(feather_px=12)),
        ("--feather-px 12", Blend(feather_px=12)),
        ("--texture 0.5", Blend(detail=0.5, grain=0.5)),
        ("--detail 0.3 --grain 0", Blend(detail=0.3, grain=0)),
        ("--blend poisson --mask box", Blend(mask="box", kind="poisson")),
        ("--colour-match covariance", Blend(colour_match="covariance")),
        ("--colour-match off --no-own-pixels", Blend(own_pixels=False)),
    ],
)
def test_blend_options_in_new_and_old_spelling(words: str, blend: Blend) -> None:
    assert parse(*words.split()).dub_arguments()["blend"] == blend


@pytest.mark.parametrize(
    ("words", "restore"),
    [
        ("", None),
        ("--restore gfpgan", Restore("gfpgan")),
        ("--restore gfpgan:0.8", Restore("gfpgan", 0.8)),
        ("--restore gfpgan:0.8:face", Restore("gfpgan", 0.8, "face")),
        ("--restore gfpgan:face", Restore("gfpgan", mask="face")),
        ("--restore a/b.pth --restore-strength 0.5", Restore("a/b.pth", 0.5)),
        ("--restore gfpgan --restore-mask lower", Restore("gfpgan", mask="lower")),
        (r"--restore C:\b.pth", Restore(r"C:\b.pth")),
    ],
)
def test_restore_in_new_and_old_spelling(words: str, restore: Restore | None) -> None:
    assert parse(*words.split()).dub_arguments()["restore"] == restore


def test_options_of_the_other_classes_arrive() -> None:
    words = "--start 0:01:30 --end 100 --fps 30000/1001 --when-audio-is-longer hold --detector s3fd"
    words += " --no-cache --min-score 0.5 --crf 20 --codec libx265 --no-tag --overwrite"
    arguments = parse(*words.split()).dub_arguments()
    assert arguments["cut"] == Cut(
        Fraction(90), Fraction(100), Fraction(30000, 1001), longer="hold"
    )
    assert arguments["finding"] == Finding("s3fd", 0.5, cache=False)
    assert arguments["encoding"] == Encoding("libx265", 20, tag=False, overwrite=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--feather 0.6", "0.5"),
        ("--feather wide", "wide"),
        ("--feather=-1px", "-1px"),
        ("--restore gfpgan:2", "2"),
        ("--start never", "never"),
        ("--fps 0", "0"),
        ("--pads 1", "top bottom left right"),
    ],
)
def test_wrong_values_name_the_value(words: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as error:
        parse(*words.split()).dub_arguments()
    assert said in str(error.value)


def test_a_field_with_an_option_is_an_option_of_the_command_line() -> None:
    """Nothing but the field is needed."""

    @dataclass(frozen=True)
    class Tinted:
        tint: Annotated[float, Option("How red.", minimum=0, maximum=1, panel="Blending")] = 0.25
        secret: int = 3

    small = typer.Typer()

    def command(tinted: Tinted) -> None:
        typer.echo(json.dumps([tinted.tint, tinted.secret]))

    small.command()(expand_options(command))
    assert json.loads(CliRunner().invoke(small, []).stdout) == [0.25, 3]
    assert json.loads(CliRunner().invoke(small, ["--tint", "0.5"]).stdout) == [0.5, 3]
    assert CliRunner().invoke(small, ["--tint", "2"]).exit_code == 2
    assert CliRunner().invoke(small, ["--secret", "2"]).exit_code == 2


def test_every_field_of_a_blend_is_described() -> None:
    assert [field.field for field in option_fields(Blend)] == [f.name for f in fields(Blend)]
    columns = set(signature(dub_command).parameters)
    assert {field.name for field in option_fields(Blend)} <= columns
    assert parameter("dub", "--feather").name == "feather"


def test_an_option_of_the_blend_stands_in_few_files() -> None:
    """The field, its effect, the help page of the node, and its snapshot; tests aside."""
    root = Path(__file__).parents[2]
    places = [
        path.relative_to(root).as_posix()
        for folder in ("lipsync_core", "lipsync_nodes", "docs")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".md") and path.name != "howto.md"
        if re.search(r"\bsteady: Annotated|\.steady\b|`steady` \|", path.read_text("utf-8"))
    ]
    assert places == [
        "lipsync_core/blend/blender.py",
        "lipsync_core/options.py",
        "lipsync_nodes/web/docs/LipSync_BlendSettings.md",
    ]
