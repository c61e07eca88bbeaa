"""Just enough of a W3C WebDriver client to drive headless Chromium: plain HTTP to chromedriver, no
further package."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync --mute-audio --disable-dev-shm-usage "
    "--disable-extensions"
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
CHROMEDRIVER = shutil.which("chromedriver")
MISSING = (
    None
    if CHROMIUM and CHROMEDRIVER
    else "needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
# every wait is this many times as long: on a machine that does other work beside
PATIENCE = float(os.environ.get("LIPSYNC_PATIENCE", "1"))
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Space": " ", "Right": "\ue014"}


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        _call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *args: object) -> Any:
        """The value that ``script`` returns; a promise is waited for."""
        return _call(
            "POST", f"{self._session}/execute/sync", {"script": script, "args": list(args)}
        )

    def press(self, *keys: str) -> None:
        """Press and release real keys, one after another: a character, or a name of ``KEYS``."""
        values = [KEYS.get(key, key) for key in keys]
        strokes = [
            {"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")
        ]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        _call("POST", f"{self._session}/actions", {"actions": actions})

    def click(self, selector: str) -> None:
        found = _call(
            "POST", f"{self._session}/element", {"using": "css selector", "value": selector}
        )
        _call("POST", f"{self._session}/element/{next(iter(found.values()))}/click", {})

    def until(self, script: str, *args: object, seconds: float = 20) -> Any:
        """Wait until ``script`` returns something true, and return that."""
        end = time.monotonic() + seconds * PATIENCE
        while not (value := self.run(script, *args)):
            assert time.monotonic() < end, (
                f"{script} stayed {value}; the page says "
                f"{self.run('return document.body.innerText')}"
            )
            time.sleep(0.03)
        return value

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(_call("GET", f"{self._session}/screenshot")))


@contextmanager
def browsing(
    profile: Path, *, width: int = 1280, height: int = 900, phone: bool = False
) -> Iterator[Browser]:
    """A fresh Chromium with its own profile; ``phone``: touch, and a phone's way to lay out."""
    options: dict[str, Any] = {
        "binary": CHROMIUM,
        "args": [*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"],
    }
    if phone:
        metrics = {
            "width": width,
            "height": height,
            "pixelRatio": 2.0,
            "touch": True,
            "mobile": True,
        }
        options["mobileEmulation"] = {"deviceMetrics": metrics}
    with subprocess.Popen(
        [str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            port = next(
                line.split()[-1].rstrip(".")
                for line in driver.stdout
                if "successfully on port" in line
            )
            root = f"http://127.0.0.1:{port}/session"
            wanted = {
                "capabilities": {
                    "alwaysMatch": {
                        "browserName": "chrome",
                        "goog:chromeOptions": options,
                        "timeouts": {"script": round(30_000 * PATIENCE)},
                    }
                }
            }
            session = f"{root}/{_call('POST', root, wanted)['sessionId']}"
            try:
                yield Browser(session)
            finally:
                _call("DELETE", session)
        finally:
            driver.terminate()


def _call(method: str, url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60 * PATIENCE) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error
