#!/usr/bin/env bash
# H.264 in AVI: with B-frames PyAV gives frames in display order with time stamps in the order of
# storage, without them the stamps begin one frame late; frame.dts is right in both.
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


def write(path, b_frames):
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", 25, options={"bf": b_frames})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 16 + 5 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


print("av", av.__version__)
for b_frames in ("3", "0"):
    write("a.avi", b_frames)
    with av.open("a.avi") as file:
        frames = list(file.decode(video=0))
    stamps = [frame.pts for frame in frames]
    grays = [int(frame.to_ndarray(format="gray").mean()) for frame in frames]
    print(f"bf={b_frames}: pts {stamps[:8]}, dts {[frame.dts for frame in frames[:8]]}")
    assert grays == sorted(grays), "the order of the frames has changed"
    rising = stamps == sorted(stamps)
    assert rising == (b_frames == "0") and stamps[0] == 1, "the behavior has changed"
PY
