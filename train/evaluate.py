"""Measure a generator such as the bundled `mini-2` with a judge that was not used in training.

    python -m train.evaluate SHARDS SPEECH_FOLDER [--model mini-2] [--judge judge] [--leave-out
    REGEX]

Seen speakers: the val clips of speakers in the training split. Unseen: the val speakers that are
not, and every test clip whose own offset the judge finds at 0 within one frame. Clips are cut into
windows of two seconds (50 frames). For each window: the judge's offset and confidence of the real
video, of the dub with other people's speech, and of the undubbed video against that speech.
Reconstruction: lower-half PSNR and SSIM with a reference half the clip away, against copying it.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from lipsync_core.audio.features import log_mel
from lipsync_core.evaluation.tables import rate_interval
from lipsync_core.media import read_audio
from lipsync_core.metrics.psnr_ssim import mean_psnr
from lipsync_core.metrics.sync import SEARCH, find_offset, offset_curve
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import Generator
from lipsync_core.models.weights import load_model
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.sync_eval import crop_center, embed

WINDOW = 50


def windows(audio: Tensor, video: Tensor, frames: int) -> list[tuple[int, float]]:
    """Return offset and confidence of each two-second window of video.

    Args:
        audio: (A,D) embeddings of all the sound.
        video: (V,D) embeddings of the video.
        frames: number of frames of the video.
    """
    found = []
    for begin in range(0, frames - WINDOW + 1, WINDOW):
        count = WINDOW - 4
        curve = []
        for shift in range(-SEARCH, SEARCH + 1):
            index = torch.arange(begin, begin + count)
            index = index[(index + shift >= 0) & (index + shift < len(audio))]
            curve.append(
                1 - (video[index] * audio[index + shift]).sum(1).mean()
                if len(index)
                else torch.tensor(torch.nan)
            )
        found.append(find_offset(torch.stack(curve)))
    return found


def speeches(folder: Path) -> list[Tensor]:
    """Return the log-mel (80,T) of every speech file of a folder."""
    return [
        log_mel(read_audio(path))
        for path in sorted(folder.iterdir())
        if path.suffix in (".wav", ".flac")
    ]


def quality(rebuilt: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return mean PSNR (dB) and SSIM of the lower halves of (N,3,S,S)."""
    a, b = (x[:, :, x.shape[2] // 2 :].float() for x in (rebuilt, truth))
    ssim = [
        structural_similarity(
            x.permute(1, 2, 0).numpy(), y.permute(1, 2, 0).numpy(), channel_axis=2, data_range=1.0
        )
        for x, y in zip(a[::5], b[::5], strict=True)
    ]
    return mean_psnr(a - b), float(np.mean(ssim))


@torch.inference_mode()
def examine(
    clip: Clip, other: Tensor, model: Generator, judge: SyncExpert
) -> tuple[tuple[int, float], dict[str, list]]:
    """Measure a clip and its dub.

    Args:
        clip: the clip.
        other: log-mel (80,T) of another person's speech.
        model: the generator.
        judge: the expert that evaluates.

    Returns:
        The clip's own offset and confidence, and by kind the offsets and confidences of its windows
        and the quality of its rebuilding.
    """
    n = len(clip.faces)
    faces = crop_center(clip.frames(0, n)).contiguous(memory_format=torch.channels_last)
    index = list(range(n))
    lead = model.config.features.lead_ms
    voice = Clip(clip.name, clip.speaker, clip.faces, other)

    def generate(source: Clip, reference: Tensor) -> Tensor:
        mels = source.mels(index, lead_ms=lead)
        return torch.cat(
            [
                model(mels[i : i + 32], faces[i : i + 32], reference[i : i + 32])
                for i in range(0, n, 32)
            ]
        ).float()

    audio, video = embed(judge, faces, clip.mels(index))
    said, dubbed = embed(judge, generate(voice, faces), voice.mels(index))
    far = faces.roll(n // 2, 0)
    return find_offset(offset_curve(audio, video)), {
        "real": windows(audio, video, n),
        "dub": windows(said, dubbed, n),
        "undubbed": windows(said, video, n),
        "rebuilt": [quality(generate(clip, far), faces)],
        "copied": [quality(far, faces)],
    }


def row(name: str, results: list[tuple[int, float]]) -> str:
    """Return a row of the table."""
    hits = sum(abs(offset) <= 1 for offset, _ in results)
    low, high = rate_interval(hits, len(results))
    confidence = np.mean([c for _, c in results])
    return (
        f"| {name} | {len(results)} | {hits / len(results):.1%} ({low:.1%} to {high:.1%}) | "
        f"{confidence:.3f} |"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument(
        "--model", default="mini-2", help="a generator; the bundled `mini` draws nothing"
    )
    parser.add_argument("--judge", default="judge")
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument(
        "--leave-out",
        help="clips whose SPLIT/NAME this regular expression finds, as of people seen twice",
    )
    args = parser.parse_args()
    model, judge = (
        load_model(args.model, kind="generator"),
        load_model(args.judge, kind="sync_expert"),
    )
    assert isinstance(model, Generator) and isinstance(judge, SyncExpert)
    voices = speeches(args.speech)
    seen_speakers = {clip.speaker for clip in load_clips(args.shards / "train")}
    groups: dict[str, dict[str, list]] = {g: defaultdict(list) for g in ("seen", "unseen")}
    by_speaker: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for split in args.splits:
        for k, clip in enumerate(load_clips(args.shards / split, least=WINDOW)):
            if args.leave_out and re.search(args.leave_out, f"{split}/{clip.name}"):
                continue
            seen = clip.speaker in seen_speakers
            fit = [v for v in voices if v.shape[1] >= 3.2 * len(clip.faces)] or [
                torch.cat(voices, 1)
            ]
            (offset, confidence), result = examine(clip, fit[k % len(fit)], model, judge)
            kept = split == "val" or abs(offset) <= 1
            print(
                f"{split} {clip.name}: own offset {offset}, confidence {confidence:.3f}"
                + ("" if kept else " (left out)")
            )
            if kept:
                for kind, values in result.items():
                    groups["seen" if seen else "unseen"][kind] += values
                    by_speaker[f"{'seen' if seen else 'unseen'} {clip.speaker}"][kind] += values
    for title, found in {
        name: found for name, found in {**groups, **by_speaker}.items() if found
    }.items():
        print(
            f"\n**{title}**\n\n| | windows | within one frame (95 %) | confidence "
            "|\n|---|---|---|---|"
        )
        for kind in ("real", "dub", "undubbed"):
            print(row(kind, found[kind]))
        for kind in ("rebuilt", "copied"):
            psnr, ssim = np.mean(found[kind], 0)
            print(
                f"\nlower half {kind}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f} ({len(found[kind])} "
                "clips)",
                end="",
            )
        print()


if __name__ == "__main__":
    main()
