"""Compare the `mini` face detector with YuNet, its teacher: the figures of the model card.

    python -m train.evaluate_detector DATA face_detection_yunet_2023mar.onnx

The clips were not used in training. What YuNet finds on the full frame (score >= 0.7) counts as
true. Each frame is then resized so that its largest face falls into each size band, and both
detectors look at that. Matching is one-to-one, best overlap first, from IoU 0.5 on. Points are
compared with that one look and with the average of six looks at the full frame
(`prepare_detection.label`), because one look of YuNet's scatters.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data
import skimage.io
import torch
from torch import Tensor

from lipsync_core.evaluation.tables import rate_interval
from lipsync_core.faces.detector_mini import MiniDetector
from lipsync_core.faces.detector_yunet import YuNetDetector
from lipsync_core.image.boxes import box_iou
from lipsync_core.models.face_detector import FaceDetector
from lipsync_core.models.weights import load_model
from lipsync_core.types import Detections
from train.prepare_detection import label, yunet_net

BANDS = ((24, 48), (48, 96), (96, 250), (250, 500))  # px, square root of the box's area
JITTER_FRAMES = 60
LONGEST_PX = 1920  # a frame is not blown up past this to reach a band
# not coins.png: it shows heads
EMPTY = ("coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "page.png", "rocket.jpg")
TURNS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # lower ends of bands of the nose's offset
Detect = Callable[[Tensor], Detections]


@dataclass(slots=True)
class Tally:
    """Counts of one detector in one band."""

    wanted: int = 0
    found: int = 0
    false: int = 0
    images: int = 0
    overlaps: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # mean point distance / distance of the eyes
    settled: list[float] = field(default_factory=list)  # the same to the average of six looks

    def row(self) -> str:
        """Return the counts as text."""
        if not self.images:
            return "-"
        recall = 100 * self.found / max(1, self.wanted)
        low, high = (100 * end for end in rate_interval(self.found, self.wanted))
        return (
            f"recall {recall:5.1f} % ({low:.1f}-{high:.1f}) of {self.wanted:4d}, IoU "
            f"{np.mean(self.overlaps or [0]):.3f}, points off "
            f"{100 * np.mean(self.errors or [0]):4.1f} %, from six looks "
            f"{100 * np.mean(self.settled or [0]):4.1f} %, false "
            f"{100 * self.false / self.images:5.1f} per 100 of {self.images} images"
        )


def frames(file: Path, count: int) -> Iterator[np.ndarray]:
    """Yield ``count`` RGB frames (H,W,3), evenly from the first 600 of a video."""
    with av.open(str(file)) as container:
        every = [f for i, f in enumerate(container.decode(video=0)) if i < 600]
    for i in np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int):
        yield every[i].to_ndarray(format="rgb24")


def resized(image: np.ndarray, scale: float) -> tuple[Tensor, Tensor]:
    """Return an image at another scale, (h,w,3), and the exact scale of its width and height."""
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    out = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return torch.from_numpy(out), torch.tensor([size[0] / image.shape[1], size[1] / image.shape[0]])


def sizes(boxes: Tensor) -> Tensor:
    """Return the sizes (F,) of boxes in pixels: the square roots of their areas."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1).sqrt()


def match(overlap: Tensor) -> list[tuple[int, int]]:
    """Return one-to-one pairs (row, column), best overlap first, from 0.5 on."""
    pairs, overlap = [], overlap.clone()
    while overlap.numel() and overlap.max() >= 0.5:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        pairs.append((row, column))
        overlap[row], overlap[:, column] = 0, 0
    return pairs


def settled_points(net: cv2.FaceDetectorYN, image: np.ndarray, truth: Detections) -> Tensor:
    """Return points averaged over six looks of YuNet at an image.

    Args:
        net: YuNet.
        image: RGB (H,W,3).
        truth: the faces.

    Returns:
        (F,5,2) points of the faces, NaN where the looks disagree.
    """
    points = torch.full_like(truth.points, math.nan)
    rows = label(net, np.ascontiguousarray(image[..., ::-1]))
    if rows is not None:
        rows = torch.from_numpy(rows).float()
        for row, column in match(box_iou(truth.boxes, rows[:, :4])):
            points[row] = rows[column, 4:].reshape(5, 2)
    return points


def count(
    tally: Tally, truth: Detections, settled: Tensor, found: Detections, band: tuple[int, int]
) -> None:
    """Add the detections in one image to the counts of a detector.

    Args:
        tally: the counts, changed in place.
        truth: the faces.
        settled: their averaged points (F,5,2).
        found: the detections.
        band: least and largest size of the faces that count, in pixels.
    """
    overlap = box_iou(truth.boxes, found.boxes)
    size = sizes(truth.boxes)
    inside = (size >= band[0]) & (size < band[1])
    pairs = match(overlap)
    tally.images += 1
    tally.wanted += int(inside.sum())
    tally.false += len(found.scores) - len(pairs)
    for row, column in pairs:
        if inside[row]:
            eyes = (truth.points[row, 0] - truth.points[row, 1]).norm()
            tally.found += 1
            tally.overlaps.append(float(overlap[row, column]))
            tally.errors.append(
                float((truth.points[row] - found.points[column]).norm(dim=-1).mean() / eyes)
            )
            if settled[row].isfinite().all():
                tally.settled.append(
                    float((settled[row] - found.points[column]).norm(dim=-1).mean() / eyes)
                )


def recall(
    files: list[Path],
    per_clip: int,
    reference: Detect,
    net: cv2.FaceDetectorYN,
    detectors: dict[str, Detect],
) -> dict[str, list[Tally]]:
    """Count what detectors find of the faces that a reference finds, by band of size.

    Args:
        files: videos.
        per_clip: frames of each.
        reference: the reference.
        net: YuNet, for averaged points.
        detectors: the detectors by name.

    Returns:
        For each detector one count per band.
    """
    tallies = {name: [Tally() for _ in BANDS] for name in detectors}
    rng = np.random.default_rng(0)
    for file in files:
        for image in frames(file, per_clip):
            truth = reference(torch.from_numpy(image))
            if not len(truth.scores):
                continue
            settled = settled_points(net, image, truth)
            for i, band in enumerate(BANDS):
                size = math.exp(rng.uniform(*np.log(band)))
                scale = min(size / float(sizes(truth.boxes).max()), LONGEST_PX / max(image.shape))
                small, ratio = resized(image, scale)
                moved = Detections(
                    truth.boxes * ratio.repeat(2), truth.points * ratio, truth.scores
                )
                for name, detect in detectors.items():
                    count(tallies[name][i], moved, settled * ratio, detect(small), band)
    return tallies


def print_turns(title: str, files: list[Path], reference: Detect, detect: Detect) -> None:
    """Print recall by how far faces are turned: the nose's offset along the line of the eyes.

    Args:
        title: name of the clips.
        files: videos.
        reference: the detector whose faces count as true, with their points.
        detect: the detector.
    """
    tallies = [[0, 0] for _ in TURNS]
    for file in files:
        for image in frames(file, 12):
            truth, found = reference(torch.from_numpy(image)), detect(torch.from_numpy(image))
            matched = {row for row, _ in match(box_iou(truth.boxes, found.boxes))}
            for row, points in enumerate(truth.points):
                eyes = points[1] - points[0]
                offset = (points[2] - points[:2].mean(0)) @ eyes / eyes.square().sum()
                tally = tallies[sum(float(offset.abs()) >= turn for turn in TURNS[1:])]
                tally[0] += row in matched
                tally[1] += 1
    for turn, (matches, wanted) in zip(TURNS, tallies, strict=True):
        print(
            f"  {title}: nose offset from {turn} of the eye distance: {matches} of {wanted} found"
        )


def false_alarms(detectors: dict[str, Detect]) -> dict[str, tuple[int, int]]:
    """Count faces found on five of scikit-image's pictures without faces.

    Each is shown whole and in quarters, at three sizes.

    Args:
        detectors: the detectors by name.

    Returns:
        For each detector the number of faces found and of pictures shown.
    """
    folder = Path(skimage.data.__file__).parent
    alarms = dict.fromkeys(detectors, (0, 0))
    for file in EMPTY:
        image = skimage.io.imread(folder / file)
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
        h, w = image.shape[0] // 2, image.shape[1] // 2
        parts = [image, image[:h, :w], image[:h, w:], image[h:, :w], image[h:, w:]]
        for part in parts:
            for long_side in (240, 480, 640):
                small, _ = resized(np.ascontiguousarray(part), long_side / max(part.shape[:2]))
                for name, detect in detectors.items():
                    found, seen = alarms[name]
                    alarms[name] = found + len(detect(small).scores), seen + 1
    return alarms


def jitter(files: list[Path], detectors: dict[str, Detect]) -> dict[str, list[float]]:
    """Measure how much points scatter from frame to frame.

    The rms of the points' second difference over the first frames, over sqrt(6) (so it equals the
    scatter of points that only scatter) and over the distance of the eyes; smooth motion cancels.

    Args:
        files: videos.
        detectors: the detectors by name.

    Returns:
        For each detector one value per video, NaN unless it finds one face in every frame.
    """
    rows: dict[str, list[float]] = {name: [] for name in detectors}
    for file in files:
        with av.open(str(file)) as container:
            every = [
                f.to_ndarray(format="rgb24")
                for i, f in enumerate(container.decode(video=0))
                if i < JITTER_FRAMES
            ]
        for name, detect in detectors.items():
            found = [detect(torch.from_numpy(image)) for image in every]
            if any(len(d.scores) != 1 for d in found):
                rows[name].append(math.nan)
                continue
            points = torch.cat([d.points for d in found])
            second = points[2:] - 2 * points[1:-1] + points[:-2]
            eyes = (points[:, 0] - points[:, 1]).norm(dim=-1).mean()
            rows[name].append(float(second.square().sum(-1).mean().sqrt() / math.sqrt(6) / eyes))
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("yunet", type=Path)
    parser.add_argument(
        "--weights", default="face_detector", help="a name or path that load_model takes"
    )
    parser.add_argument("--quick", action="store_true", help="val rows only, few frames, no jitter")
    parser.add_argument("--turns", action="store_true", help="only recall by turn of the head")
    args = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = load_model(args.weights, kind="face_detector")
    assert isinstance(model, FaceDetector)
    yunet, net = YuNetDetector(args.yunet), yunet_net(args.yunet)
    mini, whole = MiniDetector(model), MiniDetector(model, long_side=LONGEST_PX)
    detectors: dict[str, Detect] = {
        "yunet": lambda x: yunet.detect(x[None])[0],
        "mini": lambda x: mini.detect(x[None])[0],
        "mini, not reduced": lambda x: whole.detect(x[None])[0],
    }
    val = sorted((args.data / "val/other").iterdir())
    test = sorted((args.data / "test").iterdir())
    grid = [f for f in val + test if f.suffix == ".mpg"] + sorted(
        (args.data / "val/grid_s1").iterdir()
    )[::4]
    rows = {
        "val": [f for f in val if f not in grid],
        "test": [f for f in test if f not in grid and f.suffix != ".md"],
        "grid": grid,
    }
    if args.turns:
        for title in ("val", "test"):
            print_turns(title, rows[title], detectors["yunet"], detectors["mini"])
        return
    if args.quick:
        rows.pop("test")
    for title, files in rows.items():
        per_clip = {"val": 16, "test": 16, "grid": 5}[title] // (4 if args.quick else 1)
        tallies = recall(files, max(2, per_clip), detectors["yunet"], net, detectors)
        print(f"\n{title}: {len(files)} clips")
        for i, band in enumerate(BANDS):
            for name in detectors:
                print(
                    f"  {band[0]:3d}-{band[1]:3d} px  {name:18s} {tallies[name][i].row()}",
                    flush=True,
                )
    print("\npictures without faces (faces found, pictures):", false_alarms(detectors))
    if not args.quick:
        files = [f for t in ("val", "test") for f in rows[t]]
        print(
            "\njitter of the points, % of the eye distance, per clip (nan: not one face in every "
            "frame)"
        )
        table = jitter(files, {name: detectors[name] for name in ("yunet", "mini")})
        for i, file in enumerate(files):
            print(
                f"  {file.stem:24s}",
                {name: round(100 * values[i], 2) for name, values in table.items()},
                flush=True,
            )


if __name__ == "__main__":
    main()
