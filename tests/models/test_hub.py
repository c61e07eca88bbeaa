"""The Hub table and `pull`, against a server on loopback that speaks the Hub's protocol as
huggingface_hub asks it: HEAD and GET of /REPO/resolve/REVISION/PATH answer 302 to another host with
X-Repo-Commit, X-Linked-ETag and X-Linked-Size; the file comes from there and may be asked for in
ranges."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lipsync_core.errors import WeightsError
from lipsync_core.models import hub

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``files``: bytes by REPO/PATH. ``drops``: after how many bytes the next downloads break off.
    ``lost``: how many bytes at the end never come, although the answer is well formed. ``seen``:
    method, path, range of each request."""

    files: dict[str, bytes]
    drops: list[int] = field(default_factory=list)
    lost: int = 0
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    endpoint: str = ""

    def downloads(self) -> list[str | None]:
        return [
            span for method, path, span in self.seen if method == "GET" and path.startswith("/cdn/")
        ]


def handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            served.seen.append((self.command, self.path, self.headers.get("Range")))
            asked = re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            content = served.files.get(f"{asked[1]}/{asked[3]}") if asked else None
            if asked is None or content is None:
                self.reply(404, {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"})
            elif not self.path.startswith("/cdn/"):
                etag = hashlib.sha256(content).hexdigest()
                headers = {
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-ETag": f'"{etag}"',
                    "X-Linked-Size": str(len(content)),
                }
                port = served.endpoint.rpartition(":")[2]
                self.reply(302, headers | {"Location": f"http://localhost:{port}/cdn{self.path}"})
            else:
                self.send(content[: len(content) - served.lost])

        def send(self, content: bytes) -> None:
            span = self.headers.get("Range")
            start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
            status = 206 if span else 200
            ranged = (
                {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
                if span
                else {}
            )
            drop = served.drops.pop(0) if served.drops else len(content)
            self.reply(status, ranged, content[start:], stop=drop)

        def reply(
            self, status: int, headers: dict[str, str], body: bytes = b"", stop: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:stop])
            if stop is not None and stop < len(body):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one file at owner/first/deep/toy.bin, and a table entry `toy` for it."""
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    served = Hub({"owner/first/deep/toy.bin": CONTENT})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    served.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    places = (("owner/first", "deep/toy.bin", "main"), ("owner/mirror", "toy.bin", COMMIT))
    monkeypatch.setitem(
        hub.HUB, "toy", hub.HubFile("toy", "a toy", places, "for play only", SHA256, len(CONTENT))
    )
    monkeypatch.setitem(hub.HUB, "raw", hub.HubFile("raw", "a toy", places, "for play only"))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def folder() -> list[str]:
    return sorted(path.name for path in hub.weights_folder().iterdir())


def test_first_pull_shows_the_licence_and_the_second_asks_nobody(served: Hub) -> None:
    licences: list[str] = []
    steps: list[tuple[int, int | None]] = []

    def pull() -> Path:
        return hub.pull(
            "toy",
            endpoint=served.endpoint,
            on_licence=licences.append,
            on_progress=lambda done, total: steps.append((done, total)),
        )

    path = pull()
    assert path == hub.weights_folder() / "toy.bin" and path.read_bytes() == CONTENT
    assert licences == ["toy.bin: for play only"]
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and steps == sorted(steps)
    assert folder() == ["toy.bin"] and hub.find_file("toy") == path
    served.seen.clear()
    assert pull() == path
    assert served.seen == [] and len(licences) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CONTENT * 12  # the Hub client resumes in steps of 10 MiB
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(hub.HUB, "toy", replace(hub.HUB["toy"], sha256=digest))
    served.files["owner/first/deep/toy.bin"] = content
    served.drops = [12_000_000]
    assert hub.pull("toy", endpoint=served.endpoint).read_bytes() == content
    assert served.downloads() == [None, f"bytes={10 << 20}-"]


def test_a_file_that_ends_early_is_not_kept(served: Hub) -> None:
    served.lost = 1000
    with pytest.raises(WeightsError, match=r"cannot pull toy.*1024000.*1023000"):
        hub.pull("toy", endpoint=served.endpoint)
    assert folder() == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_whoever_hears_of_the_progress_can_stop_it(served: Hub, kind: type[BaseException]) -> None:
    """Not taken for a broken line, for which the mirror would be tried."""

    def stop(done: int, total: int | None) -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        hub.pull("toy", endpoint=served.endpoint, on_progress=stop)
    assert folder() == [] and len(served.downloads()) == 1


def test_a_wrong_hash_is_not_kept_and_both_are_named(served: Hub) -> None:
    other = CONTENT[:-1] + b"!"
    served.files["owner/first/deep/toy.bin"] = other
    with pytest.raises(WeightsError) as caught:
        hub.pull("toy", endpoint=served.endpoint)
    assert SHA256 in str(caught.value) and hashlib.sha256(other).hexdigest() in str(caught.value)
    assert folder() == []


@pytest.mark.parametrize("first", [None, b"another file"])
def test_the_mirror_serves_when_the_first_place_cannot(served: Hub, first: bytes | None) -> None:
    del served.files["owner/first/deep/toy.bin"]
    if first is not None:
        served.files["owner/first/deep/toy.bin"] = first
    served.files["owner/mirror/toy.bin"] = CONTENT
    path = hub.pull("toy", endpoint=served.endpoint)
    assert path.read_bytes() == CONTENT and path.name == "toy.bin"
    assert ("GET", f"/cdn/owner/mirror/resolve/{COMMIT}/toy.bin", None) in served.seen


def test_everywhere_404_names_every_place(served: Hub) -> None:
    served.files.clear()
    with pytest.raises(
        WeightsError, match=r"owner/first/resolve/main/deep/toy.bin: .*404.*owner/mirror.*404"
    ):
        hub.pull("toy", endpoint=served.endpoint)


def test_offline_says_how_to_place_the_file_by_hand(served: Hub) -> None:
    closed = "http://127.0.0.1:9"  # the discard port: no server listens
    with pytest.raises(WeightsError) as caught:
        hub.pull("toy", endpoint=closed)
    text = str(caught.value)
    path = hub.weights_folder() / "toy.bin"
    assert (
        f"download {closed}/owner/first/resolve/main/deep/toy.bin" in text
        and SHA256 in text
        and str(path) in text
    )
    path.write_bytes(CONTENT)  # as told
    assert hub.find_file("toy") == path and hub.pull("toy", endpoint=closed) == path


def test_a_missing_file_names_the_command(served: Hub) -> None:
    with pytest.raises(WeightsError, match="run `lipsync models pull toy`"):
        hub.find_file("toy")
    with pytest.raises(WeightsError, match="run `lipsync models pull raw --allow-unverified`"):
        hub.find_file("raw")
    assert served.seen == []


def test_a_changed_file_is_refused(served: Hub) -> None:
    path = hub.pull("toy", endpoint=served.endpoint)
    path.write_bytes(CONTENT + b"!")
    for use in (hub.find_file, hub.pull):
        with pytest.raises(WeightsError, match=f"expected {SHA256}; delete"):
            use("toy")


def test_an_unverified_file_needs_consent_and_is_then_verified(served: Hub) -> None:
    with pytest.raises(WeightsError, match="raw is unverified"):
        hub.pull("raw", endpoint=served.endpoint)
    assert served.seen == []
    path = hub.pull("raw", endpoint=served.endpoint, allow_unverified=True)
    assert (hub.weights_folder() / "toy.bin.sha256").read_text() == f"{SHA256}  toy.bin\n"
    assert hub.find_file("raw") == path
    path.unlink()
    served.files["owner/first/deep/toy.bin"] = b"another file since"
    with pytest.raises(WeightsError, match=SHA256):
        hub.pull("raw", endpoint=served.endpoint)
    path.write_bytes(b"another file since")
    with pytest.raises(WeightsError, match=SHA256):
        hub.find_file("raw")


def test_an_unverified_file_placed_by_hand_is_recorded_by_pull(served: Hub) -> None:
    hub.weights_folder().mkdir()
    path = hub.weights_folder() / "toy.bin"
    path.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="no recorded hash"):
        hub.find_file("raw")
    assert hub.pull("raw", allow_unverified=True) == path == hub.find_file("raw")
    assert served.seen == []


def test_the_command_honours_hf_endpoint(served: Hub) -> None:
    served.files["camenduru/Wav2Lip/checkpoints/lipsync_expert.pth"] = CONTENT
    command = [
        sys.executable,
        "-c",
        "from lipsync_core.cli.models import app; app()",
        "pull",
        "expert",
    ]
    environment = os.environ | {"HF_ENDPOINT": served.endpoint}
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=False)
    refused = run(command)
    assert (
        refused.returncode != 0 and "expert is unverified" in refused.stderr and served.seen == []
    )
    taken = run([*command, "--allow-unverified"])
    path = hub.weights_folder() / "lipsync_expert.pth"
    assert (
        taken.returncode == 0 and taken.stdout.strip() == str(path) and path.read_bytes() == CONTENT
    )
    assert "never commercial" in taken.stderr and SHA256 in taken.stderr


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        WeightsError, match="'wav2lib'; known: wav2lip, wav2lip-gan, expert, s3fd, yunet, syncnet"
    ):
        hub.pull("wav2lib")


def test_table() -> None:
    assert {name for name, entry in hub.HUB.items() if entry.sha256 is None} == {"expert"}
    for entry in hub.HUB.values():
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    # they share one folder
    assert len({entry.filename for entry in hub.HUB.values()}) == len(hub.HUB)


def test_importing_asks_for_no_network_and_no_hub_client() -> None:
    code = "import sys, lipsync_core.models.hub; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
