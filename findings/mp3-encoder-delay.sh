#!/usr/bin/env bash
# The same MP3 of one second, with a click at 0.5 s, read by four libraries: three trim what the encoder
# added, as its header says; pedalboard returns 46080 samples, and the click 25 ms late.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6 soundfile==0.14.0 miniaudio==1.71 pedalboard==0.9.26
cd "$dir"
venv/bin/python - <<'PY'
import av
import miniaudio
import numpy as np
import pedalboard
import soundfile

RATE = 44100
sound = np.zeros((1, RATE), np.float32)
sound[0, RATE // 2] = 0.9
with av.open("a.mp3", "w") as container:
    stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
    resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=RATE)
    frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))

with av.open("a.mp3") as container:
    found = {"PyAV": np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])}
found["soundfile"] = soundfile.read("a.mp3")[0]
found["miniaudio"] = np.array(miniaudio.decode_file("a.mp3", nchannels=1, sample_rate=RATE).samples)
with pedalboard.io.AudioFile("a.mp3") as file:
    found["pedalboard"] = file.read(file.frames)[0]
print("pedalboard", pedalboard.__version__, "soundfile", soundfile.__version__, "PyAV", av.__version__)
rows = {}
for name, samples in found.items():
    rows[name] = len(samples), round((int(np.abs(samples).argmax()) / RATE - 0.5) * 1000, 1)
    print(name, "gives", rows[name][0], "samples; the click is", rows[name][1], "ms late")
assert rows.pop("pedalboard") == (46080, 25.1), "the behavior has changed"
assert set(rows.values()) == {(RATE, 0.0)}, "the behavior has changed"
PY
