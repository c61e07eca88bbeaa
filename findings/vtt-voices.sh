#!/usr/bin/env bash
# Who speaks in a WebVTT cue with voice tags: webvtt-py names the first speaker only, pysubs2
# none, and pycaption puts the names into the text.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check pysubs2==1.8.1 webvtt-py==0.6.0 pycaption==2.3.14
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version
from pathlib import Path

import pycaption, pysubs2, webvtt

TEXT = "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<v Ann>Is it you?</v>\n<v Bob>Yes.</v>\n"
Path("a.vtt").write_text(TEXT)
cue = webvtt.read("a.vtt")[0]
print(f"webvtt-py {version('webvtt-py')}: speaker {cue.voice!r}, text {cue.text!r}")
event = pysubs2.load("a.vtt")[0]
print(f"pysubs2 {version('pysubs2')}: speaker {event.name!r}, text {event.text!r}")
written = pycaption.SRTWriter().write(pycaption.WebVTTReader().read(TEXT)).splitlines()[2:4]
print(f"pycaption {version('pycaption')}: text {written!r}")
assert (cue.voice, cue.text) == ("Ann", "Is it you?\nYes."), "webvtt-py has changed"
assert (event.name, event.text) == ("", "Is it you?\\NYes."), "pysubs2 has changed"
assert written == ["Ann: Is it you?", "Bob: Yes."], "pycaption has changed"
PY
