#!/usr/bin/env bash
# 1000 samples at 44.1 kHz become 362 at 16 kHz by samplerate and 363 by soxr, SciPy and PyAV;
# 44101 become 16000 by two and 16001 by two; samplerate's linear converter delays as well.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check soxr==1.1.0 samplerate==0.2.4 scipy==1.17.1 av==18.1.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from fractions import Fraction
from importlib.metadata import version

import av
import numpy as np
import samplerate
import scipy.signal
import soxr


def pyav(samples):
    resampler = av.AudioResampler("fltp", "mono", 16000)
    frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
    parts = [part.to_ndarray()[0] for part in resampler.resample(frame) + resampler.resample(None)]
    return np.concatenate(parts)


def bump(count):
    return np.exp(-(((np.arange(count) - count // 2) / 40.0) ** 2)).astype(np.float32)


def delay(samples, wanted):
    """Samples by which the top of a bump lies behind ``wanted``."""
    at = int(samples.argmax())
    a, b, c = samples[at - 1 : at + 2]
    return float(at + 0.5 * (a - c) / (a - 2 * b + c) - wanted)


RESAMPLERS = {
    "soxr": lambda x: soxr.resample(x, 44100, 16000),
    "samplerate": lambda x: samplerate.resample(x, 16000 / 44100, "sinc_best"),
    "scipy": lambda x: scipy.signal.resample_poly(x, 160, 441),
    "av": pyav,
}
lengths = {}
for name, resample in RESAMPLERS.items():
    lengths[name] = len(resample(bump(1000))), len(resample(bump(44101)))
    print(f"{name} {version(name)}: 1000 -> {lengths[name][0]}, 44101 -> {lengths[name][1]}")
late = delay(samplerate.resample(bump(44100), 16000 / 44100, "linear"), 22050 * 16000 / 44100)
print(f"samplerate {version('samplerate')}, linear: {late:.2f} samples late")
wanted = {"soxr": (363, 16000), "samplerate": (362, 16000), "scipy": (363, 16001), "av": (363, 16001)}
assert lengths == wanted and 0.25 < late < 0.45, "the behavior has changed"
PY
