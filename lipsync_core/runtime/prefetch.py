"""Overlap the stages of a stream: each runs in its own thread, a few items ahead of the next."""

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], *, depth: int = 1) -> Generator[T, None, None]:
    """Yield ``items`` in order from a thread that stays at most ``depth`` items ahead.

    Video codecs and torch release the interpreter lock while they work, so threads suffice. An
    exception of ``items`` is raised here; closing this iterator stops and closes ``items``.

    Args:
        items: the iterator to run ahead.
        depth: most items that wait to be taken.

    Yields:
        The items.
    """
    # an item, the exception of ``items``, or the end
    box: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_fill, args=(box, items, stopped), daemon=True)
    thread.start()
    try:
        while True:
            message = box.get()
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            yield message[0]
    finally:
        stopped.set()
        thread.join()


def _fill(
    box: "queue.Queue[tuple[T] | BaseException | None]",
    items: Iterator[T],
    stopped: threading.Event,
) -> None:
    """Put ``items`` into ``box`` until they end or ``stopped`` is set, then close them."""

    def put(message: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return box.put(message, timeout=0.1)
            except queue.Full:
                continue

    try:
        for item in items:
            put((item,))
            if stopped.is_set():
                break
        put(None)
    except BaseException as error:  # it belongs to the thread that reads, which raises it
        put(error)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def time_items(items: Iterator[T], add: Callable[[float], None]) -> Generator[T, None, None]:
    """Yield ``items`` and call ``add`` with the seconds that each took to make."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        add(time.perf_counter() - began)
        if item is None:
            return
        yield item


def share_cores() -> None:
    """Leave cores to the decoder and the encoder by limiting torch's threads.

    The decoder, the networks and the encoder run at the same time. With one thread per core in each
    they compete (720p on two cores: 41 frames/s with one thread for the networks, 36 with two).
    """
    import torch  # not above: commands import this module before they check their arguments

    if "OMP_NUM_THREADS" not in os.environ:  # else the user has chosen
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
