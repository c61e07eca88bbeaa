"""Frechet Inception Distance (Heusel et al. 2017), as pytorch-fid computes it, from moments that
stream and merge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.visible import crop_box, iterate_visible
from ..models.inception import FEATURES, Inception
from ..models.layers import prepare_for_inference
from ..types import FaceTrack, Frames

Region = Literal["face", "frame"]
Side = Literal["real", "generated"]

# images per pass; fixed, because convolutions round differently in batches of other sizes
_BATCH = 16
_BLOCK = 256  # rows per product: large enough for BLAS


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What is known of ``count`` feature vectors: their ``mean`` (D,) and ``scatter`` (D,D), the
    sum of outer products of what deviates from the mean; float64. A few MB that travel between
    machines (32 MiB for D = 2048)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def none(cls, width: int = FEATURES) -> "Moments":
        zeros = torch.zeros(width, width, dtype=torch.float64)
        return cls(0, zeros[0].clone(), zeros)

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Of (N,D) numbers, N at least 1."""
        rows = features.detach().to("cpu", torch.float64)
        mean = rows.mean(0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def merged(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub and LeVeque 1983: no large sums that cancel)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = (
            self.scatter
            + other.scatter
            + torch.outer(apart, apart) * (self.count * other.count / count)
        )
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    @property
    def covariance(self) -> Tensor:
        """(D,D), divided by N-1 as numpy.cov does."""
        if self.count < 2:
            raise ValueError(f"{self.count} images have no covariance; wanted at least 2")
        return self.scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^1/2), never below 0.

    The trace of the root comes from eigenvalues of the symmetric C1^1/2 C2 C1^1/2, which are those
    of C1 C2: it needs no general matrix root, and stays exact where a covariance is singular (fewer
    images than features).
    """
    c1, c2 = first.covariance, second.covariance
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0)
    distance = (
        (first.mean - second.mean).square().sum()
        + c1.trace()
        + c2.trace()
        - 2 * product.sqrt().sum()
    )
    return max(0.0, float(distance))


@dataclass(frozen=True, slots=True)
class FIDResult:
    """``distance`` between ``real`` and ``generated`` many images, of whole frames or of faces
    alone (``region``). Results of two regions do not compare. ``note`` says what makes the figure
    weak."""

    distance: float
    region: Region
    real: int
    generated: int
    note: str | None


class FID:
    """The distance of two streams of images.

    ``network``: ``load_model("fid-inception", kind="fid_inception")``, which is folded in place.
    ``region``: whole frames, or faces cut along the detector's box at their own resolution: the
    paper does not say which, and the figures differ by multiples.

    Images are taken in passes of a fixed size and in float64 beyond the network, so that a sequence
    of images gives one result however it is batched. The results of two halves that were merged
    agree with the whole to rounding.
    """

    def __init__(self, network: Inception, *, region: Region) -> None:
        if region not in ("face", "frame"):
            raise ValueError(f"region is {region!r}; wanted face or frame")
        self.region: Region = region
        self._network = prepare_for_inference(network)
        self._images: dict[Side, list[Tensor]] = {"real": [], "generated": []}
        self._streams = {"real": MomentStream(), "generated": MomentStream()}

    def update(self, frames: Frames, side: Side, *, track: FaceTrack | None = None) -> None:
        """Count these frames, or the faces of ``track`` in them.

        ``track`` is wanted for faces and refused for frames.
        """
        if (track is None) != (self.region == "frame"):
            raise ValueError(
                f"FID of {self.region}s: wanted {'no track' if track else 'the track of the face'}"
            )
        waiting = self._images[side]
        for image in _cut_images(frames, track, self._network):
            waiting.append(image)
            if len(waiting) == _BATCH:
                self._streams[side].update(_embed(waiting, self._network))
                waiting.clear()

    def moments(self, side: Side) -> Moments:
        """Of all images of that side up to now: what a worker sends home."""
        waiting = self._images[side]
        done = self._streams[side].compute()
        return done.merged(Moments.of(_embed(waiting, self._network))) if waiting else done

    def merge(self, side: Side, moments: Moments) -> None:
        """Count what another worker has seen as well."""
        self._streams[side].merge(moments)

    def compute(self) -> FIDResult:
        """ValueError where a side has fewer than 2 images."""
        real, fake = self.moments("real"), self.moments("generated")
        distance = frechet_distance(real, fake)
        few = min(real.count, fake.count)
        note = (
            f"{few} images for {FEATURES} features: the distance is biased upwards"
            if few <= FEATURES
            else None
        )
        return FIDResult(distance, self.region, real.count, fake.count, note)


def extract_features(
    network: Inception, frames: Iterable[Frames], *, track: FaceTrack | None = None
) -> Tensor:
    """(N, 2048) float32 on the CPU: what ``FID`` takes the moments of, image by image, to be kept
    and counted elsewhere. Of the faces of ``track``, or of whole frames. ``network`` is folded in
    place."""
    network = prepare_for_inference(network)
    waiting: list[Tensor] = []
    found: list[Tensor] = []
    for piece in frames:
        for image in _cut_images(piece, track, network):
            waiting.append(image)
            if len(waiting) == _BATCH:
                found.append(_embed(waiting, network))
                waiting.clear()
    found += [_embed(waiting, network)] if waiting else []
    return torch.cat([torch.zeros(0, FEATURES), *(some.float().cpu() for some in found)])


def _cut_images(frames: Frames, track: FaceTrack | None, network: Inception) -> Iterator[Tensor]:
    """(1,3,S,S) each frame, or each visible face, as the network takes it, stretched by itself:
    sizes may differ."""
    faces = (
        frames.pixels
        if track is None
        else (crop_box(pixels, box) for _, pixels, box, _ in iterate_visible(frames, track))
    )
    for pixels in faces:
        image = pixels.permute(2, 0, 1)[None].float()
        image = image / 255 if pixels.dtype == torch.uint8 else image
        yield F.interpolate(image, [network.config.size] * 2, mode="bilinear", align_corners=False)


@torch.inference_mode()
def _embed(images: list[Tensor], network: Inception) -> Tensor:
    weight = next(network.parameters())
    batch = torch.cat(images).to(weight.device, weight.dtype, memory_format=torch.channels_last)
    return network(batch)


class MomentStream:
    """Moments of features that come in pieces; the pieces' sizes change nothing, not one bit."""

    def __init__(self, width: int = FEATURES) -> None:
        self._done = Moments.none(width)
        self._rows: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """(N,D) features."""
        for row in features.detach().to("cpu", torch.float64).clone():
            self._rows.append(row)
            if len(self._rows) == _BLOCK:
                self._done = self._done.merged(Moments.of(torch.stack(self._rows)))
                self._rows = []

    def merge(self, moments: Moments) -> None:
        """Count these as well."""
        self._done = self._done.merged(moments)

    def compute(self) -> Moments:
        """Of everything up to now; more may follow."""
        return self._done.merged(Moments.of(torch.stack(self._rows))) if self._rows else self._done
