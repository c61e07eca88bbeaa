"""Other tools in the benchmark: a folder of their dubs, or a command that makes one dub.

A command is split into words here and started without a shell, so that names with spaces, quotes or
dollar signs mean themselves, on every system.
"""

import re
import shlex
import shutil
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

from ..audio.ops import mix_to_mono
from ..errors import LipSyncError, MediaError
from ..types import Audio
from .pairs import Pair

PLACES = ("{face}", "{audio}", "{out}")
"""Places in a command for the file of the face, a WAV file of the speech, and the file to write."""

SECONDS = 3600.0
"""The longest that a command may take for one pair."""

_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")
_NAMED = re.compile(r"([\w.+ -]*[\w.+-])=(.+)", re.DOTALL)
_TAIL = 400  # letters of what a failed command said last


def parse_outputs(text: str) -> tuple[str, Path]:
    """Read NAME=FOLDER.

    Raises:
        ValueError: If it is not of that form.
    """
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise ValueError(f"{text!r} names no outputs; expected NAME=FOLDER, such as theirs=out/a")
    return name, Path(folder)


def parse_command(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Read a command: NAME=COMMAND, or COMMAND, which is then named after its program.

    Args:
        text: Words as in a shell, with quotes around those that hold spaces; a backslash means
            itself, as in C:\tools\dub.exe.

    Returns:
        Its name and its words.

    Raises:
        ValueError: If a place of ``PLACES`` is missing, or a quote is not closed.
    """
    named = _NAMED.fullmatch(text)
    name, rest = (named[1], named[2]) if named and " " not in named[1] else ("", text)
    reader = shlex.shlex(rest, posix=True, punctuation_chars=False)
    reader.whitespace_split, reader.commenters, reader.escape = True, "", ""
    try:
        words = tuple(reader)
    except ValueError as error:
        raise ValueError(f"the command {rest!r} cannot be read ({error})") from error
    missing = [place for place in PLACES if not any(place in word for word in words)]
    if missing:
        raise ValueError(
            f"the command {rest!r} lacks {', '.join(missing)}; expected "
            f'"program --face {" ".join(PLACES)}" with each of them once'
        )
    return name or Path(words[0].replace("\\", "/")).stem, words


def find_output(folder: Path, number: int, pair: Pair) -> Path | None:
    """Find the dub of a pair in a folder of another tool.

    Args:
        folder: The folder.
        number: Number of the pair in its list, from 0.
        pair: The pair.

    Returns:
        The first file there is of: the number in five digits; FACE--SPEECH; FACE_SPEECH, by the
        names of the files without folders and suffixes. None without one.
    """
    face, speech = (Path(name).stem for name in (pair.video, pair.audio))
    for stem in (f"{number:05}", f"{face}--{speech}", f"{face}_{speech}"):
        for suffix in _SUFFIXES:
            if (folder / (stem + suffix)).is_file():
                return folder / (stem + suffix)
    return None


def take_output(folder: Path, number: int, pair: Pair, out: Path) -> None:
    """Copy the dub of a pair to ``out``.

    Raises:
        LipSyncError: If there is none.
    """
    found = find_output(folder, number, pair)
    if found is None:
        face, speech = (Path(name).stem for name in (pair.video, pair.audio))
        raise LipSyncError(
            f"{folder} has no dub of this pair; expected {number:05}.mp4 or {face}--{speech}.mp4"
        )
    shutil.copyfile(found, out)


def run_command(words: Sequence[str], face: Path, speech: Audio, out: Path) -> None:
    """Let a command make one dub.

    Args:
        words: Its words, with the places of ``PLACES``.
        face: The file of the face.
        speech: The speech, which the command gets as a WAV file of 16 bits and one channel.
        out: The file that it has to write.

    Raises:
        LipSyncError: If it cannot be started, fails, takes too long, or writes no file.
    """
    sound = out.with_name(f"{out.stem}.speech.wav")
    write_wav(sound, speech)
    places = dict(zip(PLACES, map(str, (face, sound, out)), strict=True))
    filled: list[str] = []
    for word in words:
        for place, path in places.items():
            word = word.replace(place, path)
        filled.append(word)
    try:
        done = subprocess.run(
            filled, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LipSyncError(f"{filled[0]} took more than {SECONDS:.0f} s for one pair") from error
    except OSError as error:
        raise LipSyncError(
            f"{filled[0]} cannot be started ({error}); expected a program on the PATH or its file"
        ) from error
    finally:
        sound.unlink(missing_ok=True)
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-_TAIL:]
    if done.returncode:
        raise LipSyncError(f"{filled[0]} ended with code {done.returncode}: {said}")
    if not out.is_file():
        raise LipSyncError(f"{filled[0]} ended well and did not write {out.name}: {said}")


def write_wav(path: Path, audio: Audio) -> None:
    """Write sound as a WAV file of 16 bits and one channel."""
    samples = (mix_to_mono(audio).samples[0].clamp(-1, 1) * 32767).round().short()
    try:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.rate)
            file.writeframes(samples.cpu().numpy().astype("<i2").tobytes())
    except OSError as error:
        raise MediaError(f"{path} cannot be written ({error})") from error
