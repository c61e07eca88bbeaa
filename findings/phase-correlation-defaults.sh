#!/usr/bin/env bash
# Two cuts of one smooth picture, shifted by 5 and 9 px: scikit-image finds no shift by default, and OpenCV
# a wrong one. With normalization=None, or a window, both are right, with opposite signs and axes swapped.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 opencv-python-headless==5.0.0.93
cd "$dir"
venv/bin/python - <<'PY'
import cv2
import numpy as np
import skimage
from skimage.registration import phase_cross_correlation

noise = np.random.default_rng(0).random((200, 200)).astype(np.float32)
picture = cv2.GaussianBlur(noise, (0, 0), 2)
first = picture[50:146, 40:168].copy()
second = picture[45:141, 49:177].copy()
window = cv2.createHanningWindow((128, 96), cv2.CV_32F)
found = {
    "scikit-image (rows, columns)": phase_cross_correlation(first, second)[0],
    "scikit-image, normalization=None": phase_cross_correlation(first, second, normalization=None)[0],
    "OpenCV (x, y)": np.array(cv2.phaseCorrelate(first, second)[0]),
    "OpenCV with a Hann window": np.array(cv2.phaseCorrelate(first, second, window)[0]),
}
print("scikit-image", skimage.__version__, "OpenCV", cv2.__version__)
for name, shift in found.items():
    print(name, shift.round(1))
plain, unweighted, bare, windowed = found.values()
assert np.abs(plain).max() < 1 < np.abs(bare - (-9, 5)).max(), "the behavior has changed"
assert np.abs(unweighted - (-5, 9)).max() < 0.5, "the behavior has changed"
assert np.abs(windowed - (-9, 5)).max() < 0.5, "the behavior has changed"
PY
