"""The house rules that a machine can check: who imports whom, what stays lazy, how long things
grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lipsync_core

ROOT = Path(lipsync_core.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# Each room may import from its own floor and from those below (earlier here), and no circle may
# arise.
FLOORS = [
    {"types", "typed", "errors", "replacing", "notes", "times"},
    {"media", "geometry", "landmarks", "yuv"},
    {"audio", "voice"},
    {"models", "faces", "blend"},
    {"hub", "foreign", "networks", "weights", "losses"},
    {"blending", "casting", "parsing", "pipeline", "restoring", "prefetch", "training", "metrics"},
    {"footage", "finding", "referring", "restorers"},
    {
        "assigning",
        "dubbing",
        "giving",
        "hearing",
        "scoring",
        "measuring",
        "previewing",
        "speakers",
        "mouth_following",
    },
    {"evaluation", "preparing"},
    {
        *(
            "cli",
            "cli_bench",
            "cli_dub",
            "cli_mask",
            "cli_models",
            "cli_progress",
            "cli_quality",
            "cli_score",
            "cli_speakers",
            "cli_study",
        ),
        *("demo", "score_plot"),
    },
    {"__main__", "__init__"},
]
# Rooms that live on tensors alone: files are the edge's affair.
WITHOUT_FILES = {
    "models",
    "faces",
    "blend",
    "blending",
    "parsing",
    "pipeline",
    "restoring",
    "losses",
    "training",
    "metrics",
}


def room(module: str) -> str:
    return module.split(".")[0]


def floor(name: str) -> int:
    (level,) = (i for i, rooms in enumerate(FLOORS) if name in rooms)
    return level


def imports(module: str, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything ``module`` imports, our own as ``lipsync_core.x.y``; lazy:
    in functions too."""
    nodes = ast.walk(TREES[module]) if lazy else eager(TREES[module])
    package = ["lipsync_core", *module.split(".")[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name, node.lineno
            for alias in node.names:  # from . import x may name a module
                if name.startswith("lipsync_core") and f"{name}.{alias.name}"[13:] in {
                    *MODULES,
                    *map(room, MODULES),
                }:
                    yield f"{name}.{alias.name}", node.lineno


def eager(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not those in functions, nor those for type
    checkers."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if (
            not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            and not typing_only
        ):
            yield node
            yield from eager(node)


def ours(module: str, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """(module of ours, line) for every import of one."""
    for name, line in imports(module, lazy=lazy):
        parts = name.split(".")
        if parts[0] == "lipsync_core" and len(parts) > 1:
            yield ".".join(parts[1:]), line


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in MODULES} == set().union(*FLOORS)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for name, line in ours(module)
        if floor(room(name)) > floor(room(module))
    ]
    assert wrong == []


def test_imports_run_in_no_circle() -> None:
    graph = {
        module: {n if n in MODULES else f"{n}.__init__" for n, _ in ours(module)}
        & set(MODULES) - {module}
        for module in MODULES
        if module != "__init__"
    }
    # a package's front door opens its rooms; they may look at the door's own names
    for module, found in graph.items():
        graph[module] = {
            n for n in found if not (n.endswith(".__init__") and room(n) == room(module))
        }
    assert list(TopologicalSorter(graph).static_order())


def test_rooms_that_live_on_tensors_read_no_media() -> None:
    wrong = [
        f"{module}:{line}" for module in MODULES if room(module) in WITHOUT_FILES
        for name, line in ours(module) if room(name) == "media"
    ]  # fmt: skip
    assert wrong == []
    # lazily: resampling falls back on it
    assert "media" not in [room(name) for name, _ in ours("audio", lazy=False)]


def foreign(module: str, *, lazy: bool = True) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(module, lazy=lazy)}


def test_heavy_and_optional_packages_stay_where_they_belong() -> None:
    for module in MODULES:
        everything, at_once = foreign(module), foreign(module, lazy=False)
        assert "av" not in everything or room(module) == "media", module
        assert "cv2" not in everything or module in ("faces.yunet", "metrics.landmarks"), module
        assert "torchaudio" not in everything or module == "audio", module
        assert "ray" not in everything or module == "evaluation.jobs", module
        assert (
            everything.isdisjoint({"spandrel", "spandrel_extra_arches"}) or module == "restorers"
        ), module
        lazy = {
            "cv2",
            "torchaudio",
            "huggingface_hub",
            "comfy",
            "matplotlib",
            "ray",
            "PIL",
            "spandrel",
        }
        assert at_once.isdisjoint(lazy), module
        assert (
            everything.isdisjoint({"pickle", "pickletools", "shelve", "marshal"})
            or module == "foreign"
        ), module
        assert everything.isdisjoint({"subprocess", "multiprocessing"}), module


def test_no_printing_outside_the_command_line() -> None:
    wrong = [
        f"{module}:{node.lineno}" for module in MODULES if not module.startswith("cli")
        for name, node in calls(module) if name in ("print", "sys.stdout.write", "sys.stderr.write")
    ]  # fmt: skip
    assert wrong == []


def test_no_file_can_run_code() -> None:
    for module in MODULES:
        for name, node in calls(module):
            if name == "torch.load":
                safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
                assert safe == "True", f"{module}:{node.lineno}"
            assert name not in ("eval", "exec", "torch.jit.load", "pickle.load", "pickle.loads"), (
                f"{module}:{node.lineno}"
            )
            assert not (
                name == "np.load" and any(k.arg == "allow_pickle" for k in node.keywords)
            ), module


def test_no_device_is_chosen_below_the_edge() -> None:
    for module in MODULES:
        assert not any(name.endswith(".cuda") for name, _ in calls(module)), module


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of the statements: a signature with many options and a docstring are long without being
    complex."""
    first = (
        function.body[1]
        if ast.get_docstring(function) and len(function.body) > 1
        else function.body[0]
    )
    return (function.end_lineno or first.lineno) - first.lineno + 1


def test_files_and_functions_stay_short() -> None:
    long_files = {
        m: n
        for m, path in MODULES.items()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    functions = (
        (m, node)
        for m, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )
    long_functions = {
        f"{m}:{node.name}": n for m, node in functions if (n := body_lines(node)) > 50
    }
    assert (long_files, long_functions) == ({}, {})


def test_no_room_is_a_junk_drawer() -> None:
    drawers = {"utils", "helpers", "common", "base", "manager", "misc", "util"}
    assert drawers.isdisjoint(part for module in MODULES for part in module.split("."))


def test_the_front_door_is_small_and_true() -> None:
    assert len(lipsync_core.__all__) <= 15 and lipsync_core.__all__ == sorted(lipsync_core.__all__)
    for name in lipsync_core.__all__:
        assert getattr(lipsync_core, name).__name__ == name


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_library_loads_nothing_and_opens_no_weights() -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import lipsync_core
heavy = {"torch", "av", "torchaudio", "cv2", "skimage", "huggingface_hub"} & set(sys.modules)
files = [p for p in opened if p.endswith((".safetensors", ".pth", ".onnx", ".flac"))]
print(sorted(heavy), files)
"""
    assert python(code).strip() == "[] []"


def test_the_rooms_open_no_weights_and_no_gpu_when_imported() -> None:
    names = [
        f"lipsync_core.{m.removesuffix('.__init__')}"
        for m in MODULES
        if m not in ("__main__", "__init__")
    ]
    code = f"""
import importlib, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
for name in {names!r}:
    importlib.import_module(name)
import torch
print([p for p in opened if p.endswith((".safetensors", ".pth", ".onnx", ".flac"))], torch.cuda.is_initialized())
"""
    assert python(code).strip() == "[] False"


@pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError"])
def test_everything_imports_and_resamples_without_the_optional_packages(kind: str) -> None:
    """Beside another build of torch, torchaudio fails with an OSError or a RuntimeError."""
    names = [
        f"lipsync_core.{m.removesuffix('.__init__')}"
        for m in MODULES
        if m not in ("__main__", "__init__")
    ]
    code = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cv2", "torchaudio"):
            raise {kind}(name + " is not here")
sys.meta_path.insert(0, Blocked())
for name in {names!r}:
    importlib.import_module(name)
import torch
from lipsync_core.audio import resample
from lipsync_core.types import Audio
print(tuple(resample(Audio(torch.zeros(1, 441), 44100), 16000).samples.shape))
"""
    assert python(code).strip() == "(1, 160)"
