"""The lip-sync expert: a network with two towers that scores whether lips and sound agree.

Layer tables of the preset ``wav2lip``: SyncNet with color input of the public Wav2Lip code, 16 435
072 parameters.
"""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.features import MelFeatures
from ..image.affine import Framing
from .layers import Stage, chain_blocks, make_encoder, output_size

_DOWN = (2, 2)


@dataclass(frozen=True, slots=True)
class SyncExpertConfig:
    """Shape of an expert, which compares frames with the mel window that begins with them.

    Attributes:
        face: Layers of the face tower.
        audio: Layers of the audio tower.
        window: Number of consecutive frames.
        size: Side of the frames in px.
        projection: Channels of a linear layer that ends each tower, 0 for none. Without it the
            towers end in ReLU and the cosine is in [0,1], as the paper's BCE on the cosine needs.
        bgr: Whether the weights were trained on BGR.
        features: Settings of the mel spectrogram.
        framing: Framing of the face crops.
    """

    face: tuple[Stage, ...]
    audio: tuple[Stage, ...]
    window: int = 5
    size: int = 96
    projection: int = 0
    bgr: bool = False
    features: MelFeatures = MelFeatures()
    framing: Framing = Framing()


WAV2LIP_EXPERT = SyncExpertConfig(
    face=(
        Stage(32, 7, padding=3),
        Stage(64, 5, stride=(1, 2), padding=1, residuals=2),
        Stage(128, stride=_DOWN, residuals=3),
        Stage(256, stride=_DOWN, residuals=2),
        Stage(512, stride=_DOWN, residuals=2),
        Stage(512, stride=_DOWN),
        Stage(512, padding=0),
        Stage(512, 1, padding=0),
    ),
    audio=(
        Stage(32, residuals=2),
        Stage(64, stride=(3, 1), residuals=2),
        Stage(128, stride=(3, 3), residuals=2),
        Stage(256, stride=(3, 2), residuals=2),
        Stage(512, padding=0),
        Stage(512, 1, padding=0),
    ),
    bgr=True,
    framing=Framing("box", pads=(0, 10, 0, 0)),
)


def config_for_size(config: SyncExpertConfig, size: int) -> SyncExpertConfig:
    """Adapt ``config`` to faces of another size.

    Convolutions that halve are put first, as many as leave 3 to 5 px for the last one without
    padding, whose kernel covers what is left.

    Args:
        config: Shape of an expert.
        size: Side of the faces in px, a multiple of 32 from 96 to 384.

    Returns:
        The adapted shape.

    Raises:
        ValueError: If no number of convolutions fits.
    """
    first = Stage(config.face[0].channels, 5, stride=_DOWN, padding=2)
    for face in ((first,) * n + config.face for n in range(3)):
        last = max(i for i, stage in enumerate(face) if stage.kernel > 1)
        height, width = (
            output_size(side, axis, face[:last]) for axis, side in enumerate((size // 2, size))
        )
        if face[last].padding == 0 and height == width and 3 <= height <= 5:
            fitted = (*face[:last], replace(face[last], kernel=height), *face[last + 1 :])
            return replace(config, face=fitted, size=size)
    raise ValueError(
        f"no expert of this shape sees faces of {size} px; expected 96 to 384 in steps of 32"
    )


class SyncExpert(nn.Module):
    """Embed a mel window and the lower halves of faces so that agreeing pairs are close."""

    def __init__(self, config: SyncExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.face_encoder = chain_blocks(make_encoder(3 * config.window, config.face))
        self.audio_encoder = chain_blocks(make_encoder(1, config.audio))
        if config.projection:
            self.face_encoder.append(nn.Conv2d(config.face[-1].channels, config.projection, 1))
            self.audio_encoder.append(nn.Conv2d(config.audio[-1].channels, config.projection, 1))

    def forward(self, mel: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embed sound and faces.

        Args:
            mel: (N,1,80,16) in [-4,4].
            faces: (N,T,3,S,S) RGB in [0,1].

        Returns:
            Unit vectors of the audio (N,D) and of the video (N,D).
        """
        return self.embed_audio(mel), self.embed_video(faces)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Embed mel windows (N,1,80,16) as unit vectors (N,D)."""
        return _unit(self.audio_encoder(mel))

    def embed_video(self, faces: Tensor) -> Tensor:
        """Embed the lower halves of faces (N,T,3,S,S) as unit vectors (N,D)."""
        n, t, _, s, _ = faces.shape
        lower = faces[:, :, :, s // 2 :]
        lower = lower.flip(2) if self.config.bgr else lower
        return _unit(self.face_encoder(lower.reshape(n, 3 * t, s - s // 2, s)))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.flatten(1).float(), dim=1)
