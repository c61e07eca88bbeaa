#!/usr/bin/env bash
# The dynamic time warping distance of one pair of series is 3.0, 2.0 or 1.41: one package counts diagonal
# steps twice, two take the root of summed squares.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6 dtw-python==1.9.0 fastdtw==0.3.4 tslearn==0.10.0 dtaidistance==2.5.1
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
from dtaidistance import dtw as dtaidistance
from dtw import dtw
from fastdtw import fastdtw
from tslearn.metrics import dtw as tslearn

first = np.array([0, 0, 1, 2, 1, 0, 0, 3, 1.0])
second = np.array([0, 1, 1, 2, 0, 0, 3, 3, 0.0])
found = {
    "dtw-python": dtw(first, second).distance,
    "fastdtw": fastdtw(first, second)[0],
    "tslearn": tslearn(first, second),
    "dtaidistance": dtaidistance.distance(first, second),
}
for name, value in found.items():
    print(name, version(name), round(float(value), 4))
assert [round(float(value), 4) for value in found.values()] == [3.0, 2.0, 1.4142, 1.4142], "the behavior has changed"
PY
