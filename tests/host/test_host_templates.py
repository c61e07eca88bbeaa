"""Every template in the host's own page: all nodes known, Run pressed, success. Its pictures are
for a person to look at: LIPSYNC_PICTURES names a folder that keeps them."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launch
import pytest
from client import Client
from helpers.webdriver import MISSING
from page import Page, opened

WIRE_THE_BLUEPRINT = """
const blueprint = app.graph.nodes.find(node => node.subgraph)
const [demo, save] = ['LipSync_DemoMedia', 'SaveVideo'].map(type => app.graph.add(LiteGraph.createNode(type)))
demo.pos = [blueprint.pos[0] - 400, blueprint.pos[1]]
save.pos = [blueprint.pos[0] + blueprint.size[0] + 100, blueprint.pos[1]]
const input = name => blueprint.inputs.findIndex(slot => slot.name === name)
demo.connect(1, blueprint, input('video'))
demo.connect(2, blueprint, input('audio'))
blueprint.connect(0, save, 0)
"""
APP = "Lip-sync app, face and voice"
FILL = """
const [image, file] = arguments
const put = (type, name, value) => {
  const widget = app.graph.nodes.find(node => node.type === type).widgets.find(widget => widget.name === name)
  widget.value = value
}
put('LoadImage', 'image', image)
put('LipSync_LoadAudio', 'file', file)
"""
SEARCH = """
const stores = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s
const found = stores.get('nodeDef').nodeSearchService.searchNode(arguments[0], [], { limit: 5 })
return found.map(node => node.name)
"""
SMALLEST = (
    0.58  # of the page: below, letters of 14 px are smaller than the 8 px that it still draws
)
TEMPLATES = sorted((launch.ROOT / "example_workflows").glob("*.json"))
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@pytest.fixture
def page(client: Client, tmp_path: Path) -> Iterator[Page]:
    """A fresh window each: a dialog that one template opens must not cover the next."""
    # the bars of the browser take the rest: the page itself has 1600 x 1000 px
    with opened(client.server, tmp_path, width=1600, height=1143) as window:
        yield window


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = (
        Path(os.environ.get("LIPSYNC_PICTURES") or tmp_path_factory.mktemp("pictures"))
        / launch.version()
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_there_are_templates_with_their_thumbnails() -> None:
    assert len(TEMPLATES) >= 6
    assert [path.name for path in TEMPLATES if not path.with_suffix(".jpg").is_file()] == []


def test_the_host_lists_them(client: Client) -> None:
    listed = client.get("/workflow_templates")[launch.PACK]
    assert sorted(listed) == [path.stem for path in TEMPLATES]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_opens_with_readable_words_and_runs(
    client: Client, page: Page, names: dict[str, str], pictures: Path, path: Path
) -> None:
    before = set(client.get("/history"))
    page.load(json.loads(path.read_text(encoding="utf-8")), path.stem)
    # the page marks the loaders of the app, whose files are not chosen yet
    assert path.stem == APP or page.missing_nodes() == []
    page.screenshot(pictures / f"{path.stem}, opened.png")
    assert page.browser.run("return app.canvas.ds.scale") > SMALLEST
    if path.stem == APP:  # it asks for a face and a voice
        page.browser.run(FILL, names["photo"], names["voice"])
        page.browser.run("return app.queuePrompt(0, 1).then(() => true)")
    else:
        page.press_run()
    entry = next_in_history(client, before, seconds=500)
    page.fit()
    page.screenshot(pictures / f"{path.stem}, done.png")
    errors = [told for kind, told in entry["status"]["messages"] if kind == "execution_error"]
    assert entry["status"]["status_str"] == "success", [
        (told["node_type"], told["exception_message"]) for told in errors
    ]


@pytest.mark.parametrize("words", ["lip", "lip sync", "lipsync", "wav2lip"])
def test_a_search_finds_the_dub_first(page: Page, words: str) -> None:
    assert page.browser.run(SEARCH, words)[0] == "LipSync_Wav2LipGenerate"


def test_the_names_of_nodes_are_translated(client: Client) -> None:
    texts = client.get("/i18n")
    for language in ("de", "es", "fr", "ja", "ko", "ru", "zh"):
        assert texts[language]["nodeDefs"]["LipSync_Wav2LipGenerate"]["display_name"], language


def test_the_blueprint_is_listed_and_runs(client: Client, page: Page, pictures: Path) -> None:
    """Between Demo Media and Save Video, as a creator would wire it."""
    listed = [
        entry
        for entry in client.get("/global_subgraphs").values()
        if entry["info"]["node_pack"].endswith(launch.PACK)
    ]
    assert [entry["name"] for entry in listed] == ["Dub video"]
    before = set(client.get("/history"))
    page.load(json.loads((launch.ROOT / "subgraphs/Dub video.json").read_text(encoding="utf-8")))
    page.browser.run(WIRE_THE_BLUEPRINT)
    assert page.missing_nodes() == []
    page.press_run()
    entry = next_in_history(client, before, seconds=300)
    page.fit()
    page.screenshot(pictures / "blueprint.png")
    assert entry["status"]["status_str"] == "success", entry["status"]


def next_in_history(client: Client, before: set[str], *, seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds * launch.PATIENCE
    while time.monotonic() < end:
        new = [entry for id, entry in client.get("/history").items() if id not in before]
        if new:
            return new[0]
        time.sleep(0.2)
    raise AssertionError(f"nothing ran; the host says\n{client.server.log()[-2000:]}")
