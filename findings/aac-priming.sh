#!/usr/bin/env bash
# AAC written by PyAV comes back 1024 samples (21 ms) late from six of ten files, among them
# fragmented MP4, unless its header waits (delay_moov).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from fractions import Fraction

import av
import numpy as np


def write(path, codec="aac", options=None):
    """Two seconds at 48 kHz with a click at 0.5 s, and nothing else."""
    time = np.arange(96000) / 48000 - 0.5
    click = (0.8 * np.exp(-((time / 0.0008) ** 2)) * np.cos(12566 * time)).astype(np.float32)
    with av.open(path, "w", options=options or {}) as out:
        stream = out.add_stream(codec, 48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for part in (frame, None):
            out.mux(stream.encode(part))


def delay(path):
    """By how many samples the click comes late when decoded samples are strung together."""
    with av.open(path) as file:
        samples = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])
    return int(np.abs(samples).argmax()) - 24000


FRAGMENTED = "frag_keyframe+empty_moov"
CASES = [
    ("a.mp4", {}, 0),
    ("a.mov", {}, 0),
    ("a.mkv", {}, 0),
    ("fragmented.mp4", {"movflags": FRAGMENTED + "+delay_moov"}, 0),
    ("fragmented_at_once.mp4", {"movflags": FRAGMENTED}, 1024),
    ("a.aac", {}, 1024),
    ("a.ts", {}, 1024),
    ("a.flv", {}, 1024),
    ("a.nut", {}, 1024),
    ("a.avi", {}, 1024),
]
print("av", av.__version__)
for path, options, wanted in CASES:
    write(path, options=options)
    got = delay(path)
    print(f"{path}: the click is {got} samples late")
    assert got == wanted, "the behavior has changed"
PY
