"""The generated pages of the documentation site; ``bootstrap.py test`` builds the site itself."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from lipsync_core.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown_options(command: object) -> Iterator[str]:
    for parameter in getattr(command, "params", []):
        if not parameter.hidden and parameter.param_type_name == "option":
            yield from (option for option in parameter.opts if option != "--help")
    for inner in getattr(command, "commands", {}).values():
        yield from shown_options(inner)


def test_the_page_of_commands_has_every_visible_option(hooks: ModuleType) -> None:
    page = hooks.commands_page()
    named = set(re.findall(r"`(-[\w-]+)`", page))
    group = typer.main.get_command(app)
    assert set(shown_options(group)) <= named
    assert all(f"## lipsync {name}" in page for name in group.commands)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_the_reference_has_every_module(hooks: ModuleType) -> None:
    text = "\n".join(hooks.api_pages().values())
    listed = set(re.findall(r"^::: (lipsync_core[\w.]+)$", text, re.MULTILINE))
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "lipsync_core").rglob("*.py")
        if not path.name.startswith("_") and path.name != "__init__.py"
    }
    assert modules <= listed


def test_links_point_at_pages_of_the_site(hooks: ModuleType) -> None:
    assert hooks.site_path("train/README.md") == "training.md"
    assert hooks.site_path("lipsync_core/assets/mini.md") == "cards/mini.md"
    assert hooks.site_path("train/figures/plateau.png") == "pictures/train/figures/plateau.png"
    assert hooks.site_path("lipsync_core/types.py") is None
