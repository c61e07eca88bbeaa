#!/usr/bin/env bash
# timecode counts the first frame as 1, so that one second is 1.04 s at 25 fps, and takes 29.97
# fps for drop frame even where the colons say otherwise.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check timecode==1.5.1
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

from timecode import Timecode

print("timecode", version("timecode"))
second = Timecode(25, "00:00:01:00")
print(f"00:00:01:00 at 25 fps: {second.frames} frames, {second.float:.2f} s")
doubled = second + second
print(f"00:00:01:00 plus 00:00:01:00: {doubled}")
minute = Timecode("29.97", "00:01:00:00")
print(f"00:01:00:00 (colons: no drop frame) at 29.97: {minute}, drop frame {minute.drop_frame}")
assert (second.frames, round(second.float, 6)) == (26, 1.04), "the behavior has changed"
assert str(doubled) == "00:00:02:01", "the behavior has changed"
assert (str(minute), minute.drop_frame) == ("00:00:59;28", True), "the behavior has changed"
PY
