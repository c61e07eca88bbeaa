"""Ten minutes of full HD go from file to file, and the host hardly notices."""

import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import material
import pytest
from client import connected
from graph import Graph
from launch import PYTHON, furnish, serving

REPORT = logging.getLogger("host")  # -o log_cli=true -o log_cli_level=INFO shows it
LIMIT = 1.5e9  # bytes, the host's own 0.6e9 included
WATCH = """
import sys, threading, psutil
process, most, ended = psutil.Process(int(sys.argv[1])), 0, threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.wait(0.05):
    most = max(most, process.memory_info().rss)
print(most)
"""


@contextmanager
def watching(pid: int) -> Iterator[list[int]]:
    """The most memory that a process holds while the block runs, in bytes, 20 looks a second;
    filled in at its end."""
    most: list[int] = []
    command = [PYTHON, "-c", WATCH, str(pid)]  # psutil: the host requires it, we do not
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watcher:
        yield most
        told, _ = watcher.communicate()
    most.append(int(told))


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(60, id="a minute"), pytest.param(600, id="ten minutes", marks=pytest.mark.slow)],
)
def test_a_long_video_does_not_fill_the_memory(tmp_path: Path, seconds: int) -> None:
    base = furnish(tmp_path / "host")
    material.long_clip(base / "input/long.mp4", seconds)
    with serving(base) as server, connected(server) as client:
        graph = Graph(client.get("/object_info"))
        video = graph.add("LoadVideo", file="long.mp4")
        faces = graph.add("LipSync_DetectFaces", media=video[0])
        made = graph.add("LipSync_Wav2LipGenerate", media=video[0], tracks=faces[0])
        save = graph.add("SaveVideo", video=made[0])
        look = graph.add("PreviewImage", images=faces[3])
        with watching(server.process.pid) as most:
            outcome = client.finish(graph, seconds=60 * seconds)
        REPORT.info(
            "%d s of 1080p: %.0f s, at most %.2f GB", seconds, outcome.seconds, most[0] / 1e9
        )
        assert most[0] < LIMIT, f"{most[0] / 1e9:.2f} GB"
        assert len(outcome.files(look.id)) <= 16
        frames, sound, _ = material.played(client.saved(outcome, save))
        assert frames == 25 * seconds and abs(sound - seconds) < 0.1


def test_images_that_would_not_fit_are_refused(tmp_path: Path) -> None:
    """A photograph of 4096 x 4096 and a speech of ten minutes: 15000 frames of 201 MB each."""
    base = furnish(tmp_path / "host")
    material.voice(base / "input/voice.wav", 600)
    with serving(base) as server, connected(server) as client:
        graph = Graph(client.get("/object_info"))
        photo = graph.add("LipSync_DemoMedia", clip="portrait")
        large = graph.add("ImageScale", image=photo[0], width=4096, height=4096)
        voice = graph.add("LipSync_LoadAudio", file="voice.wav")
        made = graph.add("LipSync_Wav2LipGenerate", media=large[0], audio=voice[0])
        graph.add("PreviewImage", images=made[0])
        with watching(server.process.pid) as most:
            outcome = client.run(graph)
        assert (
            outcome.status == "error" and "GB" in outcome.error and "VIDEO" in outcome.error.upper()
        ), outcome
        assert most[0] < 2 * LIMIT, f"{most[0] / 1e9:.2f} GB"
