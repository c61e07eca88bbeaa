"""Talking videos -> shards that training reads, and a report on what was kept and why.

    python -m train.prepare IN OUT [--processes 8 | --ray auto] [--speaker RULE] [--splits given]

IN: any folder of videos, or of the reference's preprocessed clips (folders of 0.jpg, 1.jpg ... and
audio.wav). Each video is brought to 25 fps and cut at scenes into takes of one person; the judge
measures how early or late the sound is, the sound is moved, and takes on which the judge is not
sure are dropped and counted. OUT/train, OUT/val and OUT/test then hold shards
(lipsync_core/training/shards.py), OUT/report.html says what became of everything. No speaker is in
two splits, unless --splits given takes them from IN/train, IN/val and IN/test, or --splits time
takes val and test from the end of everybody's footage, for one person alone. Stop it at any time;
the same command goes on.

--speaker folder: the folder a file lies in (the default where there are several); file: each its
own; likeness: faces that look alike (the default for one flat folder); else a regular expression,
searched for in the path, e.g. '([^/_]+)_[^/]*$'.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lipsync_core.cli.progress import Bar
from lipsync_core.errors import LipSyncError
from lipsync_core.image.affine import Framing, compose, crop_to_frame, translation
from lipsync_core.image.crop import crop_pictures
from lipsync_core.pipelines.track_faces import Finding, load_detector
from lipsync_core.runtime.atomic import atomic_write
from lipsync_core.runtime.jobs import Cluster
from lipsync_core.training.prepare.run import Splitting, prepare
from lipsync_core.training.prepare.settings import Settings

LEAST_PHOTO_FACE = 60  # px wide


def prepare_portraits(folder: Path, out: Path, settings: Settings) -> None:
    """All photographs with a face of at least 60 px -> one array (N,C,C,3) uint8."""
    detector, _ = load_detector(
        Finding(detector=settings.detector, min_score=settings.least_score, cache=False),
        torch.device("cpu"),
    )
    kept, side = [], settings.size + 2 * settings.margin
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
    )
    for path in paths:
        try:
            with Image.open(path) as picture:
                pixels = torch.from_numpy(np.array(picture.convert("RGB")))[None]
        except (OSError, SyntaxError) as error:
            print(f"left out {path.name}: {error}")
            continue
        (faces,) = detector.detect(pixels)
        if len(faces.scores) and float(faces.boxes[0, 2] - faces.boxes[0, 0]) >= LEAST_PHOTO_FACE:
            matrix = crop_to_frame(
                faces.boxes[:1].float(), faces.points[:1].float(), Framing(), settings.size
            )
            wide = compose(matrix, translation(torch.full((1, 2), -float(settings.margin))))
            kept.append(
                (crop_pictures(pixels, wide, side)[0] * 255).round().byte().permute(1, 2, 0).numpy()
            )
    if not kept:
        raise LipSyncError(
            f"none of {len(paths)} photographs below {folder} shows a face of {LEAST_PHOTO_FACE} px"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as part, part.open("wb") as file:
        np.save(file, np.stack(kept))
    print(f"{len(kept)} of {len(paths)} photographs")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    usual, splitting = Settings(), Splitting()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", metavar="IN", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--speaker", help="folder, file, likeness or a regular expression")
    parser.add_argument("--splits", choices=("shared", "given", "time"), default="shared")
    parser.add_argument(
        "--val", type=float, default=splitting.val, help="part of all frames (default %(default)s)"
    )
    parser.add_argument("--test", type=float, default=splitting.test)
    parser.add_argument("--seed", type=int, default=0, help="of the sharing out of speakers")
    parser.add_argument(
        "--size", type=int, default=usual.size, help="px of a crop (default %(default)s)"
    )
    parser.add_argument("--framing", choices=("aligned", "box"), default="aligned")
    parser.add_argument(
        "--shortest",
        type=int,
        default=usual.shortest,
        help="frames of a clip (default %(default)s)",
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=usual.longest,
        help="longer takes are parted (default %(default)s)",
    )
    parser.add_argument(
        "--least-face", type=int, default=usual.least_face, help="px (default %(default)s)"
    )
    parser.add_argument("--least-confidence", type=float, default=usual.least_confidence)
    parser.add_argument(
        "--most-offset", type=int, default=usual.most_offset, help="frames (default %(default)s)"
    )
    parser.add_argument(
        "--scorer", default="judge", help="the judge, or a file of an expert's weights"
    )
    parser.add_argument("--detector", choices=("mini", "yunet", "s3fd"), default="mini")
    parser.add_argument(
        "--device", default="cpu", help="of detector and judge (default %(default)s)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="(default: the cores)"
    )
    parser.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="work on a Ray cluster instead"
    )
    parser.add_argument(
        "--workers", type=int, help="of Ray (default: as many as it has GPUs or cores)"
    )
    parser.add_argument(
        "--again", action="store_true", help="try sources that could not be read once more"
    )
    parser.add_argument(
        "--portraits", type=Path, help="photographs -> OUT/portraits.npy, for train.mini"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = arguments(argv)
    torch.set_num_threads(1)
    try:
        settings = Settings(
            size=args.size,
            framing=args.framing,
            shortest=args.shortest,
            longest=args.longest,
            least_face=args.least_face,
            least_confidence=args.least_confidence,
            most_offset=args.most_offset,
            scorer=args.scorer,
            detector=args.detector,
        )
        with Bar() as bar:
            counts = prepare(
                args.root,
                args.out,
                settings=settings,
                splitting=Splitting(args.speaker, args.splits, args.val, args.test, args.seed),
                processes=max(1, args.processes),
                cluster=Cluster(args.ray, args.workers) if args.ray else None,
                again=args.again,
                device=args.device,
                command=f"python -m train.prepare {shlex.join(argv or sys.argv[1:])}",
                on_progress=bar,
            )
        if args.portraits:
            prepare_portraits(args.portraits, args.out / "portraits.npy", settings)
    except (LipSyncError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    for split, (clips, speakers, seconds) in counts.splits.items():
        print(f"{split}: {clips} clips, {speakers} speakers, {seconds / 60:.1f} minutes")
    for reason, (number, seconds) in counts.dropped.items():
        print(f"dropped, {reason}: {number} ({seconds / 60:.1f} minutes)")
    empty = [split for split, (clips, _, _) in counts.splits.items() if not clips]
    if empty:
        clips, speakers, _ = counts.splits["train"]
        print(
            f"nothing in {', '.join(empty)}, of {clips} clips and {speakers} speakers in train: "
            "for val of the same people, prepare into another folder with --splits time (and a "
            "smaller --longest, for more clips)"
        )
    if counts.shared:
        print(f"in more than one split, as wanted: {', '.join(counts.shared)}")
    print(f"see {args.out / 'report.html'}")


if __name__ == "__main__":
    main()
