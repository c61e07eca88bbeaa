"""Measure the speed of a dub, stage by stage.

The yardstick is a plain transcode of the same clip with the same encoder settings.

    python -m benchmarks.dub CLIP SPEECH [--heights 360 720 1080] [--threads 2]

Prints a table per height: the plain transcode (decode, encode, nothing else), the dub end to end
(every stage overlapping), each stage alone, everything but the encoder in milliseconds a frame, the
peak memory of the dub, and the ratio dub / transcode. Ends with the generators alone (`mini` is
none): ours folded against the same layers unfolded, in one run.
"""

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import torch

from lipsync_core.faces.selector import parse_face
from lipsync_core.media import VideoWriter, probe, read_frames
from lipsync_core.media.clip import VideoClip
from lipsync_core.models.layers import fold_batch_norms
from lipsync_core.models.wav2lip import MINI, WAV2LIP, Generator
from lipsync_core.models.weights import load_talking_face
from lipsync_core.pipelines.audio_inputs import read_audio_inputs
from lipsync_core.pipelines.dub_plan import PlanOptions, Speakers, plan_dub
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.run_log import RunLog
from lipsync_core.pipelines.track_faces import Finding, find_people
from lipsync_core.types import VideoInfo


def scale(clip: Path, height: int, out: Path) -> VideoInfo:
    """The clip at ``height`` px."""
    info = probe(clip)
    width = round(info.width * height / info.height / 2) * 2
    info = VideoInfo(width, height, info.fps, None, info.colour)
    with VideoWriter(out, info, crf=16, preset="veryfast") as writer:
        for frames in read_frames(clip):
            pixels = frames.pixels
            if pixels.shape[1] != height:
                planes = pixels.permute(0, 3, 1, 2).float()
                planes = torch.nn.functional.interpolate(
                    planes, (height, width), mode="bilinear", antialias=True
                )
                pixels = planes.round().byte().permute(0, 2, 3, 1)
            writer.write(type(frames)(pixels, frames.start))
    return info


def transcode(source: Path, out: Path) -> tuple[int, float]:
    """Decode and encode (x264 veryfast crf 18, MP4) in the decoder's own pixel format.

    Returns:
        Number of frames, and seconds.
    """
    began, count = time.perf_counter(), 0
    with av.open(str(source)) as reader, av.open(str(out), "w") as writer:
        picture = reader.streams.video[0]
        picture.thread_type = "AUTO"
        stream = writer.add_stream(
            "libx264", rate=picture.average_rate, options={"crf": "18", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        for frame in reader.decode(picture):
            frame.pict_type = 0
            writer.mux(stream.encode(frame))
            count += 1
        writer.mux(stream.encode(None))
    return count, time.perf_counter() - began


def dub_apart(source: Path, speech: Path, out: Path) -> dict:
    """Run `lipsync dub` in a process of its own.

    Returns:
        Its report, with ``peak_mb`` if the system reports it (Linux).
    """
    code = (
        "import re,sys\nfrom pathlib import Path\nfrom lipsync_core.cli.main import app\n"
        "app(['dub',*sys.argv[1:3],'-o',sys.argv[3],'--json','--no-cache','--overwrite','--when-audio-is-longer','trim'],"
        "standalone_mode=False)\n"
        "status=Path('/proc/self/status')\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)',status.read_text())[1] if status.exists() else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, speech, out],
        capture_output=True,
        text=True,
        check=True,
    )
    report, peak = done.stdout.splitlines()[-2:]
    return {**json.loads(report), "peak_mb": int(peak) / 1024}


def stages(source: Path, speech: Path) -> dict[str, float]:
    """Milliseconds a frame of each stage alone, one after another, nothing overlapping."""
    info = probe(source)
    footage = VideoClip(source, info)
    began = time.perf_counter()
    pieces = list(footage.coded(chunk=16))
    count = sum(piece.pixels.shape[0] for piece in pieces)
    spent = {"read": time.perf_counter() - began}
    began = time.perf_counter()
    tracks, _ = find_people(footage, Finding(cache=False), torch.device("cpu"), stop=count)
    spent["find faces"] = time.perf_counter() - began
    log = RunLog(logging.getLogger("lipsync.benchmark"))
    sync = LipSync(load_talking_face("mini"))
    audio = read_audio_inputs([speech], sync.config.features.rate, warn=log.warn)
    began = time.perf_counter()
    speaker = Speakers([parse_face("largest")])
    options = PlanOptions(whole_clip=True)
    plan = plan_dub(footage, audio, speaker, sync, options, people=(tracks, count), log=log)
    spent["find references"] = time.perf_counter() - began
    began = time.perf_counter()
    for _ in sync.render(pieces, plan.faces, fps=info.fps):
        pass
    spent["generate and blend"] = time.perf_counter() - began
    return {name: seconds / count * 1000 for name, seconds in spent.items()}


@torch.inference_mode()
def generator_ms(model: Generator, batch: int, *, ready: bool) -> float:
    """Milliseconds a frame, best of three."""
    layout = torch.channels_last if ready else torch.contiguous_format
    model = fold_batch_norms(model) if ready else model.eval()
    model = model.to(memory_format=layout)
    mel, face = torch.rand(batch, 1, 80, 16), torch.rand(batch, 3, 96, 96).to(memory_format=layout)
    model(mel, face, face)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        model(mel, face, face)
        best = min(best, time.perf_counter() - began)
    return best / batch * 1000


def main() -> None:
    """Read the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--heights", type=int, nargs="+", default=[360, 720, 1080])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {args.threads} threads, torch {torch.__version__}, PyAV {av.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for height in args.heights:
            source = Path(folder) / f"{height}.mp4"
            scale(args.clip, height, source)
            count, seconds = transcode(source, Path(folder) / "plain.mp4")
            report = dub_apart(source, args.speech, Path(folder) / "dub.mp4")
            speed = report["frames"] / report["seconds"]["total"]
            alone = stages(source, args.speech)
            print(f"\n{height}p, {report['frames']} frames, {report['dubbed']} dubbed")
            print(f"  plain transcode      {count / seconds:7.1f} frames/s")
            share = speed / (count / seconds)
            print(
                f"  dub, end to end      {speed:7.1f} frames/s = {share:.0%} of it; "
                f"{report['peak_mb']:.0f} MB"
            )
            for name, ms in alone.items():
                print(f"  {name:20} {ms:7.2f} ms a frame alone ({1000 / ms:.0f} frames/s)")
            print(f"  all but the encoder  {sum(alone.values()):7.2f} ms a frame")
    for name, config in {"mini-2": MINI, "wav2lip": WAV2LIP}.items():
        for batch in (1, 16):
            plain = generator_ms(Generator(config), batch, ready=False)
            ready = generator_ms(Generator(config), batch, ready=True)
            ratio = plain / ready
            print(
                f"{name}, batch {batch}: {ready:.1f} ms a frame; unfolded and planar {plain:.1f} "
                f"ms, ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
