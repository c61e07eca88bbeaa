"""spandrel itself, which every host has: networks of its architectures, drawn at random, load
through us and restore faces."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import skimage.io
from client import Client
from graph import Graph, Node
from launch import PYTHON, ROOT

DRAWN = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/host")!r})
from prepare import prepare_torchvision
prepare_torchvision()
import torch
from spandrel.architectures.RestoreFormer import RestoreFormer
torch.manual_seed(0)
torch.save(RestoreFormer().state_dict(), sys.argv[1])
"""


@pytest.mark.slow
def test_networks_that_spandrel_builds_restore_faces(tmp_path: Path) -> None:
    script = Path(__file__).with_name("restoring.py")
    done = subprocess.run(
        [PYTHON, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = {row["file"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {"gfpgan", "restoreformer", "safetensors", "esrgan"} <= told.keys()
    assert (
        "ESRGAN, which enlarges pictures; expected one that restores faces"
        in told.pop("esrgan")["refused"]
    )
    for name, row in told.items():
        assert row["name"].lower() == ("restoreformer" if name == "safetensors" else name)
        # no fresh noise, and a batch is its faces
        assert row["again"] == 0 and row["alone"] < 1e-4, row
        # the mouth of a face of 160 px at (80, 40), and nothing else
        left, top, right, bottom = row["changed"]
        assert 110 < left < right < 210 and 125 < top < bottom < 205, row


@pytest.mark.slow
def test_a_file_of_the_users_has_the_last_word(
    client: Client, graph: Graph, names: dict[str, str]
) -> None:
    """A RestoreFormer drawn at random: its mouths are noise."""
    folder = client.server.base / "models/facerestore_models"
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        [PYTHON, "-c", DRAWN, str(folder / "drawn.pth")], timeout=300, check=False
    )
    assert made.returncode == 0
    photo, voice = (
        graph.add("LoadImage", image=names["photo"]),
        graph.add("LoadAudio", audio=names["voice"]),
    )
    short = graph.add("TrimAudioDuration", audio=voice[0], start_index=0.0, duration=0.12)
    restorer = graph.add("LipSync_LoadFaceRestorer", network="drawn.pth")
    shown: list[Node] = []
    for more in ({}, {"restorer": restorer[0]}):
        spoken = graph.add("LipSync_Wav2LipGenerate", media=photo[0], audio=short[0], **more)
        shown.append(graph.add("PreviewImage", images=spoken[0]))
    outcome = client.finish(graph, seconds=600)
    plain, restored = (
        skimage.io.imread(client.server.path(outcome.files(node.id)[0])).astype(np.float32)
        for node in shown
    )
    changed = np.abs(plain - restored).max(2) > 8
    assert 0.001 < changed.mean() < 0.05  # the mouth of a face of about 75 px in 256
