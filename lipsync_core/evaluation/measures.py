"""Measure the picture of one dub in one pass over its frames and those of its source."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..media import describe_codecs, track_used
from ..metrics.lip_picture import Flicker, InnerMouthSharpness, LipColor, UntouchedPicture
from ..metrics.lip_shapes import LipLeak, MouthDivergence, SilentLips
from ..metrics.no_reference import BorderJitter, Sharpness
from ..metrics.success import RULES_VERSION
from ..metrics.sync_embedder import Scorer
from ..pipelines.mouth_following import LANDMARKS, MouthMeter
from ..types import FaceTrack, Frames

VERSION = 1
"""Of what ``bench`` measures: raised when a figure changes, and no stored result is used again."""


def measure_picture(
    source: Iterable[Frames],
    made: Iterable[Frames],
    person: FaceTrack,
    source_points: Tensor,
    meter: MouthMeter,
) -> tuple[Tensor, dict[str, float | None]]:
    """Measure the picture of a dub, up to the end of the shorter of both.

    Args:
        source: Frames of the source, from the first.
        made: The same frames of the dub, in pieces of the same sizes.
        person: The face, in both.
        source_points: (N,102,2) landmarks of the source.
        meter: Finds the landmarks of the dub.

    Returns:
        (M,102,2) landmarks of the dub's frames, NaN without a face; and the figures by name, None
        where there are none.
    """
    sharpness, jitter, inner = Sharpness(), BorderJitter(), InnerMouthSharpness()
    color, flicker, rest = LipColor(), Flicker(), UntouchedPicture()
    found: list[Tensor] = []
    for before, after in zip(source, made, strict=False):
        common = min(len(before.pixels), len(after.pixels))
        old, new = (Frames(piece.pixels[:common], piece.start) for piece in (before, after))
        points = meter.along([new], person)
        sharpness.update(new, person)
        jitter.update(new, person)
        inner.update(new, points)
        color.update(old, new, source_points[old.start : old.start + common], points)
        flicker.update(old, new, person)
        rest.update(old, new, person)
        found.append(points)
    untouched = rest.compute()
    return torch.cat(found or [source_points[:0]]), {
        "sharpness": sharpness.compute(),
        "border_jitter": jitter.compute(),
        "inner_sharpness": inner.compute(),
        "lip_color": color.compute(),
        "flicker": flicker.compute(),
        "untouched_exact": untouched.exact,
        "untouched_change": untouched.change,
    }


def measure_silence(points: Tensor) -> dict[str, float | None]:
    """Measure a dub with silence by its landmarks (N,102,2): LipLeak, SILENT and MAR divergence."""
    metrics = {"lip_leak": LipLeak(), "silent": SilentLips(), "mar_divergence": MouthDivergence()}
    for metric in metrics.values():
        metric.update(points)
    return {name: metric.compute() for name, metric in metrics.items()}


def describe_protocol(video: Path, scorer: Scorer, *, mode: str, detector: str) -> dict[str, Any]:
    """Say what figures depend on besides the dub.

    Args:
        video: The file that was measured.
        scorer: The sync scorer.
        mode: Its mode.
        detector: The face detector and its least score.

    Returns:
        "version", "measures", "rules", "scorer", "mode", "detector", "crop", "landmarks" and
        "codec" for JSON.
    """
    reference = mode == "reference"
    framing = scorer.framing
    crop = (
        "224 px around the box, as the public scripts"
        if reference
        else f"{scorer.size} px by {framing.kind}, at {scorer.fps} fps"
    )
    return {
        "version": __version__,
        "measures": VERSION,
        "rules": RULES_VERSION,
        "scorer": scorer.name,
        "mode": mode,
        "detector": "sfd_face (scores); " * reference + detector,
        "crop": crop,
        "landmarks": LANDMARKS,
        "codec": describe_codecs(video),
        "audio_track": track_used(video, None),
    }
