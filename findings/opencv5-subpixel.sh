#!/usr/bin/env bash
# warpAffine of OpenCV 4.13 moves pixels by multiples of 1/32 px (a shift by 0.01 does nothing),
# that of OpenCV 5 by what it is told.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check --no-deps --target "$dir/old" opencv-python-headless==4.13.0.92
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check --no-deps --target "$dir/new" opencv-python-headless==5.0.0.93
cd "$dir"
venv/bin/python - <<'PY'
import subprocess, sys

PROGRAM = """
import cv2, numpy as np
ramp = np.tile(np.arange(64, dtype=np.float32), (8, 1))
moved = [
    float((ramp - cv2.warpAffine(ramp, np.float32([[1, 0, x], [0, 1, 0]]), (64, 8)))[4, 20])
    for x in (0.01, 0.3)
]
print(cv2.__version__, *(f"{x:.4f}" for x in moved))
"""


def run(folder):
    program = f"import sys; sys.path.insert(0, {folder!r})\n{PROGRAM}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


old, new = run("old"), run("new")
for version, first, second in (old, new):
    print(f"opencv {version}: 0.01 px becomes {first}, 0.3 px becomes {second}")
assert old[1:] == ["0.0000", "0.3125"] and new[1:] == ["0.0100", "0.3000"], "the behavior has changed"
PY
