#!/usr/bin/env bash
# OpenCV reads video tagged BT.2020 (phones, UHD) with another matrix: red (200, 60, 40) becomes
# (240, 13, 37); BT.709 is right, and PyAV is right in both.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$dir"
venv/bin/python - <<'PY'
from fractions import Fraction

import av
import cv2
import numpy as np

COLOR = (200, 60, 40)


def write(path, red, blue, primaries, transfer, matrix):
    """One color, as limited-range YUV with the luma weights of ``matrix``."""
    r, g, b = (level / 255 for level in COLOR)
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = (
        16 + 219 * luma,
        128 + 224 * (b - luma) / (2 * (1 - blue)),
        128 + 224 * (r - luma) / (2 * (1 - red)),
    )
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", 25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, 1
        for i in range(5):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane, level in zip(frame.planes, planes):
                plane.update(bytes([round(level)]) * plane.buffer_size)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


for name, tags, wanted in (
    ("BT.709", (0.2126, 0.0722, 1, 1, 1), True),
    ("BT.2020", (0.2627, 0.0593, 9, 14, 9), False),
):
    write("a.mp4", *tags)
    with av.open("a.mp4") as file:
        right = next(file.decode(video=0)).to_ndarray(format="rgb24")[32, 32].tolist()
    got = cv2.VideoCapture("a.mp4").read()[1][32, 32, ::-1].tolist()
    print(f"{name}: av {av.__version__} reads {right}, opencv {cv2.__version__} reads {got}, true is {list(COLOR)}")
    assert max(abs(a - b) for a, b in zip(right, COLOR)) <= 3, "PyAV has changed"
    off = max(abs(a - b) for a, b in zip(got, COLOR))
    assert (off <= 3) if wanted else (off > 30), "OpenCV has changed"
PY
