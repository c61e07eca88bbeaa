"""Measure mouth openings over time by landmarks that the project did not train.

These are MediaPipe's attention mesh and dlib's 68 points.

    python openings.py --points mesh|dlib --out FOLDER [--seconds 8] VIDEO [VIDEO ...]

For ``benchmarks/mouth.py``, which cannot load these packages itself: each needs an environment of
its own, and this script imports nothing of the project.

    python3 -m venv mesh && mesh/bin/pip install mediapipe==0.10.14 "numpy<2" && mesh/bin/pip
    install --only-binary :all: av python3 -m venv dlib && dlib/bin/pip install --only-binary
    dlib-bin dlib-bin "setuptools<81" face_recognition_models dlib/bin/pip install --only-binary
    :all: numpy opencv-python-headless av

Writes FOLDER/PARENT/STEM.npz for each VIDEO .../PARENT/STEM.SUFFIX: ``times`` (N,) in seconds and
``openings`` (N,), the mean distance of three pairs of points of the inner lips over the distance
between the outer corners of the eyes, NaN in frames without a face; and ``size``, the video's
length in bytes. Of several faces the largest counts. A video whose file is there already, written
for as many bytes and the same seconds, is skipped, so that a run that was interrupted continues.

dlib's points are for measuring alone: the licence of their training data allows no commercial use.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

# Pairs of points of the inner lips, upper and lower, left to right, and the outer corners of both
# eyes.
MESH = (((82, 87), (13, 14), (312, 317)), (33, 263))
DLIB = (((61, 67), (62, 66), (63, 65)), (36, 45))
SMALL = 400  # px: pictures of less height are doubled, because both detectors miss small faces
DETECTOR_SIDE = 640  # px: dlib looks for faces in pictures reduced to this
DETECTOR_EVERY = 5  # frames

Opening = Callable[[np.ndarray], float]


def opening(
    points: np.ndarray, layout: tuple[tuple[tuple[int, int], ...], tuple[int, int]]
) -> float:
    """Return the opening of the mouth, in distances between the outer corners of the eyes.

    Args:
        points: (K,2) landmarks.
        layout: Indices of the pairs of inner lip points, and of the outer corners of the eyes.
    """
    lips, (left, right) = layout
    gaps = [np.hypot(*(points[upper] - points[lower])) for upper, lower in lips]
    return float(np.mean(gaps) / np.hypot(*(points[left] - points[right])))


def mesh() -> Opening:
    """Measures the frames of one video, in order, by MediaPipe's attention mesh."""
    import mediapipe

    network = mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True)

    def measure(image: np.ndarray) -> float:
        faces = network.process(np.ascontiguousarray(image)).multi_face_landmarks
        if not faces:
            return np.nan
        points = np.array([(point.x, point.y) for point in faces[0].landmark])
        return opening(points * (image.shape[1], image.shape[0]), MESH)

    return measure


def dlib_points() -> Opening:
    """Measure the frames of one video, in order, by dlib's 68 points.

    The points are found in boxes of its frontal face detector.
    """
    import cv2
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("face_recognition_models is not installed; see the top of this file")
    weights = (
        Path(spec.submodule_search_locations[0]) / "models/shape_predictor_68_face_landmarks.dat"
    )
    detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(weights))
    box, frame = None, 0

    def measure(image: np.ndarray) -> float:
        nonlocal box, frame
        if frame % DETECTOR_EVERY == 0 or box is None:
            scale = min(1.0, DETECTOR_SIDE / max(image.shape[:2]))
            small = (
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                if scale < 1
                else image
            )
            found = max(detector(small, 0), key=lambda face: face.width(), default=None)
            sides = (
                None
                if found is None
                else (found.left(), found.top(), found.right(), found.bottom())
            )
            box = None if sides is None else dlib.rectangle(*(int(side / scale) for side in sides))
        frame += 1
        if box is None:
            return np.nan
        shape = predictor(image, box)
        return opening(
            np.array([(shape.part(i).x, shape.part(i).y) for i in range(68)], float), DLIB
        )

    return measure


def series(video: Path, measure: Opening, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(times (N,), openings (N,)) of the frames of ``video`` up to ``seconds``."""
    times: list[float] = []
    values: list[float] = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            if frame.time is None:
                continue
            if frame.time > seconds:
                break
            image = frame.to_ndarray(format="rgb24")
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            image = np.rot90(image, turns) if turns else image
            if image.shape[0] < SMALL:
                image = image.repeat(2, 0).repeat(2, 1)
            times.append(frame.time)
            values.append(measure(np.ascontiguousarray(image)))
    return np.array(times), np.array(values)


def is_done(target: Path, size: int, seconds: float) -> bool:
    """Whether ``target`` was written for a video of ``size`` bytes and as many ``seconds``."""
    if not target.exists():
        return False
    with np.load(target) as known:
        return int(known["size"]) == size and float(known["seconds"]) == seconds


def main() -> None:
    """Read the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", choices=("mesh", "dlib"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the series")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="how much of each video is measured"
    )
    parser.add_argument("videos", nargs="+", type=Path)
    arguments = parser.parse_args()
    make = mesh if arguments.points == "mesh" else dlib_points
    for number, video in enumerate(arguments.videos, 1):
        target = arguments.out / video.resolve().parent.name / f"{video.stem}.npz"
        size = video.stat().st_size
        if is_done(target, size, arguments.seconds):
            continue
        times, values = series(video, make(), arguments.seconds)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.stem}.{os.getpid()}.part.npz")
        np.savez(part, times=times, openings=values, size=size, seconds=arguments.seconds)
        part.replace(target)
        share = float(np.mean(~np.isnan(values))) if len(values) else 0.0
        print(
            f"{number}/{len(arguments.videos)} {video.name}: {len(values)} frames, {share:.0%} "
            "with a face",
            flush=True,
        )


if __name__ == "__main__":
    main()
