#!/usr/bin/env bash
# OpenTimelineIO writes time codes at rate 29.97 but refuses to read them, takes the time code
# 00:01:00;00, which drop frame leaves out, for 00:00:59;28, and 24000/1001 is not 23.976.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check opentimelineio==0.18.1
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

from opentimelineio import opentime

print("opentimelineio", version("opentimelineio"))
written = opentime.to_timecode(opentime.RationalTime(1800, 29.97))
print("1800 frames at 29.97:", written)
try:
    refused = str(opentime.from_timecode(written, 29.97))
except ValueError as error:
    refused = f"ValueError: {error}"
print("read again at 29.97:", refused)
exact = opentime.from_timecode(written, 30000 / 1001)
print("read again at 30000/1001:", exact.value)
absent = opentime.from_timecode("00:01:00;00", 30000 / 1001).value
real = opentime.from_timecode("00:00:59;28", 30000 / 1001).value
print(f"00:01:00;00 is frame {absent:.0f}, 00:00:59;28 is frame {real:.0f}")
same = opentime.RationalTime(24, 24000 / 1001) == opentime.RationalTime(24, 23.976)
print("24 frames at 24000/1001 equal 24 at 23.976:", same)
assert written == "00:01:00;02" and refused.startswith("ValueError"), "the behavior has changed"
assert exact.value == 1800 and absent == real == 1798 and not same, "the behavior has changed"
PY
