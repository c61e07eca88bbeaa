"""Dub a face whose place is known, without running a detector.

    python examples/own_tracks.py FACE.mp4 SPEECH OUT.mp4 LEFT TOP RIGHT BOTTOM

The box, in pixels, holds for every frame: a camera on a tripod and a head that stays. For a moving
head give ``FaceTrack`` one box and five points per frame.
"""

import sys

import torch

from lipsync_core import Encoding, FaceTrack, dub
from lipsync_core.media import probe

# Where right eye, left eye, nose, right and left mouth corner usually are in a face box, as
# fractions of its width and height. The person's right eye is on the left of the picture.
USUAL_POINTS = [[0.31, 0.42], [0.69, 0.42], [0.5, 0.62], [0.35, 0.78], [0.65, 0.78]]


def main(face: str, speech: str, out: str, *box: str) -> None:
    """Write ``out``: the face in ``box`` speaks ``speech``."""
    left, top, right, bottom = map(float, box)
    size = torch.tensor([right - left, bottom - top])
    points = torch.tensor([left, top]) + torch.tensor(USUAL_POINTS) * size
    count = probe(face).frames or 1
    track = FaceTrack(
        boxes=torch.tensor([left, top, right, bottom]).expand(count, 4),
        points=points.expand(count, 5, 2),
        visible=torch.ones(count, dtype=torch.bool),
    )
    # The second value of a pair is a name such as "left", or a track. ``people`` says that this
    # track is all there is, so no face is searched for.
    pairs = [(speech, track)]
    dub(face, pairs, out, people=([track], count), encoding=Encoding(overwrite=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
