"""What there is to prepare below a folder, and who speaks in it as far as names tell."""

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
    """A video, or a folder of face pictures as the reference's preprocessing leaves them
    (``pictures``: FRAME.jpg, with gaps where no face was found, and audio.wav). ``name``: its path
    below the root, with slashes."""

    name: str
    kind: Literal["video", "pictures"]

    @property
    def key(self) -> str:
        """Its name in shards and as a file: letters, digits, - and _, and a hash that keeps equal
        ones apart."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", str(PurePosixPath(self.name).with_suffix("")))
        return f"{plain[-60:]}-{hashlib.sha256(self.name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"

    def stamp(self, root: Path) -> list[int]:
        """Bytes and time of change, which tell a file that was replaced.

        Zeros where it cannot be reached.
        """
        path = root / self.name
        try:
            status = (path / SOUND if self.kind == "pictures" else path).stat()
        except OSError:  # a dangling link: the job fails, and says so in the report
            return [0, 0]
        return [status.st_size, status.st_mtime_ns]


def find_sources(root: Path, *, leave: Path | None = None) -> list[Source]:
    """Everything below ``root`` that can be prepared, in the order of names.

    Nothing below ``leave``. LipSyncError when ``root`` is no folder or holds nothing of the kind.
    """
    if not root.is_dir():
        raise LipSyncError(
            f"{root} is no folder; wanted one with videos, or with the reference's preprocessed "
            "folders"
        )
    found: list[Source] = []

    def refuse(error: OSError) -> None:
        raise LipSyncError(
            f"{error.filename} cannot be listed ({error}); mend that, or move it out of {root}"
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
            f"{root} holds nothing to prepare; wanted videos ({', '.join(VIDEOS)}), "
            f"or folders with 0.jpg, 1.jpg ... and {SOUND}"
        )
    return sorted(found, key=lambda source: source.name)


def given_split(name: str) -> str:
    """The split that the first folder of a name tells. LipSyncError for another one."""
    split = PurePosixPath(name).parts[0]
    if split not in SPLITS or split == name:
        raise LipSyncError(
            f"{name} lies in none of the folders {', '.join(SPLITS)}; move it, or leave --splits "
            "given out"
        )
    return split


def speaker_names(names: Sequence[str], rule: str | None) -> dict[str, str | None]:
    """Who speaks in each of the sources, None where only the faces tell.

    ``folder``: the folder they lie in; ``file``: each its own; ``likeness``: faces; any other rule
    is a regular expression that is searched for in each name, its first group (or all of it) being
    the speaker. None: by folder where there are several folders, else by likeness. ValueError for
    an expression that is none; LipSyncError for a name that it does not fit.
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
            f"--speaker {rule!r} is no regular expression ({error}); wanted one, or "
            f"{', '.join(RULES)}"
        ) from error
    speakers: dict[str, str | None] = {}
    for name in names:
        if (match := pattern.search(name)) is None:
            raise LipSyncError(
                f"--speaker {rule!r} finds nobody in {name}; wanted an expression that fits every "
                "name"
            )
        speakers[name] = match[1] if pattern.groups else match[0]
    return speakers
