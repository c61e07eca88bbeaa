"""The pack enters the host: nothing fails, its face is as frozen, it costs little and shares the
house with others."""

import difflib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from client import Client, connected
from graph import Graph
from launch import PACK, PATIENCE, PLAIN, ROOT, furnish, serving

FROZEN = Path(__file__).with_name("object_info.json")
RENEW = "LIPSYNC_RENEW=1 ... -m pytest -m host tests/host -k frozen"
KEPT = (  # what a saved workflow and a creator meet; not what differs between hosts
    *(
        "name",
        "display_name",
        "description",
        "category",
        "search_aliases",
        "output_node",
        "deprecated",
        "experimental",
    ),
    *("input", "input_order", "output", "output_name", "output_is_list", "output_tooltips"),
)
# they list the input folder
FILES = {("LipSync_LoadAudio", "file"), ("LipSync_LoadVideos", "folder")}
REPORT = logging.getLogger("host")  # -o log_cli=true -o log_cli_level=INFO shows it
BUDGET = 0.3  # seconds that the pack may add to the host's start; 0.03 on an idle core
MOST_MODULES = 20  # of the pack that list its nodes; with all that make them work there are 130


def nodes_of(client: Client) -> dict[str, Any]:
    """Our part of /object_info, without what the input folder holds."""
    ours = {
        name: info
        for name, info in client.get("/object_info").items()
        if info["python_module"].endswith(client.server.pack)
    }
    found = {name: {key: info[key] for key in KEPT} for name, info in sorted(ours.items())}
    for node, name in FILES:
        options = found[node]["input"]["required"][name][1]
        here = {path.name for path in (client.server.base / "input").iterdir()} | {
            "(upload a file)"
        }
        options["options"] = [option for option in options["options"] if option not in here]
    return found


def start_of(client: Client) -> str:
    """What the host said before it answered."""
    return client.server.log().split("Starting server")[0]


def test_the_log_tells_of_no_failure(client: Client) -> None:
    log = start_of(client)
    assert re.search(rf"seconds: .*{re.escape(PACK)}", log), log
    assert "IMPORT FAILED" not in log and "Traceback" not in log, log


def test_a_broken_torchaudio_takes_the_hosts_nodes_and_not_ours(broken: Client) -> None:
    log = start_of(broken)
    assert re.search(rf"seconds: .*{re.escape(PLAIN)}", log), log
    failed = re.findall(r"IMPORT FAILED\)?: (.*)", log)
    assert failed and all(name.startswith("nodes_") for name in failed), failed
    assert f"custom_nodes{os.sep}{PLAIN}{os.sep}" not in log, log  # no frame of ours


@pytest.mark.parametrize("kind", ["client", "broken"])
def test_the_nodes_are_as_frozen(kind: str, request: pytest.FixtureRequest) -> None:
    """Ids, inputs and outputs are append-only once shipped: look at every difference before you
    renew."""
    found = nodes_of(request.getfixturevalue(kind))
    if os.environ.get("LIPSYNC_RENEW"):
        FROZEN.write_text(
            json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
    changed = difference(found)
    assert not changed, "\n".join(["if this is meant:", RENEW, *changed])


def difference(found: dict[str, Any]) -> list[str]:
    """The lines that are not as frozen."""
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    lines = [
        json.dumps(value, indent=1, ensure_ascii=False).splitlines() for value in (frozen, found)
    ]
    return list(difflib.unified_diff(*lines, "frozen", "found", lineterm="", n=1))


def test_everything_says_what_it_is_for(client: Client) -> None:
    for name, node in nodes_of(client).items():
        inputs = {**node["input"]["required"], **node["input"].get("optional", {})}
        assert [
            key for key, (_, *rest) in inputs.items() if not (rest and rest[0].get("tooltip"))
        ] == [], name
        assert all(node["output_tooltips"]) and len(node["output_tooltips"]) == len(
            node["output"]
        ), name
        assert node["search_aliases"] and node["description"] and node["category"] == "LipSync", (
            name
        )


def test_the_pack_adds_less_than_its_budget_to_the_start(tmp_path: Path) -> None:
    """Work first: which modules the pack's entry point pulls in, which no other program on the
    machine changes. Then two times: what Python's own importtime says of them, and what the host
    says of the whole (in tenths of a second); the best of three starts, because the first one after
    an installation also compiles the files. A CPU build of torch raises at the first touch of a
    GPU, so that here none was touched either."""
    base, own, whole, log = furnish(tmp_path), [], [], ""
    environment = {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(3):
        with serving(base, environment=environment) as server:
            log = server.log()
        pattern = r"import time:\s+\d+ \|\s+(\d+) \|\s+\S.*\.lipsync_nodes\.extension\n"
        own += [int(time) / 1e6 for time in re.findall(pattern, log)]
        whole += [
            float(time) for time in re.findall(rf"([\d.]+) seconds: .*{re.escape(PACK)}", log)
        ]
    REPORT.info("the entry point imports for %s s, the host says %s s", own, whole)
    pulled = pulled_in(log)
    late = {"skimage", "matplotlib", "huggingface_hub", "torchaudio", "cv2", "ray"}
    assert late.isdisjoint(name.split(".")[0] for name in pulled), pulled
    ours = [name for name in pulled if ".lipsync_nodes" in name or ".lipsync_core" in name]
    assert 10 < len(ours) <= MOST_MODULES, ours
    most = BUDGET * PATIENCE  # a busy machine stretches time, not work
    assert min(own) < most and min(whole) <= most, (own, whole)


def pulled_in(log: str) -> set[str]:
    """The modules whose first import happened below our extension's: importtime lists children
    first, indented."""
    lines = re.findall(r"import time:\s+\d+ \|\s+\d+ \|( +)(\S.*)\n", log)
    end = next(i for i, (_, name) in enumerate(lines) if name.endswith(".lipsync_nodes.extension"))
    depth = len(lines[end][0])
    found = set()
    for indent, name in reversed(lines[:end]):
        if len(indent) <= depth:
            break
        found.add(name)
    return found


def test_another_lipsync_core_in_the_house_is_left_alone(tmp_path: Path) -> None:
    """pip-installed, older, first on the path: the pack takes its own all the same."""
    other = tmp_path / "site" / "lipsync_core"
    shutil.copytree(
        ROOT / "lipsync_core", other, ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    for module in other.rglob("*.py"):
        module.write_text(
            "raise ImportError('this is the lipsync_core of pip')\n", encoding="utf-8"
        )
    base = furnish(tmp_path / "host")
    with (
        serving(base, environment={"PYTHONPATH": str(other.parent)}) as server,
        connected(server) as client,
    ):
        assert difference(nodes_of(client)) == []
        graph = Graph(client.get("/object_info"))
        demo = graph.add("LipSync_DemoMedia", clip="portrait")
        graph.add("SaveVideo", video=demo[1])
        assert client.run(graph).status == "success"
        assert "lipsync_core of pip" not in server.log()
