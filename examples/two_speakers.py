"""Dub two people of one video, each with a sound file of their own.

python examples/two_speakers.py FACES.mp4 LEFT.wav RIGHT.wav OUT.mp4
"""

import sys

from lipsync_core import Encoding, dub


def main(faces: str, left: str, right: str, out: str) -> None:
    """Write ``out``: the left person speaks ``left``, the right one ``right``, at the same time."""
    # A face is named as on the command line: left, right, largest, an index, or x,y in pixels.
    # For a conversation, give each file silence while the other person speaks; with
    # ``silence="keep"`` a person's own mouth is shown meanwhile.
    pairs = [(left, "left"), (right, "right")]
    report = dub(faces, pairs, out, encoding=Encoding(overwrite=True))
    print(f"{report.faces} faces found, {report.dubbed} frames dubbed")


if __name__ == "__main__":
    main(*sys.argv[1:])
