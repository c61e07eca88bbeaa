"""What a network that makes faces speak offers, so that ``LipSync`` can work with any of them."""

from collections.abc import Sequence
from dataclasses import Field
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..image.affine import Framing
from ..types import Audio


class SoundFeatures(Protocol):
    """What a network hears. ``rate``: Hz of the mono sound; ``lead_ms``: how long before its video
    frame a window begins."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def rate(self) -> int: ...
    @property
    def lead_ms(self) -> int: ...

    def windows(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        """One window for each of the frames ``start`` .. ``start+count-1``: (count,1,H,W), whatever
        was asked before."""
        ...


class TalkingFaceConfig(Protocol):
    """``size``: side of the square crops, even; ``framing``: how they are cut; ``references``:
    pictures of the person that are shown beside the frame to redraw."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def size(self) -> int: ...
    @property
    def framing(self) -> Framing: ...
    @property
    def references(self) -> int: ...
    @property
    def features(self) -> SoundFeatures: ...


class TalkingFace(nn.Module):
    """Redraws faces so that they speak: ``encode`` sees the face, ``draw`` hears the sound,
    ``picture`` shows the result.

    ``target`` (N,3,S,S): the frames to redraw, of which only the upper half is looked at;
    ``reference`` (N,3*K,S,S): K pictures of the same person, any pose. RGB in [0,1].
    """

    config: Any  # a TalkingFaceConfig, each network its own

    def forward(self, sound: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """What the faces look like while speaking: (N,3,S,S) RGB in [0,1]. ``sound``: (N,1,H,W),
        what ``config.features.windows`` gives."""
        return self.decode(sound, self.encode(target, reference), target, reference)

    def decode(
        self, sound: Tensor, skips: Sequence[Tensor], target: Tensor, reference: Tensor
    ) -> Tensor:
        """The frames (N,3,S,S) for sound (N,1,H,W); features, target and reference may have a batch
        of one."""
        return self.picture(self.draw(sound, skips), target, reference)

    @property
    def moves(self) -> bool:
        """Whether the drawn planes say where the reference's pixels go (see ``generator.unpacked``)
        instead of colours."""
        return False

    def encode(self, target: Tensor, reference: Tensor) -> list[Tensor]:
        """The face's features. A still face needs them only once."""
        raise NotImplementedError

    def draw(self, sound: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The planes (N,C,H,W) that ``picture`` makes its picture of; features may have a batch of
        one."""
        raise NotImplementedError

    def picture(self, planes: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        """The frames (N,3,S,S) that drawn planes make; target and reference may have a batch of
        one."""
        raise NotImplementedError


def upper_half(faces: Tensor) -> Tensor:
    """(N,C,S,S) faces with their lower half black: what a network may see of the frame that it
    redraws."""
    half = faces.shape[2] // 2
    return torch.cat([faces[:, :, :half], torch.zeros_like(faces[:, :, half:])], 2)


def flipped(faces: Tensor) -> Tensor:
    """(N,3*K,S,S) pictures with the channels of each in reverse order: RGB for BGR and back."""
    return faces.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
