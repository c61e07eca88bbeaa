#!/usr/bin/env bash
# PSNR of one pair of pictures: 26.6 dB by scikit-image, 50.8 dB by image-similarity-measures (its
# peak is 4095), -21.5 dB by sewar for the same numbers as float32.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check scikit-image==0.26.0 sewar==0.4.10 opencv-python-headless==4.13.0.92 numpy==2.4.6
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check --no-deps image-similarity-measures==0.3.6 phasepack==1.5
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import sewar
from image_similarity_measures.quality_metrics import psnr
from skimage.metrics import peak_signal_noise_ratio

y, x = np.mgrid[:96, :128]
waves = 128 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5)
a = np.stack([waves, 1.9 * x, 255 - 2.5 * y], 2).clip(0, 255).astype(np.uint8)
noise = np.random.default_rng(0).normal(0, 12, a.shape)
b = (a + noise).clip(0, 255).astype(np.uint8)

got = {
    "scikit-image": peak_signal_noise_ratio(a, b),
    "image-similarity-measures": float(psnr(a, b)),
    "sewar": sewar.psnr(a.astype(np.float32), b.astype(np.float32)),
}
for name, value in got.items():
    print(f"{name} {version(name)}: {value:.1f} dB")
assert [round(float(v), 1) for v in got.values()] == [26.6, 50.8, -21.5], "the behavior has changed"
PY
