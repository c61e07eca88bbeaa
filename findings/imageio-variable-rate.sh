#!/usr/bin/env bash
# imageio-ffmpeg reads 50 frames of 3 s at a variable rate as 147 frames at 17.99 fps, which is 8
# s; in Matroska it drops eleven of the fifty.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6 imageio-ffmpeg==0.8.1
cd "$dir"
venv/bin/python - <<'PY'
from importlib.metadata import version

from fractions import Fraction

import av
import imageio_ffmpeg
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


TIMES = [20 * i if i < 25 else 500 + 100 * (i - 25) for i in range(50)]
print("imageio-ffmpeg", version("imageio-ffmpeg"), "with FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
found = {}
for path in ("a.mp4", "a.mkv"):
    write(path, times=TIMES)
    reader = imageio_ffmpeg.read_frames(path)
    facts = next(reader)
    width, height = facts["size"]
    grays = [np.frombuffer(image, np.uint8).reshape(height, width, 3)[30, 40, 0] for image in reader]
    found[path] = len(grays), facts["fps"], len(set(grays))
    print(f"{path}: {len(grays)} frames at {facts['fps']} fps, {len(grays) / facts['fps']:.1f} s of 3 s; {len(set(grays))} of 50 frames")
assert found == {"a.mp4": (147, 17.99, 50), "a.mkv": (75, 25.0, 39)}, "the behavior has changed"
PY
