"""Dub frames in memory: tensors in, tensors out, and no file between.

    python examples/dub_tensors.py FACE.mp4 SPEECH OUT.mp4

The frames may come from anywhere: here they are read from a file.
"""

import sys
from fractions import Fraction

from lipsync_core import Finding, LipSync, load_model
from lipsync_core.faces.tracking import detect_tracks
from lipsync_core.media import AudioSource, VideoWriter, probe, read_audio, read_frames
from lipsync_core.pipelines.track_faces import load_detector


def main(face: str, speech: str, out: str) -> None:
    """Write ``out``: the video ``face`` speaking ``speech``."""
    model = LipSync(load_model("mini"))
    info = probe(face)
    # One track per person: boxes, five points and visibility in every frame. The detector looks at
    # every fifth frame; in the frames between, tracks are interpolated.
    detector, _ = load_detector(Finding(), "cpu")
    tracks = detect_tracks(read_frames(face), detector, scale=1.0, every=5, fps=info.fps)
    # The model says which sample rate it needs; ``audio.samples`` is (1, T).
    audio = read_audio(speech, rate=model.config.features.rate)
    sound = AudioSource(audio, stop=Fraction(info.frames or 0) / info.fps)
    with VideoWriter(out, info, sound, overwrite=True) as writer:
        # ``stream`` takes and gives chunks of frames; ``chunk.pixels`` is (N, H, W, 3).
        for chunk in model.stream(read_frames(face), audio, fps=info.fps, tracks=tracks):
            writer.write(chunk)


if __name__ == "__main__":
    main(*sys.argv[1:])
