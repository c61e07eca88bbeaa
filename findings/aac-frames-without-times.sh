#!/usr/bin/env bash
# Sound frames made from arrays have no time stamps. PyAV encodes them without complaint, but AAC in MP4
# then comes back 23 ms late, and exact where the frames count from 0. Matroska and MP3 are exact both ways.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
import av
import numpy as np

RATE = 44100
sound = np.zeros((1, RATE), np.float32)
sound[0, RATE // 2] = 0.9  # a click at 0.5 s


def click_ms(path, codec, timed):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=RATE)
        for start in range(0, RATE, 4410):
            frame = av.AudioFrame.from_ndarray(sound[:, start : start + 4410], format="fltp", layout="mono")
            frame.sample_rate = RATE
            if timed:
                frame.pts = start
            for part in resampler.resample(frame):
                container.mux(stream.encode(part))
        for part in resampler.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        back = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1)
    return (int(np.abs(back).argmax()) / RATE - 0.5) * 1000


print("PyAV", av.__version__)
late = {}
for path, codec in (("a.mp4", "aac"), ("a.mkv", "aac"), ("a.mp3", "libmp3lame")):
    for timed in (False, True):
        late[path, timed] = round(click_ms(path, codec, timed), 1)
        print(path, "frames with" if timed else "frames without", "time stamps: the click is", late[path, timed], "ms late")
assert late.pop(("a.mp4", False)) == 23.2, "the behavior has changed"
assert set(late.values()) == {0.0}, "the behavior has changed"
PY
