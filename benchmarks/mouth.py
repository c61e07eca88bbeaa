"""Measure whether the lips of dubs follow the new speech or the old lips, by any landmarks.

    python -m benchmarks.mouth PAIRS.csv --cache FOLDER --out ROWS.json [--root FOLDER] [--method
    mini ...]
        [--points ours | --openings FOLDER] [--lag 3] [--seconds 8]

PAIRS.csv has a row for each pair, with the columns ``face`` (video or photo that is dubbed) and
``sound`` (video of the speaker), names below --root; ``person``, whom the bootstrap draws (default:
the name of the face's folder); and ``group``, by which the table is split (default: all in one). A
--method is a model's name or file, with options of ``lipsync_core.dub`` after a colon where there
are any: ``mini:reference=nearest-closed,silence=close``. Dubs are kept in the cache and not made
again; a method's folder there carries the hash of its weights. Below the methods stand mouths that
need no dub: the undubbed, the copied (half a clip away) and the frozen one, and one opened by
loudness alone.

Points: our own landmarks, or series of openings that ``benchmarks/openings.py`` wrote for faces,
sounds and dubs, by any points: FOLDER/PARENT/STEM.npz for each video .../PARENT/STEM.SUFFIX. Where
some are missing, their names are written to ROWS.json.missing, one a line, to be given to that
script:

    mesh/bin/python benchmarks/openings.py --points mesh --out FOLDER $(cat ROWS.json.missing)

Figures: see ``lipsync_core.metrics.mouth``. Means and 95 % bootstrap intervals are those over
people.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lipsync_core import dub
from lipsync_core.errors import LipSyncError
from lipsync_core.evaluation.tables import Mean, bootstrap_ratio, format_markdown
from lipsync_core.media import probe, read_audio
from lipsync_core.metrics.mouth import (
    RATE,
    MouthFollowing,
    Role,
    compare_openings,
    resample_openings,
)
from lipsync_core.metrics.mouth_baselines import copy_openings, freeze_openings, loudness_openings
from lipsync_core.models.hub import file_sha256
from lipsync_core.models.weights import weights_file
from lipsync_core.options import Cut
from lipsync_core.pipelines.mouth_following import LANDMARKS, MouthMeter
from lipsync_core.pipelines.track_faces import Finding, load_detector, load_landmarks, select_device

BASELINES = ("undubbed", "copied mouth", "frozen mouth", "loudness alone")
COLUMNS = (
    "truth",
    "leak",
    "chance",
    "old",
    "new",
    "movement",
    "closure_recall",
    "closure_precision",
)
PHOTO = "the face is a photo, whose mouth does not move"


@dataclass(frozen=True)
class Pair:
    """A face and the video whose sound it speaks.

    Whom the bootstrap draws, and a part of the table.
    """

    face: Path
    sound: Path
    person: str
    group: str


@dataclass(frozen=True)
class Method:
    """A model and options of ``dub``."""

    name: str
    model: str
    options: dict[str, str]

    def target(self, pair: Pair, cache: Path) -> Path:
        """Where the dub of a pair is kept."""
        weights = file_sha256(weights_file(self.model))[:8]
        folder = "".join(
            letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(self.name).name
        )
        faces, sounds = (f"{path.parent.name}_{path.stem}" for path in (pair.face, pair.sound))
        return cache / f"{folder}-{weights}" / f"{faces}--{sounds}.mp4"


def read_pairs(path: Path, root: Path) -> list[Pair]:
    """The rows of a CSV; ValueError without the columns face and sound."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"face", "sound"} <= set(rows[0]):
        raise ValueError(f"{path} has no rows with the columns face and sound")
    return [
        Pair(
            root / row["face"],
            root / row["sound"],
            row.get("person") or (root / row["face"]).parent.name,
            row.get("group") or "all",
        )
        for row in rows
    ]


def parse_method(text: str) -> Method:
    """MODEL or MODEL:OPTION=VALUE,OPTION=VALUE."""
    model, _, listed = text.partition(":")
    pairs = [option.partition("=") for option in listed.split(",") if option]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError(
            f"{text!r} is not a method; expected MODEL:OPTION=VALUE, such as "
            "mini:reference=nearest-closed"
        )
    return Method(text, model, {name: value for name, _, value in pairs})


def make_dub(pair: Pair, method: Method, cache: Path, *, seconds: float, device: str) -> Path:
    """The dub of a pair, of its first ``seconds``, made unless it is there."""
    out = method.target(pair, cache)
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    sound = read_audio(pair.sound)
    length = min(Fraction(sound.samples.shape[1], sound.rate), Fraction(seconds))
    if not probe(pair.face).still:
        info = probe(pair.face)
        length = min(length, (info.frames or 10**9) / info.fps)
    cut = sound.samples[:, : int(length * sound.rate)]
    speech = type(sound)(cut, sound.rate)
    dub(
        pair.face,
        speech,
        out,
        model=method.model,
        cut=Cut(longer="hold"),
        device=device,
        **method.options,
    )  # pyright: ignore
    return out


class Openings:
    """Regular series of openings of videos, by our landmarks or as found in a folder.

    None without a face.
    """

    def __init__(self, folder: Path | None, *, seconds: float, device: str) -> None:
        self._folder, self._seconds = folder, seconds
        self._known: dict[Path, Tensor | None] = {}
        self.missing: list[Path] = []
        self.points = LANDMARKS if folder is None else folder.name
        if folder is None:
            target = select_device(device)
            self._meter = MouthMeter(load_landmarks(target), *load_detector(Finding(), target))

    def __call__(self, video: Path) -> Tensor | None:
        """Return the openings of a video, None without a face; note a missing series."""
        if video not in self._known:
            self._known[video] = (
                self._stored(video) if self._folder is not None else self._measured(video)
            )
        return self._known[video]

    def _measured(self, video: Path) -> Tensor | None:
        try:
            found = self._meter.openings(video, seconds=self._seconds)
        except LipSyncError:
            return None
        return resample_openings(found, self._meter.times(video, len(found)))

    def _stored(self, video: Path) -> Tensor | None:
        assert self._folder is not None
        path = self._folder / video.resolve().parent.name / f"{video.stem}.npz"
        if not path.exists():
            self.missing.append(video)
            return None
        with np.load(path) as file:
            openings, times = (
                torch.from_numpy(file[name]).double() for name in ("openings", "times")
            )
        early = times <= self._seconds
        return resample_openings(openings[early], times[early])


def measure_pair(
    pair: Pair, dubs: dict[str, Path], openings: Openings, *, lag: int
) -> Iterable[tuple[str, MouthFollowing]]:
    """The figures of each method and of the mouths that need no dub."""
    missing: dict[Role, str] = {}
    photo = probe(pair.face).still
    source, truth = None if photo else openings(pair.face), openings(pair.sound)
    if photo:
        missing["source"] = PHOTO
    made: dict[str, Callable[[], Tensor | None]] = {
        name: lambda path=path: openings(path) for name, path in dubs.items()
    }
    if source is not None:
        made["undubbed"] = lambda: source
        made["copied mouth"] = lambda: copy_openings(source)
        made["frozen mouth"] = lambda: freeze_openings(source)
    if truth is not None:
        made["loudness alone"] = lambda: loudness_openings(read_audio(pair.sound))[: len(truth)]
    for name, series in made.items():
        reasons: dict[Role, str] = {
            "dub": "no face in 80 % of its frames",
            "truth": "no face in the sound's video",
        }
        yield (
            name,
            compare_openings(series(), truth, source, lags=lag, missing={**reasons, **missing}),
        )


def row_of(pair: Pair, name: str, found: MouthFollowing, points: str) -> dict[str, Any]:
    """One row of the results."""
    values = found.to_values()
    if name == "loudness alone":
        values["movement"] = None
        values["reasons"]["movement"] = "loudness is in no distance between eyes"
    pairing = {
        "face": f"{pair.face.parent.name}/{pair.face.name}",
        "sound": f"{pair.sound.parent.name}/{pair.sound.name}",
    }
    return {
        **pairing,
        "person": pair.person,
        "group": pair.group,
        "method": name,
        "points": points,
        **values,
    }


def mean_over_people(rows: Sequence[dict[str, Any]], name: str) -> Mean:
    """The mean over rows, and its interval over people: all rows of a person are drawn together."""
    people: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row[name] is not None:
            people[row["person"]].append(row[name])
    return bootstrap_ratio([(sum(values), len(values)) for values in people.values()])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each group and method."""
    keys = list(dict.fromkeys((row["group"], row["method"]) for row in rows))
    lines: list[list[str]] = []
    for group, method in sorted(keys, key=lambda key: key[0]):
        own = [row for row in rows if (row["group"], row["method"]) == (group, method)]
        counts = (
            f"{sum(row['truth'] is not None for row in own)} "
            f"({len({row['person'] for row in own})})"
        )
        lines.append(
            [group, method, counts, *(str(mean_over_people(own, name)) for name in COLUMNS)]
        )
    return format_markdown(["group", "method", "n (people)", *COLUMNS], lines)


def main() -> None:
    """Read the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--cache", type=Path, required=True, help="folder for the dubs")
    parser.add_argument("--out", type=Path, required=True, help="JSON of the rows")
    parser.add_argument(
        "--method",
        action="append",
        help="MODEL or MODEL:OPTION=VALUE,...; mini where none is given",
    )
    parser.add_argument(
        "--openings",
        type=Path,
        help="folder of series by other points, instead of our own landmarks",
    )
    parser.add_argument("--lag", type=int, default=3, help=f"largest lag, in 1/{RATE} s")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="how much of each video is dubbed and measured"
    )
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs, arguments.root)
    methods = [parse_method(text) for text in arguments.method or ["mini"]]
    openings = Openings(arguments.openings, seconds=arguments.seconds, device=arguments.device)
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs, 1):
        dubs: dict[str, Path] = {}
        for method in methods:
            try:
                dubs[method.name] = make_dub(
                    pair,
                    method,
                    arguments.cache,
                    seconds=arguments.seconds,
                    device=arguments.device,
                )
            except LipSyncError as error:
                print(
                    f"{pair.face.name} with {pair.sound.name}, {method.name}: {error}", flush=True
                )
        rows += [
            row_of(pair, *found, openings.points)
            for found in measure_pair(pair, dubs, openings, lag=arguments.lag)
        ]
        print(f"{number}/{len(pairs)} {pair.face.name} with {pair.sound.name}", flush=True)
    if openings.missing:
        names = arguments.out.with_name(f"{arguments.out.name}.missing")
        names.write_text(
            "".join(f"{path}\n" for path in dict.fromkeys(openings.missing)), encoding="utf-8"
        )
        raise SystemExit(
            f"{len(set(openings.missing))} videos have no series in {arguments.openings}; named in "
            f"{names}"
        )
    arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"Points: {openings.points}. n: rows with truth, of so many people.\n\n{table(rows)}")


if __name__ == "__main__":
    main()
