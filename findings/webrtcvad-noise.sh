#!/usr/bin/env bash
# webrtcvad in its strictest mode (3) takes a steady 440 Hz tone and white noise for speech in
# every frame.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check webrtcvad-wheels==2.0.14.post1 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import webrtcvad

time = np.arange(16000) / 16000
SOUNDS = {
    "a tone of 440 Hz": 8000 * np.sin(2 * np.pi * 440 * time),
    "white noise": 3000 * np.random.default_rng(0).standard_normal(16000),
    "digital silence": np.zeros(16000),
}
print("webrtcvad-wheels", version("webrtcvad-wheels"), "mode 3, frames of 30 ms")
shares = []
for name, sound in SOUNDS.items():
    detector = webrtcvad.Vad(3)
    frames = sound.astype(np.int16)[: 33 * 480].reshape(33, 480)
    shares.append(sum(detector.is_speech(frame.tobytes(), 16000) for frame in frames) / 33)
    print(f"{name}: {shares[-1]:.0%} speech")
assert shares[0] > 0.9 and shares[1] > 0.9 and shares[2] == 0, "the behavior has changed"
PY
