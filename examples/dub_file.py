"""Dub a video or photo file with the speech of another file.

python examples/dub_file.py FACE SPEECH OUT.mp4
"""

import sys

from lipsync_core import Blend, Encoding, dub


def main(face: str, speech: str, out: str) -> None:
    """Write ``out``: ``face`` speaking ``speech``."""
    report = dub(
        face,
        speech,
        out,
        blend=Blend(mask="mouth", feather=0.1),  # what is replaced, and how soft its border is
        encoding=Encoding(crf=20, overwrite=True),
        on_progress=lambda stage, done, total: print(f"{stage}: {done} of {total}", end="\r"),
    )
    print(f"\n{report.dubbed} of {report.frames} frames dubbed in {report.seconds['total']:.1f} s")
    for warning in report.warnings:
        print("warning:", warning)


if __name__ == "__main__":
    main(*sys.argv[1:])
