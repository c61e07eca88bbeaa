#!/usr/bin/env bash
# A blend shape set to 1 for the Live Link Face protocol is sent as 0.5, 0.67, 0.75 ...: PyLiveLinkFace
# averages the last five values, beginning with a 0, unless no_filter=True, so closures come late and weak.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check PyLiveLinkFace==0.1
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

from pylivelinkface import FaceBlendShape, PyLiveLinkFace

JAW = FaceBlendShape.JawOpen
sender = PyLiveLinkFace(name="demo", fps=30)
sent = []
for _ in range(6):
    sender.set_blendshape(JAW, 1.0)
    sent.append(round(sender.get_blendshape(JAW), 2))
plain = PyLiveLinkFace(name="demo", fps=30)
plain.set_blendshape(JAW, 0.8, no_filter=True)
received = PyLiveLinkFace.decode(plain.encode())[1].get_blendshape(JAW)
print("PyLiveLinkFace", version("PyLiveLinkFace"), "set to 1 six times:", sent, "; with no_filter 0.8 arrives as", round(received, 2))
assert sent == [0.5, 0.67, 0.75, 0.8, 1.0, 1.0], "the behavior has changed"
assert round(received, 2) == 0.8, "the behavior has changed"
PY
