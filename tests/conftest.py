"""What every test shares: how many threads it may take, in which order files run, and what is made
once for all."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

# Before torch is imported, for what tests start as well. Of several processes each takes one core;
# two threads on a core that does other work beside run ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Files whose tests take longest begin first, so that with pytest-xdist no process is left alone
# with one at the end.
LONGEST = (
    "test_recipe_",
    "test_table3",
    "test_prepare",
    "test_in_memory",
    "test_speakers",
    "test_dub",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.name.startswith(LONGEST))  # otherwise as they were


def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes that pytest-xdist starts."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `demo_clip` finds what it has made already: all but the two people. Made once, for all
    processes: read it, and change nothing in it."""
    from filelock import FileLock  # torch brings it

    from lipsync_core.pipelines.demo import make_demo_clip

    root = _shared_folder(tmp_path_factory)
    with FileLock(root / "demo.lock"):
        make_demo_clip(root / "demo", "out of sync")
    return root / "demo"


@pytest.fixture(scope="session")
def talking_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of the astronaut's head, 224 px wide, speaking by `mini-2`: read it only.

    The judge is sure of its lips in a few seconds: what needs it are tests of scoring, preparing
    and training, not of lips."""
    import skimage.data
    from filelock import FileLock
    from PIL import Image

    from lipsync_core.pipelines.demo import SPEECH
    from lipsync_core.pipelines.dub import dub
    from lipsync_core.pipelines.track_faces import Finding

    root = _shared_folder(tmp_path_factory)
    photo, whole, head = root / "head.png", root / "whole.mkv", root / "head.mp4"
    with FileLock(root / "head.lock"):
        if not head.exists():
            from helpers.heads import write_head

            Image.fromarray(skimage.data.astronaut()[:224, 112:336]).save(photo)
            dub(photo, SPEECH, whole, model="mini-2", finding=Finding(cache=False))
            write_head(whole, head)
    return head


@pytest.fixture(scope="session")
def clip() -> "Tensor":
    """The clip of ``helpers.streams``: do not change it."""
    from helpers.streams import moving_clip

    return moving_clip()
