#!/usr/bin/env bash
# The pixel aspect ratio that PyAV is given for VP9 is lost in WebM and Matroska; H.264 keeps it,
# because its own stream holds it.
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

def write(path, codec="libx264", count=50, start=0, options=None, aspect=None, times=None):
    """Frames of 64x48 px at 25 fps; frame i is one gray of level 16 + 4 i, red at the top left."""
    with av.open(path, "w") as out:
        stream = out.add_stream(codec, 25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            image = np.full((48, 64, 3), 16 + 4 * i, np.uint8)
            image[:12, :12] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = start + (40 * i if times is None else times[i])
            frame.time_base = Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


print("av", av.__version__)
for path, codec, wanted in (
    ("a.webm", "libvpx-vp9", False),
    ("b.mkv", "libvpx-vp9", False),
    ("c.mkv", "libx264", True),
    ("d.mp4", "libvpx-vp9", True),
):
    write(path, codec, count=5, aspect=Fraction(4, 3))
    with av.open(path) as file:
        got = file.streams.video[0].sample_aspect_ratio
    print(f"{path} with {codec}: wrote 4/3, read {got}")
    assert (got == Fraction(4, 3)) == wanted, "the behavior has changed"
PY
