#!/usr/bin/env bash
# kaldi-native-fbank adds random dither by default: features of one sound differ from call to
# call; dither = 0 makes them equal.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check kaldi-native-fbank==1.23.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

import kaldi_native_fbank as knf
import numpy as np

sound = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32).tolist()


def features(dither=None):
    options = knf.FbankOptions()
    if dither is not None:
        options.frame_opts.dither = dither
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, sound)
    bank.input_finished()
    return np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)])


by_default = float(np.abs(features() - features()).max())
without = float(np.abs(features(0.0) - features(0.0)).max())
print(f"kaldi-native-fbank {version('kaldi-native-fbank')}: default dither {knf.FbankOptions().frame_opts.dither:.0e}")
print(f"two calls differ by up to {by_default:.4f}, with dither = 0 by {without}")
assert by_default > 1e-4 and without == 0, "the behavior has changed"
PY
