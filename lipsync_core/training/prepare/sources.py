"""The sources below a folder, and their speakers as far as names show."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ...errors import LipSyncError

VIDEOS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
PICTURES, SOUND = ".jpg", "audio.wav"
SPLITS = ("train", "val", "test")
RULES = ("folder", "file", "likeness")


@dataclass(frozen=True, slots=True)
class Source:
    """A video, or a folder of face pictures.

    Attributes:
        name: its path below the root, with slashes.
        kind: ``video``, or ``pictures`` as the reference's preprocessing leaves them:
            FRAME.jpg, with gaps for frames without a face, and audio.wav.
    """

    name: str
    kind: Literal["video", "pictures"]

    @property
    def key(self) -> str:
        """Its name in shards and as a file: letters, digits, - and _, and a unique hash."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", str(PurePosixPath(self.name).with_suffix("")))
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{plain[-60:]}-{digest[:8]}"

    def stamp(self, root: Path) -> list[int]:
        """Return bytes and time of change of the file; zeros if it cannot be reached."""
        path = root / self.name
        try:
            status = (path / SOUND if self.kind == "pictures" else path).stat()
        except OSError:  # a dangling link: the job fails, and says so in the report
            return [0, 0]
        return [status.st_size, status.st_mtime_ns]


def find_sources(root: Path, *, leave: Path | None = None) -> list[Source]:
    """Find everything below a folder that can be prepared.

    Args:
        root: the folder.
        leave: a folder to skip.

    Returns:
        The sources, sorted by name.

    Raises:
        LipSyncError: ``root`` is no folder or holds no source.
    """
    if not root.is_dir():
        raise LipSyncError(
            f"{root} is not a folder; expected one with videos, or with the reference's "
            "preprocessed folders"
        )
    found: list[Source] = []

    def refuse(error: OSError) -> None:
        raise LipSyncError(
            f"{error.filename} cannot be listed ({error}); fix that, or move it out of {root}"
        ) from error

    for place, folders, files in os.walk(root, onerror=refuse):
        here = Path(place)
        if leave is not None and here.resolve() == leave.resolve():
            folders.clear()
            continue
        name = here.relative_to(root).as_posix()
        if SOUND in files and any(
            f.endswith(PICTURES) and f[: -len(PICTURES)].isdigit() for f in files
        ):
            found.append(Source(name, "pictures"))
        below = "" if name == "." else f"{name}/"
        found += [Source(f"{below}{f}", "video") for f in files if Path(f).suffix.lower() in VIDEOS]
    if not found:
        raise LipSyncError(
            f"{root} holds nothing to prepare; expected videos ({', '.join(VIDEOS)}), "
            f"or folders with 0.jpg, 1.jpg ... and {SOUND}"
        )
    return sorted(found, key=lambda source: source.name)


def given_split(name: str) -> str:
    """Return the split that the first folder of a name gives.

    Args:
        name: name of a source.

    Returns:
        train, val or test.

    Raises:
        LipSyncError: the folder has another name.
    """
    split = PurePosixPath(name).parts[0]
    if split not in SPLITS or split == name:
        raise LipSyncError(
            f"{name} lies in none of the folders {', '.join(SPLITS)}; move it, or leave --splits "
            "given out"
        )
    return split


def speaker_names(names: Sequence[str], rule: str | None) -> dict[str, str | None]:
    """Return the speaker of each source as far as names show.

    Args:
        names: names of the sources.
        rule: ``folder``: the folder of the source; ``file``: each source has its own;
            ``likeness``: faces decide; any other rule is a regular expression that is searched
            for in each name, its first group (or all of it) being the speaker. None: by folder
            if there are several folders, else by likeness.

    Returns:
        Source -> speaker, None if faces decide.

    Raises:
        ValueError: the rule is no valid expression.
        LipSyncError: the rule does not match a name.
    """
    if rule is None:
        rule = "folder" if len({PurePosixPath(name).parent for name in names}) > 1 else "likeness"
    if rule == "folder":
        return {name: PurePosixPath(name).parent.as_posix() for name in names}
    if rule == "file":
        return {name: name for name in names}
    if rule == "likeness":
        return dict.fromkeys(names)
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(
            f"--speaker {rule!r} is not a regular expression ({error}); expected one, or "
            f"{', '.join(RULES)}"
        ) from error
    speakers: dict[str, str | None] = {}
    for name in names:
        if (match := pattern.search(name)) is None:
            raise LipSyncError(
                f"--speaker {rule!r} matches nothing in {name}; expected an expression that fits "
                "every name"
            )
        speakers[name] = match[1] if pattern.groups else match[0]
    return speakers
