"""Process one source: cut its takes into clips, judge them, and store their parts."""

import errno
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ...audio.features import log_mel
from ...errors import LipSyncError, MediaError
from ...faces import Detector
from ...faces.similarity import PORTRAIT_SIZE, describe
from ...media import read_audio
from ...metrics.sync import SEARCH, SyncMeter, embed_audio_windows
from ...metrics.sync_embedder import Scorer
from ...pipelines.score import load_scorer
from ...pipelines.track_faces import Finding, load_detector, select_device
from ...runtime.atomic import atomic_write
from ...runtime.jobs import Job, Outcome, Work
from ...types import Audio, SyncScore
from .clips_from_video import PictureTakes, Piece, Take, VideoTakes
from .settings import FPS, RATE, Settings
from .sources import SOUND, Source

JOBS, PARTS, DROPPED = "jobs.jsonl", "parts", "dropped"
FULL = "stopped"  # key of a result without work: the disk is full
LEAST_FREE = 256 << 20  # bytes that must be free to begin a source
# Frames of sound kept before and after a clip: as far as recipes look for rival sounds, and a
# window
CONTEXT = SEARCH + 5
_FRAMES_OF_PRINT, _GRAY, _BANDS, _STEPS = 4, 12, 16, 32
# of pictures, of sound; the rest is likeness
PRINT = (_FRAMES_OF_PRINT * _GRAY * _GRAY, _BANDS * _STEPS)


@dataclass(frozen=True, slots=True)
class Preparing:
    """Builds what processes a job: each core or machine has its own detector and judge.

    See ``run_jobs``.

    Attributes:
        root: the folder of sources.
        out: the folder of the shards.
        settings: how clips are cut and judged.
        device: device of the detector and the judge.
    """

    root: Path
    out: Path
    settings: Settings
    device: str = "cpu"

    def __call__(self) -> Work:
        """Return the function that processes a job."""
        device, settings = select_device(self.device), self.settings
        finding = Finding(detector=settings.detector, min_score=settings.least_score, cache=False)
        detector, _ = load_detector(finding, device)
        scorer = load_scorer(settings.scorer, device)
        if scorer.fps != FPS or scorer.rate != RATE:
            raise ValueError(
                f"the scorer {scorer.name} looks at {scorer.fps} fps; shards are made at {FPS}: "
                "take the judge"
            )

        def work(arguments: Mapping[str, Any]) -> dict[str, Any]:
            self.out.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.out).free < LEAST_FREE:
                return {FULL: "the disk is full"}
            try:
                return _prepared(
                    Source(arguments["name"], arguments["kind"]), self, detector, scorer
                )
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return {FULL: str(error)}
                raise

        return work


def job_of(source: Source, root: Path, settings: Settings) -> Job:
    """Return a source as a job, which is done again if the file or the settings change."""
    arguments = {
        "name": source.name,
        "kind": source.kind,
        "stamp": source.stamp(root),
        "settings": asdict(settings),
    }
    return Job(source.key, arguments)


def unfinished(outcome: Outcome) -> bool:
    """Return whether the disk was full."""
    return outcome.result is not None and FULL in outcome.result


@dataclass(slots=True)
class _Stretch:
    """A clip in progress: frames ``first`` to ``stop-1`` of a take."""

    key: str
    take: int
    first: int
    stop: int
    small: list[Tensor]  # (Gray pictures) of its print
    portrait: Tensor | None = None


def _prepared(source: Source, job: Preparing, detector: Detector, scorer: Scorer) -> dict[str, Any]:  # noqa: C901
    settings, path = job.settings, job.root / source.name
    parts = job.out / PARTS / source.key
    shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
    dropped: list[dict[str, Any]] = []
    try:
        sound = read_audio(
            path / SOUND if source.kind == "pictures" else path,
            rate=RATE,
            on_warning=lambda _: None,
        )
    except MediaError as error:
        if source.kind == "pictures" or "holds no sound" not in str(error):
            raise
        return _result([], [_drop("no sound", 0)])
    if sound.samples.shape[1] * FPS < scorer.window * RATE:
        return _result([], [_drop("the sound is shorter than the judge's window", 0)])
    found = (
        PictureTakes(path, detector) if source.kind == "pictures" else VideoTakes(path, detector)
    )
    stretches = _stretches(found.takes, source.key, settings, dropped)
    if not found.takes:
        dropped.append(_drop("no face", found.frames))
    if not stretches:
        return _result([], dropped)
    heard = embed_audio_windows(sound, scorer)
    meters = {s.take: SyncMeter(scorer, sound, sound=heard) for s in stretches}
    parts.mkdir(parents=True)
    try:
        for piece in found.pieces(settings, scorer):
            if piece.take in meters:
                meters[piece.take].update(piece.looked, piece.start)
                for stretch in stretches:
                    _lay_down(stretch, piece, parts)
        rows: list[dict[str, Any]] = []
        scores = {take: meter.compute() for take, meter in meters.items()}
        for stretch in stretches:
            row = _judged(
                stretch, found.takes[stretch.take], scores[stretch.take], settings, dropped
            )
            if row is None:
                _show_dropped(stretch, job.out, parts)
            else:
                _finish(row, stretch, sound, parts)
                rows.append(row)
    except BaseException:
        shutil.rmtree(parts, ignore_errors=True)
        raise
    if not rows:
        shutil.rmtree(parts)
    return _result(rows, dropped)


def _result(clips: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> dict[str, Any]:
    return {"clips": clips, "dropped": dropped}


def _drop(reason: str, frames: int, **more: Any) -> dict[str, Any]:
    return {"reason": reason, "frames": frames, **more}


def _stretches(
    takes: list[Take], key: str, settings: Settings, dropped: list[dict[str, Any]]
) -> list[_Stretch]:
    """Divide takes into equal parts of at most ``longest`` frames.

    Those too short or too small go to ``dropped``.
    """
    out: list[_Stretch] = []
    for number, take in enumerate(takes):
        count = take.stop - take.first
        if count < settings.shortest:
            dropped.append(_drop("shorter than wanted", count))
        elif take.face_px < settings.least_face:
            dropped.append(_drop("face smaller than wanted", count, face_px=round(take.face_px)))
        else:
            cuts = (
                np.linspace(take.first, take.stop, math.ceil(count / settings.longest) + 1)
                .round()
                .astype(int)
                .tolist()
            )
            for first, stop in pairwise(cuts):
                out.append(_Stretch(f"{key}-{len(out):03}", number, first, stop, []))
    return out


def _lay_down(stretch: _Stretch, piece: Piece, parts: Path) -> None:
    """Append the clip's frames in ``piece`` to its file, and keep some for its print."""
    first, stop = max(stretch.first, piece.start), min(stretch.stop, piece.start + len(piece.crops))
    if piece.take != stretch.take or first >= stop:
        return
    here = slice(first - piece.start, stop - piece.start)
    with (parts / f"{stretch.key}.faces").open("ab") as file:
        file.write(piece.crops[here].numpy().tobytes())
    count = stretch.stop - stretch.first
    for i in range(_FRAMES_OF_PRINT):
        frame = stretch.first + (2 * i + 1) * count // (2 * _FRAMES_OF_PRINT)
        if first <= frame < stop:
            gray = piece.looked[frame - piece.start].mean(0)[None, None]
            stretch.small.append(F.adaptive_avg_pool2d(gray, _GRAY).flatten())
            if i == _FRAMES_OF_PRINT // 2:
                stretch.portrait = piece.looked[frame - piece.start].clone()


def _judged(
    stretch: _Stretch,
    take: Take,
    score: SyncScore,
    settings: Settings,
    dropped: list[dict[str, Any]],
) -> dict[str, Any] | None:
    """Return the clip's facts, or None and add an entry to ``dropped``."""
    count = stretch.stop - stretch.first
    if score.offset_frames is None:
        # figures of the curve belong to the file; what is counted is the kind of reason
        dropped.append(
            _drop(f"lips and sound: {str(score.reason).split(':')[0]}", count, detail=score.reason)
        )
        return None
    begin = stretch.first - take.first
    confidence = float(score.frame_confidence[begin : begin + count].nanmean())
    known = {"offset_frames": score.offset_frames, "confidence": round(confidence, 4)}
    if abs(score.offset_frames) > settings.most_offset:
        dropped.append(_drop("offset at the end of the search", count, **known))
        return None
    if (score.uncertainty or 0) > settings.most_uncertainty:
        dropped.append(
            _drop("offset not sure enough", count, uncertainty=score.uncertainty, **known)
        )
        return None
    if not confidence >= settings.least_confidence:
        dropped.append(_drop("confidence below the wanted", count, **known))
        return None
    return {
        "key": stretch.key,
        "start": stretch.first,
        "frames": count,
        "take": take.person,
        **known,
        "distance": round(score.distance, 4),
        "uncertainty": score.uncertainty,
        "face_px": round(take.face_px),
    }


def _finish(row: dict[str, Any], stretch: _Stretch, sound: Audio, parts: Path) -> None:
    """Store the sound of the clip, moved by its offset, and its print."""
    # sound early by some frames lies as many before its lips
    begin = stretch.first - row["offset_frames"]
    # 5 frames are 16 columns: cut there, windows are those of the whole sound
    first = (begin - CONTEXT) // 5 * 5
    stop = begin + row["frames"] + CONTEXT
    column, columns = first * 16 // 5, math.ceil(stop * 16 / 5) + 16 - first * 16 // 5
    mel = log_mel(sound, first=column, count=columns)  # (80,T)
    wave = cut_sound(sound.samples[0], first, stop)
    row["first"] = begin - first
    middle = mel[:, (begin - first) * 16 // 5 :][:, : row["frames"] * 16 // 5]
    assert stretch.portrait is not None
    arrays: dict[str, npt.NDArray[Any]] = {
        "mel": mel.T.contiguous().numpy(),
        "sound": (wave * 32767).round().clamp(-32768, 32767).short().numpy(),
        "print": _print(stretch, middle),
    }
    for name, array in arrays.items():
        np.save(parts / f"{stretch.key}.{name}.npy", array, allow_pickle=False)


def cut_sound(samples: Tensor, first: int, stop: int) -> Tensor:
    """Cut the sound of a range of frames, with silence beyond its ends.

    Nothing outside the range is copied: a long video has many clips.

    Args:
        samples: (M,) at RATE.
        first: the first frame.
        stop: the frame after the last.

    Returns:
        The samples of the range.
    """
    each = int(RATE / FPS)
    kept = samples[max(0, first) * each : max(0, stop) * each]
    before = max(0, min(-first, stop - first)) * each
    return F.pad(kept, (before, (stop - first) * each - before - len(kept)))


def _print(stretch: _Stretch, mel: Tensor) -> npt.NDArray[np.float16]:
    """Return the print that identifies a clip.

    Small pictures and a small spectrogram, each without its mean and of length 1, and the
    histograms of ``faces.similarity``.
    """
    assert stretch.portrait is not None
    pictures = torch.cat([each - each.mean() for each in stretch.small])
    small = F.adaptive_avg_pool2d(mel[None], (_BANDS, _STEPS)).flatten()
    portrait = F.interpolate(
        stretch.portrait[None], (PORTRAIT_SIZE, PORTRAIT_SIZE), mode="bilinear"
    )[0]
    both = [
        F.normalize(pictures, dim=0),
        F.normalize(small - small.mean(), dim=0),
        describe(portrait).float(),
    ]
    return torch.cat(both).half().numpy()


def _show_dropped(stretch: _Stretch, out: Path, parts: Path) -> None:
    """Store the middle frame of a dropped clip for the report."""
    (parts / f"{stretch.key}.faces").unlink()
    if stretch.portrait is not None:
        from PIL import Image

        (out / DROPPED).mkdir(exist_ok=True)
        pixels = (stretch.portrait.permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(out / DROPPED / f"{stretch.key}.jpg")


def read_settings(out: Path, settings: Settings, root: Path, splitting: Mapping[str, Any]) -> None:
    """Store in ``out`` the settings of its preparation, or compare them with those that are there.

    Args:
        out: the folder of the shards.
        settings: how clips are cut and judged.
        root: the folder of sources.
        splitting: how clips are divided.

    Raises:
        LipSyncError: ``out`` was prepared with other settings.
    """
    now = {**asdict(settings), **splitting}
    wanted = {"settings": now, "root": str(root.resolve())}
    path, jobs = out / "settings.json", out / JOBS
    begun = path.exists() and jobs.exists() and jobs.stat().st_size > 0
    try:
        if begun and (got := json.loads(path.read_text(encoding="utf-8"))) != wanted:
            before = got["settings"]
            other = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
            raise LipSyncError(
                f"{out} was prepared from {got['root']}, "
                + (f"with other {', '.join(other)}" if other else "not from here")
                + "; give another folder, or the same as before"
            )
        with atomic_write(path) as part:
            part.write_text(json.dumps(wanted), encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        raise LipSyncError(f"{path} cannot be used ({error}); give another folder") from error
