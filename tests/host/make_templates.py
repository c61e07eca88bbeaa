"""Renew example_workflows/*.json and subgraphs/*.json from example_workflows/api/*.json: the host's page makes the
nodes, we place them.

    COMFYUI_DIR=... COMFYUI_PYTHON=... python tests/host/make_templates.py

Take the oldest ComfyUI that we support: newer ones read its files, not always the other way round.
"""

import json
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from launch import ROOT, furnish, serving
from notes import NOTES
from page import Page, opened

# From left to right: (title of a group, its columns from top to bottom: ids of nodes, and px to
# leave free, so that links pass above a node instead of behind it). The note comes before them.
PLANS: dict[str, list[tuple[str, list[list[str | int]]]]] = {
    "Lip-sync a photo": [
        ("1. Your photo and speech", [["image", "audio", "1"]]),
        ("2. Lip sync", [["2"]]),
        ("3. Result", [["3", "4"]]),
    ],
    "Lip-sync a video": [
        ("1. Your media", [["video", "audio", "1"]]),
        ("2. Lip sync", [["2", "3"], ["4"]]),
        ("3. Result", [["5"]]),
    ],
    "Lip-sync without a trace": [
        ("1. Your media", [["video", "audio", "1"]]),
        ("2. Settings", [["2", "3"], ["4"]]),
        ("3. Lip sync", [["5", "6"]]),
    ],
    "Lip-sync two speakers": [
        ("1. Your video", [["video", "1"]]),
        ("2. Who says what", [["4", "9"], ["2", "5", "3", "6"]]),
        ("3. Lip sync", [["7", "8"]]),
    ],
    "Lip-sync a long video": [
        ("1. Your media", [["video", "audio", "1"]]),
        ("2. Who speaks", [["2", "3"], ["4", "7"]]),
        ("3. Lip sync", [["5", "6"]]),
    ],
    "Lip-sync repair of a clip": [
        ("1. Your clip", [["video", "1"]]),
        ("2. Measure", [["2", "7", "9"]]),
        ("3. Move the sound", [["3", "4", "6"]]),
        ("4. Measure again", [["5", "8", "10"]]),
    ],
    "Lip-sync check of a folder": [
        ("1. Your videos", [["1"]]),
        ("2. Score", [["2"]]),
        ("3. Result", [["3", "4", "5"]]),
    ],
    "Lip-sync a folder": [
        ("1. Your videos", [["1"]]),
        ("2. Lip sync", [["2"]]),
        ("3. Result", [["3", "4"]]),
    ],
    "Lip-sync app, face and voice": [
        ("1. Face and voice", [["1", "2"]]),
        ("2. Lip sync", [["3"]]),
        ("3. Result", [["4", "5"]]),
    ],
}
# The form of App mode: (id of a node, widget), and the nodes whose results are shown.
APPS: dict[str, tuple[list[tuple[int, str]], list[int]]] = {
    "Lip-sync app, face and voice": ([(1, "image"), (2, "file")], [5])
}
# An input of Demo Media, and the node that loads a creator's own media into it. It is bypassed: the
# page leaves it out, and the demo runs.
LOADERS = {
    "image": ("LoadImage", {"image": "example.png"}),
    "video": ("LoadVideo", {}),
    "audio": ("LipSync_LoadAudio", {}),
}
# What shows something after the run gets the room for it now; the rest are as large as they must
# be. The nodes that a creator changes are green.
ARRANGE = """
const [groups, title, text, loaders] = arguments
const room = {
  LipSync_Wav2LipGenerate: [290, 480], LipSync_PreviewMask: [300, 400], SaveVideo: [280, 330],
  PreviewImage: [280, 250], PreviewAny: [280, 150], StringConcatenate: [290, 170], LoadImage: [270, 300],
}
const paint = ['#8A8', '#3f789e', '#b58b2a', '#b06634', '#88A']
const gap = 40, bar = 30, width = 380
const demo = app.graph.nodes.find(node => node.type === 'LipSync_DemoMedia')
const own = {}
for (const [input, [type, values]] of Object.entries(loaders)) {
  if (!groups.some(([, columns]) => columns.some(column => column.includes(input)))) continue
  const loader = own[input] = LiteGraph.createNode(type)
  app.graph.add(loader)
  for (const [name, value] of Object.entries(values)) loader.widgets.find(w => w.name === name).value = value
  loader.connect(0, demo, demo.inputs.findIndex(slot => slot.name === input))
  loader.mode = 4
  loader.title = 'Your ' + input
}
const lines = text.split('\\n').map(line => Math.ceil((line.length || 0.1) / 60))
const note = LiteGraph.createNode('MarkdownNote')
app.graph.add(note)
Object.assign(note, { title, pos: [-width - gap - 30, 0], size: [width, 80 + 16 * lines.reduce((sum, n) => sum + n)] })
note.widgets[0].value = text
let x = 0
groups.forEach(([name, columns], index) => {
  const left = x
  let bottom = 0
  for (const column of columns) {
    let y = 0, widest = 0
    for (const item of column) {
      if (typeof item === 'number') { y += item; continue }
      const node = own[item] ?? app.graph.getNodeById(item) ?? app.graph.getNodeById(Number(item))
      const least = node.computeSize()
      node.setSize(room[node.type] ?? [Math.max(250, least[0] + 10), least[1]])
      node.pos = [x, y]
      if (/_DemoMedia|_LoadVideos/.test(node.type)) Object.assign(node, { color: '#232', bgcolor: '#353' })
      bottom = Math.max(bottom, y + node.size[1])
      widest = Math.max(widest, node.size[0])
      y += node.size[1] + bar + gap
    }
    x += widest + gap
  }
  const group = new LiteGraph.LGraphGroup(name)
  group.color = paint[index]
  app.graph.add(group)
  group.pos = [left - 15, -bar - 50]
  group.size = [x - gap - left + 30, bottom + bar + 70]
  x += 5
})
return JSON.stringify(app.graph.serialize())
"""

# The blueprint: three nodes of a template in one, with (name, type, node, its input) for each
# input.
BLUEPRINT = "Dub video"
INPUTS = [
    ("video", "VIDEO", "LipSync_Wav2LipGenerate", "media"),
    ("audio", "AUDIO", "LipSync_Wav2LipGenerate", "audio"),
    ("tracks", "LIPSYNC_TRACKS", "LipSync_Wav2LipGenerate", "tracks"),
    ("model", "COMBO", "LipSync_LoadLipSyncModel", "model"),
    ("mask", "COMBO", "LipSync_BlendSettings", "mask"),
    ("colour_match", "BOOLEAN", "LipSync_BlendSettings", "colour_match"),
    ("longer", "COMBO", "LipSync_Wav2LipGenerate", "longer"),
]
ABOUT = {
    "BlueprintDescription": "A video speaks other words: model, mask and generation in one node.",
    "BlueprintSearchAliases": ["lip sync", "lipsync", "wav2lip", "dub"],
}
WRAP = """
const [inputs, name] = arguments
const { subgraph, node } = app.graph.convertToSubgraph(new Set(app.graph.nodes))
const find = type => subgraph.nodes.find(inner => inner.type === type)
for (const [input, type, owner, slot] of inputs)
  subgraph.addInput(input, type).connect(find(owner).inputs.find(i => i.name === slot), find(owner))
const last = find('LipSync_Wav2LipGenerate')
subgraph.addOutput('video', 'VIDEO').connect(last.outputs[0], last)
subgraph.name = node.title = name
node.pos = [0, 0]
node.setSize([300, node.computeSize()[1]])
find('LipSync_LoadLipSyncModel').pos = [0, 0]
find('LipSync_BlendSettings').pos = [0, 160]
last.pos = [360, 0]
subgraph.inputNode.pos = [-220, 0]
subgraph.outputNode.pos = [740, 0]
return JSON.stringify(app.graph.serialize())
"""


def workflow(page: Page, name: str, api: dict[str, Any]) -> dict[str, Any]:
    """UI JSON of ``api``, laid out, without what belongs to this window and this moment."""
    page.load_api(api, name)
    graph = json.loads(
        page.browser.run(ARRANGE, PLANS[name], f"Read me: {name.lower()}", NOTES[name], LOADERS)
    )
    extra: dict[str, Any] = {}
    if name in APPS:
        inputs, outputs = APPS[name]
        extra = {"linearMode": True, "linearData": {"inputs": inputs, "outputs": outputs}}
    return {**graph, "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "extra": extra}


def blueprint(page: Page, api: dict[str, Any]) -> dict[str, Any]:
    """The template's nodes between media and file as one subgraph."""
    inner = {
        key: node
        for key, node in api.items()
        if node["class_type"] in {owner for _, _, owner, _ in INPUTS}
    }
    for node in inner.values():
        node["inputs"] = {
            k: v for k, v in node["inputs"].items() if not isinstance(v, list) or v[0] in inner
        }
    page.load_api(inner, BLUEPRINT)
    text: str = page.browser.run(WRAP, INPUTS, BLUEPRINT)
    for index, random in enumerate(
        dict.fromkeys(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))
    ):
        text = text.replace(random, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{BLUEPRINT} {index}")))
    return {**json.loads(text), "extra": ABOUT}


def write(path: Path, graph: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    # some hosts read it as the system's code
    path.write_text(json.dumps(graph, indent=1) + "\n", encoding="ascii")


def make(page: Page) -> None:
    for name in PLANS:
        api = json.loads((ROOT / f"example_workflows/api/{name}.json").read_text(encoding="ascii"))
        write(ROOT / f"example_workflows/{name}.json", workflow(page, name, api))
        if name == "Lip-sync a video":
            write(ROOT / f"subgraphs/{BLUEPRINT}.json", blueprint(page, api))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, profile = furnish(Path(folder) / "host"), Path(folder) / "profile"
        with serving(base) as server, opened(server, profile) as page:
            make(page)


if __name__ == "__main__":
    main()
