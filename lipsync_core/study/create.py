"""Create a study from folders of clips, one folder for each method.

The clips of different methods are matched by file name and copied under random names.
"""

import csv
import os
import random
import secrets
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .. import media
from ..errors import MediaError
from .anonymous import clear_metadata, is_h264
from .plan import Task, draw_plan
from .store import SCHEMA, VERSION, StudyError, hash_token, make_durable

# what every browser plays, and whose metadata can be emptied in place
SUFFIXES = (".mp4", ".m4v", ".mov")


@dataclass(frozen=True, slots=True)
class CreatedStudy:
    """Describe a new study.

    Attributes:
        folder: Folder of the study.
        links: File with one secret link for each rater.
        clips: Number of clips that are judged.
        tasks: Number of screens that are judged.
        warnings: One sentence for each oddity of the clips.
    """

    folder: Path
    links: Path
    clips: int
    tasks: int
    warnings: tuple[str, ...]


def create_study(
    folder: Path,
    methods: Mapping[str, Path],
    *,
    raters: int = 14,
    side_by_side: int = 2,
    clips_per_rater: int | None = None,
    common_only: bool = False,
    title: str = "Which talking face looks right?",
    seed: int = 0,
) -> CreatedStudy:
    """Build the study in ``folder``, which appears whole or not at all.

    Args:
        folder: Folder of the study; it must not exist yet.
        methods: A folder of clips (.mp4, .m4v, .mov; best H.264 in 4:2:0) for each method's name.
            A clip is one file name, and every method must have it unless ``common_only`` is set.
        raters: Number of raters (14 in the paper).
        side_by_side: Number of clips on one screen.
        clips_per_rater: Number of clips that each rater judges; None for all.
        common_only: Leave out, with a warning, the clips that some method lacks.
        title: Text that raters read above the questions.
        seed: Seed of the plan; the links and the names of the copies are always new.

    Returns:
        The paths, counts and warnings of the new study.

    Raises:
        StudyError: Clips are missing, or ``folder`` exists.
        MediaError: A file has no picture.
        ValueError: The numbers allow no study.
    """
    if folder.exists():
        raise StudyError(
            f"{folder} exists; a study is never overwritten, name another folder or remove it "
            "yourself"
        )
    warnings: list[str] = []
    clips = _find_common_clips(methods, common_only, warnings)
    tasks = draw_plan(
        raters,
        len(clips),
        len(methods),
        side_by_side=side_by_side,
        clips_per_rater=clips_per_rater,
        seed=seed,
    )
    files = [
        (c, m, path / name)
        for m, path in enumerate(methods.values())
        for c, name in enumerate(clips)
    ]
    for clip in range(len(clips)):
        warnings += _check_clips([path for c, _, path in files if c == clip])
    tokens = [secrets.token_urlsafe() for _ in range(raters)]
    with _make_folder(folder) as part:
        (part / "media").mkdir()
        shown: dict[tuple[int, int], str] = {}
        # no order tells methods apart
        for c, m, path in random.SystemRandom().sample(files, len(files)):
            shown[c, m] = _copy_clip(path, part / "media")
        with closing(sqlite3.connect(part / "study.sqlite")) as db:
            make_durable(db)
            db.executescript(SCHEMA)
            with db:
                db.execute(
                    "INSERT INTO study VALUES (?, ?, ?, ?)",
                    (VERSION, title, seed, datetime.now(UTC).isoformat()),
                )
                _insert_plan(db, list(methods), clips, shown, tokens, tasks)
        with (part / "links.csv").open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(
                [("rater", "path"), *((i + 1, f"/s/{t}") for i, t in enumerate(tokens))]
            )
    return CreatedStudy(folder, folder / "links.csv", len(clips), len(tasks), tuple(warnings))


def _find_common_clips(
    methods: Mapping[str, Path], common_only: bool, warnings: list[str]
) -> list[str]:
    """Return the file names that every method has, sorted."""
    if len(methods) < 2:
        raise ValueError(
            f"{len(methods)} methods; expected at least two, each with its folder of clips"
        )
    found: dict[str, set[str]] = {}
    for name, path in methods.items():
        if not path.is_dir():
            raise StudyError(f"{path}, the folder of {name}, is not a folder")
        found[name] = {
            file.name
            for file in path.iterdir()
            if file.suffix.lower() in SUFFIXES and file.is_file()
        }
    everywhere = sorted(set.intersection(*found.values()))
    missing = [
        f"{name} has no {', '.join(gone)}"
        for name in methods
        if (gone := sorted(set.union(*found.values()) - found[name]))
    ]
    if not everywhere:
        raise StudyError(
            f"no clip ({', '.join(SUFFIXES)}) is in every folder; give the same clip the same file "
            "name"
        )
    if missing and not common_only:
        raise StudyError(
            f"{'; '.join(missing)}; add them, or take the {len(everywhere)} common clips with "
            "--common-only"
        )
    warnings += [f"left out: {text}" for text in missing]
    return everywhere


def _check_clips(paths: list[Path]) -> Iterator[str]:
    """Yield what is odd about the files of one clip; MediaError for one without a picture."""
    seconds: list[float] = []
    for path in paths:
        info = media.probe(path)
        if info.frames is not None:
            seconds.append(float(info.frames / info.fps))
        if not is_h264(path):
            yield f"{path} is not H.264; some browsers will not play it"
        try:
            media.probe_sound(path)
        except MediaError:
            yield f"{path} has no sound"
    if seconds and max(seconds) - min(seconds) > 0.1:
        yield (
            f"{paths[0].name} lasts from {min(seconds):.2f} to {max(seconds):.2f} s, "
            "depending on the method"
        )


def _copy_clip(path: Path, folder: Path) -> str:
    """Copy a clip and return the id under which it is served.

    A copy, no link: the study must keep the file that the raters judged.
    """
    name = secrets.token_hex(12)
    target = folder / f"{name}.mp4"
    shutil.copyfile(path, target)
    clear_metadata(target)
    os.utime(target, (0, 0))  # browsers are told the time of a file, and times tell methods apart
    return name


@contextmanager
def _make_folder(folder: Path) -> Generator[Path]:
    """Yield a new temporary folder beside ``folder``.

    It is renamed when the block ends, and removed if the block raises.
    """
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)  # links and votes are for the owner's eyes
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be made ({error.strerror}); give a folder that can"
        ) from error
    try:
        yield part
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _insert_plan(
    db: sqlite3.Connection,
    methods: list[str],
    clips: list[str],
    shown: Mapping[tuple[int, int], str],
    tokens: list[str],
    tasks: list[Task],
) -> None:
    db.executemany("INSERT INTO method VALUES (?, ?)", enumerate(methods))
    db.executemany("INSERT INTO clip VALUES (?, ?)", enumerate(clips))
    db.executemany(
        "INSERT INTO media VALUES (?, ?, ?)", [(name, c, m) for (c, m), name in shown.items()]
    )
    db.executemany(
        "INSERT INTO rater VALUES (?, ?)",
        [(i, hash_token(token)) for i, token in enumerate(tokens)],
    )
    for task in tasks:
        name = secrets.token_hex(12)
        db.execute("INSERT INTO task VALUES (?, ?, ?)", (name, task.rater, task.position))
        rows = [
            (name, place, shown[task.clip, method]) for place, method in enumerate(task.methods)
        ]
        db.executemany("INSERT INTO shown VALUES (?, ?, ?)", rows)
