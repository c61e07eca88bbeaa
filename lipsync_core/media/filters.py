"""Pass decoded pictures through FFmpeg's filters: deinterlacing, and reading the display matrix."""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction

from av.error import BlockingIOError as NothingYet
from av.error import EOFError as AtEnd
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from .container import Warn

_SIDE_DATA_TYPES = 64  # more than FFmpeg knows
_TO_16_16 = 1 << 16


def deinterlace(frames: Iterable[VideoFrame], warn: Warn, name: str) -> Iterator[VideoFrame]:
    """Give every interlaced frame the moment of its first field; others pass unchanged.

    Args:
        frames: Decoded frames in order.
        warn: Called once if there are interlaced ones.
        name: Name of the file, for the warning.

    Yields:
        As many frames, with their times.
    """
    graph, kind = None, None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None or kind != _kind(frame):
            warn(f"{name}: the picture is interlaced; it is deinterlaced (bwdif), frame by frame")
            yield from () if graph is None else _filter(graph, None)
            graph, kind = _graph(frame, ["bwdif=mode=send_frame:deint=interlaced"]), _kind(frame)
        yield from _filter(graph, frame)
    yield from () if graph is None else _filter(graph, None)


def fit(
    frames: Iterable[VideoFrame], size: tuple[int, int] | None, warn: Warn, name: str
) -> Iterator[VideoFrame]:
    """Scale frames of another size into ``size``, between black bars; others pass unchanged.

    Args:
        frames: Decoded frames in order.
        size: Width and height in px; None for that of the first frame.
        warn: Called for each other size.
        name: Name of the file, for the warning.

    Yields:
        As many frames, with their times.
    """
    graphs: dict[tuple[int, int, str], Graph] = {}
    for frame in frames:
        width, height = size = size or (frame.width, frame.height)
        if (frame.width, frame.height) == size:
            yield frame
            continue
        warn(
            f"{name}: the picture changes its size from {width}x{height} to {frame.width}x"
            f"{frame.height} px; it is fitted into the first"
        )
        if _kind(frame) not in graphs:
            scale = f"scale={width}:{height}:force_original_aspect_ratio=decrease:flags=area"
            pad = f"pad={width}:{height}:-1:-1"  # in the middle
            graphs[_kind(frame)] = _graph(frame, [scale, pad])
        yield from _filter(graphs[_kind(frame)], frame)


def display_matrix(frame: VideoFrame) -> tuple[float, float, float, float]:
    """Return a, b, c, d of the matrix by which a player shows a frame.

    A stored point (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    """
    # PyAV 18 must not see any other side data: it crashes on those it cannot name (EXIF) and on
    # those with a name of their own (ICC profiles), so that filters remove them before.
    others = (n for n in range(_SIDE_DATA_TYPES) if n != Type.DISPLAYMATRIX.value)
    graph = _graph(frame, [f"sidedata=mode=delete:type={n}" for n in others])
    for bare in _filter(graph, frame):
        for data in bare.side_data:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(memoryview(data)))  # pyright: ignore[reportArgumentType]
            return a / _TO_16_16, b / _TO_16_16, c / _TO_16_16, d / _TO_16_16
    return 1, 0, 0, 1


def _kind(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _graph(frame: VideoFrame, filters: list[str]) -> Graph:
    """A chain of ``filters``, each written as name=arguments, for frames like ``frame``."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    middle = [graph.add(*text.split("=", 1)) for text in filters]
    graph.link_nodes(source, *middle, graph.add("buffersink")).configure()
    return graph


def _filter(graph: Graph, frame: VideoFrame | None) -> Iterator[VideoFrame]:
    """Give a frame to a graph, None at the end, and yield what comes out."""
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (NothingYet, AtEnd):
            return
