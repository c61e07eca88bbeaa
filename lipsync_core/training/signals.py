"""Signals that ask a process to end."""

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

# SIGTERM comes from schedulers and torchrun, SIGINT from Ctrl-C; Windows has SIGBREAK (Ctrl-Break)
# for both.
_NAMES = ("SIGTERM", "SIGINT", "SIGBREAK")
# What follows this soon is an echo: torchrun passes on a Ctrl-C that the terminal gave to its
# processes already.
_ECHO_S = 3.0


@contextmanager
def stopping() -> Generator[Callable[[], bool]]:
    """Catch the first signal to end, so that work in progress can be saved.

    A second signal, 3 s or more after the first, ends the process as usual. In threads other
    than the main one, signals stay as they are.

    Yields:
        A function that returns whether a signal has come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[float] = []  # when
    signals = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] >= _ECHO_S:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
