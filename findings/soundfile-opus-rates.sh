#!/usr/bin/env bash
# soundfile writes Ogg Opus at 16 and 48 kHz; at 44.1 kHz it fails with an error that ends before
# its reason.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
import io

import numpy as np
import soundfile

print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__)
results = {}
for rate in (16000, 44100, 48000):
    try:
        soundfile.write(io.BytesIO(), np.zeros(rate), rate, format="OGG", subtype="OPUS")
        results[rate] = "written"
    except soundfile.LibsndfileError as error:
        results[rate] = f"refused: {error.error_string!r}"
    print(rate, results[rate])
assert results[16000] == results[48000] == "written", "the behavior has changed"
assert results[44100].startswith("refused"), "the behavior has changed"
PY
