"""The host's own page in headless Chromium: load graphs, turn API JSON into UI JSON, press Run,
take pictures."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.webdriver import Browser, browsing
from launch import Server

READY = """
return Boolean(window.app && app.graph && app.canvas && Object.keys(LiteGraph.registered_node_types).length > 200)
"""
SETTLED = """
return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true), 300))))
"""
LOAD = "return app.loadGraphData(arguments[0], true, true, arguments[1]).then(() => true)"
LOAD_API = "return Promise.resolve(app.loadApiJson(arguments[0], arguments[1])).then(() => true)"
MISSING_NODES = """
const known = new Set(Object.keys(LiteGraph.registered_node_types))
const graphs = [app.graph, ...(app.graph.subgraphs ? app.graph.subgraphs.values() : [])]
const nodes = graphs.flatMap(graph => graph.nodes)
return nodes.filter(n => n.has_errors || !(known.has(n.type) || n.subgraph)).map(n => n.type)
"""
FIT = """
const things = app.graph.nodes.concat(app.graph.groups ?? [])
const box = things.map(n => Array.from(n.getBounding ? n.getBounding() : n.boundingRect))
const left = Math.min(...box.map(b => b[0])), top = Math.min(...box.map(b => b[1]))
const right = Math.max(...box.map(b => b[0] + b[2])), bottom = Math.max(...box.map(b => b[1] + b[3]))
const view = app.canvas.canvas.getBoundingClientRect()
const [x0, y0, x1, y1] = arguments[0]  // margins of the page that bars cover, px
const scale = Math.min((view.width - x0 - x1) / (right - left), (view.height - y0 - y1) / (bottom - top), arguments[1])
app.canvas.ds.scale = scale
app.canvas.ds.offset[0] = (x0 + (view.width - x0 - x1 - (right - left) * scale) / 2) / scale - left
app.canvas.ds.offset[1] = (y0 + (view.height - y0 - y1 - (bottom - top) * scale) / 2) / scale - top
app.canvas.setDirty(true, true)
return [left, top, right, bottom, scale]
"""
MARGINS = (90, 90, 40, 90)  # left, top, right, bottom: the page's own bars


@dataclass(frozen=True, slots=True)
class Page:
    """The editor in one window."""

    browser: Browser
    server: Server

    def load(self, graph: Mapping[str, Any], name: str = "test") -> None:
        """Open UI JSON (what a template holds)."""
        self.browser.run(LOAD, graph, name)
        self.browser.run(SETTLED)

    def load_api(self, prompt: Mapping[str, Any], name: str = "test") -> None:
        """Open API JSON; the page lays the nodes out itself."""
        self.browser.run(LOAD_API, prompt, name)
        self.browser.run(SETTLED)

    def serialize(self) -> dict[str, Any]:
        """The open graph as UI JSON."""
        return json.loads(self.browser.run("return JSON.stringify(app.graph.serialize())"))

    def to_prompt(self) -> dict[str, Any]:
        """The open graph as API JSON."""
        return json.loads(
            self.browser.run("return app.graphToPrompt().then(p => JSON.stringify(p.output))")
        )

    def missing_nodes(self) -> list[str]:
        """Types in the open graph, its subgraphs included, that the host does not have."""
        return self.browser.run(MISSING_NODES)

    def fit(self, *, largest: float = 1.0) -> list[float]:
        """Bring the whole graph into view, magnified at most ``largest`` times; [left, top, right,
        bottom, scale]."""
        found = self.browser.run(FIT, list(MARGINS), largest)
        self.browser.run(SETTLED)
        return found

    def press_run(self) -> None:
        """Click the page's own Run button."""
        self.browser.click("[data-testid='queue-button'], .comfyui-queue-button button")

    def screenshot(self, path: Path) -> Path:
        """The window as it looks now."""
        self.browser.run(SETTLED)
        self.browser.screenshot(path)
        return path


@contextmanager
def opened(
    server: Server, profile: Path, *, width: int = 2000, height: int = 1200
) -> Iterator[Page]:
    """The host's page, loaded and empty. profile: a folder of Chromium's own."""
    with browsing(profile, width=width, height=height) as browser:
        browser.open(server.url)
        browser.until(READY, seconds=120)
        browser.run("app.graph.clear()")
        yield Page(browser, server)
