"""What the plain tests take for granted about templates, blueprint and help pages, in the host's
own page.

The pack's folder has a plain name here: ComfyUI serves no template and no help page from one with a
space in its name, and its page looks for the help of a folder "a.b" in "a".
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import launch
import pytest
from client import Client, connected
from helpers.webdriver import MISSING
from helpers.workflow_graphs import to_api
from page import Page, opened

NAMES = sorted(path.stem for path in (launch.ROOT / "example_workflows").glob("*.json"))
CORE = json.loads((launch.ROOT / "tests/nodes/core_nodes.json").read_text(encoding="utf-8"))
SELECT = """
app.graph.clear()
const node = LiteGraph.createNode('LipSync_BlendSettings')
app.graph.add(node)
node.pos = [500, 300]
app.canvas.ds.scale = 1
app.canvas.ds.offset[0] = app.canvas.ds.offset[1] = 0
app.canvas.selectItems([node])
"""
NEWER = {  # inputs that workflows from before know nothing of
    "LipSync_BlendSettings": ("colour", "occlusion", "steady"),
    "LipSync_Wav2LipGenerate": ("silence", "reference", "speakers", "restorer"),
}
INFO = "[data-testid=info-button]"
PICTURE = (
    "return [...document.images].some(image => image.src.endsWith(arguments[0]) && "
    "image.naturalWidth > 0)"
)
in_a_browser = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@pytest.fixture(scope="module")
def plainly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    base = launch.furnish(tmp_path_factory.mktemp("plain"))
    (base / "custom_nodes" / launch.PACK).rename(base / "custom_nodes/lipsync")
    with launch.serving(base) as running, connected(running) as listening:
        yield listening


@pytest.fixture(scope="module")
def nodes(plainly: Client) -> Mapping[str, Any]:
    return plainly.get("/object_info")


@pytest.fixture(scope="module")
def page(plainly: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(plainly.server, tmp_path_factory.mktemp("profile")) as window:
        yield window


def read(path: str) -> Any:
    return json.loads((launch.ROOT / path).read_text(encoding="ascii"))


def plain(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Without titles, and without what a newer host or a preview node adds."""
    known = {name: set(node["inputs"]) for name, node in CORE[min(CORE)].items()}

    def inputs(node: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in node["inputs"].items()
            if key in known.get(node["class_type"], {key})
        }

    return {key: (node["class_type"], inputs(node)) for key, node in prompt.items()}


@in_a_browser
@pytest.mark.parametrize("name", NAMES)
def test_the_page_reads_a_template_as_the_tests_do(page: Page, name: str) -> None:
    graph = read(f"example_workflows/{name}.json")
    page.load(graph, name)
    assert (
        plain(page.to_prompt())
        == plain(to_api(graph))
        == plain(read(f"example_workflows/api/{name}.json"))
    )


@in_a_browser
@pytest.mark.parametrize("name", NAMES)
def test_the_page_gives_back_the_api_workflow(page: Page, name: str) -> None:
    stored = read(f"example_workflows/api/{name}.json")
    page.load_api(stored, name)
    assert plain(page.to_prompt()) == plain(stored)


@in_a_browser
def test_a_workflow_saved_before_the_newer_inputs_opens_with_their_defaults(page: Page) -> None:
    graph = read("example_workflows/Lip-sync a video.json")
    for node in graph["nodes"]:
        newer = NEWER.get(node["type"], ())
        values = len(
            [slot for slot in node["inputs"] if "widget" in slot and slot["name"] not in newer]
        )
        node["widgets_values"] = node["widgets_values"][: values or None]
        node["inputs"] = [slot for slot in node["inputs"] if slot["name"] not in newer]
    page.load(graph, "from before")
    assert page.missing_nodes() == []
    assert plain(page.to_prompt()) == plain(read("example_workflows/api/Lip-sync a video.json"))


@in_a_browser
def test_the_blueprint_opens_with_its_three_nodes(page: Page) -> None:
    graph = read("subgraphs/Dub video.json")
    page.load(graph, "Dub video")
    assert page.missing_nodes() == []
    found = {node["class_type"]: node["inputs"] for node in page.to_prompt().values()}
    (outside,) = graph["nodes"]
    widgets = [slot["name"] for slot in outside["inputs"] if "widget" in slot]
    values = dict(zip(widgets, outside["widgets_values"], strict=True))
    everything = {
        name: value
        for inputs in found.values()
        for name, value in inputs.items()
        if not isinstance(value, list)
    }
    assert len(found) == 3 and values.items() <= everything.items()


def test_the_host_lists_the_blueprint(plainly: Client) -> None:
    (id,) = (
        id for id, entry in plainly.get("/global_subgraphs").items() if entry["name"] == "Dub video"
    )
    assert json.loads(plainly.get(f"/global_subgraphs/{id}")["data"]) == read(
        "subgraphs/Dub video.json"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_template_and_its_thumbnail_are_served(plainly: Client, name: str) -> None:
    for suffix in (".json", ".jpg"):
        with urlopen(
            f"{plainly.server.url}/api/workflow_templates/lipsync/{quote(name)}{suffix}", timeout=30
        ) as answer:
            assert answer.read() == (launch.ROOT / f"example_workflows/{name}{suffix}").read_bytes()


@in_a_browser
def test_the_page_shows_the_help_of_a_node_with_its_picture(page: Page) -> None:
    page.browser.run(SELECT)
    page.browser.until("return Boolean(document.querySelector(arguments[0]))", INFO)
    page.browser.click(INFO)
    page.browser.until(PICTURE, "LipSync_BlendSettings.jpg")
    assert "How the new mouth joins the picture" in page.browser.run(
        "return document.body.innerText"
    )


def test_every_node_s_help_and_its_picture_are_served(
    plainly: Client, nodes: Mapping[str, Any]
) -> None:
    for name in (name for name in nodes if name.startswith("LipSync_")):
        for suffix in (".md", ".jpg"):
            with urlopen(
                f"{plainly.server.url}/extensions/lipsync/docs/{name}{suffix}", timeout=30
            ) as answer:
                assert (
                    answer.read()
                    == (launch.ROOT / f"lipsync_nodes/web/docs/{name}{suffix}").read_bytes()
                )


def test_the_host_s_own_nodes_are_as_the_plain_tests_believe(nodes: Mapping[str, Any]) -> None:
    if launch.version() not in CORE:
        pytest.skip(f"core_nodes.json does not know {launch.version()}")
    for name, node in CORE[launch.version()].items():
        assert list(nodes[name]["output"]) == node["outputs"], name
        stated = {
            **nodes[name]["input"].get("required", {}),
            **nodes[name]["input"].get("optional", {}),
        }
        assert list(stated) == list(node["inputs"]), name
        for key, (kind, *_) in stated.items():
            assert node["inputs"][key]["type"] == ("COMBO" if isinstance(kind, list) else kind), (
                name,
                key,
            )
