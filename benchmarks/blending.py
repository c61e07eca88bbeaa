"""Compare four ways of blending a model's crops into the frames, by the visibility of the seam.

All four run on the same drawings, and each is judged at the edge of its own mask.

    python -m benchmarks.blending SPEECH CLIP [CLIP ...] [--frames 40] [--model mini]

``box paste`` is what the public code does (the whole crop, a hard edge), ``feathered box`` and
``feathered mouth`` a soft one round the crop and round the mouth, ``ours`` the default, of the
model's crops and, where it moves pixels, of the frame's own. What is moved is the frame's own
mouth: no other pictures of the person are looked for. Prints the seam figures (``metrics.seams``; 0
is the source), the sharpness inside the edge (1 is the source's), and the time a frame takes to be
cut, blended and put together.
"""

import argparse
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lipsync_core.faces.selection import select
from lipsync_core.faces.selector import parse_face
from lipsync_core.media import read_audio, read_frames
from lipsync_core.media.clip import open_clip
from lipsync_core.metrics.seams import Seams
from lipsync_core.models.weights import load_talking_face
from lipsync_core.options import Blend, Cut
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.roles import FaceDub, GeneratorCache, RenderedChunk
from lipsync_core.pipelines.track_faces import Finding, find_people
from lipsync_core.types import Audio, FaceTrack, Frames

PLAIN = Blend(kind="feather", own_pixels=False, detail=0, grain=0)
WAYS = {
    "box paste": replace(PLAIN, mask="box", kind="paste", feather=0),
    "feathered box": replace(PLAIN, mask="box"),
    "feathered mouth": PLAIN,
    "ours, crops": Blend(own_pixels=False),
    "ours": Blend(),
}


def sharpness(source: Frames, result: Frames, alpha: torch.Tensor) -> float:
    """The logarithm of how sharp the picture is where it was redrawn, against the source there."""

    def detail(frames: Frames) -> torch.Tensor:
        grey = frames.pixels.float().mean(3)
        middle = grey[:, 1:-1, 1:-1]
        edges = (
            4 * middle
            - grey[:, 2:, 1:-1]
            - grey[:, :-2, 1:-1]
            - grey[:, 1:-1, 2:]
            - grey[:, 1:-1, :-2]
        )
        return (edges.square() * (alpha[:, 1:-1, 1:-1] > 0.5)).sum((1, 2)).sqrt()

    return float((detail(result) / detail(source)).log().mean())


def measured(
    sync: LipSync, frames: Frames, voice: Audio, fps, track: FaceTrack, drawings: GeneratorCache
) -> tuple[list[float], float]:
    """Line, step, flicker and sharpness; seconds of blending a frame."""
    count = len(frames.pixels)

    def run(*, opacity: bool = False) -> Iterator[RenderedChunk]:
        pieces = (Frames(frames.pixels[i : i + 8], i) for i in range(0, count, 8))
        return sync.render(pieces, [FaceDub(voice, track, drawings)], fps=fps, opacity=opacity)

    # the first run draws; the second one only blends
    opacities = [chunk.opacity for chunk in run(opacity=True)]
    alpha = torch.cat([opacity for opacity in opacities if opacity is not None])
    began = time.perf_counter()
    done = torch.cat([chunk.frames.pixels for chunk in run()])
    spent = (time.perf_counter() - began) / count
    seams = Seams()
    seams.update(frames, Frames(done), alpha)
    found = seams.compute()
    return [
        found.line or 0,
        found.step or 0,
        found.flicker or 0,
        sharpness(frames, Frames(done), alpha),
    ], spent


def around(frames: Frames, track: FaceTrack) -> tuple[Frames, FaceTrack]:
    """The part of the picture that the face is in, so that the figures cost little."""
    boxes = track.boxes[track.visible]
    low, high = boxes[:, :2].amin(0), boxes[:, 2:].amax(0)
    margin = float((high - low).max()) * 0.4
    _, height, width, _ = frames.pixels.shape
    x0, y0 = (max(0, int(v - margin)) for v in low.tolist())
    x1, y1 = min(width, int(high[0] + margin)), min(height, int(high[1] + margin))
    shift = torch.tensor([x0, y0])
    dense = None if track.dense is None else track.dense - shift
    moved = replace(
        track, boxes=track.boxes - shift.repeat(2), points=track.points - shift, dense=dense
    )
    return Frames(frames.pixels[:, y0:y1, x0:x1].contiguous()), moved


def main() -> None:
    """Read the command line, measure, and print the results."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("speech", type=Path)
    options.add_argument("clips", type=Path, nargs="+")
    options.add_argument("--frames", type=int, default=40)
    options.add_argument("--model", default="mini")
    options.add_argument("--threads", type=int, default=2)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    totals = {name: [0.0] * 5 for name in WAYS}
    for clip in args.clips:
        footage = open_clip(clip, Cut())
        people, _ = find_people(footage, Finding(), torch.device("cpu"), stop=args.frames)
        whole = next(iter(read_frames(clip, chunk=args.frames, fps=footage.info.fps)))
        frames, track = around(whole, select(people, parse_face("largest")))
        side = float((track.boxes[:, 2:] - track.boxes[:, :2]).amax(1).median())
        print(f"{clip.name}: a face of {side:.0f} px", flush=True)
        for name, blend in WAYS.items():
            sync = LipSync(load_talking_face(args.model), blend=blend)
            voice = read_audio(args.speech, rate=sync.config.features.rate)
            figures, spent = measured(
                sync, frames, voice, footage.info.fps, track, GeneratorCache()
            )
            totals[name] = [
                a + b / len(args.clips)
                for a, b in zip(totals[name], [*figures, spent], strict=True)
            ]
            print(f"  {name:16s} {row([*figures, spent])}", flush=True)
    print(
        f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}; means over "
        f"{len(args.clips)} clips:"
    )
    print(
        "| way | line, levels/px | step, levels | flicker, levels | sharpness | ms a frame "
        "|\n|---|---|---|---|---|---|"
    )
    for name, total in totals.items():
        print(f"| {name} | {' | '.join(row(total).split())} |")


def row(figures: list[float]) -> str:
    """Format the figures of one way as a table row."""
    line, step, flicker, sharp, seconds = figures
    return f"{line:.3f} {step:.2f} {flicker:.3f} {math.exp(sharp):.2f} {seconds * 1000:.1f}"


if __name__ == "__main__":
    main()
