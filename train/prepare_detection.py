"""Label pictures with YuNet and pack them for train/detector.py.

    python -m train.prepare_detection DATA face_detection_yunet_2023mar.onnx runs/faces.safetensors

One safetensors file holds images, boxes and points. Sources are the folders of DATA that may teach
(`portraits`, `train/*`). YuNet looks at three sizes of each picture and at their mirror images, and
the answers are averaged, because one look scatters. A picture with a face that YuNet is unsure
about is left out: it would teach either way.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from lipsync_core.image.boxes import box_iou

SURE, UNSURE = 0.7, 0.3
FLIPPED_POINTS = [1, 0, 2, 4, 3]
# folder -> pictures per clip (or still): few from the long series of one person, many from the few
# other ones
SOURCES = {"portraits": 1, "train/grid_s1": 1, "train/grid_other": 12, "train/other": 12}
LONE_CLIPS = 60  # pictures of a clip whose person appears in no other clip
STRIDE_OF_FILES = {"train/grid_s1": 4}


def yunet_net(weights: Path) -> cv2.FaceDetectorYN:
    """Load YuNet, with faces that it is unsure about."""
    return cv2.FaceDetectorYN.create(str(weights), "", (320, 320), UNSURE, 0.3, 50)


def yunet_rows(net: cv2.FaceDetectorYN, image: np.ndarray, scale: float, flip: bool) -> np.ndarray:
    """Run YuNet on an image at one scale.

    Args:
        net: YuNet.
        image: BGR (H,W,3).
        scale: the scale.
        flip: whether it sees the mirror image.

    Returns:
        (F,15) xyxy box, five points and score, in px of ``image``.
    """
    height, width = image.shape[:2]
    small = (
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if scale != 1
        else image
    )
    small = np.ascontiguousarray(small[:, ::-1]) if flip else small
    net.setInputSize((small.shape[1], small.shape[0]))
    found = net.detect(small)[1]
    if found is None:
        return np.zeros((0, 15), np.float32)
    ratio = np.array([width / small.shape[1], height / small.shape[0]])
    points = found[:, 4:14].reshape(-1, 5, 2) * ratio
    box = np.concatenate([found[:, :2] * ratio, (found[:, :2] + found[:, 2:4]) * ratio], 1)
    if flip:
        points[..., 0] = width - points[..., 0]
        points = points[:, FLIPPED_POINTS]
        box = np.stack([width - box[:, 2], box[:, 1], width - box[:, 0], box[:, 3]], 1)
    return np.concatenate([box, points.reshape(-1, 10), found[:, 14:]], 1).astype(np.float32)


def label(net: cv2.FaceDetectorYN, image: np.ndarray) -> np.ndarray | None:
    """Label the faces of a picture.

    Returns:
        (F,14) averaged boxes and points, None without a face or with one that YuNet is unsure of.
    """
    fit = min(1.0, 1280 / max(image.shape[:2]))
    looks = [
        yunet_rows(net, image, fit * s, flip) for s in (1.0, 0.7, 0.5) for flip in (False, True)
    ]
    first, every = looks[0], np.concatenate(looks)
    if not len(first) or first[:, 14].min() < SURE:
        return None
    overlap = box_iou(torch.from_numpy(first[:, :4]), torch.from_numpy(every[:, :4])).numpy()
    # another look saw a face that the first did not
    if (overlap.max(0) < 0.5)[every[:, 14] >= 0.5].any():
        return None
    merged = [
        np.average(every[row >= 0.5][:, :14], 0, weights=every[row >= 0.5][:, 14])
        for row in overlap
    ]
    return np.stack(merged)


def pictures(root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield group (a person or a series) and BGR picture of everything that may teach."""
    for folder, per_clip in SOURCES.items():
        files = sorted(p for p in (root / folder).iterdir() if p.is_file())
        for file in files[:: STRIDE_OF_FILES.get(folder, 1)]:
            group = file.stem.split("_")[0] if "other" in folder else folder
            count = LONE_CLIPS if folder == "train/other" and group != "korean" else per_clip
            with av.open(str(file)) as container:
                frames = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
            for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int):
                yield group, frames[i]


def shrink(image: np.ndarray, faces: np.ndarray, long_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of at most ``long_side`` px, and its faces (F,14) in its px."""
    scale = min(1.0, long_side / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    ratio = np.array([size[0] / image.shape[1], size[1] / image.shape[0]], np.float32)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), faces * np.tile(ratio, 7)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("yunet", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--long-side", type=int, default=480)
    args = parser.parse_args()

    cv2.setNumThreads(1)
    net = yunet_net(args.yunet)
    pixels, shapes, groups, faces, owner, seen = [], [], [], [], [], 0
    for group, image in pictures(args.data):
        seen += 1
        found = label(net, image)
        if found is None:
            continue
        image, found = shrink(image, found, args.long_side)
        faces.append(found)
        owner += [len(shapes)] * len(found)
        pixels.append(image[..., ::-1].reshape(-1))
        shapes.append(image.shape[:2])
        groups.append(group)
    names = sorted(set(groups))
    rows = torch.from_numpy(np.concatenate(faces)).float()
    tensors = {
        "pixels": torch.from_numpy(np.concatenate(pixels)),
        "shapes": torch.tensor(shapes),
        "groups": torch.tensor([names.index(g) for g in groups]),
        "boxes": rows[:, :4].contiguous(),
        "points": rows[:, 4:].reshape(-1, 5, 2).contiguous(),
        "owner": torch.tensor(owner),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out, metadata={"groups": ",".join(names)})
    counts = {n: groups.count(n) for n in names}
    print(f"{len(shapes)} of {seen} pictures kept, {len(rows)} faces, per group: {counts}")


if __name__ == "__main__":
    main()
