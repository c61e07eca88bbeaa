"""spandrel itself, which every host has: networks of its architectures, drawn at random, load through us and restore faces."""

import json
import subprocess
from pathlib import Path

import pytest
from launch import PYTHON


@pytest.mark.slow
def test_networks_that_spandrel_builds_restore_faces(tmp_path: Path) -> None:
    script = Path(__file__).with_name("restoring.py")
    done = subprocess.run(
        [PYTHON, str(script), str(tmp_path)], capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = {row["file"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {"gfpgan", "restoreformer", "safetensors", "esrgan"} <= told.keys()
    assert "ESRGAN, which enlarges pictures; wanted one that restores faces" in told.pop("esrgan")["refused"]
    for name, row in told.items():
        assert row["name"].lower() == ("restoreformer" if name == "safetensors" else name)
        assert row["again"] == 0 and row["alone"] < 1e-4, row  # no fresh noise, and a batch is its faces
        left, top, right, bottom = row["changed"]  # the mouth of a face of 160 px at (80, 40), and nothing else
        assert 110 < left < right < 210 and 125 < top < bottom < 205, row
