"""Talking videos -> shards: aligned face crops at 25 fps with margin, and the sound at 16 kHz.

    python -m train.prepare OUT [--data ../shared/data] [--yunet face_detection_yunet_2023mar.onnx]

Every clip becomes OUT/<split>/<name>.npy (N,112,112,3) uint8, the aligned 96 px crop with 8 px of margin all round, and
<name>.wav.npy (T,) float32 at 16 kHz; OUT/<split>/index.json lists name, speaker and frames.
"""

import argparse
import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from lipsync_core.geometry import Framing, compose, crop_to_frame, cut, translation

FPS, RATE, SIZE, MARGIN = Fraction(25), 16000, 96, 8
# Frames by which the sound is early, as an expert trained for 200 steps on GRID and these clips found it (median of 35 clips);
# it found 0 for every other speaker of the training split.
OFFSETS = {"korean": -1}


def read_video(path: Path) -> tuple[np.ndarray, Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    times = np.array([t for t, _ in decoded]) - 1e-4
    wanted = np.arange(times[0], times[-1] + 0.5 / float(stream.average_rate), 1 / 25)
    nearest = np.abs(times[None] - wanted[:, None]).argmin(1)
    return np.stack([decoded[i][1] for i in nearest]), Fraction(times[0]).limit_denominator(10000)


def read_sound(path: Path, begin: float) -> np.ndarray:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", RATE)
        blocks, start = [], None
        for frame in container.decode(stream):
            start = frame.time if start is None else start
            blocks += [out.to_ndarray()[0] for out in resampler.resample(frame)]
        blocks += [out.to_ndarray()[0] for out in resampler.resample(None)]
    shift = round((start - begin) * RATE)
    sound = np.concatenate(blocks)
    return np.concatenate([np.zeros(shift, np.float32), sound]) if shift > 0 else sound[-shift:]


def find_points(frames: np.ndarray, detector: "cv2.FaceDetectorYN") -> np.ndarray | None:
    """(N,5,2) smoothed points of the largest face, or None where a face is missing for a second."""
    h, w = frames.shape[1:3]
    k = max(1, round(max(h, w) / 480))
    size = (w // k, h // k)
    detector.setInputSize(size)
    found = np.full((len(frames), 10), np.nan)
    for i, frame in enumerate(frames):
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if k > 1 else frame
        _, faces = detector.detect(np.ascontiguousarray(small[..., ::-1]))
        if faces is not None:
            best = faces[np.argmax(faces[:, 2] * faces[:, 3])]
            found[i] = best[4:14].reshape(5, 2).ravel() * np.tile([w / size[0], h / size[1]], 5)
    seen = ~np.isnan(found[:, 0])
    if seen.sum() < len(frames) - 12:
        return None
    index = np.arange(len(frames))
    filled = np.stack([np.interp(index, index[seen], column[seen]) for column in found.T], 1)
    return gaussian_filter1d(filled, 2.5, axis=0, mode="nearest").reshape(-1, 5, 2)


def crops(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    placed = torch.from_numpy(points).float()
    matrices = crop_to_frame(torch.zeros(len(placed), 4), placed, Framing(), SIZE)
    wide = compose(matrices, translation(torch.full((len(placed), 2), -float(MARGIN))))
    out = []
    for i in range(0, len(frames), 64):
        cut_out = cut(torch.from_numpy(frames[i : i + 64]), wide[i : i + 64], SIZE + 2 * MARGIN)
        out.append((cut_out * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(out)


def prepare(path: Path, out: Path, speaker: str, detector: "cv2.FaceDetectorYN") -> dict | None:
    target = out / f"{path.stem}.npy"
    if not target.exists():
        frames, begin = read_video(path)
        points = find_points(frames, detector)
        if points is None:
            print(f"dropped {path.name}: no face for too long")
            return None
        np.save(out / f"{path.stem}.wav.npy", read_sound(path, float(begin)))
        np.save(target, crops(frames, points))
    count = len(np.load(target, mmap_mode="r"))
    return {"name": path.stem, "speaker": speaker, "frames": count, "offset": OFFSETS.get(speaker, 0)}


def prepare_portraits(folder: Path, out: Path, detector: "cv2.FaceDetectorYN") -> None:
    """All photographs with a face of at least 60 px -> one array (N,112,112,3) uint8."""
    kept = []
    for path in sorted(folder.glob("*.jpg")):
        photo = cv2.imread(str(path))[..., ::-1].copy()
        detector.setInputSize(photo.shape[1::-1])
        _, faces = detector.detect(np.ascontiguousarray(photo[..., ::-1]))
        if faces is not None and faces[0, 2] >= 60:
            kept.append(crops(photo[None], faces[:1, 4:14].reshape(1, 5, 2).astype(np.float64))[0])
    np.save(out, np.stack(kept))
    print(f"{len(kept)} portraits")


def speaker_of(path: Path) -> str:
    if path.parent.name == "grid_s1":
        return "s1"
    if path.suffix == ".mpg":
        return path.stem[:2]
    return path.stem.split("_")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--yunet", type=Path, default=Path("../shared/weights/face_detection_yunet_2023mar.onnx"))
    parser.add_argument("--splits", nargs="+", default=["portraits", "train", "val", "test"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = cv2.FaceDetectorYN.create(str(args.yunet), "", (320, 320), 0.6)
    if "portraits" in args.splits:
        prepare_portraits(args.data / "portraits", args.out / "portraits.npy", detector)
    for split in [s for s in args.splits if s != "portraits"]:
        out = args.out / split
        out.mkdir(parents=True, exist_ok=True)
        files = sorted(p for p in (args.data / split).rglob("*") if p.is_file())
        files.sort(key=lambda p: p.parent.name == "grid_s1")
        index = []
        for k, path in enumerate(files):
            try:
                row = prepare(path, out, speaker_of(path), detector)
            except (av.FFmpegError, IndexError) as error:
                print(f"dropped {path.name}: {error}")
                continue
            index += [row] if row else []
            if k % 20 == 0:
                print(split, k, path.name, flush=True)
                (out / "index.json").write_text(json.dumps(index))
        (out / "index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
