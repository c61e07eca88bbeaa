"""A talking face without drawn pixels: speech says what shape the lips have, and the person's own
mouth is moved to it.

``SpeechLips`` hears the shape, ``FaceLandmarks`` sees where lips are, and ``blend.lip_warp`` moves
the pixels of the best picture of the same person. ``draw`` gives shapes instead of colours.
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

# Eyes and nose alone place a crop, so that lips that move do not move it. 2.7 distances of the eyes
# wide: an open mouth, its chin and some neck fit.
EYES_AND_NOSE = ((0.315, 0.19), (0.685, 0.19), (0.50, 0.395))
KNOTS = 17  # of the curves that give predicted shapes the spread that people's have


@dataclass(frozen=True, slots=True)
class LipWarpConfig:
    """What the model expects: side ``size`` of the crops in which movements are computed, px; the
    ``width`` of the network that hears speech and its ``features``; its landmark network's own
    config."""

    size: int = 128
    width: int = 128
    landmarks: FaceLandmarksConfig = FaceLandmarksConfig()
    features: MelFeatures = SpeechLipsConfig().features
    framing: Framing = Framing("eyes", points=EYES_AND_NOSE)
    references: int = 1


class LipWarp(TalkingFace):
    """Moves lips and jaw of real pictures to the shapes that speech asks for.

    ``heard`` and ``shown`` (3,KNOTS): where in the spread of a person's shapes what the network
    says lies, as curves; ``neutral`` (3,) and ``spread`` (3,): a person's closed mouth and standard
    deviations, for people who are not seen speaking.
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
        knots = torch.linspace(-1, 4, KNOTS).expand(SHAPE, -1)
        self.register_buffer("heard", knots.clone())
        self.register_buffer("shown", knots.clone())
        self.register_buffer("neutral", torch.tensor([0.01, 0.6, 0.75]))
        self.register_buffer("spread", torch.tensor([0.04, 0.03, 0.03]))

    @property
    def moves(self) -> bool:
        return True

    @property
    def prior(self) -> LipRange:
        """The range of lip shapes of somebody who is not seen speaking, on the CPU as tracks are."""
        return LipRange(self.neutral.float().cpu(), self.spread.float().cpu())

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        return []

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """The shapes (N,3,1,1) of the lips, in standard deviations from a person's closed mouth."""
        said = self.speech(driving).float()
        columns = [
            _through(said[:, i], self.heard[i].float(), self.shown[i].float()) for i in range(SHAPE)
        ]
        return torch.stack(columns, 1)[:, :, None, None]

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """The frames (N,3,S,S): lips of ``reference`` in the pose of ``target``, both seen by the
        landmark network."""
        count, size = len(planes), self.config.size
        there = self.find(target).expand(count, -1, -1)
        here = self.find(reference[:, :3]).expand(count, -1, -1)
        wanted = scale_shape(planes[:, :, 0, 0].float(), self.prior)
        move = move_lips(here, there, wanted, size)
        moved = move.warp(reference[:, :3].expand(count, -1, -1, -1))
        return paint_inside(moved, move)

    def find(self, crops: Tensor) -> Tensor:
        """The landmarks (N,102,2) in px of crops (N,3,S,S) that are framed as ``config.framing``
        says."""
        crops = crops.float()  # places of a quarter of a px want more bits than half precision has
        side, inner = crops.shape[-1], self.config.landmarks.size
        seen = crops.new_tensor(self.config.landmarks.framing.points)[None] * inner
        maps = fit_similarity(
            seen, crops.new_tensor(self.config.framing.points)[None] * side
        ).expand(len(crops), -1, -1)
        squares = unit_maps(maps, [(side, side)] * len(crops), [(inner, inner)] * len(crops))
        weight = next(self.landmarks.parameters())
        points, _ = self.landmarks(sample_affine(crops, squares, (inner, inner)).to(weight.dtype))
        return apply(maps, points.to(maps))


def _through(values: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(N,) through straight pieces from ``knots`` (K,), rising, to ``levels`` (K,); straight on
    beyond both ends."""
    place = torch.searchsorted(knots.contiguous(), values.contiguous()).clamp(1, len(knots) - 1)
    low, high = knots[place - 1], knots[place]
    share = (values - low) / (high - low).clamp_min(1e-6)
    return torch.lerp(levels[place - 1], levels[place], share)
