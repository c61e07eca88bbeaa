"""What the facial landmarks are worth on clips that taught nothing: the table of their card.

    python -m train.evaluate_landmarks LABELS FILE [FILE ...]

Faces are found and followed as a dub does it; the labels are those of MediaPipe's mesh
(label_landmarks.py). Per clip: the mean distance of each group of points in % of the distance
between the outer eye corners, the correlation of the mouth's opening, how much the teacher's own
points tremble from frame to frame (a third of the mean second difference), and how sure the network
is.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lipsync_core.faces.selection import select
from lipsync_core.faces.selector import parse_face
from lipsync_core.image.landmarks import (
    INNER_LIPS,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE_BRIDGE,
    NOSE_WINGS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    mouth_opening,
)
from lipsync_core.media.clip import open_clip
from lipsync_core.options import Cut
from lipsync_core.pipelines.track_faces import Finding, find_people
from train.prepare_landmarks import read_labels

GROUPS = {
    "lips": slice(OUTER_LIPS.start, INNER_LIPS.stop),
    "jaw": JAW,
    "eyes": slice(LEFT_EYE.start, RIGHT_EYE.stop),
    "brows": slice(LEFT_BROW.start, RIGHT_BROW.stop),
    "nose": slice(NOSE_BRIDGE.start, NOSE_WINGS.stop),
}
_SECONDS = Fraction(8)


def measure(source: Path, labels: Path) -> dict[str, float] | None:
    """The row of one clip; None where no face, or none with landmarks, is found."""
    footage = open_clip(source, Cut(end=_SECONDS))
    people, _ = find_people(
        footage, Finding(cache=False), torch.device("cpu"), stop=int(_SECONDS * footage.fps)
    )
    if not people:
        return None
    face = select(people, parse_face("largest"))
    if face.dense is None:
        return None
    times, true = read_labels(labels)
    frames = torch.arange(len(face.visible))[face.visible]
    apart = (times[None] - ((frames + face.start) / float(footage.fps))[:, None]).abs()
    nearest = apart.min(1)
    close = nearest.values < 0.25 / float(footage.fps)
    found, wanted = face.dense[frames[close]].float(), true[nearest.indices[close]]
    unit = (wanted[:, LEFT_EYE.start] - wanted[:, RIGHT_EYE.start + 4]).norm(dim=1)
    off = (found - wanted).norm(dim=2) / unit[:, None]
    row = {name: 100 * float(off[:, part].mean()) for name, part in GROUPS.items()}
    row["opening r"] = correlation(mouth_opening(found), mouth_opening(wanted))
    jitter = (wanted[2:] - 2 * wanted[1:-1] + wanted[:-2]).norm(dim=2) / unit[1:-1, None] / 3
    row["teacher trembles"] = 100 * float(jitter[:, GROUPS["lips"]].mean())
    assert face.dense_scores is not None
    row["sure"] = float(face.dense_scores[face.visible].mean())
    return row | {"frames": float(len(found))}


def correlation(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two series (N,)."""
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for source in args.files:
        row = measure(source, args.labels / f"{source.parent.name}_{source.name}.npz")
        if row is None:
            print(f"{source.name}: no landmarks", flush=True)
            continue
        rows.append(row)
        print(
            source.name, " ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True
        )
    if rows:
        print(
            "mean",
            " ".join(f"{name} {np.mean([row[name] for row in rows]):.3f}" for name in rows[0]),
        )


if __name__ == "__main__":
    main()
