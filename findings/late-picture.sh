#!/usr/bin/env bash
# A clip whose picture begins one second after its sound: OpenCV shows its first frame at 0 ms and
# counts 75 frames of which 50 can be read; frames that an edit list hides are counted too.
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


def look(path):
    reader = cv2.VideoCapture(path)
    promised, read, first = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)), 0, None
    while reader.read()[0]:
        first = reader.get(cv2.CAP_PROP_POS_MSEC) if first is None else first
        read += 1
    with av.open(path) as file:
        begins = float(next(file.decode(video=0)).time)
    print(f"{path}: the picture begins at {begins} s; opencv says {first} ms, promises {promised} frames, reads {read}")
    return begins, first, promised, read


print("av", av.__version__, "opencv", cv2.__version__)
write("late.mkv", start=1000)
write("hidden.mp4", start=-1000)
assert look("late.mkv") == (1.0, 0.0, 75, 50), "the behavior has changed"
assert look("hidden.mp4") == (0.0, 0.0, 50, 25), "the behavior has changed"
PY
