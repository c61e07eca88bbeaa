"""Memory does not grow with the length of a clip. Run with -m slow: ten minutes of 720p take a
while."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from helpers.dubs import tone

from lipsync_core.media import VideoWriter
from lipsync_core.types import Frames, VideoInfo

# A generator that gives the reference back: what is measured is everything around the network.
PROGRAM = """
import dataclasses, json, re, sys
from pathlib import Path
from lipsync_core import Cut, Encoding, Finding, dub
from lipsync_core.models.wav2lip import MINI, Generator

class PassThrough(Generator):
    def decode(self, mel, skips, target, reference):
        return reference

model = PassThrough(dataclasses.replace(MINI, output="paint"))
report = dub(sys.argv[1], sys.argv[2], sys.argv[3], model=model, finding=Finding(cache=False),
             encoding=Encoding(preset="ultrafast"))
# not ru_maxrss, which a process inherits from the one that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([report.frames, report.dubbed, peak]))
"""


def footage(path: Path, seconds: int) -> Path:
    """720p at 25 fps: a face on a grey wall that drifts to and fro."""
    frame = torch.full((720, 1280, 3), 90, dtype=torch.uint8)
    frame[100:612, 300:812] = torch.from_numpy(skimage.data.astronaut().copy())
    with VideoWriter(
        path, VideoInfo(1280, 720, Fraction(25), None), preset="ultrafast", crf=23
    ) as out:
        for start in range(0, seconds * 25, 25):
            shifts = [round(100 * np.sin((start + i) / 50)) for i in range(25)]
            out.write(Frames(torch.stack([frame.roll(shift, 1) for shift in shifts]), start))
    return path


def peak(folder: Path, seconds: int) -> float:
    face, speech = (
        footage(folder / f"{seconds}.mp4", seconds),
        tone(folder / f"{seconds}.wav", seconds),
    )
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(face),
        str(speech),
        str(folder / f"out{seconds}.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames, dubbed, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert frames == seconds * 25 and dubbed == frames
    return megabytes


@pytest.mark.slow
def test_ten_minutes_need_no_more_memory_than_one(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read in /proc, which this system has not")
    one, ten = peak(tmp_path, 60), peak(tmp_path, 600)
    assert ten - one < 100, f"one minute peaks at {one:.0f} MB, ten at {ten:.0f} MB"


SCORING = """
import re, sys
from pathlib import Path
import torch
from lipsync_core.metrics.lse import ReferenceTrack, score_reference_tracks, score_whole_frame
from lipsync_core.models.syncnet import SyncNet, SyncNetConfig
from lipsync_core.types import Audio, Frames

count = int(sys.argv[1])
small = dict(lip=(2, 2, 2, 2, 2, 4), audio=(2, 2, 2, 2, 2, 4), hidden=4)  # embeddings of full length
syncnet = SyncNet(SyncNetConfig(**small)).eval()
pixels = torch.randint(0, 256, (32, 180, 320, 3), dtype=torch.uint8)
audio = Audio(torch.zeros(1, 640 * count), 16000)
track = ReferenceTrack(0, torch.zeros(count, 4), torch.tensor([[160.0, 90.0, 60.0]]).double().expand(count, 3))
for score in (score_whole_frame, lambda frames, *rest: score_reference_tracks(frames, rest[0], [track], rest[1])[0]):
    done = score((Frames(pixels.clone(), start) for start in range(0, count, 32)), audio, syncnet)
    assert len(done.frame_confidence) == count - 5
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
def test_reference_scores_keep_embeddings_and_no_pictures() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read in /proc, which this system has not")
    few, many = (
        float(
            subprocess.run(
                [sys.executable, "-c", SCORING, n], capture_output=True, text=True, check=True
            ).stdout
        )
        for n in ("320", "3200")
    )
    # as pictures 434 MB more
    assert many - few < 200, f"320 frames peak at {few:.0f} MB, 3200 at {many:.0f} MB"
