"""Renew workflows/*.json and subgraphs/*.json from workflows/api/*.json: the host's page makes the
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
# leave free, so that links pass above a node instead of behind it).
PLANS: dict[str, list[tuple[str, list[list[str | int]]]]] = {
    "Talk from a photo": [
        ("1. Your photo and speech", [["1"]]),
        ("2. Lip sync", [["2"]]),
        ("3. Result", [["3"], ["4"]]),
    ],
    "Dub a video": [
        ("1. Media and settings", [["1", "2", "3"]]),
        ("2. Lip sync", [["4"]]),
        ("3. Result", [["5"]]),
    ],
    "Dub without a trace": [
        ("1. Media and settings", [["1", "2", "3"]]),
        ("2. Look at the mask", [[400, "4"]]),
        ("3. Lip sync", [["5"]]),
        ("4. Result", [["6"]]),
    ],
    "Two speakers": [
        ("1. Your video and speech", [["1"]]),
        ("2. Who says what", [[80, "4", "2", "3"], [80, "5"], [80, "6", "9"]]),
        ("3. Lip sync", [["7"]]),
        ("4. Result", [["8"]]),
    ],
    "Long video, file to file": [
        ("1. Your video and speech", [["1"], [90, "2"]]),
        ("2. Who speaks", [[190, "3"], [190, "4", "7"]]),
        ("3. Lip sync", [["5"]]),
        ("4. Result", [["6"]]),
    ],
    "Fix sync of an existing clip": [
        ("1. Your clip", [["1"]]),
        ("2. Measure", [[160, "2"]]),
        ("3. Move the sound", [[90, "3", 40, "7", "9"], ["4"]]),
        ("4. Measure again", [[90, "5"]]),
        ("5. Result", [["6", "8", "10"]]),
    ],
    "Quality check of a folder": [
        ("1. Your videos", [["1"]]),
        ("2. Score", [[90, "2"]]),
        ("3. Result", [["3", "5"], ["4"]]),
    ],
}
# What shows something after the run gets the room for it now; the rest are as large as they must
# be. The nodes that a creator replaces are green.
ARRANGE = """
const [groups, title, text] = arguments
const room = {
  LipSync_Wav2LipGenerate: [290, 530], LipSync_PreviewMask: [360, 400], SaveVideo: [400, 480],
  PreviewImage: [420, 280], PreviewAny: [420, 180], StringConcatenate: [420, 180],
}
const paint = ['#8A8', '#3f789e', '#b58b2a', '#b06634', '#88A']
const gap = 60, bar = 30, width = 310
const lines = text.split('\\n').map(line => Math.ceil((line.length || 0.1) / 47))
const note = LiteGraph.createNode('MarkdownNote')
app.graph.add(note)
Object.assign(note, { title, pos: [-width - gap - 20, 0], size: [width, 70 + 15 * lines.reduce((sum, n) => sum + n)] })
note.widgets[0].value = text
let x = 0
groups.forEach(([name, columns], index) => {
  const left = x
  let bottom = 0
  for (const column of columns) {
    let y = 0, widest = 0
    for (const item of column) {
      if (typeof item === 'number') { y += item; continue }
      const node = app.graph.getNodeById(item) ?? app.graph.getNodeById(Number(item))
      const least = node.computeSize()
      node.setSize(room[node.type] ?? [Math.max(270, least[0] + 20), least[1]])
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
  group.pos = [left - 20, -bar - 60]
  group.size = [x - gap - left + 40, bottom + bar + 110]
  x += 30
  if (index === 0 && bottom < 250) note.pos = [-20, bottom + 4 * bar]  // below a short group, so that all fits a screen
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
        page.browser.run(ARRANGE, PLANS[name], f"Read me: {name.lower()}", NOTES[name])
    )
    return {**graph, "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "extra": {}}


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
        api = json.loads((ROOT / f"workflows/api/{name}.json").read_text(encoding="ascii"))
        write(ROOT / f"workflows/{name}.json", workflow(page, name, api))
        if name == "Dub a video":
            write(ROOT / f"subgraphs/{BLUEPRINT}.json", blueprint(page, api))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, profile = furnish(Path(folder) / "host"), Path(folder) / "profile"
        with serving(base) as server, opened(server, profile) as page:
            make(page)


if __name__ == "__main__":
    main()
