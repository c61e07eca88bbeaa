"""Warnings, timing and progress of one run."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ..runtime.warnings import WarningLog
from ..types import ProgressCallback


class RunLog:
    """Collects what a run reports besides its result.

    Attributes:
        warn: Takes warnings; each is logged at once and kept for the report.
        progress: Called with the stage, the frames done and their total.
        seconds: Time spent by stage. Stages overlap, because they run in threads of their own.
    """

    def __init__(self, logger: logging.Logger, on_progress: ProgressCallback | None = None) -> None:
        self.warn = WarningLog(logger)
        self.progress: ProgressCallback = on_progress or (lambda *_: None)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def rounded_seconds(self) -> dict[str, float]:
        """Time spent by stage, to the millisecond."""
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}

    def adder(self, stage: str) -> Callable[[float], None]:
        """A function that adds seconds to ``stage``."""

        def add(seconds: float) -> None:
            self.seconds[stage] += seconds

        return add

    @contextmanager
    def clock(self, stage: str) -> Generator[None]:
        """Add the time that the ``with`` block takes to ``stage``."""
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began
