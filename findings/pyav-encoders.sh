#!/usr/bin/env bash
# The wheels of PyAV 18.1 write no Vorbis, no Speex and no AV1 by libaom; those of 16.1 do.
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

PROGRAM = """
import av
print(av.__version__)
for name in ("libvorbis", "libspeex", "libaom-av1", "libopus", "libsvtav1"):
    try:
        av.codec.Codec(name, "w")
        print(name)
    except ValueError:
        pass
"""


def run(folder):
    program = f"import sys; sys.path.insert(0, {folder!r})\n{PROGRAM}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


old, new = run("old"), run("new")
for version, *encoders in (old, new):
    print(f"av {version}: {', '.join(encoders)}")
assert old[1:] == ["libvorbis", "libspeex", "libaom-av1", "libopus", "libsvtav1"], "the behavior has changed"
assert new[1:] == ["libopus", "libsvtav1"], "the behavior has changed"
PY
