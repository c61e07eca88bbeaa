"""One host for each way torchaudio can be, shared by all tests; and a client that listens to it."""

from collections.abc import Iterator
from pathlib import Path

import launch
import pytest
from client import Client, connected


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
        yield running


@pytest.fixture(scope="session")
def client(server: launch.Server) -> Iterator[Client]:
    with connected(server) as listening:
        yield listening


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A host whose torchaudio does not import."""
    base = launch.furnish(tmp_path_factory.mktemp("broken"))
    with launch.serving(base, torchaudio="broken") as running, connected(running) as listening:
        yield listening
