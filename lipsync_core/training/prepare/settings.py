"""The settings of prepared clips."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ...options import DetectorName

# of the shards: the paper's, at which the networks' windows of sound and picture are equally long
FPS = Fraction(25)
RATE = 16_000  # Hz


@dataclass(frozen=True, slots=True)
class Settings:
    """How clips are cut and judged.

    Attributes:
        size: side of a crop in pixels, without the margin for augmentation.
        framing: ``aligned`` by five points, or ``box``, the detector's box grown by 10 px
            below, as the public weights need it.
        shortest: least frames of a clip.
        longest: most frames of a clip; longer takes are cut into equal parts.
        least_face: least longer side of a face, in pixels.
        least_confidence: confidence of ``scorer`` that a clip needs, in its L2 measure. Of 54
            clips of 11 speakers the least had 0.11; of 16 with a stranger's speech one got a
            verdict, with less than 0.1.
        most_offset: takes that the judge finds more frames off are not believed, for its search
            ends at 15.
        most_uncertainty: largest standard error of an offset, in frames.
        scorer: the expert that judges sync.
        detector: the face detector.
        least_score: least score of a detected face.
    """

    size: int = 96
    framing: Literal["aligned", "box"] = "aligned"
    shortest: int = 25
    longest: int = 250
    least_face: int = 48
    least_confidence: float = 0.1
    most_offset: int = 12
    most_uncertainty: float = 2.0
    scorer: str = "judge"
    detector: DetectorName = "mini"
    least_score: float = 0.7

    def __post_init__(self) -> None:
        if self.size < 16 or self.shortest < 5 or self.longest < 2 * self.shortest:
            raise ValueError(
                f"size {self.size}, shortest {self.shortest}, longest {self.longest}; expected "
                "size >= 16, shortest >= 5 frames (the experts' window), longest at least twice "
                "that"
            )
        if self.framing not in ("aligned", "box"):
            raise ValueError(f"framing is {self.framing!r}; expected aligned or box")

    @property
    def margin(self) -> int:
        """Pixels kept on every side of a crop, a twelfth of it."""
        return self.size // 12
