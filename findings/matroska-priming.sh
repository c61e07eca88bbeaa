#!/usr/bin/env bash
# The same Matroska file with AAC gives PyAV 16.1 1024 samples of encoder priming, with a negative
# time stamp, and PyAV 18.1 none: samples strung together move by 21 ms.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check numpy==2.4.6
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check --target "$dir/old" av==16.1.0
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check --target "$dir/new" av==18.1.0
cd "$dir"
venv/bin/python - <<'PY'
import subprocess, sys

READ = """
import av, numpy as np
with av.open("a.mkv") as file:
    frames = list(file.decode(audio=0))
samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
print(av.__version__, int(np.abs(samples).argmax()) - 24000, frames[0].pts)
"""
WRITE = """
import av, numpy as np
from fractions import Fraction
time = np.arange(96000) / 48000 - 0.5
click = (0.8 * np.exp(-((time / 0.0008) ** 2)) * np.cos(12566 * time)).astype(np.float32)
with av.open("a.mkv", "w") as out:
    stream = out.add_stream("aac", 48000, layout="mono")
    frame = av.AudioFrame.from_ndarray(click[None], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for part in (frame, None):
        out.mux(stream.encode(part))
"""


def run(folder, program):
    program = f"import sys; sys.path.insert(0, {folder!r})\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


run("new", WRITE)
old, new = run("old", READ), run("new", READ)
for version, late, first in (old, new):
    print(f"av {version}: the click is {late} samples late, the first time stamp is {first} ms")
assert (old[1:], new[1:]) == (["1024", "-21"], ["0", "0"]), "the behavior has changed"
PY
