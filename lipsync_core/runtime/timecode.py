"""Time as people write it."""

from fractions import Fraction


def parse_seconds(text: str) -> Fraction:
    """Seconds, m:s or h:m:s, each part a decimal number, as an exact number of seconds. ValueError."""
    parts = text.strip().split(":")
    try:
        values = [Fraction(part) for part in parts]
    except (ValueError, ZeroDivisionError):
        values = []
    if not 1 <= len(values) <= 3 or any(v < 0 for v in values) or any(v >= 60 for v in values[1:]):
        raise ValueError(f"{text!r} is no time; wanted seconds or h:m:s, such as 12.5 or 0:01:30")
    return sum((v * 60**k for k, v in enumerate(reversed(values))), Fraction(0))


def nearest_frame(seconds: Fraction, fps: Fraction) -> int:
    """The frame boundary nearest to ``seconds``, half a frame up."""
    return int(seconds * fps + Fraction(1, 2))
