#!/usr/bin/env bash
# A mirrored MP4 (selfie cameras write such a matrix): PyAV calls it turned by 180 degrees, and
# OpenCV turns it upside down in place of mirroring it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$dir"
venv/bin/python - <<'PY'
import struct
from pathlib import Path

from fractions import Fraction

import av
import cv2
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


def mirror(source, target):
    """Put a display matrix that mirrors from left to right into the track header."""
    data = bytearray(Path(source).read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", -one, 0, 0, 0, one, 0, 64 * one, 0, 1 << 30)
    Path(target).write_bytes(data)


write("plain.mp4", count=5)
mirror("plain.mp4", "mirrored.mp4")
with av.open("mirrored.mp4") as file:
    rotation = next(file.decode(video=0)).rotation
print(f"av {av.__version__}: rotation {rotation}")
_, image = cv2.VideoCapture("mirrored.mp4").read()
corners = {"top left": (3, 3), "top right": (3, 60), "bottom left": (44, 3), "bottom right": (44, 60)}
red = [name for name, at in corners.items() if int(image[at][2]) - int(image[at][0]) > 100]
print(f"opencv {cv2.__version__}: the red corner, which belongs at the top right, is at the {red}")
assert rotation in (180, -180) and red == ["bottom right"], "the behavior has changed"
PY
