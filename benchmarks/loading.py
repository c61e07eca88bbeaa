"""Compare samples a second of prepared shards with the reference's way of loading.

Both run on the same clips and the same cores, in one run.

    python -m benchmarks.loading SHARDS/train [--clips 64] [--seconds 8] [--threads 2] [--remote]

The reference's way, restated: a folder of JPEGs and a wav for each clip. A sample lists its folder,
decodes a window of five frames and another five for reference, scales them to 96 px, and computes
the log-mel spectrogram of the clip's whole sound, of which it keeps five windows and one. (Its own
wav reader resamples; here the files lie at 16 kHz already, which favours it.) Its samples are
float32 arrays. Ours is ``training.loading`` over the shards: the same ten crops, with their margin,
as uint8, and the same windows; ``float`` adds cutting out 96 px and converting to float32 on the
CPU, as the reference does, which training on a GPU leaves to the GPU. Both get ``--threads``
workers: processes for the reference, as its DataLoader has, threads for ours. The clips are written
to a temporary folder first; files are in the disk's cache for both.
"""

import argparse
import os
import platform
import tempfile
import time
import wave
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.signal import lfilter

from lipsync_core.audio.features import mel_basis
from lipsync_core.models.sync_expert import WAV2LIP_EXPERT
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.loading import Loader, WindowDraw
from lipsync_core.training.shards import load_arrays, read_index

BATCH, WINDOW, SIZE = 16, 5, 96


def write_reference(source: Path, names: list[str], root: Path) -> list[str]:
    """Folders of 0.jpg, 1.jpg ... and audio.wav, one for each clip."""
    entries = [entry for entry in read_index(source) if entry.name in set(names)]
    for entry, arrays in zip(
        entries, load_arrays(source, entries, ("faces", "sound")), strict=True
    ):
        folder = root / entry.name
        folder.mkdir()
        for i, face in enumerate(arrays["faces"][:]):
            cv2.imwrite(str(folder / f"{i}.jpg"), face[..., ::-1])
        begin = 640 * int(entry.facts["first"])
        with wave.open(str(folder / "audio.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(arrays["sound"][begin : begin + 640 * len(arrays["faces"])].tobytes())
    return [str(root / entry.name) for entry in entries]


def reference_mel(path: str, basis: np.ndarray) -> np.ndarray:
    """(T,80) of a whole file, as librosa computes it: float64 emphasis, one FFT for all."""
    with wave.open(path) as file:
        sound = (
            np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        )
    emphasised = np.pad(lfilter([1, -0.97], [1], sound), 400, mode="reflect")
    frames = (
        np.lib.stride_tricks.sliding_window_view(emphasised, 800)[::200] * np.hanning(801)[:800]
    )
    decibel = 20 * np.log10(np.maximum(1e-5, np.abs(np.fft.rfft(frames, axis=1)) @ basis.T)) - 20
    return np.clip(8 * (decibel + 100) / 100 - 4, -4, 4)


def reference_sample(
    folders: list[str], rng: np.random.Generator, basis: np.ndarray
) -> tuple[np.ndarray, ...]:
    """(x (6,5,96,96), five mels (5,1,80,16), one (1,80,16), y (3,5,96,96)) float32."""
    while True:
        folder = folders[rng.integers(len(folders))]
        pictures = list(Path(folder).glob("*.jpg"))
        begin, other = (int(pictures[i].stem) for i in rng.choice(len(pictures), 2, replace=False))
        paths = [f"{folder}/{start + i}.jpg" for start in (begin, other) for i in range(WINDOW)]
        if begin < 1 or not all(os.path.isfile(path) for path in paths):  # noqa: PTH113 - as there
            continue
        faces = [cv2.resize(cv2.imread(path), (SIZE, SIZE)) for path in paths]
        mel = reference_mel(f"{folder}/audio.wav", basis)
        starts = [int(80 * (begin + i - 1) / 25) for i in range(WINDOW)]
        one = mel[int(80 * begin / 25) :][:16]
        each = [mel[start : start + 16] for start in starts]
        if len(one) < 16 or any(len(part) < 16 for part in each):
            continue
        window, reference = (
            np.asarray(part).transpose(3, 0, 1, 2) / 255.0 for part in (faces[:5], faces[5:])
        )
        masked = window.copy()
        masked[:, :, SIZE // 2 :] = 0
        arrays = (
            np.concatenate([masked, reference]),
            np.asarray(each).transpose(0, 2, 1)[:, None],
            one.T[None],
            window,
        )
        return tuple(np.asarray(array, np.float32) for array in arrays)


def reference_worker(folders: list[str], seed: int, seconds: float) -> tuple[float, float]:
    """Samples a second of one process that does nothing else, and its seconds of CPU a sample."""
    basis, rng = mel_basis().double().numpy(), np.random.default_rng(seed)
    cv2.setNumThreads(1)
    reference_sample(folders, rng, basis)
    count, began, busy = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - began) < seconds:
        reference_sample(folders, rng, basis)
        count += 1
    return count / spent, (time.process_time() - busy) / count


def ours(
    clips: list[Clip],
    seconds: float,
    threads: int,
    use: Callable[[dict[str, torch.Tensor]], object],
) -> tuple[float, float]:
    """The same of the loader and what ``use`` does with its batches, all threads together."""
    with Loader(
        WindowDraw(clips, expert=WAV2LIP_EXPERT), batch=BATCH, seed=0, threads=threads
    ) as loader:
        next(loader)
        count, began, busy = 0, time.perf_counter(), time.process_time()
        while (spent := time.perf_counter() - began) < seconds:
            use(next(loader))
            count += BATCH
        return count / spent, (time.process_time() - busy) / count


def as_floats(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the reference's sample holds, (B,6,5,96,96), of a batch with margin."""
    margin = (batch["target"].shape[2] - SIZE) // 2
    middle = slice(margin, margin + SIZE)
    both = [
        batch[name][:, :, middle, middle].permute(0, 4, 1, 2, 3).float().mul_(1 / 255)
        for name in ("target", "reference")
    ]
    masked = both[0].clone()
    masked[:, :, :, SIZE // 2 :] = 0
    return torch.cat([masked, both[1]], 1)


def in_memory(source: Path) -> str:
    """The split as objects of a store without a disk."""
    import fsspec

    for path in source.iterdir():
        fsspec.filesystem("memory").pipe_file(f"/loading/{path.name}", path.read_bytes())
    return "memory://loading"


def main() -> None:
    """Read the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--remote", action="store_true", help="also from an object store in memory")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = load_clips(args.shards, least=20)[: args.clips]
    seconds = sum(len(clip.faces) for clip in clips) / 25 / len(clips)
    print(
        f"{platform.machine()}, {args.threads} workers, {len(clips)} clips of {seconds:.1f} s, "
        f"torch {torch.__version__}"
    )
    rows: list[tuple[str, tuple[float, float]]] = []

    def together(runs: list[Future[tuple[float, float]]]) -> tuple[float, float]:
        found = [run.result() for run in runs]
        return sum(rate for rate, _ in found), sum(busy for _, busy in found) / len(found)

    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(args.threads, max_tasks_per_child=1000) as pool,
    ):
        folders = write_reference(args.shards, [clip.name for clip in clips], Path(folder))
        runs = [
            pool.submit(reference_worker, folders, seed, args.seconds)
            for seed in range(args.threads)
        ]
        rows.append(("reference: JPEGs, mel of the whole clip", together(runs)))
        rows.append(("shards", ours(clips, args.seconds, args.threads, lambda batch: batch)))
        rows.append(
            (
                "shards, float32 of 96 px on the CPU",
                ours(clips, args.seconds, args.threads, as_floats),
            )
        )
        if args.remote:
            names = {clip.name for clip in clips}
            there = [
                clip for clip in load_clips(in_memory(args.shards), least=20) if clip.name in names
            ]
            rows.append(
                (
                    "shards, object store in memory",
                    ours(there, args.seconds, args.threads, lambda batch: batch),
                )
            )
        runs = [
            pool.submit(reference_worker, folders, seed, args.seconds)
            for seed in range(args.threads)
        ]
        rows.append(("reference once more", together(runs)))
    print(
        "| | samples/s | times the reference | ms of CPU a sample | times less "
        "|\n|---|---|---|---|---|"
    )
    first, least = rows[0][1]
    for name, (rate, busy) in rows:
        print(
            f"| {name} | {rate:.0f} | {rate / first:.1f} | {1000 * busy:.2f} | {least / busy:.1f} |"
        )


if __name__ == "__main__":
    main()
