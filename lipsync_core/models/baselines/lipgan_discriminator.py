"""LipGAN's discriminator: does one face, real or generated, agree with a window of audio?

Layer table: the public Keras code (github.com/Rudrabha/LipGAN, MIT, commit 0a4aab9). Its
normalization (keras_contrib's, with its defaults) takes the statistics of all channels of a sample
together.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...audio.features import CepstrumFeatures
from ...image.affine import Framing
from ..layers import SameConv
from .lipgan import LipGANStage

_EPSILON = 1e-3
_DOWN = (2, 2)


@dataclass(frozen=True, slots=True)
class LipGANDiscriminatorConfig:
    """Shape of a discriminator, and its inputs.

    Attributes:
        face: Stages of the face tower; the last makes its embedding, without normalization.
        audio: Stages of the audio tower, likewise.
        slope: Of the leaky ReLU.
        size: Side of the crops in px.
        bgr: Whether the weights were trained on BGR.
        features: Audio features.
        framing: How crops are placed on faces.
    """

    face: tuple[LipGANStage, ...] = (
        LipGANStage(64, (7, 7), _DOWN),
        LipGANStage(128, (5, 5), _DOWN),
        LipGANStage(256, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, whole=True),
    )
    audio: tuple[LipGANStage, ...] = (
        LipGANStage(64),
        LipGANStage(128),
        LipGANStage(256, stride=(1, 2), top=1),
        LipGANStage(256),
        LipGANStage(256, stride=_DOWN),
        LipGANStage(512, stride=_DOWN),
        LipGANStage(512, (4, 5), whole=True),
    )
    slope: float = 0.2
    size: int = 96
    bgr: bool = False
    features: CepstrumFeatures = CepstrumFeatures()
    framing: Framing = Framing()


class LipGANDiscriminator(nn.Module):
    """Embeds a window of audio and a face so that pairs that agree are close (L2)."""

    def __init__(self, config: LipGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.face_encoder = _tower(3, config.face, config.slope)
        self.audio_encoder = _tower(1, config.audio, config.slope)

    def forward(self, sound: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embed audio and faces.

        Args:
            sound: (N,1,12,35) cepstra.
            faces: (N,3,S,S) RGB in [0,1].

        Returns:
            Unit vectors (N,D) of the audio, and (N,D) of the faces.
        """
        faces = faces.flip(1) if self.config.bgr else faces
        audio, video = self.audio_encoder(sound), self.face_encoder(faces)
        return F.normalize(audio.flatten(1).float(), dim=1), F.normalize(
            video.flatten(1).float(), dim=1
        )


def _tower(cin: int, stages: tuple[LipGANStage, ...], slope: float) -> nn.Sequential:
    layers = nn.Sequential()
    for stage in stages:
        if stage.top:
            layers.append(nn.ZeroPad2d((0, 0, stage.top, 0)))
        layers.append(
            (nn.Conv2d if stage.whole else SameConv)(
                cin, stage.channels, stage.kernel, stage.stride
            )
        )
        cin = stage.channels
        if stage is not stages[-1]:
            layers.extend([nn.GroupNorm(1, cin, _EPSILON), nn.LeakyReLU(slope)])
    return layers
