"""Sync scores of one clip in several codecs, rates and qualities: what the encoding alone does."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame
from torch import Tensor

from lipsync_core.evaluation.spread import SPREADS
from lipsync_core.media import probe, read_audio, read_frames
from lipsync_core.pipelines.score import score
from lipsync_core.types import Audio

# suffix, picture, sound, quality, frames a second
ENCODINGS = (
    *((".mp4", "libx264", "aac", {"crf": str(crf)}, 25) for crf in (18, 23, 28, 35)),
    (".mp4", "libx264", "aac", {"crf": "23"}, 30),
    (".mp4", "libx264", "aac", {"crf": "23"}, 50),
    (".mkv", "libx265", "libmp3lame", {"crf": "23", "preset": "ultrafast"}, 25),
    (".webm", "libvpx-vp9", "libopus", {"crf": "31", "b": "0", "cpu-used": "8"}, 25),
    (".mkv", "ffv1", "pcm_s16le", {}, 25),
)


def encode(frames: Tensor, fps: Fraction, sound: Audio, path: Path, kind: tuple[Any, ...]) -> Path:
    """Write (N,H,W,3) uint8 at ``fps`` and sound as ``kind`` says."""
    suffix, picture, speech, options, rate = kind
    path = path.with_suffix(suffix)
    with av.open(str(path), "w") as out:
        video = out.add_stream(picture, rate=rate, options=options)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        audio = out.add_stream(speech, rate=48000)
        resampler = AudioResampler(audio.format.name, "mono", 48000)
        for i in range(int(len(frames) / fps * rate)):
            shown = VideoFrame.from_ndarray(frames[int(i * fps / rate)].numpy(), "rgb24")
            shown.pts, shown.time_base = i, Fraction(1, rate)
            out.mux(video.encode(shown))
        out.mux(video.encode())
        heard = AudioFrame.from_ndarray(sound.samples[:1].numpy(), "flt", "mono")
        heard.sample_rate, heard.pts = sound.rate, 0
        resampled = [*resampler.resample(heard), *resampler.resample(None)]
        size = audio.codec_context.frame_size
        fifo = av.AudioFifo()
        for piece in resampled:
            fifo.write(piece)
        while (piece := fifo.read(size or 1024, partial=True)) is not None:
            out.mux(audio.encode(piece))
        out.mux(audio.encode())
    return path


def measure_spread(video: Path, folder: Path, scorer: str = "judge") -> list[tuple[object, ...]]:
    """The distance, confidence and offset of a clip in each encoding."""
    info = probe(video)
    frames = torch.cat([piece.pixels for piece in read_frames(video)])
    frames = frames[:, : info.height // 2 * 2, : info.width // 2 * 2]
    sound = read_audio(video)
    sound = Audio(sound.samples.mean(0, keepdim=True), sound.rate)
    found: list[tuple[object, ...]] = []
    for i, kind in enumerate(ENCODINGS):
        path = encode(frames, info.fps, sound, folder / f"{video.stem}{i}", kind)
        best = max(score(path, scorer=scorer).tracks, key=lambda t: t.last_frame - t.first_frame)
        one = best.score
        found.append((one.distance, one.confidence, one.offset_frames, *kind))
    return found


@pytest.mark.slow
def test_encodings_of_one_clip_score_alike(talking_head: Path, tmp_path: Path) -> None:
    rows = measure_spread(talking_head, tmp_path)
    known = SPREADS["judge", "exact"]
    assert len(rows) == known.encodings
    for column, most in ((0, known.distance), (1, known.confidence)):
        values = [float(str(row[column])) for row in rows]
        spread = max(values) - min(values)
        assert 0 < spread <= most
    offsets = {row[2] for row in rows}
    assert (
        None not in offsets
        and max(map(int, map(str, offsets))) - min(map(int, map(str, offsets))) <= 1
    )
