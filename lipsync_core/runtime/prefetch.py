"""Overlap the stages of a stream: each runs in a thread of its own, a few items ahead of the next."""

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(items: Iterator[T], *, depth: int = 1) -> Generator[T, None, None]:
    """``items`` in order, made by a thread that stays at most ``depth`` items ahead. An exception
    of the maker is raised here; closing this iterator stops and closes the maker. Video codecs and
    torch let go of the interpreter while they work, so threads are enough."""
    # an item, the maker's error, or the end
    box: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(message: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return box.put(message, timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
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

    thread = threading.Thread(target=make, daemon=True)
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


def time_items(items: Iterator[T], add: Callable[[float], None]) -> Generator[T, None, None]:
    """``items``, telling ``add`` the seconds that each took to make."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        add(time.perf_counter() - began)
        if item is None:
            return
        yield item


def share_cores() -> None:
    """The decoder, the networks and the encoder work at the same time: with a thread for every core
    in each they are in each other's way (720p on two cores: 41 frames/s with one thread for the
    networks, 36 with two)."""
    if "OMP_NUM_THREADS" not in os.environ:  # else somebody has chosen
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
