#!/usr/bin/env bash
# Four subtitle libraries read the one time 00:00:01,5 of an SRT file as two different times, and
# drop or shift others.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check srt==3.5.3 pysubs2==1.8.1 webvtt-py==0.6.0 pycaption==2.3.14
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version
from pathlib import Path

import pycaption, pysubs2, srt, webvtt

READERS = {
    "srt": lambda text: [cue.start.total_seconds() for cue in srt.parse(text)],
    "pysubs2": lambda text: [
        cue.start / 1000 for cue in pysubs2.SSAFile.from_string(text, format_="srt")
    ],
    "webvtt-py": lambda text: [cue.start for cue in webvtt.from_srt("a.srt")],
    "pycaption": lambda text: [
        cue.start / 1e6 for cue in pycaption.SRTReader().read(text).get_captions("en-US")
    ],
}
WANTED = {
    "00:00:01,5": {"srt": [1.005], "pysubs2": [1.5], "webvtt-py": ["00:00:01.005"], "pycaption": [1.005]},
    "00:00:01,5000": {"srt": [6.0], "pysubs2": [1.5], "webvtt-py": ["00:00:06.000"], "pycaption": [6.0]},
    "00:00:01": {"srt": [1.0], "pysubs2": [], "webvtt-py": [], "pycaption": [1.0]},
}
for stamp, wanted in WANTED.items():
    text = f"1\n{stamp} --> 00:00:09,000\nHello\n\n"
    Path("a.srt").write_text(text)
    got = {name: read(text) for name, read in READERS.items()}
    for name, starts in got.items():
        print(f"{name} {version(name)}: a cue at {stamp} starts at {starts}")
    assert got == wanted, "the behavior has changed"
PY
