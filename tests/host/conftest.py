"""One host for each way torchaudio can be, shared by all tests; and a client that listens to it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import launch
import material
import pytest
from client import Client, connected
from graph import Graph


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.host)
            if launch.HOST is None:
                item.add_marker(pytest.mark.skip(reason="COMFYUI_DIR names no checkout of ComfyUI"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launch.Server]:
    """The host as it should be."""
    with launch.serving(launch.furnish(tmp_path_factory.mktemp("host"))) as running:
        assert f"(IMPORT FAILED): {running.base}" not in running.log(), running.log()
        yield running


@pytest.fixture(scope="session")
def client(server: launch.Server) -> Iterator[Client]:
    with connected(server) as listening:
        yield listening


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test waits for what an earlier one left in a queue."""
    yield
    for name in {"client", "broken", "plainly"} & set(request.fixturenames):
        listening = request.getfixturevalue(name)
        if listening.server.process.poll() is None:
            listening.clear()


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A host whose torchaudio does not import, with the pack in a folder of an ordinary name."""
    base = launch.furnish(tmp_path_factory.mktemp("broken"), launch.PLAIN)
    with launch.serving(base, torchaudio="broken") as running, connected(running) as listening:
        yield listening


@pytest.fixture(scope="session")
def known(client: Client) -> Mapping[str, Any]:
    return client.get("/object_info")


@pytest.fixture
def graph(known: Mapping[str, Any]) -> Graph:
    return Graph(known)


@pytest.fixture(scope="session")
def names(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small real media in the host's input folder: what it is -> its name there."""
    folder = tmp_path_factory.mktemp("media")
    made = {
        "video": material.clip(folder / "face.mp4", material.face(20)),
        "silent": material.clip(folder / "silent.mp4", material.face(20), sound=False),
        "two": material.clip(folder / "two.mp4", material.two_faces(20)),
        "voice": material.voice(folder / "voice.wav", 1.0),
        "photo": material.photo(folder / "photo.png"),
    }
    return {name: client.upload(path) for name, path in made.items()}
