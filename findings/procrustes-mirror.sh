#!/usr/bin/env bash
# A face's points and their mirror image differ by nothing for SciPy's Procrustes analysis, which allows
# reflections; qc-procrustes has a function for either, and moves and scales nothing unless told to.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 qc-procrustes==1.1.3
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import procrustes
import scipy
import scipy.spatial

points = np.random.default_rng(0).standard_normal((20, 2))
mirrored = points * [-1, 1]
moved = 3 * points + 5
scaled = {"translate": True, "scale": True}
found = {
    "scipy, mirrored": scipy.spatial.procrustes(points, mirrored)[2],
    "qc-procrustes rotational, mirrored": procrustes.rotational(points, mirrored, **scaled).error,
    "qc-procrustes orthogonal, mirrored": procrustes.orthogonal(points, mirrored, **scaled).error,
    "scipy, moved and scaled": scipy.spatial.procrustes(points, moved)[2],
    "qc-procrustes rotational by default, moved and scaled": procrustes.rotational(points, moved).error,
}
print("scipy", scipy.__version__, "qc-procrustes", version("qc-procrustes"))
for name, value in found.items():
    print(f"{name}: {value:.4f}")
near = [value < 1e-9 for value in found.values()]
assert near == [True, False, True, True, False], "the behavior has changed"
PY
