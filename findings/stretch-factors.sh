#!/usr/bin/env bash
# A time stretch by 2 halves the sound in two packages and doubles it in two others. The length is off by
# up to 7 %, and a burst in the middle moves by up to 70 ms.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6 soundfile==0.14.0 pedalboard==0.9.26 audiotsm==0.1.2 pytsmod==0.3.8 audiostretchy==1.3.5
cd "$dir"
venv/bin/python - <<'PY'
import numpy as np
import pedalboard
import pytsmod
import soundfile
from audiostretchy.stretch import AudioStretch
from audiotsm import wsola
from audiotsm.io.array import ArrayReader, ArrayWriter

RATE = 16000
time = np.arange(2 * RATE) / RATE
sound = 0.1 * np.sin(2 * np.pi * 200 * time)
sound += (np.abs(time - 1.025) < 0.025) * 0.8 * np.sin(2 * np.pi * 1500 * time)  # begins at 1.0 s
sound = sound.astype(np.float32)

found = {"pedalboard": pedalboard.time_stretch(sound, RATE, stretch_factor=2.0)[0]}
writer = ArrayWriter(1)
wsola(1, speed=2.0).run(ArrayReader(sound[None]), writer)
found["audiotsm"] = writer.data[0]
found["pytsmod"] = pytsmod.wsola(sound, 2.0)
soundfile.write("a.wav", sound, RATE)
stretch = AudioStretch()
stretch.open("a.wav")
stretch.stretch(ratio=2.0)
stretch.save("b.wav")
found["audiostretchy"] = soundfile.read("b.wav")[0]
rows = {}
for name, samples in found.items():
    samples = np.ravel(samples)
    begins = np.flatnonzero(np.abs(samples) > 0.4)[0] / RATE
    factor = 0.5 if len(samples) < len(sound) else 2
    rows[name] = len(samples) / len(sound), (begins - factor) * 1000
    print(f"{name}: {rows[name][0]:.3f} of the length; the burst begins {rows[name][1]:+.0f} ms from its place")
assert rows["pedalboard"][0] == 0.5 and rows["pytsmod"][0] == 2, "the behavior has changed"
assert rows["audiotsm"][0] < 0.48 and rows["audiostretchy"][0] > 2.02, "the behavior has changed"
assert rows["pytsmod"][1] < -50, "the behavior has changed"
PY
