"""Draw the pictures of the help pages and of the README: the nodes in the host's page, after a run.

COMFYUI_DIR=... COMFYUI_PYTHON=... python tests/host/make_pictures.py
"""

import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from launch import ROOT, furnish, serving
from page import SETTLED, Page, opened

HELP = ROOT / "lipsync_nodes/web/docs"
SCALE = 1.25
# For each node: columns of nodes from left to right (a number: px to leave free), links as
# "from.output > to.input", and widgets that are not as they come. A graph with a node that shows
# something is run.
Plan = tuple[list[list[str | int]], list[str], dict[str, dict[str, Any]]]
SPOKEN = ["DemoMedia.video > Wav2LipGenerate.media", "DemoMedia.audio > Wav2LipGenerate.audio"]
SAVED = "Wav2LipGenerate.media > SaveVideo.video"
SHOWN = ["SyncScore.verdict > PreviewAny.source", "SyncScore.plot > PreviewImage.images"]
LATE = {"DemoMedia": {"clip": "out of sync"}}
VOICE = {"LoadAudio": {"file": "speech.flac"}}
PLANS: dict[str, Plan] = {
    "DemoMedia": ([["DemoMedia"], ["Wav2LipGenerate"], ["SaveVideo"]], [*SPOKEN, SAVED], {}),
    "LoadAudio": (
        [["DemoMedia", "LoadAudio"], ["Wav2LipGenerate"]],
        [SPOKEN[0], "LoadAudio.audio > Wav2LipGenerate.audio"],
        VOICE,
    ),
    "LoadLipSyncModel": (
        [["DemoMedia", "LoadLipSyncModel"], ["Wav2LipGenerate"]],
        [*SPOKEN, "LoadLipSyncModel.model > Wav2LipGenerate.model"],
        {},
    ),
    "LoadFaceRestorer": (
        [["DemoMedia", "LoadFaceRestorer"], ["Wav2LipGenerate"]],
        [*SPOKEN, "LoadFaceRestorer.restorer > Wav2LipGenerate.restorer"],
        {},
    ),
    "LoadVideos": (
        [["LoadVideos"], ["SyncScore"], ["PreviewAny", "PreviewImage"]],
        ["LoadVideos.videos > SyncScore.media", *SHOWN],
        {},
    ),
    "DetectFaces": (
        [["DemoMedia"], ["DetectFaces"], ["PreviewImage"]],
        ["DemoMedia.image > DetectFaces.media", "DetectFaces.preview > PreviewImage.images"],
        {"DemoMedia": {"clip": "two people"}},
    ),
    "SelectFace": (
        [["DetectFaces", "LoadAudio"], ["SelectFace"], ["Wav2LipGenerate"]],
        [
            "DetectFaces.tracks > SelectFace.tracks",
            "LoadAudio.audio > SelectFace.audio",
            "SelectFace.tracks > Wav2LipGenerate.tracks",
        ],
        {"SelectFace": {"rule": "left"}, **VOICE},
    ),
    "BlendSettings": (
        [["DemoMedia", "BlendSettings"], ["Wav2LipGenerate"]],
        [*SPOKEN, "BlendSettings.blend > Wav2LipGenerate.blend"],
        {},
    ),
    "PreviewMask": (
        [["DemoMedia", "BlendSettings"], ["PreviewMask"]],
        ["DemoMedia.video > PreviewMask.media", "BlendSettings.blend > PreviewMask.blend"],
        {"DemoMedia": {"clip": "talking"}},
    ),
    "Wav2LipGenerate": (
        [["DemoMedia", "BlendSettings"], ["Wav2LipGenerate"], ["SaveVideo"]],
        [*SPOKEN, "BlendSettings.blend > Wav2LipGenerate.blend", SAVED],
        {},
    ),
    "SyncScore": (
        [["DemoMedia"], ["SyncScore"], ["PreviewAny", "PreviewImage"]],
        ["DemoMedia.video > SyncScore.media", *SHOWN],
        LATE,
    ),
    "ShiftAudio": (
        [["LoadAudio", "SyncScore"], ["ShiftAudio"], ["SetAudio"]],
        [
            "LoadAudio.audio > ShiftAudio.audio",
            "SyncScore.offset > ShiftAudio.amount",
            "ShiftAudio.audio > SetAudio.audio",
        ],
        VOICE,
    ),
    "SetAudio": (
        [["DemoMedia"], [90, "ShiftAudio"], ["SetAudio"]],
        [
            "DemoMedia.video > SetAudio.video",
            "DemoMedia.audio > ShiftAudio.audio",
            "ShiftAudio.audio > SetAudio.audio",
        ],
        {**LATE, "ShiftAudio": {"amount": -5}},
    ),
}
SHOWING = {"SaveVideo", "PreviewAny", "PreviewImage", "PreviewMask"}
BUILD = """
const [columns, links, values, hero, number] = arguments
const room = {
  Wav2LipGenerate: [290, 290], PreviewMask: [420, 440], SaveVideo: [300, 380], PreviewImage: [360, 230], PreviewAny: [360, 150],
}
const made = {}
app.graph.clear()
app.graph.state.lastNodeId = 100 * number  // the page keeps previews by id
let x = 0
for (const column of columns) {
  let y = 0, widest = 0
  for (const name of column) {
    if (typeof name === 'number') { y += name; continue }
    const node = made[name] = LiteGraph.createNode('LipSync_' + name) ?? LiteGraph.createNode(name)
    app.graph.add(node)
    for (const [widget, value] of Object.entries(values[name] ?? {})) node.widgets.find(w => w.name === widget).value = value
    node.setSize(room[name] ?? [Math.max(250, node.computeSize()[0] + 10), node.computeSize()[1]])
    node.pos = [x, y]
    y += node.size[1] + 70
    widest = Math.max(widest, node.size[0])
  }
  x += widest + 60
}
for (const link of links) {
  const [from, output, to, input] = link.split(/[.> ]+/)
  made[from].connect(made[from].outputs.findIndex(o => o.name === output), made[to],
                     made[to].inputs.findIndex(i => i.name === input))
}
Object.assign(made[hero], { color: '#223', bgcolor: '#335' })
"""
RUN = "return app.queuePrompt(0, 1)"
IDLE = (
    "return fetch('/queue').then(r => r.json()).then(q => q.queue_running.length + "
    "q.queue_pending.length === 0)"
)
SETTINGS = """
const quiet = {
  'Comfy.NodeBadge.NodeSourceBadgeMode': 'None', 'Comfy.NodeBadge.NodeIdBadgeMode': 'None', 'Comfy.Minimap.Visible': false,
}
return Promise.all(Object.entries(quiet).map(([name, value]) => app.extensionManager.setting.set(name, value)))
"""
SEEK = """
return Promise.all([...document.querySelectorAll('video')].map(video => new Promise(done => {
  video.controls = video.autoplay = false
  video.pause()
  video.onseeked = () => done(true)
  video.currentTime = arguments[0]
  setTimeout(done, 2000)
})))
"""
PLACE = """
const [x, y, scale] = arguments
const boxes = app.graph.nodes.map(node => [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30])
  .concat((app.graph.groups ?? []).map(group => [...group.pos, ...group.size]))
const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]))
const view = app.canvas.canvas.getBoundingClientRect()
Object.assign(app.canvas.ds, { scale, offset: [x / scale - left, y / scale - top] })
app.canvas.deselectAll()
app.canvas.setDirty(true, true)
return [view.left + x, view.top + y, view.left + x + (right - left) * scale, view.top + y + (bottom - top) * scale, innerWidth]
"""


def run(page: Page) -> None:
    page.browser.run(RUN)
    time.sleep(1)
    page.browser.until(IDLE, seconds=300)
    time.sleep(3)  # the browser fetches what was made


def picture(
    page: Page, path: Path, *, scale: float, corner: tuple[int, int], second: float, most: int
) -> None:
    """The graph, its left upper corner at ``corner`` of the canvas, as a JPEG of at most ``most``
    bytes."""
    page.browser.run(SEEK, second)
    page.browser.run(PLACE, *corner, scale)
    page.browser.run(SETTLED)  # a node that shows something grows when it is drawn
    *edges, inner = page.browser.run(PLACE, *corner, scale)
    whole = page.screenshot(path.with_suffix(".png"))
    with Image.open(whole) as shot:
        ratio = shot.width / inner
        box = tuple(
            round(edge * ratio + margin)
            for edge, margin in zip(edges, (-14, -14, 14, 14), strict=True)
        )
        cut = shot.convert("RGB").crop(
            (max(0, box[0]), max(0, box[1]), min(shot.width, box[2]), min(shot.height, box[3]))
        )
    whole.unlink()
    for quality in range(90, 30, -5):
        data = io.BytesIO()
        cut.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= most:
            break
    path.write_bytes(data.getvalue())


def make(page: Page) -> None:
    page.browser.run(SETTINGS)
    for number, (name, (columns, links, values)) in enumerate(PLANS.items(), 1):
        page.browser.run(BUILD, columns, links, values, name, number)
        if not SHOWING.isdisjoint(node for column in columns for node in column):
            run(page)
        picture(
            page,
            HELP / f"LipSync_{name}.jpg",
            scale=SCALE,
            corner=(90, 130),
            second=2.3,
            most=58_000,
        )
    page.load(
        json.loads((ROOT / "example_workflows/Lip-sync a video.json").read_text(encoding="ascii")),
        "Lip-sync a video",
    )
    run(page)
    picture(page, ROOT / "docs/comfyui.jpg", scale=1.0, corner=(90, 160), second=2.3, most=120_000)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = furnish(Path(folder) / "host")
        shutil.copy(ROOT / "lipsync_core/assets/demo.flac", base / "input/speech.flac")
        with (
            serving(base) as server,
            opened(server, Path(folder) / "profile", width=1800, height=1200) as page,
        ):
            make(page)


if __name__ == "__main__":
    main()
