#!/usr/bin/env bash
# Sharpness as the variance of the Laplacian of one gray picture: 6.9 by OpenCV, 0.000065 by
# scikit-image (which scales uint8 to 0..1), 15306 by SciPy (which wraps around in uint8).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check scikit-image==0.26.0 opencv-python-headless==5.0.0.93 scipy==1.17.1 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import cv2
import numpy as np
from scipy import ndimage
from skimage.filters import laplace

y, x = np.mgrid[:96, :128]
gray = (128 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5)).astype(np.uint8)
got = {
    "opencv-python-headless": cv2.Laplacian(gray, cv2.CV_64F).var(),
    "scikit-image": laplace(gray).var(),
    "scipy": ndimage.laplace(gray).var(),
}
for name, value in got.items():
    print(f"{name} {version(name)}: {value:.3g}")
first, second, third = got.values()
assert 6 < first < 8 and 5e-5 < second < 8e-5 and third > 10_000, "the behavior has changed"
PY
