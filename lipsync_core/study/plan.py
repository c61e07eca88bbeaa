"""Draw a balanced plan: the clips, methods, order and sides that each rater judges."""

import random
from dataclasses import dataclass
from itertools import combinations
from math import lcm


@dataclass(frozen=True, slots=True)
class Task:
    """Describe one screen.

    Attributes:
        rater: Index of the rater.
        position: Index of the question in the rater's order.
        clip: Index of the clip.
        methods: Indices of the methods, from left to right.
    """

    rater: int
    position: int
    clip: int
    methods: tuple[int, ...]


def make_latin_rows(n: int) -> list[list[int]]:
    """Return balanced orders of ``n`` things: a Williams square (Williams 1949).

    Each thing is equally often in each place, and equally often next after each other thing.

    Args:
        n: Number of things.

    Returns:
        ``n`` rows for even ``n``; for odd ``n`` the mirrored rows too.
    """
    # 0, 1, n-1, 2, n-2, ...
    first = [(i + 1) // 2 if i % 2 else (n - i // 2) % n for i in range(n)]
    rows = [[(item + row) % n for item in first] for row in range(n)]
    return rows if n % 2 == 0 or n == 1 else rows + [row[::-1] for row in rows]


def draw_plan(
    raters: int,
    clips: int,
    methods: int,
    *,
    side_by_side: int = 2,
    clips_per_rater: int | None = None,
    seed: int = 0,
) -> list[Task]:
    """Draw a task for every rater and each of that rater's clips.

    Three counts differ by at most one: how often a clip is judged, how often an arrangement
    (methods in places) occurs in all, and how often it occurs with one clip. Within a rater
    arrangements take turns too, and clips take turns in every place of the raters' orders
    (``make_latin_rows``).

    Args:
        raters: Number of raters.
        clips: Number of clips.
        methods: Number of methods.
        side_by_side: Number of clips on one screen.
        clips_per_rater: Number of clips that each rater judges; None for all.
        seed: Seed of the draw.

    Returns:
        The tasks of all raters.

    Raises:
        ValueError: The numbers allow no study.
    """
    per_rater = clips if clips_per_rater is None else clips_per_rater
    if raters < 1 or not 2 <= side_by_side <= methods or not 1 <= per_rater <= clips:
        raise ValueError(
            f"{raters} raters, {side_by_side} of {methods} methods side by side, {per_rater} of "
            f"{clips} clips; expected at least 1 rater, 2 methods side by side and 1 clip, and no "
            "more of either than there are"
        )
    chance = random.Random(seed)
    arrangements = _make_arrangements(methods, side_by_side, chance)
    turn = lcm(clips, len(arrangements))
    shuffled = chance.sample(range(clips), clips)
    orders = make_latin_rows(per_rater)
    relabel = list(range(per_rater))
    tasks: list[Task] = []
    for rater in range(raters):
        if rater % len(orders) == 0:
            # a new square for the next raters, so that no rater can learn the pattern
            chance.shuffle(relabel)
        for position, place in enumerate(orders[rater % len(orders)]):
            t = rater * per_rater + relabel[place]
            # One step further after each full turn: else a clip would meet the same few
            # arrangements again and again.
            methods_shown = arrangements[(t + t // turn) % len(arrangements)]
            tasks.append(Task(rater, position, shuffled[t % clips], methods_shown))
    return tasks


def _make_arrangements(
    methods: int, side_by_side: int, chance: random.Random
) -> list[tuple[int, ...]]:
    """Return every choice of methods in every row of its square.

    Each sweep shows every choice once, before any comes again.
    """
    rows = make_latin_rows(side_by_side)
    choices = list(combinations(range(methods), side_by_side))
    starts = [chance.randrange(len(rows)) for _ in choices]
    result: list[tuple[int, ...]] = []
    for sweep in range(len(rows)):
        for i in chance.sample(range(len(choices)), len(choices)):
            result.append(tuple(choices[i][k] for k in rows[(sweep + starts[i]) % len(rows)]))
    return result
