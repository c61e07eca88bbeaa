"""Being asked to end."""

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
    """Inside, a first signal to end only makes the function that is given return True, so that work
    in progress can be saved; a second one, some seconds later, ends the process as ever. In threads
    other than the first, signals stay as they are."""
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
