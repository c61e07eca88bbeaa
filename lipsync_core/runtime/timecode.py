"""Parse times and frame rates."""

from fractions import Fraction


def parse_seconds(text: str) -> Fraction:
    """Parse seconds, ``m:s`` or ``h:m:s``, each part a decimal number, without rounding.

    Raises:
        ValueError: If the text is no time.
    """
    parts = text.strip().split(":")
    try:
        values = [Fraction(part) for part in parts]
    except (ValueError, ZeroDivisionError):
        values = []
    if not 1 <= len(values) <= 3 or any(v < 0 for v in values) or any(v >= 60 for v in values[1:]):
        raise ValueError(
            f"{text!r} is not a time; expected seconds or h:m:s, such as 12.5 or 0:01:30"
        )
    return sum((v * 60**k for k, v in enumerate(reversed(values))), Fraction(0))


def parse_fps(text: str) -> Fraction:
    """Parse a frame rate such as 25, 29.97 or 30000/1001.

    Raises:
        ValueError: If the text is no number above 0 and up to 1000.
    """
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise ValueError(
            f"{text!r} is not a frame rate; expected a number or a ratio, such as 25 or 30000/1001"
        )
    return fps


def nearest_frame(seconds: Fraction, fps: Fraction) -> int:
    """Return the frame boundary nearest to ``seconds``; halves go up."""
    return int(seconds * fps + Fraction(1, 2))
