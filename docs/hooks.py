"""Hooks of the documentation site: pages made from files elsewhere in the repository.

Links in all documents are relative to the repository's own files, so that they work where the files
are read; here they are pointed at the pages of the site.
"""

import os
import posixpath
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args, get_origin

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Page of the site -> the file that it is made of.
PAGES = {
    "training.md": "train/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    **{
        f"cards/{path.name}": f"lipsync_core/assets/{path.name}"
        for path in sorted((ROOT / "lipsync_core" / "assets").glob("*.md"))
    },
    **{
        f"nodes/{path.name}": f"lipsync_nodes/web/docs/{path.name}"
        for path in sorted((ROOT / "lipsync_nodes" / "web" / "docs").glob("*.md"))
    },
}
PICTURES = {".png", ".jpg", ".svg"}
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Complete the navigation with the generated pages."""
    sys.path.insert(0, str(ROOT))  # document this checkout's package, whatever is installed
    reference = config.nav[-1]["Reference"]
    reference += [f"api/{name}.md" for name in api_pages() if name != "index"]
    reference.append({"Model cards": [page for page in PAGES if page.startswith("cards/")]})
    reference.append({"Nodes": [page for page in PAGES if page.startswith("nodes/")]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages made from other files, the pictures that they show, and the API reference."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
        for target in _LINK.findall(text):
            picture = (ROOT / source).parent / target
            if picture.suffix in PICTURES and picture.exists():
                inside = picture.resolve().relative_to(ROOT).as_posix()
                if not inside.startswith("docs/"):
                    path = f"pictures/{inside}"
                    if files.get_file_from_path(path) is None:
                        files.append(File.generated(config, path, content=picture.read_bytes()))
    for name, text in api_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point links at the site's pages; a link to a source file becomes its text alone."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def to_site(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "://" in target or here.startswith("api/"):
            return match[0]
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = site_path(inside)
        if place is None:
            return match[1]
        relative = os.path.relpath(place, PurePosixPath(here).parent).replace(os.sep, "/")
        return f"[{match[1]}]({relative}{'#' + anchor if anchor else ''})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", to_site, markdown)


def site_path(path: str) -> str | None:
    """Return the site's path of a repository file; None if the site does not have it."""
    for page, source in PAGES.items():
        if path == source:
            return page
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"pictures/{path}" if PurePosixPath(path).suffix in PICTURES else None


def commands_page() -> str:
    """List the arguments and options of every command, as the command line itself states them."""
    import typer

    from lipsync_core.cli.main import app

    parts = ["# All commands and options"]

    def add(command: Any, name: str) -> None:
        for inner_name, inner in getattr(command, "commands", {}).items():
            add(inner, f"{name} {inner_name}")
        if hasattr(command, "commands"):
            return
        parts.append(f"## {name}\n\n{(command.help or '').strip()}")
        panels: dict[str, list[str]] = {}
        for one in command.params:
            if not getattr(one, "hidden", False) and one.name != "help":
                panel = getattr(one, "rich_help_panel", None) or "Options"
                panels.setdefault(panel, []).append(option_row(one))
        for panel, rows in panels.items():
            table = ["| option | default | what it does |", "|---|---|---|", *rows]
            parts.append(f"**{panel}**\n\n" + "\n".join(table))

    add(typer.main.get_command(app), "lipsync")
    return "\n\n".join(parts) + "\n"


def option_row(parameter: Any) -> str:
    """Make one row of the table of a command's options."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.name.upper()]
    described = getattr(parameter, "type_descriptor", None)
    annotation = getattr(described, "annotation", None)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    default = "" if parameter.default in (None, ...) else f"`{parameter.default}`"
    about = getattr(parameter, "help", None) or ""
    if choices and not parameter.metavar:
        about += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    spelling = " ".join(f"`{name}`" for name in names)
    if parameter.metavar:
        spelling += f" {parameter.metavar}"
    cells = (spelling, default, about.strip())
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def api_pages() -> dict[str, str]:
    """Make a page for the public names, and one for each package of ``lipsync_core``."""
    from lipsync_core import _HOMES

    short = "\n    options:\n      show_root_full_path: false"
    public = [
        f"::: lipsync_core.{module}.{name}{short}"
        for module, names in _HOMES.items()
        for name in names
    ]
    intro = "Everything that `from lipsync_core import ...` gives. Only this is stable."
    pages = {"index": "\n\n".join([f"# Public API\n\n{intro}", *public])}
    core = ROOT / "lipsync_core"
    for entry in sorted(core.iterdir()):
        if entry.name.startswith(("_", ".")) or not (
            entry.suffix == ".py" or (entry / "__init__.py").exists()
        ):
            continue
        paths = [entry] if entry.is_file() else sorted(entry.rglob("*.py"))
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
        shown = [f"::: {name}" for name in names if not name.endswith(".__init__")]
        pages[entry.stem] = "\n\n".join([f"# {entry.stem}", *shown])
    return pages
