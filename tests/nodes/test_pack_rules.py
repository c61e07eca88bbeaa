"""What a machine can check of the node pack without running it: how it loads, who imports whom,
what its schemas say."""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fake_host import Host
from loading import ROOT, Pack
from PIL import Image

FILES = {path.stem: path for path in sorted((ROOT / "lipsync_nodes").glob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
HOST_MODULES = {"comfy", "folder_paths", "comfy_execution", "server", "nodes", "execution"}
IDS = [
    *(
        "DemoMedia",
        "LoadAudio",
        "LoadLipSyncModel",
        "LoadFaceRestorer",
        "LoadVideos",
        "DetectFaces",
        "SelectFace",
    ),
    *("BlendSettings", "PreviewMask", "Wav2LipGenerate", "SyncScore", "ShiftAudio", "SetAudio"),
]


def imports(tree: ast.AST) -> list[str]:
    """Dotted names, dots in front for relative ones."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


def test_the_root_imports_nothing_until_it_is_asked() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds == ["Expr", "Assign", "AsyncFunctionDef"]
    # it would win
    assert "NODE_CLASS_MAPPINGS" not in (ROOT / "__init__.py").read_text(encoding="utf-8")


def test_only_the_host_module_knows_the_host() -> None:
    for name, tree in TREES.items():
        rooms = {dotted.split(".")[0] for dotted in imports(tree)}
        assert name == "host" or rooms.isdisjoint(HOST_MODULES), name
        assert rooms.isdisjoint(
            {"subprocess", "multiprocessing", "pickle", "torchaudio", "av", "cv2"}
        ), name
    assert imports(TREES["types"]) and "comfy_api.latest" not in imports(TREES["types"])


def test_the_core_is_imported_relatively() -> None:
    """ComfyUI names the pack after its folder; another lipsync_core may be installed."""
    for name, tree in TREES.items():
        assert not any(dotted.startswith("lipsync_") for dotted in imports(tree)), name


def test_an_alpha_channel_is_dropped_in_one_place() -> None:
    for name, path in FILES.items():
        assert "[..., :3]" not in path.read_text(encoding="utf-8") or name == "convert", name


def test_nodes_convert_call_and_convert() -> None:
    """At most 15 lines in ``execute``."""
    long = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "execute":
                lines = (node.end_lineno or 0) - node.body[0].lineno + 1
                if lines > 15:
                    long[f"{name}:{node.lineno}"] = lines
    assert long == {}


def test_files_print_nothing_and_run_no_code_from_text() -> None:
    for name in FILES:
        calls = [
            ast.unparse(node.func) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)
        ]
        assert {"print", "eval", "exec", "torch.load"}.isdisjoint(calls), name


def test_heavy_packages_load_when_they_are_needed(pack_folder: Path) -> None:
    """ComfyUI has torch, numpy, av and PIL loaded by then; the pack adds nothing heavy, and of its
    own only what lists the nodes."""
    code = f"""
import asyncio, importlib.util, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import fake_host, torch, numpy, av, PIL.Image
import tempfile
fake_host.HOST.reset(Path(tempfile.mkdtemp()))
fake_host.install()
for known in [name for name in sys.modules if name.split(".")[0] == "lipsync_core"]:
    del sys.modules[known]
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("a b (1)", {str(pack_folder / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules["a b (1)"] = module
spec.loader.exec_module(module)
assert set(sys.modules) - before == {{"a b (1)"}}, "the root imports something"
asyncio.run(module.comfy_entrypoint())
print(sorted({{name.split(".")[0] for name in set(sys.modules) - before}} & set({HEAVY!r})))
sys.modules["folder_paths"].models_dir = fake_host.HOST.folder("models")
async def listed():
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]
assert len(asyncio.run(listed())) == {len(IDS)}
ours = sorted(name for name in set(sys.modules) - before if name.startswith("a b (1).lipsync"))
assert 10 < len(ours) <= 20, ours
print(sorted(name for name in sys.modules if name.split(".")[0] == "lipsync_core"), torch.cuda.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[] False"], done.stdout


HEAVY = [
    *(
        "skimage",
        "scipy",
        "matplotlib",
        "huggingface_hub",
        "cv2",
        "torchaudio",
        "torchvision",
        "typer",
        "rich",
    ),
    *("pandas", "onnxruntime", "transformers"),
]


def test_all_nodes_are_there(pack: Pack) -> None:
    assert list(pack.nodes) == IDS
    assert pack.module.WEB_DIRECTORY == "./lipsync_nodes/web"


def test_every_end_explains_itself(pack: Pack) -> None:
    displayed = set()
    for name, node in pack.nodes.items():
        schema = node.GET_SCHEMA()
        assert schema.node_id == f"LipSync_{name}" and schema.category == "LipSync"
        assert len(schema.description) > 20 and len(schema.search_aliases) >= 4, name
        displayed.add(schema.display_name)
        for end in [*schema.inputs, *schema.outputs]:
            assert len(end.given.get("tooltip", "")) > 10, f"{name}.{end.id}"
    assert len(displayed) == len(IDS)


LANGUAGES = ["de", "es", "fr", "ja", "ko", "ru", "zh"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_and_input_is_translated(pack: Pack, language: str) -> None:
    """The page's formatter gives a meaning to @, braces and |."""
    path = ROOT / f"locales/{language}/nodeDefs.json"
    texts = json.loads(path.read_text(encoding="utf-8"))
    assert set(texts) == {f"LipSync_{name}" for name in pack.nodes}
    for name, node in pack.nodes.items():
        told, schema = texts[f"LipSync_{name}"], node.GET_SCHEMA()
        assert told["display_name"] and told["description"] != schema.description
        assert list(told["inputs"]) == [end.id for end in schema.inputs], name
        for text in [*told.values(), *(given["tooltip"] for given in told["inputs"].values())]:
            assert not isinstance(text, str) or (text and not set("@{}|") & set(text)), text


def test_the_registry_finds_icon_and_banner_and_leaves_the_workshop_out() -> None:
    comfy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    left_out = (ROOT / ".comfyignore").read_text(encoding="ascii").split()
    assert {"tests/", "train/", "benchmarks/"} <= set(left_out)
    for picture, ratio in (("Icon", 1.0), ("Banner", 21 / 9)):
        with Image.open(ROOT / comfy[picture]) as opened:
            assert abs(opened.width / opened.height - ratio) < 0.02
        assert not any(comfy[picture].startswith(folder) for folder in left_out)


def test_numbers_have_bounds_and_widgets_defaults(pack: Pack) -> None:
    """Without bounds, a number in a stranger's workflow could ask for all the memory."""
    for name, node in pack.nodes.items():
        for end in node.GET_SCHEMA().inputs:
            if end.io_type in ("INT", "FLOAT"):
                assert (
                    end.given["min"] <= end.given["default"] <= end.given["max"] < float("inf")
                ), f"{name}.{end.id}"
            if end.io_type == "COMBO":
                options = end.given["options"]
                assert options and end.given.get("default", options[0]) in options, (
                    f"{name}.{end.id}"
                )


def test_the_incumbents_node_maps_to_ours(host: Host, pack: Pack) -> None:
    (replacement,) = host.replacements
    assert (replacement.old_node_id, replacement.new_node_id) == (
        "Wav2Lip",
        "LipSync_Wav2LipGenerate",
    )
    schema = pack.nodes["Wav2LipGenerate"].GET_SCHEMA()
    set_or_linked = {entry["new_id"] for entry in replacement.input_mapping}
    required = {end.id for end in schema.inputs if not end.optional}
    # the host fills no defaults in
    assert required <= set_or_linked <= {end.id for end in schema.inputs}
    for entry in replacement.input_mapping:
        if "set_value" in entry:
            (end,) = (end for end in schema.inputs if end.id == entry["new_id"])
            assert entry["set_value"] in end.given.get("options", [entry["set_value"]])


def test_a_pack_that_cannot_load_says_so(
    pack_folder: Path,
    loaded_pack: Pack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The host logs one line of what an entrypoint raises."""
    import asyncio

    spec = importlib.util.spec_from_file_location("broken pack", pack_folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "broken pack", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "broken pack.lipsync_nodes", None)
    with pytest.raises(ImportError):
        asyncio.run(module.comfy_entrypoint())
    assert "cannot be loaded" in caplog.text and "Traceback" in caplog.text
