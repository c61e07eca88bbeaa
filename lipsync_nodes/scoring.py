"""The work of the nodes 'Score LipSync' and 'Shift Audio'."""

import logging
import math
import textwrap
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..lipsync_core.audio.ops import shift
from ..lipsync_core.errors import MediaError, NoFaceError
from ..lipsync_core.options import Cut
from ..lipsync_core.pipelines.score import ScoreReport, TrackScore, explain_score, score
from ..lipsync_core.pipelines.score_plot import draw_scores
from ..lipsync_core.pipelines.track_faces import Finding
from ..lipsync_core.types import Audio
from . import convert, host
from .videos import VideoSource, explain_failure, media_source, member_name

_log = logging.getLogger("lipsync.nodes")
_PLOT_SIZE = (1200, 312)  # px, as one row of a plot
_JUDGE_FPS = 25  # offsets are given in frames of this rate, whatever the rate of the video
_WORKING_BYTES = 2 << 30  # of a scorer, its detector and their batches; measured below 1.5 GB


def score_media(
    media: Any, audio: Any, *, fps: float, scorer: str, search_seconds: float
) -> tuple[float, float, float, float, Tensor, str]:
    """Score a VIDEO or an IMAGE batch.

    Args:
        media: VIDEO or IMAGE.
        audio: AUDIO to compare with; None for the video's own.
        fps: The rate at which an IMAGE batch is shown.
        scorer: A choice of the node.
        search_seconds: How far to each side the offset is searched.

    Returns:
        Offset in frames at 25 fps and in ms, LSE-D, LSE-C, the plot as an IMAGE, and the verdict.

    Raises:
        NoFaceError: No face is found; in a clip of a folder this is the verdict.
        MediaError: There is no sound or no picture; likewise.
    """
    progress = host.Progress({"pull": 1, "find faces": 4, "score": 6})
    if scorer != "judge":
        host.pull_weights(scorer, progress)
    host.free_device_memory(_WORKING_BYTES)
    sound, name = None if audio is None else convert.audio(audio), member_name(media)
    with media_source(media, fps) as source:
        try:
            report = _report(source, sound, scorer, progress, search_seconds)
        except (NoFaceError, MediaError) as error:
            if name is None:
                raise
            return _without_score(explain_failure(name, source.path, error))
    best = _best_track(report).score
    offset_ms = best.offset_ms or 0.0
    offset = offset_ms * _JUDGE_FPS / 1000
    plot = convert.image(draw_scores(report))
    return offset, offset_ms, best.distance, best.confidence, plot, _words(report)


def _without_score(verdict: str) -> tuple[float, float, float, float, Tensor, str]:
    """The outputs for a clip of a folder that cannot be scored: no offset, and a picture of why."""
    _log.warning("%s", verdict)
    sheet = Image.new("RGB", _PLOT_SIZE, "white")
    lines = "\n".join(textwrap.wrap(verdict, 90))
    ImageDraw.Draw(sheet).multiline_text((40, 40), lines, "black", ImageFont.load_default(24))
    picture = convert.image(torch.from_numpy(np.asarray(sheet).copy()))
    return 0.0, 0.0, math.nan, 0.0, picture, verdict


def shifted(audio: Any, amount: float, unit: str, fps: float) -> dict[str, Any]:
    """Delay an AUDIO by ``amount`` frames at ``fps``, or milliseconds if ``unit`` is "ms"."""
    delay = convert.seconds(amount) / (convert.rate(fps) if unit == "frames" else Fraction(1000))
    return convert.audio_value(shift(convert.audio(audio), delay))


def _report(
    source: VideoSource,
    audio: Audio | None,
    scorer: str,
    progress: host.Progress,
    search_seconds: float,
) -> ScoreReport:
    sound = source.sound if audio is None else audio
    if sound is None:
        sound = source.audio()  # raises
    return score(
        source.path,
        sound if isinstance(sound, Audio) else None,
        scorer=scorer,
        cut=Cut(source.start, source.end),
        finding=Finding(cache=source.lasting),
        device=str(host.device()),
        on_progress=progress,
        search_seconds=search_seconds,
    )


def _best_track(report: ScoreReport) -> TrackScore:
    """The face with the highest confidence, else the one visible longest."""
    if any(track.score.offset_frames is not None for track in report.tracks):
        return report.best()
    return max(report.tracks, key=lambda track: track.last_frame - track.first_frame)


def _words(report: ScoreReport) -> str:
    lines = [explain_score(track.score, report.fps) for track in report.tracks]
    if len(lines) > 1:
        faces = zip(report.tracks, lines, strict=True)
        lines = [
            f"face at {f.centre[0]},{f.centre[1]}, frames {f.first_frame}-{f.last_frame}: {line}"
            for f, line in faces
        ]
    return "\n".join([*lines, *report.warnings])
