"""Measure how dubbed mouths look beside their source: color, sharpness, flicker, and the networks.

    python -m benchmarks.mouth_picture PAIRS.csv --cache FOLDER --out ROWS.json [--root FOLDER]
        [--method mini] [--seconds 8]

Pairs, methods and the cache of dubs are those of ``benchmarks/mouth.py``. Faces and landmarks are
the project's own, found in the source; in the dub landmarks are found again at the same places.
Every third frame is measured, together with the frame before it. Per pair:

color: distance (CIE 1976) of the mean color of the lips from that in the same frame of the source;
color_self: the same between frames of the source that lie half a clip apart. sharpness: variance of
the Laplacian in the box of the lips, by that of the source. flicker: mean change from frame to
frame in the lower face outside the lips, where the source changes by less than two levels of 255,
less that of the source. jumps: the 95th percentile over frames of the mean change in the box of the
lips, less that of the source. Of a photo color and sharpness alone are measured.

At the end the bytes of the model's networks and the CPU milliseconds that they take a frame, on one
thread: speech and landmarks (or the generator) and the detector, without reading, warping, blending
and writing. Means and 95 % bootstrap intervals are those over people.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.draw import polygon2mask
from skimage.filters import laplace

from benchmarks.mouth import Method, Pair, make_dub, mean_over_people, parse_method, read_pairs
from lipsync_core.errors import LipSyncError
from lipsync_core.evaluation.tables import format_markdown
from lipsync_core.faces.landmarks import LandmarkFinder
from lipsync_core.faces.selection import select
from lipsync_core.faces.selector import FaceSelector
from lipsync_core.image.landmarks import INNER_LIPS, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from lipsync_core.media import probe, read_frames
from lipsync_core.media.clip import open_clip
from lipsync_core.models.weights import load_talking_face, weights_file
from lipsync_core.options import Cut
from lipsync_core.pipelines.track_faces import (
    Finding,
    find_people,
    load_detector,
    load_landmarks,
)
from lipsync_core.types import Audio, FaceTrack, Frames

EVERY = 3  # frames
STATIC = 2.0  # levels of 255 by which the source may change
FIGURES = ("color", "color_self", "sharpness", "flicker", "jumps")
CPU = torch.device("cpu")
TIMED = 32  # frames


def lip_color(pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the mean CIE Lab color (3,) of the lips in (H,W,3) uint8; NaN if they have no area."""
    left, top, right, bottom = lip_box(pixels, points)
    part, corner = pixels[top:bottom, left:right], np.array([top, left])
    outer, inner = (
        polygon2mask(part.shape[:2], points[lips, ::-1] - corner)
        for lips in (OUTER_LIPS, INNER_LIPS)
    )
    lips = outer & ~inner
    return rgb2lab(part)[lips].mean(0) if lips.any() else np.full(3, np.nan)


def lip_box(
    pixels: np.ndarray, points: np.ndarray, *, margin: float = 0.0
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the lips' box, larger by ``margin`` eye distances."""
    eyes = float(np.hypot(*(points[RIGHT_EYE.start + 4] - points[LEFT_EYE.start])))
    low = np.floor(points[OUTER_LIPS].min(0) - margin * eyes).astype(int).clip(0)
    high = np.ceil(points[OUTER_LIPS].max(0) + margin * eyes).astype(int) + 1
    height, width = pixels.shape[:2]
    return int(low[0]), int(low[1]), min(int(high[0]), width), min(int(high[1]), height)


def lip_sharpness(pixels: np.ndarray, points: np.ndarray) -> float:
    """Return the variance of the Laplacian of the gray levels in the box of the lips."""
    left, top, right, bottom = lip_box(pixels, points)
    return float(laplace(pixels[top:bottom, left:right].mean(2)).var())


def changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return (H,W) how many levels pixels change by, the mean over colors."""
    return np.abs(after.astype(np.float32) - before).mean(2)


def measure_change(
    source: np.ndarray, dub: np.ndarray, points: np.ndarray
) -> tuple[float, float, float]:
    """Measure one change from frame to frame.

    Args:
        source: (2,H,W,3) neighboring frames.
        dub: (2,H,W,3) the same of the dub.
        points: (102,2) landmarks of the dub's second frame.

    Returns:
        Flicker (NaN without static parts), and the changes of the lips in dub and source, in levels
        of 255.
    """
    left, top, right, bottom = lip_box(source[0], points, margin=0.5)
    old, new = (
        changes(*pair[:, top:bottom, left:right].astype(np.float32)) for pair in (source, dub)
    )
    a, b, c, d = lip_box(source[0], points)
    lips = np.zeros(old.shape, bool)
    lips[b - top : d - top, a - left : c - left] = True
    static = ~lips & (old < STATIC)
    flicker = float((new - old)[static].mean()) if static.any() else np.nan
    return flicker, float(new[lips].mean()), float(old[lips].mean())


def read_alike(
    source: Path, dub: Path, person: FaceTrack, finder: LandmarkFinder, *, seconds: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield neighboring frames (2,H,W,3) of source and dub, and landmarks of each one's second."""
    info, still = probe(dub), probe(source).still
    stop = min(int(seconds * info.fps), info.frames or 10**9)
    shown = frames_of(source, info.fps, stop)
    if still:
        shown = repeat(next(shown))
    dubbed = frames_of(dub, info.fps, stop)
    earlier: tuple[np.ndarray, np.ndarray] | None = None
    for index, (old, padded) in enumerate(zip(shown, dubbed, strict=False)):
        new = padded[: old.shape[0], : old.shape[1]]  # odd sides are padded
        place = (0 if still else index) - person.start
        known = 0 <= place < len(person.visible) and bool(person.visible[place])
        if earlier is not None and index % EVERY == 0 and known:
            box, points = person.boxes[place][None], person.points[place][None]
            marks = [
                finder.find(Frames(torch.from_numpy(picture)[None]), box, points)[0][0].numpy()
                for picture in (old, np.ascontiguousarray(new))
            ]
            yield np.stack([earlier[0], old]), np.stack([earlier[1], new]), marks[0], marks[1]
        earlier = old, new


def frames_of(video: Path, fps: Fraction, stop: int) -> Iterator[np.ndarray]:
    """Yield single frames (H,W,3) uint8."""
    for piece in read_frames(video, fps=fps, chunk=8, stop=stop):
        yield from piece.pixels.numpy()


def measure_pair(
    pair: Pair, dub: Path, finder: LandmarkFinder, *, seconds: float
) -> dict[str, float | None]:
    """The figures of one dub, None where there are none."""
    still = probe(pair.face).still
    clip = open_clip(pair.face, Cut())
    people, _ = find_people(clip, Finding(), CPU, stop=int(seconds * clip.fps) + 1)
    person = select(people, FaceSelector())
    colors: list[tuple[np.ndarray, np.ndarray]] = []
    sharp: list[float] = []
    moved: list[tuple[float, float, float]] = []
    for old, new, before, after in read_alike(pair.face, dub, person, finder, seconds=seconds):
        colors.append((lip_color(old[1], before), lip_color(new[1], after)))
        sharp.append(lip_sharpness(new[1], after) / max(lip_sharpness(old[1], before), 1e-9))
        moved.append(measure_change(old, new, after))
    if not colors:
        return dict.fromkeys(FIGURES)
    own, made = (np.stack(one) for one in zip(*colors, strict=True))
    half = len(own) // 2
    flicker, dub_jumps, own_jumps = np.array(moved).T
    figures = {
        "color": np.nanmean(np.linalg.norm(made - own, axis=1)),
        "color_self": None
        if still
        else np.nanmean(np.linalg.norm(own[half:] - own[: len(own) - half], axis=1)),
        "sharpness": np.median(sharp),
        "flicker": None if still else np.nanmean(flicker),
        "jumps": None if still else np.quantile(dub_jumps, 0.95) - np.quantile(own_jumps, 0.95),
    }
    return {
        name: None if value is None or np.isnan(value) else float(value)
        for name, value in figures.items()
    }


def time_networks(method: Method) -> str:
    """Say how large the networks of a method are, and how long they take."""
    torch.set_num_threads(1)
    model = load_talking_face(weights_file(method.model)).eval()
    files = {weights_file(name) for name in (method.model, "face_detector", "face_landmarks")}
    finder, (detector, _) = load_landmarks(CPU), load_detector(Finding(), CPU)
    features = model.config.features
    hiss = Audio(torch.randn(1, 3 * features.rate) * 0.05, features.rate)
    windows = features.windows(hiss, Fraction(25), 0, TIMED)
    size = model.config.size
    crops = torch.rand(TIMED, 3, size, size)
    frames = Frames(torch.randint(0, 255, (8, 360, 640, 3), dtype=torch.uint8))
    boxes = torch.tensor([[220.0, 80, 420, 300]]).repeat(8, 1)
    places = [[280.0, 150], [360, 150], [320, 200], [290, 240], [350, 240]]
    points = torch.tensor([places]).repeat(8, 1, 1)
    with torch.inference_mode():
        spent = {
            "voice or generator": _time(
                lambda: model.draw(windows, model.encode(crops, model.prepare(crops))), TIMED
            ),
            "landmarks": _time(lambda: finder.find(frames, boxes, points), 8),
            "detector (640 x 360)": _time(lambda: detector.detect(frames.pixels), 8),
        }
    parts = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    total = sum(path.stat().st_size for path in files) / 1e6
    return f"{method.name}: {total:.1f} MB in {len(files)} files; CPU ms a frame: {parts}"


def _time(call: Callable[[], object], frames: int) -> float:
    """Return the least CPU milliseconds a frame of five calls."""
    spent: list[float] = []
    for _ in range(5):
        start = time.thread_time()
        call()
        spent.append((time.thread_time() - start) * 1000 / frames)
    return min(spent)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each group and method, and one for all videos."""
    lines: list[list[str]] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        videos = [row for row in own if row["color_self"] is not None]
        parts = {
            name: [row for row in own if row["group"] == name]
            for name in dict.fromkeys(row["group"] for row in own)
        }
        for group, part in {**parts, "all videos": videos}.items():
            people = len({row["person"] for row in part})
            figures = [str(mean_over_people(part, name)) for name in FIGURES]
            lines.append([group, method, f"{len(part)} ({people})", *figures])
    return format_markdown(["group", "method", "n (people)", *FIGURES], lines)


def main() -> None:
    """Read the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--cache", type=Path, required=True, help="folder of the dubs")
    parser.add_argument("--out", type=Path, required=True, help="JSON of the rows")
    parser.add_argument("--method", action="append", help="as of benchmarks.mouth; mini if none")
    parser.add_argument("--seconds", type=float, default=8.0, help="how much is measured")
    arguments = parser.parse_args()
    methods = [parse_method(text) for text in arguments.method or ["mini"]]
    finder, rows = load_landmarks(CPU), list[dict[str, Any]]()
    for pair in read_pairs(arguments.pairs, arguments.root):
        for method in methods:
            try:
                dub = make_dub(
                    pair, method, arguments.cache, seconds=arguments.seconds, device="cpu"
                )
                found = measure_pair(pair, dub, finder, seconds=arguments.seconds)
            except LipSyncError as error:
                print(f"{pair.face.name} with {pair.sound.name}: {error}", flush=True)
                continue
            named = {"face": pair.face.name, "sound": pair.sound.name, "method": method.name}
            rows.append({**named, "person": pair.person, "group": pair.group, **found})
            print(f"{pair.face.name} with {pair.sound.name}: {found}", flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"\n{table(rows)}\n")
    for method in methods:
        print(time_networks(method))


if __name__ == "__main__":
    main()
