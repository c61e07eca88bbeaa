"""Measure whether lips and sound of a video agree.

python examples/score.py VIDEO
"""

import sys

from lipsync_core.pipelines.score import score


def main(video: str) -> None:
    """Print the offset and the confidence of every face in ``video``."""
    report = score(video)
    for number, found in enumerate(report.tracks):
        result = found.score
        if result.offset_frames is None:
            print(f"face {number}: no verdict ({result.reason})")
        else:
            late = "early" if result.offset_frames > 0 else "late"
            print(
                f"face {number}: sound {abs(result.offset_ms or 0):.0f} ms {late}, "
                f"confidence {result.confidence:.2f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
