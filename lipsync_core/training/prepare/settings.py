"""What prepared clips depend on."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ...pipelines.track_faces import DetectorName

# of the shards: the paper's, at which the networks' windows of sound and picture are equally long
FPS = Fraction(25)
RATE = 16_000  # Hz


@dataclass(frozen=True, slots=True)
class Settings:
    """``size`` px of a crop, round which a twelfth is kept as ``margin``, for augmentation.

    ``framing``: ``aligned`` by five points, or ``box``, the detector's box grown by 10 px below, as
    the public weights want it. ``shortest``, ``longest`` frames of a clip; longer takes are cut
    into equal parts. ``least_face`` px: the longer side of a face, mostly. A clip needs
    ``least_confidence`` of ``scorer``, in its L2 measure: of 54 clips of 11 speakers the least had
    0.11; of 16 with a stranger's speech one got a verdict, with less than 0.1. Takes that the judge
    finds more than ``most_offset`` frames off are not believed, for its search ends at 15; nor
    offsets with a standard error above ``most_uncertainty`` frames. ``detector``, ``least_score``:
    how faces are found.
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
                f"size {self.size}, shortest {self.shortest}, longest {self.longest}; wanted size "
                ">= 16, shortest >= 5 frames "
                "(the experts' window), longest at least twice that"
            )
        if self.framing not in ("aligned", "box"):
            raise ValueError(f"framing is {self.framing!r}; wanted aligned or box")

    @property
    def margin(self) -> int:
        """px on every side of a crop: what ``training.sync.shown`` takes off."""
        return self.size // 12
