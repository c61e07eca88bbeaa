"""A generator without painted pixels: it predicts lip shapes, and warps the person's own mouth.

``SpeechLips`` predicts shapes from speech, ``FaceLandmarks`` finds the lips, and ``blend.lip_warp``
moves the pixels of the best picture of the same person. ``draw`` gives shapes instead of colors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..audio.features import MelFeatures
from ..blend.lip_warp import LipRange, move_lips, paint_inside, scale_shape
from ..image.affine import Framing, apply, fit_similarity, unit_maps
from ..image.crop import sample_affine
from .face_landmarks import FaceLandmarks, FaceLandmarksConfig
from .generator import TalkingFace
from .speech_lips import SHAPE, SpeechLips, SpeechLipsConfig

# Only eyes and nose place a crop, so that moving lips do not move it. 2.7 eye distances wide: an
# open mouth, its chin and some neck fit.
EYES_AND_NOSE = ((0.315, 0.19), (0.685, 0.19), (0.50, 0.395))
KNOTS = 17  # of the curves that give predicted shapes the spread of people's


@dataclass(frozen=True, slots=True)
class LipWarpConfig:
    """Configuration of the model.

    Attributes:
        size: Side in px of the crops in which movements are computed.
        width: Of the layers of the speech network.
        landmarks: Configuration of the landmark network.
        features: Audio features.
        framing: How crops are placed on faces.
        references: Number of reference frames.
    """

    size: int = 128
    width: int = 128
    landmarks: FaceLandmarksConfig = FaceLandmarksConfig()
    features: MelFeatures = SpeechLipsConfig().features
    framing: Framing = Framing("eyes", points=EYES_AND_NOSE)
    references: int = 1


class LipWarp(TalkingFace):
    """Moves lips and jaw of real pictures to the shapes that speech needs.

    Attributes:
        heard: (3,KNOTS) predicted shapes; with ``shown`` a curve each for opening, width and jaw.
        shown: (3,KNOTS) shapes of people at the same quantiles.
        neutral: (3,) closed mouth of a person who is not seen speaking.
        spread: (3,) standard deviations of such a person's speech.
    """

    config: LipWarpConfig
    heard: Tensor
    shown: Tensor
    neutral: Tensor
    spread: Tensor

    def __init__(self, config: LipWarpConfig) -> None:
        super().__init__()
        self.config = config
        self.speech = SpeechLips(SpeechLipsConfig(config.width, config.features))
        self.landmarks = FaceLandmarks(config.landmarks)
        # no torch.linspace and clone: networks are built on the meta device, where these import
        # sympy, which takes a third as long as importing torch
        knots = [[-1 + 5 * knot / (KNOTS - 1) for knot in range(KNOTS)]] * SHAPE
        self.register_buffer("heard", torch.tensor(knots))
        self.register_buffer("shown", torch.tensor(knots))
        self.register_buffer("neutral", torch.tensor([0.01, 0.6, 0.75]))
        self.register_buffer("spread", torch.tensor([0.04, 0.03, 0.03]))

    @property
    def moves(self) -> bool:
        """Whether pixels are moved: always."""
        return True

    @property
    def prior(self) -> LipRange:
        """Range of lip shapes of a person who is not seen speaking, on the CPU as tracks are."""
        return LipRange(self.neutral.float().cpu(), self.spread.float().cpu())

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Return no features: shapes depend on the audio alone."""
        return []

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Predict lip shapes (N,3,1,1) in standard deviations from the closed mouth."""
        said = self.speech(driving).float()
        columns = [
            _interpolate(said[:, i], self.heard[i].float(), self.shown[i].float())
            for i in range(SHAPE)
        ]
        return torch.stack(columns, 1)[:, :, None, None]

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Warp the reference's lips into the pose of the target, by the landmark network."""
        count, size = len(planes), self.config.size
        target_points = self.find(target).expand(count, -1, -1)
        points = self.find(reference[:, :3]).expand(count, -1, -1)
        shape = scale_shape(planes[:, :, 0, 0].float(), self.prior)
        move = move_lips(points, target_points, shape, size)
        moved = move.warp(reference[:, :3].expand(count, -1, -1, -1))
        return paint_inside(moved, move)

    def find(self, crops: Tensor) -> Tensor:
        """Find the landmarks of faces.

        Args:
            crops: (N,3,S,S) RGB in [0,1], framed by ``config.framing``.

        Returns:
            (N,102,2) crop px.
        """
        crops = crops.float()  # a quarter of a px needs more bits than half precision has
        side, inner = crops.shape[-1], self.config.landmarks.size
        seen = crops.new_tensor(self.config.landmarks.framing.points)[None] * inner
        maps = fit_similarity(
            seen, crops.new_tensor(self.config.framing.points)[None] * side
        ).expand(len(crops), -1, -1)
        squares = unit_maps(maps, [(side, side)] * len(crops), [(inner, inner)] * len(crops))
        weight = next(self.landmarks.parameters())
        points, _ = self.landmarks(sample_affine(crops, squares, (inner, inner)).to(weight.dtype))
        return apply(maps, points.to(maps))


def _interpolate(values: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Return (N,) values on the polyline from ``knots`` (K,), rising, to ``levels`` (K,).

    Straight on beyond both ends.
    """
    place = torch.searchsorted(knots.contiguous(), values.contiguous()).clamp(1, len(knots) - 1)
    low, high = knots[place - 1], knots[place]
    share = (values - low) / (high - low).clamp_min(1e-6)
    return torch.lerp(levels[place - 1], levels[place], share)
