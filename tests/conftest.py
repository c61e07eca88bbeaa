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


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `demo_clip` finds what it has made already: all but the two people. Made once, for all
    processes that pytest-xdist starts: read it, and change nothing in it.

    The talking one is dubbed by mini-2, of whose lips the judge is sure in a few seconds: what
    needs it are tests of scoring, preparing and training, not of lips."""
    from filelock import FileLock  # torch brings it

    from lipsync_core.pipelines.demo import SPEECH, make_demo_clip
    from lipsync_core.pipelines.dub import dub
    from lipsync_core.pipelines.track_faces import Finding

    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(root / "demo.lock"):
        if not (root / "demo" / "talking.mp4").exists():
            silent = make_demo_clip(root / "demo", "portrait").video
            dub(
                silent,
                SPEECH,
                root / "demo" / "talking.mp4",
                model="mini-2",
                finding=Finding(cache=False),
            )
        make_demo_clip(root / "demo", "out of sync")
    return root / "demo"


@pytest.fixture(scope="session")
def talking_head(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of the demo's head, 174 px wide, speaking by `mini-2`: read it only."""
    from helpers.heads import write_head

    from lipsync_core.pipelines.demo import make_demo_clip

    out = tmp_path_factory.mktemp("talk") / "talk.mp4"
    return write_head(make_demo_clip(demo_folder, "talking").video, out)


@pytest.fixture(scope="session")
def clip() -> "Tensor":
    """The clip of ``helpers.streams``: do not change it."""
    from helpers.streams import moving_clip

    return moving_clip()
