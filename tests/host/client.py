"""What a page does with a running host, in Python: upload, queue, listen, cancel, look at the
history."""

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket
from graph import Node
from launch import PATIENCE, Server

# node id -> {"class_type": ..., "inputs": {...}}: the API format
Prompt = Mapping[str, Mapping[str, Any]]

OUR_ERRORS = ("LipSyncError", "MediaError", "NoFaceError", "WeightsError", "ValueError")


class Refused(Exception):
    """The host did not take a prompt; why."""


@dataclass(frozen=True, slots=True)
class Event:
    """A message of the host's socket; kind: executing, progress ..., ``preview`` for a picture."""

    time: float  # of time.monotonic()
    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended."""

    status: str  # success, error or interrupted
    outputs: Mapping[str, Mapping[str, Any]]  # node id -> what it shows: images, text ...
    error: str  # of the node that failed, without its traceback; empty when none did
    error_type: str
    executed: list[str]  # node ids, in order
    previews: int
    steps: list[tuple[str, int, int]]  # progress: node id, done, total
    seconds: float

    def files(self, *nodes: str) -> list[dict[str, str]]:
        """The files that the nodes show (all nodes: none named), as the history names them."""
        shown = [self.outputs[node] for node in nodes or self.outputs]
        items = [
            item
            for output in shown
            for items in output.values()
            if isinstance(items, list)
            for item in items
        ]
        return [item for item in items if isinstance(item, dict) and "filename" in item]


@dataclass(slots=True)
class Client:
    server: Server
    name: str
    events: list[Event] = field(default_factory=list)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.server.url + path, timeout=60 * PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> Any:
        request = urllib.request.Request(
            self.server.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60 * PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    def upload(self, path: Path) -> str:
        """Upload a file to the host's input folder; return the name that a widget takes."""
        edge = uuid.uuid4().hex
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        rest = f'\r\n--{edge}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{edge}--\r\n'
        body = head.encode() + path.read_bytes() + rest.encode()
        kind = {"content-type": f"multipart/form-data; boundary={edge}"}
        request = urllib.request.Request(f"{self.server.url}/upload/image", body, kind)
        with urllib.request.urlopen(request, timeout=60 * PATIENCE) as answer:
            return json.load(answer)["name"]

    def queue(self, prompt: Prompt) -> str:
        """The id of the queued prompt. Raises ``Refused`` where the host's validation does."""
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": self.name})["prompt_id"]
        except urllib.error.HTTPError as error:
            told = error.read().decode()
        try:
            nodes = json.loads(told)["node_errors"] or {
                "prompt": {"errors": [json.loads(told)["error"]]}
            }
        except ValueError:
            raise Refused(told) from None
        raise Refused(
            [
                fault["details"] or fault["message"]
                for node in nodes.values()
                for fault in node["errors"]
            ]
        )

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def clear(self) -> None:
        """Cancel what a failed test left in the queue, so that the next one does not wait for it."""
        left = self.get("/queue")
        if left["queue_running"] or left["queue_pending"]:
            self.post("/queue", {"clear": True})
            self.interrupt()
            end = time.monotonic() + 60 * PATIENCE
            while self.get("/queue")["queue_running"] and time.monotonic() < end:
                time.sleep(0.1)

    def wait(self, prompt_id: str, *, seconds: float = 120) -> Outcome:
        """Until the prompt is in the history and the socket has told that nothing of it runs:
        either may come last."""
        begun = time.monotonic()
        while not (found := self.get(f"/history/{prompt_id}")) or not self._told_of_the_end(
            prompt_id
        ):
            assert self.server.process.poll() is None, (
                f"the host died:\n{self.server.log()[-4000:]}"
            )
            assert time.monotonic() < begun + seconds * PATIENCE, (
                f"no end after {seconds} s; the host says\n{self.server.log()[-2000:]}"
            )
            time.sleep(0.05)
        return self._outcome(prompt_id, found[prompt_id])

    def run(self, prompt: Prompt, *, seconds: float = 120) -> Outcome:
        return self.wait(self.queue(prompt), seconds=seconds)

    def finish(self, prompt: Prompt, *, seconds: float = 240) -> Outcome:
        """``run`` of what must succeed."""
        outcome = self.run(prompt, seconds=seconds)
        assert outcome.status == "success", outcome.error
        return outcome

    def fail(self, prompt: Prompt) -> str:
        """What the host says of a prompt that must fail: a sentence of ours, after which the host
        lives."""
        outcome = self.run(prompt)
        assert outcome.status == "error", outcome
        assert outcome.error_type.split(".")[-1] in OUR_ERRORS, (outcome.error_type, outcome.error)
        assert len(outcome.error.split()) >= 5, outcome.error  # not a code
        assert self.get("/system_stats")["system"]
        return outcome.error

    def saved(self, outcome: Outcome, node: Node) -> Path:
        """The one file that a node saved."""
        (item,) = outcome.files(node.id)
        path = self.server.path(item)
        assert path.is_file(), path
        return path

    def until(self, kind: str, prompt_id: str, *, seconds: float = 120) -> Event:
        """The first event of a kind since a prompt started, awaited."""
        end = time.monotonic() + seconds * PATIENCE
        while True:
            told = list(self.events)
            starts = [
                i
                for i, e in enumerate(told)
                if e.kind == "execution_start" and e.data["prompt_id"] == prompt_id
            ]
            for event in told[starts[0] :] if starts else []:
                if event.kind == kind:
                    return event
            ended = self.get(f"/history/{prompt_id}")
            assert not ended and time.monotonic() < end, (
                f"no {kind} of {prompt_id}: {json.dumps(ended)[-1500:]}"
            )
            time.sleep(0.02)

    def _told_of_the_end(self, prompt_id: str) -> bool:
        ends = [
            e.data for e in list(self.events) if e.kind == "executing" and e.data["node"] is None
        ]
        return any(data.get("prompt_id") == prompt_id for data in ends)

    def _outcome(self, prompt_id: str, entry: dict[str, Any]) -> Outcome:
        told = dict(entry["status"]["messages"])
        end = {
            "execution_success": "success",
            "execution_error": "error",
            "execution_interrupted": "interrupted",
        }
        (kind,) = told.keys() & end.keys()
        mine = [
            e
            for e in list(self.events)
            if isinstance(e.data, dict) and e.data.get("prompt_id") == prompt_id
        ]
        begun = next(event.time for event in mine if event.kind == "execution_start")
        ended = [event.time for event in mine if event.kind == kind]
        until = ended[0] if ended else time.monotonic()
        return Outcome(
            end[kind],
            entry["outputs"],
            told.get("execution_error", {}).get("exception_message", "").strip(),
            told.get("execution_error", {}).get("exception_type", ""),
            [e.data["node"] for e in mine if e.kind == "executing" and e.data["node"] is not None],
            sum(e.kind == "preview" and begun <= e.time <= until for e in list(self.events)),
            [
                (e.data["node"], e.data["value"], e.data["max"])
                for e in mine
                if e.kind == "progress"
            ],
            (told[kind]["timestamp"] - told["execution_start"]["timestamp"]) / 1000,
        )


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    """A client that listens."""
    client = Client(server, uuid.uuid4().hex)
    wire = websocket.connect(f"{server.url}/ws?clientId={client.name}")
    listener = threading.Thread(target=lambda: client.events.extend(heard(wire)), daemon=True)
    listener.start()
    try:
        yield client
    finally:
        wire.close()


def heard(wire: Any) -> Iterator[Event]:
    for message in websocket.messages(wire):
        if isinstance(message, bytes):
            # two numbers before the picture: event, format
            yield Event(time.monotonic(), "preview", message[8:])
        else:
            told = json.loads(message)
            yield Event(time.monotonic(), told["type"], told["data"])
