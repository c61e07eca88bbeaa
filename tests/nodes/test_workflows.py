"""Templates, the blueprint and the help pages against the nodes as they are, and against the host's
own nodes of the oldest and the newest host."""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.workflow_graphs import (
    BYPASSED,
    VIRTUAL,
    Json,
    Kind,
    faults,
    of_core,
    of_schema,
    to_api,
)
from loading import ROOT, Pack
from PIL import Image

CORE = Path(__file__).with_name("core_nodes.json")
VERSIONS = list(json.loads(CORE.read_text(encoding="utf-8")))
HELP = ROOT / "lipsync_nodes/web/docs"
APP = "Lip-sync app, face and voice"
NAMES = [
    "Lip-sync a photo",
    "Lip-sync a video",
    "Lip-sync without a trace",
    "Lip-sync two speakers",
    "Lip-sync a long video",
    "Lip-sync repair of a clip",
    "Lip-sync check of a folder",
    "Lip-sync a folder",
    APP,
]
WINDOW = (1700, 1000)  # of a graph that opens with readable words in a window of 1600 x 1000 px
LOADERS = {"image": "LoadImage", "video": "LoadVideo", "audio": "LipSync_LoadAudio"}
MOST = 60_000  # bytes of a picture: they travel with every installation
each_template = pytest.mark.parametrize("name", NAMES)


def read(path: str) -> Json:
    # older hosts read with the system's code page
    return json.loads((ROOT / path).read_text(encoding="ascii"))


def ours(pack: Pack) -> dict[str, Kind]:
    return {f"LipSync_{name}": of_schema(node.GET_SCHEMA()) for name, node in pack.nodes.items()}


def untitled(api: Json) -> Json:
    return {
        key: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for key, node in api.items()
    }


@pytest.fixture(params=VERSIONS)
def kinds(pack: Pack, request: pytest.FixtureRequest) -> dict[str, Kind]:
    return {**ours(pack), **of_core(CORE, request.param)}


def test_the_templates_are_those_of_the_list_each_in_both_forms() -> None:
    for folder in ("example_workflows", "example_workflows/api"):
        assert {path.stem for path in (ROOT / folder).glob("*.json")} == set(NAMES), folder


@each_template
def test_a_host_accepts_every_node_link_and_value(name: str, kinds: dict[str, Kind]) -> None:
    assert faults(read(f"example_workflows/api/{name}.json"), kinds) == []


def test_faults_are_found(pack: Pack) -> None:
    kinds = {**ours(pack), **of_core(CORE, VERSIONS[0])}
    api = read("example_workflows/api/Lip-sync a video.json")
    api["1"]["inputs"]["clip"] = "no-such-clip"
    api["2"]["class_type"] = "LipSync_Gone"
    api["3"]["inputs"] |= {"strength": 1.5, "colour_match": 1}
    api["4"]["inputs"] |= {"model": ["3", 0], "old": 1}
    del api["5"]["inputs"]["video"]
    found = faults(api, kinds)
    words = [
        "clip is 'no-such-clip'",
        "no such node",
        "strength is 1.5",
        "colour_match is 1",
        "gets LIPSYNC_BLEND",
        "input old",
    ]
    assert all(any(word in fault for fault in found) for word in [*words, "video is missing"])
    assert len(found) == 7


def test_a_link_through_the_generator_keeps_its_type(pack: Pack) -> None:
    kinds = {**ours(pack), **of_core(CORE, VERSIONS[0])}
    api = read("example_workflows/api/Lip-sync a video.json")
    api["4"]["inputs"]["media"] = ["1", 0]  # images instead of the video
    assert faults(api, kinds) == ["5 SaveVideo: video wants ['VIDEO'], gets IMAGE"]


@each_template
def test_the_drawn_template_is_the_api_one(name: str, kinds: dict[str, Kind]) -> None:
    graph, stored = (
        read(f"example_workflows/{name}.json"),
        read(f"example_workflows/api/{name}.json"),
    )
    titles = {
        str(node["id"]): node["title"]
        for node in graph["nodes"]
        if "title" in node and node["type"] not in VIRTUAL and node.get("mode") != BYPASSED
    }
    assert titles.items() <= {key: node["_meta"]["title"] for key, node in stored.items()}.items()
    assert faults(to_api(graph), kinds) == []
    assert to_api(graph) == untitled(stored)


@each_template
def test_the_drawn_links_agree_with_both_their_ends(name: str) -> None:
    graph = read(f"example_workflows/{name}.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, start, output, end, slot, _ in graph["links"]:
        assert link in nodes[start]["outputs"][output]["links"]
        assert nodes[end]["inputs"][slot]["link"] == link
    held = [
        slot["link"]
        for node in nodes.values()
        for slot in node.get("inputs", [])
        if slot["link"] is not None
    ]
    assert sorted(held) == sorted(link[0] for link in graph["links"])


@each_template
def test_a_template_needs_nothing_but_the_pack(name: str) -> None:
    """Its media are the demo's, its model the bundled one; only an app asks for a face and a
    voice."""
    for node in read(f"example_workflows/api/{name}.json").values():
        loaders = {*LOADERS.values(), "LoadAudio"}
        assert name == APP or node["class_type"] not in loaders
        assert node["inputs"].get("model", "mini (bundled)") == "mini (bundled)" or isinstance(
            node["inputs"]["model"], list
        )
        assert node["inputs"].get("folder", "demo") == "demo"
        assert (
            node["inputs"].get("detector", "mini") == "mini"
            and node["inputs"].get("scorer", "judge") == "judge"
        )


@each_template
def test_a_note_says_what_to_replace_and_nothing_overlaps(name: str) -> None:
    nodes = read(f"example_workflows/{name}.json")["nodes"]
    (note,) = [node for node in nodes if node["type"] in VIRTUAL]
    text = note["widgets_values"][0]
    assert "green node" in text and ("Press Run" in text or name == APP)
    assert "Load Video" in text or "folder" in text or "Load Image" in text
    green = [node["type"] for node in nodes if node.get("bgcolor") == "#353"]
    assert green in ([[]] if name == APP else [["LipSync_DemoMedia"], ["LipSync_LoadVideos"]])
    # with the title bar
    boxes = [(node["pos"][0], node["pos"][1] - 30, *node["size"]) for node in nodes]
    for i, (x, y, width, height) in enumerate(boxes):
        for left, top, w, h in boxes[:i]:
            assert x >= left + w or left >= x + width or y >= top + h + 30 or top >= y + height + 30


@each_template
def test_a_template_fits_a_window_with_readable_words(name: str) -> None:
    graph = read(f"example_workflows/{name}.json")
    boxes = [(*node["pos"], *node["size"]) for node in graph["nodes"]]
    boxes += [tuple(group["bounding"]) for group in graph["groups"]]
    for axis, most in enumerate(WINDOW):
        ends = [box[axis] + box[axis + 2] for box in boxes]
        assert max(ends) - min(box[axis] for box in boxes) <= most


@each_template
def test_own_media_wait_bypassed_before_the_demo(name: str) -> None:
    graph = read(f"example_workflows/{name}.json")
    demo = [node for node in graph["nodes"] if node["type"] == "LipSync_DemoMedia"]
    waiting = {node["id"]: node["type"] for node in graph["nodes"] if node.get("mode") == BYPASSED}
    ends = {link[0]: link[1] for link in graph["links"]}
    wired = {
        slot["name"]: waiting[ends[slot["link"]]]
        for node in demo
        for slot in node["inputs"]
        if slot["link"] is not None
    }
    assert len(wired) == len(waiting) and wired.items() <= LOADERS.items()
    assert (bool(demo) == bool(wired) and {"image", "video"} & set(wired)) or not demo


def test_the_app_asks_for_a_face_and_a_voice_and_shows_the_video() -> None:
    graph = read(f"example_workflows/{APP}.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["extra"]["linearMode"] is True
    asked = [(nodes[id]["type"], widget) for id, widget in graph["extra"]["linearData"]["inputs"]]
    assert asked == [("LoadImage", "image"), ("LipSync_LoadAudio", "file")]
    for id, widget in graph["extra"]["linearData"]["inputs"]:
        assert any(slot["name"] == widget for slot in nodes[id]["inputs"])
    (shown,) = graph["extra"]["linearData"]["outputs"]
    assert nodes[shown]["type"] == "SaveVideo"


def test_a_search_for_lip_sync_finds_every_template_and_the_node_first(pack: Pack) -> None:
    """The page compares whole words of a template's name, and the beginnings of names of nodes: the
    shortest one that begins with what is typed comes first."""
    assert all(name.startswith("Lip-sync ") for name in NAMES)
    kinds = {name: node.GET_SCHEMA() for name, node in pack.nodes.items()}
    said = {name: [schema.node_id, schema.display_name] for name, schema in kinds.items()}
    begun = {
        name: min((len(word) for word in words if word.lower().startswith("lip")), default=99)
        for name, words in said.items()
    }
    assert min(begun, key=lambda name: begun[name]) == "Wav2LipGenerate"
    assert sorted(begun.values())[0] < sorted(begun.values())[1]


@each_template
def test_a_thumbnail_lies_beside_it(name: str) -> None:
    path = ROOT / f"example_workflows/{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and 1 <= picture.width / picture.height <= 2
    assert path.stat().st_size < MOST


def test_the_blueprint_is_the_middle_of_the_dub_template(pack: Pack) -> None:
    graph = read("subgraphs/Dub video.json")
    (outside,) = graph["nodes"]
    (inside,) = graph["definitions"]["subgraphs"]
    assert outside["type"] == inside["id"] and graph["extra"]["BlueprintDescription"]
    links = [
        [link[key] for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
        for link in inside["links"]
    ]
    # below 0: the subgraph's own two ends
    within = [link for link in links if link[1] > 0 and link[3] > 0]
    api = to_api({"nodes": inside["nodes"], "links": within})
    stored = untitled(read("example_workflows/api/Lip-sync a video.json"))
    middle = {key: node for key, node in stored.items() if key in api}
    for node in middle.values():
        node["inputs"] = {
            k: v for k, v in node["inputs"].items() if not isinstance(v, list) or v[0] in api
        }
    assert api == middle and len(api) == 3
    assert faults(api, ours(pack)) == ["4 LipSync_Wav2LipGenerate: media is missing"]


def test_the_blueprint_s_ends_agree_with_its_nodes(pack: Pack) -> None:
    graph = read("subgraphs/Dub video.json")
    (outside,), (inside,) = graph["nodes"], graph["definitions"]["subgraphs"]
    kinds, nodes = ours(pack), {node["id"]: node for node in inside["nodes"]}
    links = {link["id"]: link for link in inside["links"]}
    assert [(slot["name"], slot["type"]) for slot in outside["inputs"]] == [
        (slot["name"], slot["type"]) for slot in inside["inputs"]
    ]
    values: dict[str, Any] = {}
    for slot in inside["inputs"]:
        for link in (links[id] for id in slot["linkIds"]):
            node = nodes[link["target_id"]]
            name = node["inputs"][link["target_slot"]]["name"]
            assert slot["type"] in kinds[node["type"]].inputs[name].types
            values[slot["name"]] = to_api({"nodes": [node], "links": []})[str(node["id"])][
                "inputs"
            ].get(name)
    shown = [slot["name"] for slot in outside["inputs"] if "widget" in slot]
    assert dict(zip(shown, outside["widgets_values"], strict=True)) == {
        name: values[name] for name in shown
    }
    (out,) = inside["outputs"]
    (link,) = (links[id] for id in out["linkIds"])
    assert out["type"] == "VIDEO" and nodes[link["origin_id"]]["type"] == "LipSync_Wav2LipGenerate"


def rows(page: str, heading: str) -> list[str]:
    """The first cells of the table below ``heading``."""
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE)


def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(pack: Pack) -> None:
    assert {path.stem for path in HELP.glob("*.md")} == {f"LipSync_{name}" for name in pack.nodes}
    for name, node in pack.nodes.items():
        page = (HELP / f"LipSync_{name}.md").read_text(encoding="utf-8")
        kind = of_schema(node.GET_SCHEMA())
        assert page.startswith(f"# {node.GET_SCHEMA().display_name}\n"), name
        assert rows(page, "Inputs") == list(kind.inputs), name
        assert rows(page, "Outputs") == list(kind.names), name
        for options in (given.options for given in kind.inputs.values()):
            missing = [
                option for option in options if not re.search(rf"\*{re.escape(option)}\*", page)
            ]
            assert not options or len(missing) == 0, (name, missing)


def test_the_help_pages_name_nodes_and_templates_that_exist(pack: Pack) -> None:
    known = {node.GET_SCHEMA().display_name for node in pack.nodes.values()} | set(NAMES)
    for path in HELP.glob("*.md"):
        page = path.read_text(encoding="utf-8")
        assert set(re.findall(r"template \*\*(.+?)\*\*", page.replace("\n", " "))) <= known, (
            path.name
        )


def test_the_help_pages_show_pictures_that_are_there_and_small(pack: Pack) -> None:
    for name in pack.nodes:
        page = (HELP / f"LipSync_{name}.md").read_text(encoding="utf-8")
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
        assert pictures, name
        for picture in pictures:
            assert (HELP / picture).stat().st_size < MOST, picture
            with Image.open(HELP / picture) as opened:
                assert math.prod(opened.size) > 200 * 100, picture


def literals(tree: ast.AST) -> list[str]:
    """What a source says: its strings, with a 0 character for what is filled in."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    }
    said: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said.append(
                "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values)
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            said.append(node.value)
    return said


def quoted(page: str) -> list[str]:
    """The errors that a help page quotes: in bold at the head of its lines of advice, and not begun
    like a sentence of its own."""
    advice = page.partition("## When something goes wrong\n")[2]
    heads = re.findall(r"^- (\*\*.+?\*\*(?:, or \*\*.+?\*\*)*):", advice, re.MULTILINE)
    return [
        quote
        for head in heads
        for quote in re.findall(r"\*\*(.+?)\*\*", head)
        if not quote[0].isupper()
    ]


def test_the_errors_that_help_pages_quote_are_said() -> None:
    sources = [
        path
        for folder in ("lipsync_nodes", "lipsync_core")
        for path in (ROOT / folder).rglob("*.py")
    ]
    said = [
        text for path in sources for text in literals(ast.parse(path.read_text(encoding="utf-8")))
    ]
    quotes = [
        (path.name, q)
        for path in sorted(HELP.glob("*.md"))
        for q in quoted(path.read_text(encoding="utf-8"))
    ]
    assert len(quotes) > 10

    def is_said(quote: str) -> bool:
        pattern = ".*".join(re.escape(piece.strip()) for piece in quote.split("..."))
        return any(re.search(pattern, text, re.DOTALL) for text in said)

    assert [(page, quote) for page, quote in quotes if not is_said(quote)] == []
