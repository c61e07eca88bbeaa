"""Studies for the tests: clips whose colour tells a simulated rater the method, and a server that
can be killed."""

import csv
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from lipsync_core.media import AudioSource, VideoWriter
from lipsync_core.study.create import CreatedStudy, create_study
from lipsync_core.types import Audio, Frames, VideoInfo

METHODS = ("method-best", "method-fair", "method-poor")  # red, green, blue
FRAMES = 8
GOOD = {"sync": 4, "quality": 5, "overall": 3}


def write_clip(path: Path, colour: int, *, frames: int = FRAMES, sound: bool = True) -> Path:
    """``frames`` frames at 25 fps of one colour (0 red, 1 green, 2 blue), with a tone, and a
    comment that names the folder."""
    pixels = torch.full((frames, 48, 64, 3), 30, dtype=torch.uint8)
    pixels[..., colour] = 220
    tone = 0.1 * torch.sin(torch.arange(frames * 640) / 16000 * 6.2832 * 440)[None]
    audio = AudioSource(Audio(tone, 16000)) if sound else None
    with VideoWriter(
        path, VideoInfo(64, 48, Fraction(25), None), audio, metadata={"comment": path.parent.name}
    ) as out:
        out.write(Frames(pixels))
    return path


def write_methods(folder: Path, clips: int, methods: int = 3) -> dict[str, Path]:
    """Folders of clips 0.mp4, 1.mp4, ... for the first of ``METHODS``."""
    for colour, name in enumerate(METHODS[:methods]):
        (folder / name).mkdir(parents=True)
        for clip in range(clips):
            write_clip(folder / name / f"{clip}.mp4", colour)
    return {name: folder / name for name in METHODS[:methods]}


def build(
    folder: Path, *, clips: int, raters: int, methods: int = 3, **options: Any
) -> CreatedStudy:
    return create_study(
        folder / "study", write_methods(folder, clips, methods), raters=raters, **options
    )


def link_paths(created: CreatedStudy) -> list[str]:
    """/s/TOKEN of every rater."""
    with created.links.open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


class Server:
    """`lipsync study serve` as a process of its own, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [
            sys.executable,
            "-m",
            "lipsync_core",
            "study",
            "serve",
            str(folder),
            "--port",
            str(self.port),
        ]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("GET", "/")
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < end, (
                    "the server does not start"
                )
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9 (on Windows: TerminateProcess): the process gets no chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """(status, headers, body); ``body`` goes as JSON unless it is bytes. The path is sent as it
        is."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, {"content-type": "application/json", **given})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def task(self, link: str) -> dict[str, Any]:
        return json.loads(self.ask("GET", f"{link}/task")[2])


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()


def vote_on(task: dict[str, Any], *, preferred: int = 0) -> dict[str, Any]:
    return {"task": task["task"], "preferred": preferred, "ratings": [GOOD for _ in task["media"]]}
