"""Cut out the faces that label_landmarks.py labeled, for train/landmarks.py.

    python -m train.prepare_landmarks DATA LABELS OUT.safetensors [--folders train/other portraits
    ...]

One safetensors file holds crops and points. DATA/FOLDER/NAME goes with LABELS/FOLDER_NAME.npz.
Crops are half as wide again as the network's, so that it can be shown faces that are turned,
shifted and scaled.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lipsync_core.image.affine import Framing, apply, crop_to_frame, invert
from lipsync_core.image.crop import crop_pictures
from lipsync_core.image.landmarks import IRISES, MEDIAPIPE_VERTICES, NOSE_BRIDGE
from lipsync_core.media import probe, read_frames
from lipsync_core.models.face_landmarks import EYES_AND_NOSE

# px of the crops kept, in sides of the network's: 128 px of it, at one to one
SIDE, WIDER = 208, 1.625
# folder -> every how many frames: the two long series of one person each add little after the first
# thousand
TEACHING = {
    "portraits": 1,
    "train/other": 3,
    "train/grid_other": 2,
    "train/grid_s4": 4,
    "train/crema_1001": 2,
}
TEACHING |= {"train/grid_s1": 9}
_FRAMING = Framing(
    "eyes",
    points=tuple(((x - 0.5) / WIDER + 0.5, (y - 0.5) / WIDER + 0.5) for x, y in EYES_AND_NOSE),
)


def five_points(points: Tensor) -> Tensor:
    """Return a detector's five points (N,5,2) of faces with 102 points (N,102,2)."""
    return torch.cat(
        [points[:, IRISES], points[:, NOSE_BRIDGE.stop - 1 : NOSE_BRIDGE.stop], points[:, [0, 10]]],
        1,
    )


def read_labels(path: Path) -> tuple[Tensor, Tensor]:
    """Read the labels of a file.

    Returns:
        Times (K,) of frames that have a face, in seconds from the first frame on, and their points
        (K,102,2) in px.
    """
    with np.load(path) as file:
        times, points = torch.from_numpy(file["times"]), torch.from_numpy(file["points"])
    points = points[:, list(MEDIAPIPE_VERTICES)]
    seen = ~points[:, 0, 0].isnan()
    return (times - times[:1])[seen], points[seen]


def cut_faces(source: Path, labels: Path, every: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the faces of every ``every``-th frame of a video.

    Args:
        source: the video or photo.
        labels: its labels.
        every: distance of the frames.

    Yields:
        Crop (3,S,S) uint8, and its points (102,2) in crop px.
    """
    times, points = read_labels(labels)
    fps = probe(source).fps
    for piece in (
        read_frames(source, chunk=1, fps=fps, on_warning=lambda _: None) if len(times) else ()
    ):
        apart = (times - float(piece.start / fps)).abs()
        nearest = int(apart.argmin())
        if piece.start % every or apart[nearest] > float(0.25 / fps):
            continue
        own = points[nearest][None]
        maps = crop_to_frame(torch.zeros(1, 4), five_points(own), _FRAMING, SIDE)
        crop = crop_pictures(piece.pixels, maps, SIDE)[0]
        yield (crop * 255).round().to(torch.uint8), apply(invert(maps), own)[0]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folders", nargs="*", help="instead of those that may teach")
    parser.add_argument(
        "--every", type=int, help="every how many frames, instead of each folder's own number"
    )
    args = parser.parse_args()

    torch.set_num_threads(1)
    crops, points, owners, names = [], [], [], []
    for folder in args.folders or TEACHING:
        for source in sorted((args.data / folder).iterdir()):
            labels = args.labels / f"{source.parent.name}_{source.name}.npz"
            if not labels.exists():
                continue
            person = (
                "portraits" if folder == "portraits" else f"{folder}/{source.stem.split('_')[0]}"
            )
            person = (
                folder
                if folder in ("train/grid_s1", "train/grid_s4", "train/crema_1001")
                else person
            )
            for crop, own in cut_faces(source, labels, args.every or TEACHING.get(folder, 3)):
                if person not in names:
                    names.append(person)
                crops.append(crop)
                points.append(own)
                owners.append(names.index(person))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "crops": torch.stack(crops),
        "points": torch.stack(points),
        "owners": torch.tensor(owners),
    }
    save_file(tensors, args.out, metadata={"people": ",".join(names)})
    print(f"{len(crops)} faces:", {name: owners.count(i) for i, name in enumerate(names)})


if __name__ == "__main__":
    main()
