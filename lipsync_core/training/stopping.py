"""Being asked to end."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

# SIGTERM comes from schedulers and torchrun, SIGINT from Ctrl-C; Windows has SIGBREAK (Ctrl-Break) for both.
_NAMES = ("SIGTERM", "SIGINT", "SIGBREAK")


@contextmanager
def stopping() -> Generator[Callable[[], bool]]:
    """Inside, a first signal to end only makes the function that is given return True, so that work in progress can be
    saved; a second one ends the process as ever. In threads other than the first, signals stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    signals = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number in signals:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        restore()
