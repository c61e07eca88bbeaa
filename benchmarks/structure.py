"""Measure the structure of a checkout, for "before and after" of a restructuring.

    python -m benchmarks.structure [CHECKOUT] [--dub] [--json]

Counts entries, imports, sizes and docstrings by reading the sources. With ``--dub`` it also dubs
one second of a generated clip with the package of the checkout, and counts the modules whose
functions run. Needs ruff for the complexity, and the standard library alone otherwise; ``--dub``
needs the package's dependencies.
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Graph = Mapping[str, set[str]]

PACKAGES = ("lipsync_core", "lipsync_nodes", "train")
# Lines are counted in these folders and files.
PARTS = {
    "core": ("lipsync_core",),
    "nodes": ("lipsync_nodes",),
    "train": ("train",),
    "benchmarks": ("benchmarks",),
    "examples": ("examples",),
    "tests": ("tests",),
}
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs",
    "train",
    "lipsync_core/assets",
    "lipsync_nodes/web",
)
DUB = """
import sys, threading, wave
from pathlib import Path
import skimage.data
from lipsync_core import Encoding, Finding, dub

folder, used, deepest = Path(sys.argv[1]), set(), set()
with wave.open(str(folder / "sound.wav"), "wb") as sound:
    sound.setnchannels(1)
    sound.setsampwidth(2)
    sound.setframerate(16000)
    sound.writeframes(b"".join((3000 * (i // 40 % 2)).to_bytes(2, "little") for i in range(16000)))
photo = Path(skimage.data.__file__).parent / "astronaut.png"
finding, encoding = Finding(cache=False), Encoding(overwrite=True)
dub(photo, folder / "sound.wav", folder / "face.mp4", finding=finding, encoding=encoding)

def watch(frame, event, argument):
    global deepest
    name = frame.f_globals.get("__name__", "")
    if event != "call" or frame.f_code.co_name == "<module>" or not name.startswith("lipsync_core"):
        return
    used.add(name)
    stack = set()
    while frame:
        stack.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    stack = {name for name in stack if name.startswith("lipsync_core.")}
    deepest = max(deepest, stack, key=len)

threading.setprofile(watch)
sys.setprofile(watch)
dub(folder / "face.mp4", folder / "sound.wav", folder / "out.mp4", finding=finding)
sys.setprofile(None)
print(len(used), len(deepest))
"""


@dataclass(frozen=True, slots=True)
class Imports:
    """Figures of an import graph.

    Attributes:
        nodes: packages or modules.
        levels: length of the longest chain of imports.
        arrows: pairs (importer, imported).
        circles: groups of nodes that import each other.
    """

    nodes: int
    levels: int
    arrows: int
    circles: int


def sources(root: Path, *folders: str) -> dict[str, Path]:
    """Find the Python files of ``folders``, by dotted module name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the nodes of a module that can run, leaving out ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def imported_modules(name: str, path: Path, modules: Mapping[str, Path]) -> set[str]:
    """List the modules of the checkout that a module imports, also inside functions."""
    found: set[str] = set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & set(modules)
            outer = {alias.name for alias in node.names if f"{base}.{alias.name}" not in inner}
            found |= inner | ({base} if outer else set())
    return (found & set(modules)) - {name}


def module_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Map every module to those that it imports."""
    return {name: imported_modules(name, path, modules) for name, path in modules.items()}


def entry_graph(modules: Graph) -> dict[str, set[str]]:
    """Merge the modules of ``lipsync_core`` into the entries of that folder."""

    def entry(name: str) -> str:
        return ".".join(name.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for name, imported in modules.items():
        if name.split(".")[0] == "lipsync_core" and not name.endswith("__main__"):
            graph.setdefault(entry(name), set()).update(map(entry, imported))
    return {name: imported - {name} for name, imported in graph.items()}


def reachable(graph: Graph, start: str) -> set[str]:
    """List what can be reached from ``start`` by at least one arrow."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def measure_imports(graph: Graph) -> Imports:
    """Count levels, arrows and circles; the nodes of a circle share a level."""
    reach = {name: reachable(graph, name) for name in graph}
    group = {
        name: frozenset({name} | {other for other in reach[name] if name in reach[other]})
        for name in graph
    }
    heights: dict[frozenset[str], int] = {}
    for name in sorted(graph, key=lambda name: len(reach[name] | {name})):
        below = {group[other] for other in reach[name]} - {group[name]}
        heights[group[name]] = 1 + max((heights[other] for other in below), default=0)
    circles = {members for members in group.values() if len(members) > 1}
    return Imports(len(graph), max(heights.values()), sum(map(len, graph.values())), len(circles))


def count_complex_functions(root: Path, folders: tuple[str, ...] = PACKAGES) -> int:
    """Count the functions whose cyclomatic complexity is above 10, by ruff."""
    options = ["--isolated", "--select", "C901", "--output-format", "json", "--exit-zero"]
    limit = ["--config", "lint.mccabe.max-complexity=10"]
    there = [folder for folder in folders if (root / folder).exists()]
    command = [sys.executable, "-m", "ruff", "check", *options, *limit, "--no-cache", *there]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return len(json.loads(done.stdout))


def measure_lines(paths: Mapping[str, Path]) -> dict[str, float]:
    """Mean and greatest length of lines that are not blank, and the share above 100 characters."""
    lengths = [
        len(line)
        for path in paths.values()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return {
        "mean line, characters": round(sum(lengths) / len(lengths), 1),
        "longest line, characters": max(lengths),
        "lines over 100 characters, %": round(
            100 * sum(length > 100 for length in lengths) / len(lengths), 1
        ),
    }


def measure_docstrings(paths: Mapping[str, Path]) -> dict[str, float]:
    """Share of lines that are docstrings, and of public definitions that have one, in percent."""
    lines = documented = total = public = 0
    for path in paths.values():
        text = path.read_text(encoding="utf-8")
        total += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                has_one = ast.get_docstring(node) is not None
                if has_one and isinstance(node.body[0], ast.Expr):
                    lines += (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                if not getattr(node, "name", "module").startswith("_"):
                    public += 1
                    documented += has_one
    return {
        "docstrings, % of lines": round(100 * lines / total, 1),
        "public definitions with a docstring, %": round(100 * documented / public, 1),
    }


def count_lines(root: Path, paths: tuple[str, ...], *suffixes: str) -> int:
    """Count the lines of all files with these suffixes in folders, or of single files."""
    files = [
        file
        for path in paths
        for file in ((root / path).rglob("*") if (root / path).is_dir() else [root / path])
    ]
    found = [file for file in files if file.suffix in suffixes and file.is_file()]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in found)


def measure_dub(root: Path) -> dict[str, float]:
    """Dub a video of one second with the checkout's package, and count the modules that run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", DUB, folder]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    used, deepest = map(int, done.stdout.split()[-2:])
    return {"modules that run in one dub": used, "most modules on one call stack": deepest}


def measure(root: Path) -> dict[str, float]:
    """Measure everything that reading the sources tells.

    Args:
        root: a checkout.

    Returns:
        Figures by name, in the order in which they are printed.
    """
    core = sources(root, "lipsync_core")
    folder = root / "lipsync_core"
    hidden = {"__init__", "__main__", "_version", "py", "assets", "__pycache__"}
    entries = {path.name.split(".")[0] for path in folder.iterdir()} - hidden
    graph = module_graph(sources(root, *PACKAGES))
    inner = {name: found & set(core) for name, found in graph.items() if name in core}
    figures: dict[str, float] = {"entries of lipsync_core": len(entries)}
    for label, part in (
        ("lipsync_core by entry", entry_graph(inner)),
        ("lipsync_core by module", inner),
        ("with nodes and train, by module", graph),
    ):
        imports = measure_imports(part)
        figures[f"{label}: nodes"] = imports.nodes
        figures[f"{label}: levels"] = imports.levels
        figures[f"{label}: arrows"] = imports.arrows
        figures[f"{label}: circles"] = imports.circles
    figures["functions over complexity 10"] = count_complex_functions(root)
    figures.update(measure_lines(core))
    figures.update(measure_docstrings(core))
    for label, paths in PARTS.items():
        figures[f"lines of {label}"] = count_lines(root, paths, ".py", ".js", ".css", ".html")
    figures["lines of documents"] = count_lines(root, DOCUMENTS, ".md")
    return figures


def main() -> None:
    """Print the figures of a checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, nargs="?", default=Path())
    parser.add_argument("--dub", action="store_true", help="also count the modules of one dub")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    arguments = parser.parse_args()
    root = arguments.checkout.resolve()
    figures = measure(root)
    if arguments.dub:
        figures.update(measure_dub(root))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:50} {value:>10g}")


if __name__ == "__main__":
    main()
