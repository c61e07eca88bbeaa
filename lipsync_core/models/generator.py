"""Interface of the generators, networks that make a face speak."""

from collections.abc import Sequence
from dataclasses import Field
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..image.affine import Framing
from ..types import Audio


class SoundFeatures(Protocol):
    """Audio features that a generator takes as input."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def rate(self) -> int:
        """Sample rate of the mono audio in Hz."""
        ...

    @property
    def lead_ms(self) -> int:
        """How long before its video frame a window begins, in ms."""
        ...

    def windows(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        """Compute one window for each video frame; independent of earlier calls.

        Args:
            audio: Mono, at ``rate`` Hz.
            fps: Frame rate of the video.
            start: First video frame.
            count: Number of video frames.

        Returns:
            (count,1,H,W) windows.
        """
        ...


class TalkingFaceConfig(Protocol):
    """Configuration that all generators have."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def size(self) -> int:
        """Side of the square crops in px, even."""
        ...

    @property
    def framing(self) -> Framing:
        """How the crops are placed on faces."""
        ...

    @property
    def references(self) -> int:
        """Number of reference pictures that the network sees beside the frame."""
        ...

    @property
    def features(self) -> SoundFeatures:
        """Audio features of the driving signal."""
        ...


class TalkingFace(nn.Module):
    """Base class of the generators.

    A mouth is made in four steps, each called as rarely as possible: ``prepare`` once for the
    references of a face and shot, ``encode`` once for each target frame (once for a photo),
    ``draw`` for each driving signal, ``render`` if colors are needed at the crop's resolution.

    Shapes: target (N,3,S,S), the frames to redraw, of which only the upper half is used; references
    (N,3*K,S,S), K pictures of the same person in any pose. RGB in [0,1].
    """

    config: Any  # a TalkingFaceConfig, each network its own

    def forward(self, driving: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Generate faces that speak.

        Args:
            driving: (N,1,H,W) windows of ``config.features``.
            target: (N,3,S,S) frames to redraw.
            reference: (N,3*K,S,S) pictures of the person.

        Returns:
            (N,3,S,S) RGB in [0,1].
        """
        features = self.encode(target, self.prepare(reference))
        return self.decode(driving, features, target, reference)

    def decode(
        self, driving: Tensor, features: Sequence[Tensor], target: Tensor, reference: Tensor
    ) -> Tensor:
        """Generate faces from encoded targets; features and pictures may have a batch of one.

        Args:
            driving: (N,1,H,W) windows of ``config.features``.
            features: Of ``encode``.
            target: (N,3,S,S) frames to redraw.
            reference: (N,3*K,S,S) pictures of the person.

        Returns:
            (N,3,S,S) RGB in [0,1].
        """
        return self.render(self.draw(driving, features), target, reference)

    @property
    def moves(self) -> bool:
        """Whether the planes of ``draw`` say where the reference's pixels go, not only colors."""
        return False

    def prepare(self, references: Tensor) -> Tensor:
        """Compute what depends only on the references, once for a face and shot.

        Args:
            references: (N,3*K,S,S) pictures of the person.

        Returns:
            (N,...) what ``encode`` takes; here the references themselves.
        """
        return references

    def encode(self, target: Tensor, prepared: Tensor) -> list[Tensor]:
        """Compute the features of target frames.

        Args:
            target: (N,3,S,S) frames to redraw.
            prepared: (N,...) of ``prepare``.

        Returns:
            Features (N,...) that ``draw`` takes.
        """
        raise NotImplementedError

    def draw(self, driving: Tensor, target: Sequence[Tensor]) -> Tensor:
        """Generate planes of faces.

        Args:
            driving: (N,1,H,W) mel windows, or what else moves the mouth (lip geometry).
            target: Features of ``encode``; they may have a batch of one.

        Returns:
            (N,C,H,W) planes that ``render`` takes.
        """
        raise NotImplementedError

    def render(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """Turn planes into pictures; target and reference may have a batch of one.

        Args:
            planes: (N,C,H,W) of ``draw``.
            target: (N,3,S,S) frames to redraw.
            reference: (N,3*K,S,S) pictures of the person.

        Returns:
            (N,3,S,S) RGB in [0,1].
        """
        raise NotImplementedError


def blank_lower_half(faces: Tensor) -> Tensor:
    """Return faces (N,C,S,S) with a black lower half: what a network may see of its target."""
    half = faces.shape[2] // 2
    return torch.cat([faces[:, :, :half], torch.zeros_like(faces[:, :, half:])], 2)


def flip_channels(faces: Tensor) -> Tensor:
    """Return pictures (N,3*K,S,S) with RGB turned into BGR and back."""
    return faces.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
