"""Label the faces of videos and photos with MediaPipe's attention mesh, for train/landmarks.py.

    python label_landmarks.py OUT FILE [FILE ...]

Needs an environment of its own, because MediaPipe wants numpy below 2 (its networks lie in its
wheel; nothing is downloaded):

    python3 -m venv mesh
    mesh/bin/pip install mediapipe==0.10.14 "numpy<2" && mesh/bin/pip install --only-binary :all: av

Writes OUT/FOLDER_NAME.npz for each file: ``times`` (N,) seconds and ``points`` (N,478,2) px of the
frame, float32, NaN where no face was found; the largest face counts. A file that is there already
is not labeled again, so that an interrupted run continues. Two runs may share OUT: each
file is written under another name and renamed.
"""

import os
import sys
from pathlib import Path

import av
import mediapipe as mp
import numpy as np

_LEAST, _MOST = 400, 720  # px: the mesh finds no small faces, and gains nothing from large pictures
_POINTS = 478
_PHOTOS = (".jpg", ".jpeg", ".png")


def target(out: Path, source: Path) -> Path:
    """Return the path of the labels of ``source``.

    Its folder is part of the name, because clips of two people may have the same name.
    """
    return out / f"{source.parent.name}_{source.name}.npz"


def label(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return times (N,) in seconds and points (N,478,2) in px of all frames of ``source``."""
    still = source.suffix.lower() in _PHOTOS
    net = mp.solutions.face_mesh.FaceMesh(
        static_image_mode=still, max_num_faces=1, refine_landmarks=True
    )
    times, points = [], []
    with net, av.open(str(source)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            height, width = image.shape[:2]
            if height < _LEAST:
                image = image.repeat(2, 0).repeat(2, 1)
            elif height > _MOST:
                image = image[::2, ::2]
            found = net.process(np.ascontiguousarray(image)).multi_face_landmarks
            times.append(0.0 if frame.time is None else frame.time)
            if found:
                points.append([(point.x * width, point.y * height) for point in found[0].landmark])
            else:
                points.append(np.full((_POINTS, 2), np.nan))
    return np.array(times, np.float32), np.array(points, np.float32)


def main() -> None:
    """Run the command line."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(sys.argv[2:], 1):
        source = Path(name)
        place = target(out, source)
        if place.exists():
            continue
        times, points = label(source)
        part = place.with_name(f"{place.stem}.{os.getpid()}.part.npz")
        np.savez(part, times=times, points=points)
        part.replace(place)
        found = 1 - np.isnan(points[:, 0, 0]).mean() if len(points) else 0.0
        print(
            f"{number}/{len(sys.argv) - 2} {source.name}: {len(times)} frames, {found:.0%} with a "
            "face",
            flush=True,
        )


if __name__ == "__main__":
    main()
