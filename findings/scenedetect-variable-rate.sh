#!/usr/bin/env bash
# A clip of 50 frames with a pause of 0.4 s before frame 10 and a cut at frame 25: PySceneDetect gives the
# cut's time rightly, and calls it frame 29 by one of its backends and 35 by the other; the clip ends at 60.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check scenedetect==0.7.2 av==18.1.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$dir"
venv/bin/python - <<'PY'
from fractions import Fraction

import av
import numpy as np
import scenedetect

av.logging.set_libav_level(av.logging.ERROR)
with av.open("a.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
    for index in range(50):
        picture = np.full((96, 128, 3), 40 if index < 25 else 220, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = index * 40 + (400 if index >= 10 else 0), Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))

print("PySceneDetect", scenedetect.__version__)
found = {}
for backend in ("opencv", "pyav"):
    manager = scenedetect.SceneManager()
    manager.add_detector(scenedetect.ContentDetector(min_scene_len=5))
    manager.detect_scenes(scenedetect.open_video("a.mp4", backend=backend))
    (_, cut), (_, end) = manager.get_scene_list()
    found[backend] = cut.frame_num, round(cut.seconds, 2), end.frame_num
    print(backend, "cut at frame", found[backend][0], "and", found[backend][1], "s; the end at frame", found[backend][2])
assert found == {"opencv": (29, 1.4, 50), "pyav": (35, 1.4, 60)}, "the behavior has changed"
PY
