"""Find where the clock of a file jumps, as in captures and downloads that were joined."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from av.packet import Packet

# Containers whose files can be joined as they are; a tick is 1/90000 s in both.
JOINABLE = ("mpegts", "mpeg")
_BACK = 45_000  # ticks; what is less is a careless writer
_AHEAD = 900_000  # ticks; what is less may be a pause
_NEAR = 500  # packets in which each stream has its first after a jump


class Stamp(NamedTuple):
    """When a packet is decoded.

    Attributes:
        position: Its place in the file in bytes.
        stream: Index of its stream.
        begin: In ticks of the file's clock.
        end: When the next packet of the stream is due.
    """

    position: int
    stream: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Jump:
    """A place from which on the clock is to be moved.

    Attributes:
        position: Bytes from the start of the file.
        shift: Ticks to be added to the times of all that follows, up to the next jump.
        begin: When what follows begins, in ticks of the moved clock.
    """

    position: int
    shift: int
    begin: int


def find_jumps(stamps: Iterable[Stamp]) -> tuple[Jump, ...]:
    """Return the jumps of the clock of a file, by which parts follow each other without overlap.

    Args:
        stamps: Of the packets of picture and sound, in any order.
    """
    ordered = sorted(stamps)
    due: dict[int, int] = {}  # by stream, on the moved clock
    shift, jumps = 0, list[Jump]()
    for index, stamp in enumerate(ordered):
        late = stamp.begin + shift - due.get(stamp.stream, stamp.begin + shift)
        if not -_BACK <= late <= _AHEAD:
            shifts = _shifts_after(ordered, index, due)
            # a stream that goes on as before: the other one has a hole
            if all(abs(one - shift) > _BACK for one in shifts):
                shift = max(shifts)
                jumps.append(Jump(stamp.position, shift, stamp.begin + shift))
        due[stamp.stream] = stamp.end + shift
    return tuple(jumps)


def _shifts_after(ordered: list[Stamp], index: int, due: dict[int, int]) -> list[int]:
    """The shift by which each stream would go on without a gap from ``ordered[index]`` on."""
    first: dict[int, int] = {}
    for stamp in ordered[index : index + _NEAR]:
        first.setdefault(stamp.stream, stamp.begin)
    return [due[stream] - begin for stream, begin in first.items() if stream in due]


def move_packet(packet: "Packet[Any]", jumps: tuple[Jump, ...]) -> None:
    """Give a packet the times of a clock without jumps."""
    passed = bisect_right(jumps, packet.pos or 0, key=lambda jump: jump.position)
    if passed:
        ticks = jumps[passed - 1].shift
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
