"""The house rules that a machine can check: who imports whom, what stays lazy, how long things
grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import lipsync_core

ROOT = Path(lipsync_core.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# Each package may import from itself and from those earlier in this list, never from later ones.
ORDER = [
    "_version",
    "types",
    "errors",
    "runtime",
    "options",
    "image",
    "media",
    "blend",
    "audio",
    "models",
    "faces",
    "metrics",
    "pipelines",
    "training",
    "evaluation",
    "study",
    "cli",
    "__init__",
    "__main__",
]
MOST_ENTRIES, MOST_LEVELS = 16, 12
# Packages that work on tensors alone: reading and writing files is the affair of others.
WITHOUT_FILES = {"image", "blend", "audio", "faces", "metrics"}


def package(module: str) -> str:
    return module.split(".")[0]


def imports(module: str, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything ``module`` imports, our own as ``lipsync_core.x.y``; lazy:
    in functions too."""
    nodes = ast.walk(TREES[module]) if lazy else eager(TREES[module])
    above = ["lipsync_core", *module.split(".")[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = above[: len(above) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name, node.lineno
            for alias in node.names:  # from . import x may name a module
                if name.startswith("lipsync_core") and f"{name}.{alias.name}"[13:] in {
                    *MODULES,
                    *map(package, MODULES),
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


def package_graph() -> dict[str, set[str]]:
    """The packages of ours that each package imports; names in ``__init__`` are the public ones."""
    graph = {package(name): set[str]() for name in MODULES if name not in ("__init__", "__main__")}
    for module in MODULES:
        if package(module) in graph:
            graph[package(module)] |= {package(name) for name, _ in ours(module)}
    return {name: found - {name} for name, found in graph.items()}


def levels(graph: dict[str, set[str]]) -> int:
    """Length of the longest chain of imports."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[below] for below in graph[name]), default=0)
    return max(height.values())


def test_every_package_has_its_place() -> None:
    assert {package(name) for name in MODULES} == set(ORDER)
    assert len(set(ORDER) - {"__init__", "__main__", "_version"}) <= MOST_ENTRIES


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for name, line in ours(module)
        if ORDER.index(package(name)) > ORDER.index(package(module))
    ]
    assert wrong == []


def test_packages_have_few_levels() -> None:
    assert levels(package_graph()) <= MOST_LEVELS


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
            n for n in found if not (n.endswith(".__init__") and package(n) == package(module))
        }
    assert list(TopologicalSorter(graph).static_order())


def test_tensor_packages_read_no_media() -> None:
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        if package(module) in WITHOUT_FILES
        for name, line in ours(module, lazy=module != "audio.ops")  # resampling falls back on media
        if package(name) == "media"
    ]
    assert wrong == []


def foreign(module: str, *, lazy: bool = True) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(module, lazy=lazy)}


def test_heavy_and_optional_packages_stay_where_they_belong() -> None:
    for module in MODULES:
        everything, at_once = foreign(module), foreign(module, lazy=False)
        assert "av" not in everything or package(module) == "media", module
        assert "cv2" not in everything or module in (
            "faces.detector_yunet",
            "faces.landmark_model",
            "image.opencv",
        ), module
        assert "torchaudio" not in everything or module == "audio.ops", module
        assert "ray" not in everything or module == "runtime.jobs", module
        assert (
            everything.isdisjoint({"spandrel", "spandrel_extra_arches"})
            or module == "pipelines.restore"
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
        assert everything.isdisjoint({"pickle", "pickletools", "shelve", "marshal"}) or module in (
            "models.checkpoint",
            "models.torchscript",
        ), module
        assert "multiprocessing" not in everything, module
        # other tools are run beside ours, without a shell
        assert "subprocess" not in everything or module == "evaluation.peers", module


def test_no_printing_outside_the_command_line() -> None:
    wrong = [
        f"{module}:{node.lineno}" for module in MODULES if package(module) != "cli"
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


def test_no_module_is_a_junk_drawer() -> None:
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


def test_everything_imports_and_resamples_without_the_optional_packages() -> None:
    """Beside another build of torch, torchaudio fails with an OSError or a RuntimeError."""
    names = [
        f"lipsync_core.{m.removesuffix('.__init__')}"
        for m in MODULES
        if m not in ("__main__", "__init__")
    ]
    code = f"""
import importlib, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
class Blocked:
    kind = ImportError
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cv2", "torchaudio"):
            raise self.kind(name + " is not here")
sys.meta_path.insert(0, Blocked())
for name in {names!r}:
    importlib.import_module(name)
import torch
from lipsync_core.audio.ops import resample
from lipsync_core.types import Audio
print([p for p in opened if p.endswith((".safetensors", ".pth", ".onnx", ".flac"))])
print(torch.cuda.is_initialized())
for Blocked.kind in (ImportError, OSError, RuntimeError):
    print(tuple(resample(Audio(torch.zeros(1, 441), 44100), 16000).samples.shape))
"""
    assert python(code).split("\n")[:-1] == ["[]", "False", *["(1, 160)"] * 3]
