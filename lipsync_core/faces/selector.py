"""The rule that names a person: ``--face largest | left | right | INDEX | x,y``."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FaceSelector:
    """A rule that picks a person.

    See ``parse_face``. ``index`` counts for "index", ``point`` (x, y in source px) for "point".
    """

    rule: Literal["largest", "left", "right", "index", "point"] = "largest"
    index: int = 0
    point: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        if self.rule == "index":
            return str(self.index)
        return f"{self.point[0]:g},{self.point[1]:g}" if self.rule == "point" else self.rule


def parse_face(text: str) -> FaceSelector:
    """Parse a face selector.

    It is ``largest``, ``left``, ``right``, an INDEX from 0 that counts from left to right at first
    appearance, or ``x,y`` in source pixels, a place on the face when it first appears.

    Raises:
        ValueError: If the text is anything else.
    """
    word = text.strip().lower()
    if word == "largest" or word == "left" or word == "right":
        return FaceSelector(word)
    if re.fullmatch(r"[0-9]{1,6}", word):
        return FaceSelector("index", index=int(word))
    if pair := re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*,\s*([0-9]+(?:\.[0-9]*)?)", word):
        return FaceSelector("point", point=(float(pair[1]), float(pair[2])))
    raise ValueError(
        f"{text!r} names no face; expected largest, left, right, an index from 0 (counted from "
        "left to right at first appearance), or x,y in source pixels, such as 640,200"
    )
