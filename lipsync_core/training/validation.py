"""Validation of generators on held-out clips, by a judge that did not train them."""

from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor

from ..errors import TrainingError
from ..metrics.psnr_ssim import mean_psnr
from ..metrics.sync import SEARCH, find_offset, shift_distances
from ..models.generator import TalkingFace
from ..models.precision import autocast_training
from ..models.sync_expert import SyncExpert
from .clips import Clip
from .logger import Evaluation
from .losses import sync_loss
from .pictures import grid, mouths
from .sync_eval import embed, remove_margin, resize_faces

_FRAMES = 75  # of a clip that are looked at, at most
_PICTURED = 6  # clips, and frames of each
_GAIN_DB = (
    # above copying: what this project aims at, and what the score counts as much as the judge's
    # whole confidence
    3.0
)


def choose_clips(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Choose at most ``most`` clips of as many speakers as possible, always the same ones.

    Args:
        clips: the clips to choose from.
        most: largest number of clips.

    Returns:
        The chosen clips.

    Raises:
        TrainingError: ``most`` is below 1, or a single clip is left that is too short to be
            dubbed with its own sound.
    """
    if most < 1:
        raise TrainingError(f"{most} clips would be judged; expected 1 or more")
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    rounds = max(map(len, by_speaker.values()), default=0)
    found = [rows[i] for i in range(rounds) for rows in by_speaker.values() if i < len(rows)][:most]
    if len(found) == 1:
        _away(found[0])
    return found


def score_generator(
    model: TalkingFace,
    clips: Sequence[Clip],
    judge: SyncExpert,
    *,
    teacher: SyncExpert | None = None,
    voices: Sequence[Clip] | None = None,
) -> Evaluation:
    """Return the figures of ``compare_pictures`` and a score, with faces to look at.

    The figures are means over speakers of the means of their clips. The score adds the gain
    over copying in units of 3 dB and the judge's confidence in units of that of real video,
    each at most 1.

    Args:
        model: the generator.
        clips: held-out clips.
        judge: the expert that scores.
        teacher: the expert that the generator is trained with, if any.
        voices: clips whose sound is used for dubs; the next clip by default.

    Returns:
        The evaluation.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    pictures: list[Tensor] = []
    for clip, (found, faces) in zip(
        clips, compare_pictures(model, clips, judge, teacher=teacher, voices=voices), strict=True
    ):
        rows.setdefault(clip.speaker, []).append(found)
        if len(pictures) < _PICTURED:
            pictures.append(faces)
    means = {
        name: fmean(fmean(row[name] for row in found) for found in rows.values())
        for name in next(iter(rows.values()))[0]
    }
    gain = min(1.0, (means["psnr"] - means["copied"]) / _GAIN_DB)
    agreement = min(1.0, means["confidence"] / max(means["real"], 1e-6))
    looked = torch.cat(pictures)
    return Evaluation(
        gain + agreement, means, {"faces": grid(looked), "mouths": grid(mouths(looked))}
    )


@torch.inference_mode()
def compare_pictures(
    model: TalkingFace,
    clips: Sequence[Clip],
    judge: SyncExpert,
    *,
    teacher: SyncExpert | None = None,
    voices: Sequence[Clip] | None = None,
) -> Iterator[tuple[dict[str, float], Tensor]]:
    """Compare what a generator in evaluation mode draws for each clip with the clip.

    A clip is rebuilt from its own sound and frames half a clip away, and dubbed with the sound
    of the next clip, or of ``voices`` in turn, every frame being its own reference, as in use.
    A single clip is dubbed with its own sound of half a clip away, or copying would be in sync.

    Args:
        model: the generator.
        clips: held-out clips.
        judge: the expert that scores.
        teacher: the expert that the generator is trained with, if any.
        voices: clips whose sound is used for dubs.

    Yields:
        Figures and faces (3,C,3,S,S): the clip's own, rebuilt and dubbed. The figures:

        - ``psnr``, ``copied``: dB of the lower half, rebuilt, and of the unchanged frames half
          a clip away; ``l1`` of the crop
        - ``confidence``, ``distance``, ``within_one``: by ``judge`` of the dub (L2, as LSE-C
          and LSE-D), and 1 if it finds the offset at 0 within one frame;
          ``rebuilt_confidence``, ``rebuilt_distance``; ``real``: its confidence of the clip
          itself
        - ``flicker``: mean change from frame to frame of the dub's lower half beyond the
          source's own, in levels of 255
        - ``sync``, if there is a ``teacher``: E_sync of the rebuilt faces

    Raises:
        TrainingError: the judge takes crops that were cut differently, or there is a single
            clip of fewer than 32 frames.
    """
    for i, clip in enumerate(clips):
        if clip.framing.kind != judge.config.framing.kind:
            raise TrainingError(
                f"the shards hold {clip.framing.kind} crops, the judge wants "
                f"{judge.config.framing.kind} ones; name an expert that was trained on such shards "
                "as the judge"
            )
        other = voices[i % len(voices)] if voices else clips[(i + 1) % len(clips)]
        yield _examined(model, clip, other, judge, teacher)


def _examined(
    model: TalkingFace, clip: Clip, other: Clip, judge: SyncExpert, teacher: SyncExpert | None
) -> tuple[dict[str, float], Tensor]:
    """The figures of one clip, and faces (3,C,3,S,S): as they are, rebuilt, dubbed."""
    count = min(len(clip.faces), len(other.faces), _FRAMES)
    away = _away(clip) if other is clip else 0
    at = next(model.parameters()).device
    faces = (
        remove_margin(clip.frames(0, count), model.config.size)
        .to(at)
        .contiguous(memory_format=torch.channels_last)
    )
    far = faces.roll(count // 2, 0)
    rebuilt, dubbed = _drawn(model, clip, faces, far), _drawn(model, other, faces, faces, away=away)
    offset, confidence, distance = _verdict(judge, other, dubbed, away=away)
    _, real, _ = _verdict(judge, clip, faces)
    _, rebuilt_confidence, rebuilt_distance = _verdict(judge, clip, rebuilt)
    figures = {
        "psnr": _psnr(rebuilt, faces),
        "copied": _psnr(far, faces),
        "l1": float((rebuilt - faces).abs().mean()),
        "confidence": confidence,
        "distance": distance,
        "within_one": float(abs(offset) <= 1),
        "rebuilt_confidence": rebuilt_confidence,
        "rebuilt_distance": rebuilt_distance,
        "real": real,
        "flicker": _restless(dubbed) - _restless(faces),
    }
    if teacher is not None:
        looked = resize_faces(rebuilt, teacher.config.size)
        heard = clip.windows(teacher.config.features, 0, count).to(at)
        figures["sync"] = float(sync_loss(*embed(teacher, looked, heard)))
    index = torch.linspace(0, count - 1, _PICTURED).round().long()
    return figures, torch.stack([x[index].cpu() for x in (faces, rebuilt, dubbed)])


def _away(clip: Clip) -> int:
    """Return half of the clip's frames under evaluation, which must exceed the judge's search."""
    count = min(len(clip.faces), _FRAMES)
    if count // 2 <= SEARCH:
        raise TrainingError(
            f"{clip.name} alone is held out and has {count} frames: too few to be dubbed with its "
            f"own sound of elsewhere; expected {2 * SEARCH + 2}, or a second clip"
        )
    return count // 2


def _drawn(
    model: TalkingFace,
    voice: Clip,
    faces: Tensor,
    reference: Tensor,
    *,
    away: int = 0,
    batch: int = 32,
) -> Tensor:
    """Draw faces (N,3,S,S) to the sound of ``voice``, shifted by ``away`` frames."""
    sound = voice.windows(model.config.features, 0, len(faces)).roll(away, 0).to(faces.device)
    shots = reference.repeat(1, model.config.references, 1, 1)
    with autocast_training(faces.device):
        parts = [
            model(sound[i : i + batch], faces[i : i + batch], shots[i : i + batch])
            for i in range(0, len(faces), batch)
        ]
    return torch.cat(parts).float()


def _verdict(
    judge: SyncExpert, voice: Clip, faces: Tensor, *, away: int = 0
) -> tuple[int, float, float]:
    """Return the offset, confidence and distance of faces and a voice ``away`` frames off."""
    looked = resize_faces(faces, judge.config.size)
    heard = voice.windows(judge.config.features, 0, len(faces)).roll(away, 0).to(faces.device)
    sound, video = embed(judge, looked, heard)
    curve = shift_distances(video.cpu().float(), sound.cpu().float()).nanmean(0)
    return *find_offset(curve), float(curve.nan_to_num(torch.inf).min())


def _psnr(made: Tensor, truth: Tensor) -> float:
    """Return the dB of the lower half, the mean of frames."""
    half = truth.shape[2] // 2
    return mean_psnr((made - truth)[:, :, half:])


def _restless(faces: Tensor) -> float:
    half = faces.shape[2] // 2
    return float((faces[1:] - faces[:-1])[:, :, half:].abs().mean() * 255)
