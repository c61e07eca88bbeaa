"""Keep the study's plan and votes in an SQLite file.

The plan never changes; each vote is on the disk before it is acknowledged.
"""

import hashlib
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..errors import LipSyncError

# the paper's three opinions, each 1 (bad) .. 5 (excellent)
QUESTIONS = ("sync", "quality", "overall")
SCALE = range(1, 6)

# The foreign keys say that only what was shown can be rated or preferred; preferred NULL: a clip
# could not be played.
SCHEMA = f"""
CREATE TABLE study (version INTEGER NOT NULL, title TEXT NOT NULL, seed INTEGER NOT NULL,
    created TEXT NOT NULL);
CREATE TABLE method (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE clip (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE media (
    id TEXT PRIMARY KEY, clip INTEGER NOT NULL REFERENCES clip,
    method INTEGER NOT NULL REFERENCES method,
    UNIQUE (clip, method));
CREATE TABLE rater (id INTEGER PRIMARY KEY, token_sha256 BLOB NOT NULL UNIQUE);
CREATE TABLE task (
    id TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES rater, position INTEGER NOT NULL,
    UNIQUE (rater, position));
CREATE TABLE shown (
    task TEXT NOT NULL REFERENCES task, place INTEGER NOT NULL,
    media TEXT NOT NULL REFERENCES media,
    PRIMARY KEY (task, place), UNIQUE (task, media));
CREATE INDEX shown_media ON shown (media);
CREATE TABLE vote (
    task TEXT PRIMARY KEY REFERENCES task, preferred INTEGER, at TEXT NOT NULL,
    FOREIGN KEY (task, preferred) REFERENCES shown (task, place));
CREATE TABLE rating (
    task TEXT NOT NULL REFERENCES vote, place INTEGER NOT NULL,
    question TEXT NOT NULL CHECK (question IN {QUESTIONS}),
    value INTEGER NOT NULL CHECK (value BETWEEN {SCALE[0]} AND {SCALE[-1]}),
    PRIMARY KEY (task, place, question),
    FOREIGN KEY (task, place) REFERENCES shown (task, place));
"""
VERSION = 1


class StudyError(LipSyncError):
    """Raised if a study cannot be built, opened or reported."""


class Refused(StudyError):
    """Raised if the task is not this rater's."""


class AlreadyVoted(StudyError):
    """Raised if the task has another vote; the first one counts."""


@dataclass(frozen=True, slots=True)
class Question:
    """Describe what a rater sees next.

    Attributes:
        task: Id of the task.
        media: Ids of the clips, from left to right.
        done: Number of the rater's answered tasks.
        total: Number of the rater's tasks.
    """

    task: str
    media: tuple[str, ...]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Vote:
    """Hold one answered screen.

    Attributes:
        preferred: Preferred place, from the left and 0-based; None if a clip could not be played.
        ratings: For each place a value 1..5 for each of ``QUESTIONS``; empty if a clip could not be
            played.
    """

    preferred: int | None
    ratings: tuple[Mapping[str, int], ...]

    def check(self, places: int) -> None:
        """Raise an error unless the vote answers a screen in full.

        Args:
            places: Number of clips on the screen.

        Raises:
            ValueError: The vote is incomplete or has values out of range.
        """
        whole = all(
            set(r) == set(QUESTIONS) and all(type(v) is int and v in SCALE for v in r.values())
            for r in self.ratings
        )
        answered = (
            type(self.preferred) is int
            and 0 <= self.preferred < places
            and len(self.ratings) == places
        )
        unplayable = self.preferred is None and not self.ratings
        if not whole or not (answered or unplayable):
            raise ValueError(
                f"the vote has preferred {self.preferred} and ratings {self.ratings}; expected a "
                f"place 0..{places - 1} and for each of {places} clips {', '.join(QUESTIONS)} from "
                f"{SCALE[0]} to {SCALE[-1]}"
            )


@contextmanager
def open_study(folder: Path, *, writing: bool = False) -> Generator[sqlite3.Connection]:
    """Open the study's database for one transaction.

    The transaction is on the disk when the block ends, and undone if the block raises. Each use has
    its own connection: threads share none, and SQLite does the locking; readers wait for no writer.
    The folder must lie on a local disk (the write-ahead log needs shared memory).

    Args:
        folder: Folder of the study.
        writing: Whether the block writes.

    Yields:
        The connection.

    Raises:
        StudyError: There is no study.
    """
    path = folder / "study.sqlite"
    if not path.is_file():
        raise StudyError(
            f"{folder} holds no study.sqlite; build the study with: lipsync study create {folder}"
        )
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        try:
            make_durable(db)
            (version,) = db.execute("SELECT version FROM study").fetchone()
        except (sqlite3.DatabaseError, TypeError) as error:  # TypeError: an empty table
            raise StudyError(f"{path} is not a study ({error}); restore it from a copy") from error
        if version != VERSION:
            raise StudyError(f"{path} is of version {version}; this program reads {VERSION}")
        db.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def make_durable(db: sqlite3.Connection) -> None:
    """Make every commit survive the end of the process and a power failure."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # the log is flushed at each commit
    # macOS: past the disk's own cache; elsewhere without effect
    db.execute("PRAGMA fullfsync = ON")
    db.execute("PRAGMA foreign_keys = ON")


def hash_token(token: str) -> bytes:
    """Return the hash of a link's token, which is all that the database stores of it.

    The time of a lookup reveals nothing: a caller cannot choose a token by its hash.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def find_rater(db: sqlite3.Connection, token: str) -> int | None:
    """Return the rater whose link has this token; None if there is none."""
    row = db.execute("SELECT id FROM rater WHERE token_sha256 = ?", (hash_token(token),)).fetchone()
    return None if row is None else row[0]


def find_next_question(db: sqlite3.Connection, rater: int) -> Question | None:
    """Return the first task without a vote; None when all are done."""
    tasks = db.execute(
        "SELECT task.id, vote.task IS NOT NULL FROM task LEFT JOIN vote ON vote.task = task.id "
        "WHERE rater = ? ORDER BY position",
        (rater,),
    ).fetchall()
    done = sum(voted for _, voted in tasks)
    for task, voted in tasks:
        if not voted:
            media = db.execute("SELECT media FROM shown WHERE task = ? ORDER BY place", (task,))
            return Question(task, tuple(row[0] for row in media), done, len(tasks))
    return None


def can_see(db: sqlite3.Connection, rater: int, media: str) -> bool:
    """Return whether a task of the rater shows this clip."""
    query = "SELECT 1 FROM shown JOIN task ON task.id = shown.task WHERE media = ? AND rater = ?"
    return db.execute(query, (media, rater)).fetchone() is not None


def record_vote(
    db: sqlite3.Connection, rater: int, task: str, vote: Vote
) -> Literal["saved", "repeated"]:
    """Keep a vote; the same vote again changes nothing.

    Args:
        db: Connection that may write.
        rater: Index of the rater.
        task: Id of the task.
        vote: The answers.

    Returns:
        "saved", or "repeated" for the same vote again.

    Raises:
        Refused: The task belongs to another rater, or does not exist.
        AlreadyVoted: The task has another vote.
        ValueError: The vote is incomplete.
    """
    if (
        db.execute("SELECT 1 FROM task WHERE id = ? AND rater = ?", (task, rater)).fetchone()
        is None
    ):
        raise Refused("this task belongs to no such session; open your own link")
    (places,) = db.execute("SELECT count(*) FROM shown WHERE task = ?", (task,)).fetchone()
    vote.check(places)
    if db.execute("SELECT 1 FROM vote WHERE task = ?", (task,)).fetchone() is not None:
        if _read_vote(db, task, places) != vote:
            raise AlreadyVoted("this question has been answered before; the first answer counts")
        return "repeated"
    db.execute(
        "INSERT INTO vote VALUES (?, ?, ?)", (task, vote.preferred, datetime.now(UTC).isoformat())
    )
    rows = [
        (task, place, q, value) for place, r in enumerate(vote.ratings) for q, value in r.items()
    ]
    db.executemany("INSERT INTO rating VALUES (?, ?, ?, ?)", rows)
    return "saved"


def _read_vote(db: sqlite3.Connection, task: str, places: int) -> Vote:
    (preferred,) = db.execute("SELECT preferred FROM vote WHERE task = ?", (task,)).fetchone()
    ratings: list[dict[str, int]] = [{} for _ in range(places if preferred is not None else 0)]
    for place, question, value in db.execute(
        "SELECT place, question, value FROM rating WHERE task = ?", (task,)
    ):
        ratings[place][question] = value
    return Vote(preferred, tuple(ratings))
