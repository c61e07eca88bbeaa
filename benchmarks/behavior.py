"""Prove that dubs stay the same from one commit to another.

    python -m benchmarks.behavior run OUT.json [--inputs FOLDER] [--only TEXT]
    python -m benchmarks.behavior compare A.json B.json
    python -m benchmarks.behavior against COMMIT

`run` makes a fixed set of small dubs in one thread and writes hashes of what a decoder gives of
them: of each frame, of the sound, and of what was reported. `compare` prints which cases differ.
`against` does both, for this checkout and for COMMIT, on the same inputs; it calls this very file
for both, so this file uses nothing of the package but `lipsync_core.__all__`, the command line,
and the nodes by their ids. Nothing is downloaded. The inputs are made once, in FOLDER if it is
given, from scikit-image's astronaut and the bundled speech.

Pictures are encoded without loss where a case does not ask for the default encoder: that one's
macroblock tree does not give the same picture every time unless `Encoding.repeatable` is set.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

Made = dict[str, Any]
"""What a case gives: "file", a video or picture; "pixels", an array; "sound", one; "told", JSON."""

COMPARED = ("picture", "frames", "sound", "samples", "told", "error")
SIDE = 256  # px of the pictures
CLIP, LONG = 25, 45  # frames of the clips, and of the speech that outlasts them
FPS = Fraction(25)
RATE = 22050  # Hz of the bundled speech


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that is made.

    Attributes:
        name: What the table calls it.
        make: Takes the folder of the inputs and an empty one, and gives what was made.
        fails: Whether a refusal is what is expected.
    """

    name: str
    make: Callable[[Path, Path], Made]
    fails: bool = False


class Refused(Exception):
    """The command line ended with an error."""


# ---- inputs


def make_inputs(folder: Path) -> None:
    """Make all inputs in a folder.

    Args:
        folder: Where they are written; it is made if it is missing.
    """
    from lipsync_core import Encoding, Finding, dub

    folder.mkdir(parents=True, exist_ok=True)
    woman = np.stack([_camera(i) for i in range(60)])
    other = _recoloured(np.stack([_camera(i + 40)[:, ::-1] for i in range(60)]))
    grey = np.full_like(woman, 128)
    hand = woman[:CLIP].copy()
    for i in range(CLIP):
        hand[i, 8 * i : 8 * i + 40, 70:190] = (170, 120, 90)
    speech = _speech()
    _write_sound(folder / "speech.wav", speech[: CLIP * RATE // 25])
    _write_sound(folder / "long.wav", speech[: LONG * RATE // 25])
    _write_sound(folder / "late.wav", speech[RATE * 3 : RATE * 3 + CLIP * RATE // 25])
    both = np.stack([speech[:12800], speech[100:12900]], 1)
    _write_sound(folder / "stereo.wav", both, 16000)
    pause = np.concatenate([speech[: RATE // 2], np.zeros(RATE * 7 // 10, np.int16)])
    _write_sound(folder / "pause.wav", np.concatenate([pause, speech[RATE : RATE * 3 // 2]]))
    _write_video(folder / "clip.mkv", woman[:CLIP])
    _write_video(folder / "two.mkv", np.concatenate([woman[:CLIP], other[:CLIP]], 2))
    _write_video(folder / "hand.mkv", hand)
    _write_video(folder / "cut.mkv", np.concatenate([woman[:10], grey[:6], other[:14]]))
    _write_video(folder / "odd.mp4", woman[:CLIP], Fraction(30000, 1001), "libx264")
    _write_video(folder / "silent.mkv", woman)
    _write_picture(folder / "photo.png", woman[0])
    _write_picture(folder / "large.png", woman[0].repeat(2, 0).repeat(2, 1))
    _write_picture(folder / "empty.png", grey[0])
    turns = "start,end,face\n0,0.5,left\n0.5,1,right\n"
    (folder / "turns.csv").write_text(turns, encoding="utf-8")
    _write_wav2lip(folder / "random.pth")
    _write_sound(folder / "talk.wav", speech[: 60 * RATE // 25])
    lossless = Encoding(codec="ffv1", repeatable=True)
    finding = Finding(cache=False)
    talking = folder / "talking.mkv"
    dub(
        folder / "silent.mkv",
        folder / "talk.wav",
        talking,
        model="mini-2",
        finding=finding,
        encoding=lossless,
    )
    still = other[:1].repeat(len(woman), 0)
    spoken = np.stack([frame for frame, _ in _decoded(talking, "rgb24")])
    _write_video(folder / "debate.mkv", np.concatenate([still, spoken], 2))
    (folder / "made").touch()


def _camera(index: int) -> np.ndarray:
    """Give one picture of the astronaut, by a camera that sways.

    Args:
        index: Number of the frame.

    Returns:
        (SIDE,SIDE,3) uint8.
    """
    import skimage.data

    left = 96 + round(6 * np.sin(index / 9))
    top = round(4 - 4 * np.cos(index / 7))
    return skimage.data.astronaut()[top : top + SIDE, left : left + SIDE]


def _recoloured(pixels: np.ndarray) -> np.ndarray:
    """Give pictures other colours.

    Args:
        pixels: RGB, uint8.

    Returns:
        The same, darker and bluer.
    """
    return (pixels * np.array([0.75, 0.85, 1.0])).round().astype(np.uint8)


def _speech() -> np.ndarray:
    """Read the bundled speech.

    Returns:
        (T,) int16 at RATE.
    """
    path = _package().parent / "assets" / "demo.flac"
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])


def _package() -> Path:
    """Find the package that is tested.

    Returns:
        The file that begins it.
    """
    spec = importlib.util.find_spec("lipsync_core")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def _write_sound(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """Write sound as a WAV file.

    Args:
        path: Where to.
        samples: (T,) or (T,C) int16.
        rate: In Hz.
    """
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.size // len(samples), 2, rate, 0, "NONE", ""))
        file.writeframes(np.ascontiguousarray(samples).tobytes())


def _write_video(path: Path, pixels: np.ndarray, fps: Fraction = FPS, codec: str = "ffv1") -> None:
    """Write a silent video, coded without further loss or nearly so.

    Args:
        path: Where to.
        pixels: (N,H,W,3) uint8, RGB.
        fps: Frames per second.
        codec: FFmpeg's name of the encoder.
    """
    exact = {"crf": "10", "x264-params": "no-mbtree=1:threads=1"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, fps, options=exact if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        out.mux(stream.encode(None))


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write a picture file.

    Args:
        path: Where to; the suffix tells the kind.
        pixels: (H,W,3) uint8, RGB.
    """
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def _write_wav2lip(path: Path) -> None:
    """Write a checkpoint of Wav2Lip with random weights, as its authors' code saves one.

    Args:
        path: Where to.
    """
    face = ((6, 16, 7), (16, 32, 3), (32, 64, 3), (64, 128, 3), (128, 256, 3), (256, 512, 3))
    chains = {f"face_encoder_blocks.{i}": [block] for i, block in enumerate(face)}
    for i, more in enumerate((0, 2, 3, 2, 2, 1)):
        chains[f"face_encoder_blocks.{i}"] += [(face[i][1], face[i][1], 3)] * more
    chains["face_encoder_blocks.6"] = [(512, 512, 3), (512, 512, 1)]
    chains["audio_encoder"] = [(1, 32, 3)]
    for inside, outside, more in ((32, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 1)):
        chains["audio_encoder"] += [(inside, inside, 3)] * more + [(inside, outside, 3)]
    chains["audio_encoder"] += [(512, 512, 1)]
    chains["face_decoder_blocks.0"] = [(512, 512, 1)]
    ups = ((1024, 512), (1024, 512), (768, 384), (512, 256), (320, 128), (160, 64))
    for i, (inside, outside) in enumerate(ups, 1):
        after = [(outside, outside, 3)] * min(i, 2)
        chains[f"face_decoder_blocks.{i}"] = [(inside, outside, -3), *after]
    chains["output_block"] = [(80, 32, 3)]
    random = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, blocks in chains.items():
        for i, block in enumerate(blocks):
            state |= _random_block(f"{name}.{i}.conv_block", *block, random)
    state["output_block.1.weight"] = torch.randn(3, 32, 1, 1, generator=random) / 8
    state["output_block.1.bias"] = torch.zeros(3)
    torch.save({"state_dict": state}, path)


def _random_block(
    name: str,
    inside: int,
    outside: int,
    side: int,
    random: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Make the weights of a convolution and the batch norm that follows it.

    Args:
        name: What their names begin with.
        inside: Channels that it takes.
        outside: Channels that it gives.
        side: Of its kernel; negative for a transposed one.
        random: Where the numbers come from.

    Returns:
        Tensors by their names.
    """
    shape = (inside, outside) if side < 0 else (outside, inside)
    side = abs(side)
    weight = torch.randn(*shape, side, side, generator=random)
    return {
        f"{name}.0.weight": weight * (1.4 / (inside * side * side) ** 0.5),
        f"{name}.0.bias": torch.zeros(outside),
        f"{name}.1.weight": torch.ones(outside),
        f"{name}.1.bias": torch.zeros(outside),
        f"{name}.1.running_mean": torch.zeros(outside),
        f"{name}.1.running_var": torch.ones(outside),
        f"{name}.1.num_batches_tracked": torch.tensor(1),
    }


# ---- ways to make something


def library(
    face: str, sound: Any = "speech.wav", *, out: str = "out.mkv", **options: Any
) -> Callable[[Path, Path], Made]:
    """Make a case of `lipsync_core.dub`.

    Args:
        face: Name of the input with the face.
        sound: Name of the input with the sound, or a list of (name, face) pairs.
        out: Name of the output.
        **options: Keywords of `dub`; "cut", "blend", "finding" as dicts of their fields.

    Returns:
        What `Case.make` wants.
    """

    def make(inputs: Path, folder: Path) -> Made:
        import lipsync_core

        given = dict(options)
        for name in ("cut", "blend", "finding"):
            if name in given:
                given[name] = getattr(lipsync_core, name.capitalize())(**given[name])
        if isinstance(given.get("model"), str) and given["model"].endswith(".pth"):
            given["model"] = inputs / given["model"]
        if str(given.get("speakers")).endswith(".csv"):
            given["speakers"] = inputs / given["speakers"]
        codec = "ffv1" if out.endswith(".mkv") else None
        encoding = lipsync_core.Encoding(codec=codec, repeatable=True)
        pairs = [(inputs / name, who) for name, who in sound] if isinstance(sound, list) else []
        said = pairs or inputs / sound
        report = lipsync_core.dub(inputs / face, said, folder / out, encoding=encoding, **given)
        return {"file": report.out, "told": _without_times(report.to_json())}

    return make


def command(
    *words: str, out: str | None = "out.mkv", told: bool = False, apart: bool = False
) -> Callable[[Path, Path], Made]:
    """Make a case of `python -m lipsync_core`.

    Args:
        *words: Of the command line; "@name" is the input of that name.
        out: Name of the output, for `-o`.
        told: Whether what is printed is JSON that counts.
        apart: Whether it gets a process of its own.

    Returns:
        What `Case.make` wants.
    """

    def make(inputs: Path, folder: Path) -> Made:
        line = [word.replace("@", f"{inputs}{os.sep}") for word in words]
        if out is not None:
            line += ["-o", str(folder / out)]
        if line[0] == "dub":
            line += ["--json"] + (["--codec", "ffv1"] if str(out).endswith(".mkv") else [])
        printed = _call_apart(line) if apart else _call(line)
        made: Made = {} if out is None else {"file": folder / out}
        return made | ({"told": _without_times(printed)} if told or line[0] == "dub" else {})

    return make


def _call(line: list[str]) -> str:
    """Do in this process what `python -m lipsync_core` does in its own.

    Args:
        line: The words that follow.

    Returns:
        What it prints.
    """
    printed, complained, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["lipsync", *line]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            runpy.run_module("lipsync_core", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise Refused(f"{end.code}: {complained.getvalue()}") from None
    finally:
        sys.argv = before
        logging.getLogger().handlers.clear()  # their streams are no longer read
    return printed.getvalue()


def _call_apart(line: list[str]) -> str:
    """Run `python -m lipsync_core` in a process of its own.

    Args:
        line: The words that follow.

    Returns:
        What it prints.
    """
    words = [sys.executable, "-m", "lipsync_core", *line]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise Refused(f"{done.returncode}: {done.stderr}")
    return done.stdout


def _without_times(text: str) -> Any:
    """Read a report, and leave out what differs from run to run.

    Args:
        text: JSON; it begins at the first line that begins with a brace.

    Returns:
        The report's values, numbers rounded to six digits.
    """
    values = json.loads(text[text.index("{") :])
    return _rounded({key: value for key, value in values.items() if key not in ("seconds", "out")})


def _rounded(value: Any) -> Any:
    """Round all numbers of a JSON value to six digits.

    Args:
        value: The value.

    Returns:
        The same with rounded numbers.
    """
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _pixels(path: Path) -> torch.Tensor:
    """Decode a video.

    Args:
        path: Its file.

    Returns:
        (N,H,W,3) uint8, RGB.
    """
    return torch.from_numpy(np.stack([frame for frame, _ in _decoded(path, "rgb24")]))


def streamed(**options: Any) -> Callable[[Path, Path], Made]:
    """Make a case of `LipSync.stream`, on tensors.

    Args:
        **options: Keywords of `LipSync`; "blend" as a dict of its fields, and "model" by name.

    Returns:
        What `Case.make` wants.
    """

    def make(inputs: Path, folder: Path) -> Made:
        from lipsync_core import Audio, Blend, FaceTrack, Frames, LipSync, load_model

        given = {"model": "mini", "blend": {}, **options}
        network = load_model(given.pop("model"))
        sync = LipSync(network, blend=Blend(**given.pop("blend")), **given)
        pixels = _pixels(inputs / "clip.mkv")[:20]
        n = len(pixels)
        eyes_nose_mouth = [[108.0, 86], [138, 84], [127, 107], [112, 124], [136, 123]]
        points = torch.tensor(eyes_nose_mouth).expand(n, 5, 2) + torch.arange(n)[:, None, None] / 10
        box = torch.tensor([87.0, 50, 158, 145]).expand(n, 4)
        track = FaceTrack(box, points, torch.arange(n) != 7)
        sound = Audio(_test_sound(n)[None], 16000)
        chunks = [Frames(part, 7 * i) for i, part in enumerate(pixels.split(7))]
        drawn = list(sync.stream(chunks, sound, fps=FPS, tracks=[track]))
        return {"pixels": torch.cat([part.pixels for part in drawn]).numpy()}

    return make


def _test_sound(frames: int) -> torch.Tensor:
    """Make a sound that rises and falls four times a second.

    Args:
        frames: How long, at FPS.

    Returns:
        (T,) float32 at 16 kHz.
    """
    at = torch.arange(frames * 640) / 16000
    return (at * 900 * (1 + at)).sin() * (at * 25).sin().square() * 0.5


def node(work: Callable[[Any, Path], Made]) -> Callable[[Path, Path], Made]:
    """Make a case of the node pack, in the checkout's own stand-in for the host.

    Args:
        work: Takes the loaded pack and the folder of the inputs.

    Returns:
        What `Case.make` wants.
    """

    def make(inputs: Path, folder: Path) -> Made:
        pack = _pack()
        import fake_host  # pyright: ignore[reportMissingImports]

        fake_host.HOST.reset(folder / "host")
        sys.modules["folder_paths"].__dict__["models_dir"] = fake_host.HOST.folder("models")
        asyncio.run(pack.extension.on_load())
        return work(pack, inputs)

    return make


_LOADED: list[Any] = []


def _pack() -> Any:
    """Load the node pack as the checkout's tests do, once.

    Returns:
        What `run(node, **inputs)` is called of.
    """
    if not _LOADED:
        sys.path.insert(0, str(_package().parents[1] / "tests" / "nodes"))
        import fake_host  # pyright: ignore[reportMissingImports]
        import loading  # pyright: ignore[reportMissingImports]

        base = Path(os.environ["LIPSYNC_CACHE"]).parent / "nodes"
        fake_host.HOST.reset(base / "host")
        _LOADED.append(loading.load(loading.copy(base / "pack")))
    return _LOADED[0]


def _image(inputs: Path, name: str, count: int) -> torch.Tensor:
    """Read an input as nodes take images.

    Args:
        inputs: The folder of the inputs.
        name: Of the input.
        count: At most so many frames.

    Returns:
        (N,H,W,3) float32 in [0,1].
    """
    return _pixels(inputs / name)[:count].float() / 255


def _sound(inputs: Path, name: str) -> dict[str, Any]:
    """Read an input as nodes take sound.

    Args:
        inputs: The folder of the inputs.
        name: Of the input, a WAV file.

    Returns:
        The waveform (1,C,T) and its rate.
    """
    with wave.open(str(inputs / name)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        wave_form = torch.from_numpy(samples.reshape(-1, file.getnchannels()).T / np.float32(32768))
        return {"waveform": wave_form[None], "sample_rate": file.getframerate()}


def _spoken(outputs: Sequence[Any]) -> Made:
    """Gather what the node that generates gives for images.

    Args:
        outputs: Images, sound and mask.

    Returns:
        What a case gives.
    """
    images, sound, mask = outputs
    both = torch.cat([images, mask[..., None]], 3)  # one picture of four channels
    samples, rate = sound["waveform"].numpy(), sound["sample_rate"]
    return {"pixels": both.numpy(), "sound": samples, "told": rate}


def node_images(**settings: Any) -> Callable[[Path, Path], Made]:
    """Make a case of the node that generates, for a batch of images.

    Args:
        **settings: Widgets of the node; "blend" as a dict of the settings' widgets, "model" by
            name, "media" and "audio" by the names of the inputs.

    Returns:
        What `Case.make` wants.
    """

    def work(pack: Any, inputs: Path) -> Made:
        given = {"media": "clip.mkv", "audio": "speech.wav", **settings}
        if "blend" in given:
            (given["blend"],) = pack.run("BlendSettings", **given["blend"])
        if "model" in given:
            (given["model"],) = pack.run("LoadLipSyncModel", model=given["model"])
        given["media"] = _image(inputs, given["media"], 20)
        given["audio"] = _sound(inputs, given["audio"])
        return _spoken(pack.run("Wav2LipGenerate", **given))

    return node(work)


def node_two(pack: Any, inputs: Path) -> Made:
    """Let two people of a batch of images speak, each their own sound.

    Args:
        pack: The nodes.
        inputs: The folder of the inputs.

    Returns:
        What a case gives.
    """
    media = _image(inputs, "two.mkv", 12)
    tracks, boxes, count, *_ = pack.run("DetectFaces", media=media)
    for who, name in (("left", "speech.wav"), ("right", "late.wav")):
        (tracks,) = pack.run("SelectFace", tracks=tracks, rule=who, audio=_sound(inputs, name))
    made = _spoken(pack.run("Wav2LipGenerate", media=media, tracks=tracks))
    return made | {"told": _rounded([count, boxes])}


def node_video(pack: Any, inputs: Path) -> Made:
    """Let a video speak by the nodes, from file to file.

    Args:
        pack: The nodes.
        inputs: The folder of the inputs.

    Returns:
        What a case gives.
    """
    import fake_host  # pyright: ignore[reportMissingImports]

    media = fake_host.VideoFromFile(str(inputs / "clip.mkv"))
    sound = _sound(inputs, "long.wav")
    video, *_ = pack.run("Wav2LipGenerate", media=media, audio=sound, crf=0.0)  # 0: without loss
    return {"file": Path(video.get_stream_source())}


def node_preview(pack: Any, inputs: Path) -> Made:
    """Show a mask by the nodes.

    Args:
        pack: The nodes.
        inputs: The folder of the inputs.

    Returns:
        What a case gives.
    """
    (blend,) = pack.run("BlendSettings", mask="face", feather=0.1)
    (sheet,) = pack.run("PreviewMask", media=_image(inputs, "clip.mkv", 12), blend=blend)
    return {"pixels": sheet.numpy()}


def node_score(pack: Any, inputs: Path) -> Made:
    """Score images and sound by the nodes, and move the sound.

    Args:
        pack: The nodes.
        inputs: The folder of the inputs.

    Returns:
        What a case gives.
    """
    sound = _sound(inputs, "talk.wav")
    media = _image(inputs, "talking.mkv", 60)
    *numbers, _plot, verdict = pack.run("SyncScore", media=media, audio=sound)
    (moved,) = pack.run("ShiftAudio", audio=sound, amount=2.0)
    return {"sound": moved["waveform"].numpy(), "told": [*_rounded(numbers), verdict]}


# ---- the cases


def cases() -> Iterator[Case]:
    """List what is made.

    Yields:
        One case after another, cheap to list.
    """
    yield from _plain_cases()
    yield from _blend_cases()
    yield from _sound_cases()
    yield from _command_cases()
    yield from _refused_cases()
    yield from _memory_cases()


def _plain_cases() -> Iterator[Case]:
    """List dubs of every kind of footage and face.

    Yields:
        Cases.
    """
    fresh = {"cache": False}
    both = [("speech.wav", "left"), ("late.wav", "right")]
    kept = {"finding": {}}
    yield Case("video", library("clip.mkv", finding=fresh))
    yield Case("video, tracks written", library("clip.mkv", **kept))
    yield Case("video, tracks read", library("clip.mkv", **kept))
    yield Case("video, own sound", library("talking.mkv", "talking.mkv"))
    yield Case("video, mp4 by the default encoder", library("odd.mp4", out="out.mp4"))
    yield Case("video, webm", library("clip.mkv", out="out.webm", cut={"end": Fraction(2, 5)}))
    yield Case("video, a cut, and frames without faces", library("cut.mkv"))
    yield Case("photo", library("photo.png"))
    yield Case("photo, large", library("large.png", "stereo.wav"))
    yield Case("photo, mp4 by the default encoder", library("photo.png", out="out.mp4"))
    yield Case("two people, each their own sound", library("two.mkv", both))
    for who in ("left", "right", "1", "380,120"):
        yield Case(f"two people, {who} speaks", library("two.mkv", select=who))
    yield Case("two people, by a table of turns", library("two.mkv", speakers="turns.csv"))
    found = library("debate.mkv", "talk.wav", speakers="auto")
    yield Case("two people, who speaks is found", found)
    for dense in (True, False):
        finding = {"cache": False, "dense": dense}
        yield Case(f"landmarks {dense}", library("clip.mkv", finding=finding))
    yield Case("min score 0.9", library("two.mkv", finding={"cache": False, "min_score": 0.9}))
    yield Case("one frame at a time", library("clip.mkv", batch=1))


def _blend_cases() -> Iterator[Case]:
    """List dubs with every blend, for both bundled models.

    Yields:
        Cases.
    """
    choices: dict[str, tuple[Any, ...]] = {
        "kind": ("paste", "feather", "pyramid", "poisson", "seamless"),
        "mask": ("lower", "face", "box"),
        "colour_match": ("spread", "covariance"),
    }
    for model in ("mini", "mini-2"):
        for name, values in choices.items():
            for value in values:
                dub = library("clip.mkv", "stereo.wav", model=model, blend={name: value})
                yield Case(f"{model}, {name} {value}", dub)
    more: tuple[dict[str, Any], ...] = (
        *({"detail": 0.0}, {"grain": 0.0}, {"detail": 0.5, "grain": 0.5}, {"steady": 0.5}),
        *({"strength": 0.5}, {"feather": 0.2}, {"feather_px": 6.0}, {"own_pixels": False}),
    )
    for blend in more:
        model = "mini" if "own_pixels" in blend else "mini-2"
        told = ", ".join(f"{name} {value}" for name, value in blend.items())
        yield Case(f"{model}, {told}", library("clip.mkv", "stereo.wav", model=model, blend=blend))
    for model in ("mini", "mini-2"):
        dub = library("hand.mkv", model=model, blend={"occlusion": "compare"})
        yield Case(f"{model}, occlusion compare", dub)


def _sound_cases() -> Iterator[Case]:
    """List dubs with all that concerns sound and time.

    Yields:
        Cases.
    """
    for silence in ("close", "keep"):
        yield Case(f"silence {silence}", library("talking.mkv", "pause.wav", silence=silence))
    closed = library("clip.mkv", "pause.wav", model="mini-2", silence="close")
    yield Case("mini-2, silence close", closed)
    for model in ("mini", "mini-2"):
        for reference in ("auto", "current", "first", "nearest-closed"):
            dub = library("talking.mkv", model=model, reference=reference)
            yield Case(f"{model}, reference {reference}", dub)
    for longer in ("pingpong", "loop", "hold", "trim"):
        yield Case(f"longer {longer}", library("clip.mkv", "long.wav", cut={"longer": longer}))
    part = {"start": Fraction(1, 5), "end": Fraction(4, 5), "fps": Fraction(30)}
    yield Case("start, end, fps", library("clip.mkv", "long.wav", cut=part))
    yield Case("lead", library("clip.mkv", lead_ms=40, model="mini-2"))
    own: dict[str, Any] = {"model": "random.pth", "cut": {"end": Fraction(2, 5), "longer": "trim"}}
    yield Case("Wav2Lip", library("clip.mkv", **own))
    yield Case("Wav2Lip, pads", library("clip.mkv", pads=(0, 10, 0, 4), lead_ms=40, **own))


def _command_cases() -> Iterator[Case]:
    """List what is done by the command line.

    Yields:
        Cases.
    """
    clip = ("dub", "@clip.mkv", "@speech.wav")
    yield Case("command: dub, in a process of its own", command(*clip, apart=True))
    pairs = ("--pair", "left=@speech.wav", "--pair", "right=@late.wav")
    yield Case("command: pairs", command("dub", "@two.mkv", *pairs))
    yield Case("command: face", command("dub", "@two.mkv", "@speech.wav", "--face", "right"))
    words = "--model mini-2 --mask lower --blend poisson --feather 0.1 --detail 0.7 --grain 0.6"
    more = "--colour-match covariance --steady 0.4 --strength 0.8 --silence close --reference first"
    yield Case("command: many options", command(*clip, *words.split(), *more.split()))
    words = "--feather-px 5 --no-own-pixels --occlusion compare --no-cache --batch 3"
    more = "--min-score 0.6 --precision float32 --device cpu --no-tag --detector mini"
    yield Case("command: more options", command(*clip, *words.split(), *more.split()))
    words = "--start 0.2 --end 0:00.8 --fps 30000/1001 --when-audio-is-longer"
    for longer in ("pingpong", "loop", "hold", "trim"):
        line = ("dub", "@clip.mkv", "@long.wav", *words.split(), longer)
        yield Case(f"command: cut, fps, longer {longer}", command(*line))
    box = ("dub", "@clip.mkv", "@speech.wav", "--model", "@random.pth", "--end", "0.2")
    last = ("--pads", "0 8 2 2", "--lead-ms", "40", "--when-audio-is-longer", "trim")
    yield Case("command: pads, lead", command(*box, *last))
    exact = ("--crf", "0", "--preset", "ultrafast")
    yield Case("command: mp4 without loss", command(*clip, *exact, out="out.mp4"))
    for mask in ("mouth", "lower", "face", "box"):
        shown = command("mask", "@clip.mkv", "--mask", mask, out="out.png")
        yield Case(f"command: mask {mask}", shown)
    shown = command("mask", "@photo.png", "--model", "mini-2", out="out.png")
    yield Case("command: mask of mini-2", shown)
    yield Case("command: score", command("score", "@talking.mkv", "--json", out=None, told=True))
    other = ("score", "@talking.mkv", "@pause.wav", "--json")
    yield Case("command: score another sound", command(*other, out=None, told=True))
    turns = ("speakers", "@debate.mkv", "--audio", "@talk.wav", "--json")
    yield Case("command: speakers", command(*turns, out=None, told=True))


def _refused_cases() -> Iterator[Case]:
    """List what is refused, whose words count.

    Yields:
        Cases.
    """
    yield Case("refused: no face", library("empty.png"), fails=True)
    yield Case("refused: no third face", library("two.mkv", select="3"), fails=True)
    yield Case("refused: pads of mini", library("clip.mkv", pads=(0, 0, 0, 0)), fails=True)
    late = {"start": Fraction(9)}
    yield Case("refused: beyond the end", library("clip.mkv", cut=late), fails=True)
    yield Case("refused: no such model", library("clip.mkv", model="no-such-model"), fails=True)
    for line in (("@empty.png", "@speech.wav"), ("@clip.mkv",)):
        yield Case(f"refused by the command: {line}", command("dub", *line), fails=True)


def _memory_cases() -> Iterator[Case]:
    """List what is done on tensors, by the library and by the nodes.

    Yields:
        Cases.
    """
    for model in ("mini", "mini-2"):
        yield Case(f"tensors, {model}", streamed(model=model))
    yield Case("tensors, feather", streamed(blend={"kind": "feather", "mask": "face"}, lead_ms=20))
    yield Case("node: images", node_images())
    yield Case("node: photo", node_images(media="photo.png", audio="stereo.wav"))
    yield Case("node: mini-2", node_images(model="mini-2 (bundled)", longer="trim"))
    blend = {"mask": "lower", "blend": "pyramid", "colour_match": True, "steady": 0.3}
    yield Case("node: blend", node_images(blend=blend, longer="loop"))
    blend = {"occlusion": "compare", "own_pixels": False, "colour": "covariance", "detail": 0.5}
    yield Case("node: occlusion", node_images(media="hand.mkv", blend=blend, longer="hold"))
    yield Case("node: silence", node_images(audio="pause.wav", silence="close", reference="first"))
    for name, work in (("two people", node_two), ("video", node_video)):
        yield Case(f"node: {name}", node(work))
    for name, work in (("preview", node_preview), ("score", node_score)):
        yield Case(f"node: {name}", node(work))


# ---- decoding and hashing


def _decoded(path: Path, kind: str | None = None) -> Iterator[tuple[np.ndarray, str]]:
    """Decode the frames of a video or picture.

    Args:
        path: Its file.
        kind: Pixel format that is wanted; by default as the file codes it, else RGB.

    Yields:
        Each frame's array, and its pixel format.
    """
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            own = frame.format.name
            wanted = kind or (own if own == "yuv420p" else "rgb24")
            yield frame.to_ndarray(format=wanted), wanted


def _decoded_sound(path: Path) -> tuple[bytes, int, list[Any]]:
    """Decode the sound of a file.

    Args:
        path: The file.

    Returns:
        All samples of all tracks as bytes, how many instants those of the first are, and each
        track's rate and layout.
    """
    data, counts, kinds = [], [], []
    with av.open(str(path)) as file:
        tracks = len(file.streams.audio)
    for i in range(tracks):
        with av.open(str(path)) as file:
            frames = list(file.decode(audio=i))
        data += [frame.to_ndarray().tobytes() for frame in frames]
        counts.append(sum(frame.samples for frame in frames))
        kinds.append([frames[0].rate, frames[0].layout.name, frames[0].format.name])
    return b"".join(data), counts[0] if counts else 0, kinds


def _hash(*parts: bytes) -> str:
    """Hash bytes.

    Args:
        *parts: The bytes, one after another.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def describe(made: Made) -> Made:
    """Hash what a case gave.

    Args:
        made: What it gave.

    Returns:
        Hashes and counts, ready for JSON.
    """
    arrays: Sequence[tuple[np.ndarray, str]] | Iterator[tuple[np.ndarray, str]] = []
    told, sound, samples = made.get("told"), b"", 0
    if "file" in made:
        arrays = _decoded(made["file"])
        sound, samples, kinds = _decoded_sound(made["file"])
        told = {"report": told, "sound": kinds}
    elif "pixels" in made:
        arrays = [(image, str(image.dtype)) for image in made["pixels"]]
    if "sound" in made:
        sound, samples = made["sound"].tobytes(), made["sound"].shape[-1]
    each = [_hash(f"{kind} {array.shape}".encode(), array.tobytes()) for array, kind in arrays]
    return {
        "picture": _hash(*(one.encode() for one in each)),
        "frames": len(each),
        "sound": _hash(sound),
        "samples": samples,
        "told": told,
        "each": [one[:16] for one in each],
    }


def _keep(made: Made, path: Path) -> str | None:
    """Keep the pictures that a case gave.

    Args:
        made: What it gave.
        path: Where to, without a suffix.

    Returns:
        The file that was written, None for no pictures.
    """
    if "file" in made:
        kept = path.with_suffix(made["file"].suffix)
        made["file"].rename(kept)
        return str(kept)
    if "pixels" in made:
        np.save(path.with_suffix(".npy"), made["pixels"])
        return str(path.with_suffix(".npy"))
    return None


# ---- running


def work(out: Path, inputs: Path, only: str, keep: Path | None) -> int:
    """Make all cases in this process.

    Args:
        out: The JSON file that is written.
        inputs: Folder of the inputs, made if it has none.
        only: Cases whose names have this text.
        keep: Where to keep pictures.

    Returns:
        How many cases went wrong.
    """
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # reports have the warnings
    if not (inputs / "made").exists():
        make_inputs(inputs)
    inputs = inputs.resolve()
    done: dict[str, Made] = {}
    wrong = 0
    chosen = [case for case in cases() if only in case.name]
    for number, case in enumerate(chosen):
        with tempfile.TemporaryDirectory() as folder:
            place = None if keep is None else keep / f"{number}"
            done[case.name] = made = _attempt(case, inputs, Path(folder).resolve(), place)
        wrong += made["wrong"]
        print(f"{made['seconds']:6.2f} s  {case.name}  {made.get('error', '')[:150]}", flush=True)
    hashes = {path.name: _hash(path.read_bytes()) for path in sorted(inputs.iterdir())}
    total = sum(made["seconds"] for made in done.values())
    result = {"inputs": hashes, "cases": done, "seconds": total}
    out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{len(done)} cases in {total:.0f} s, {wrong} of which went wrong")
    return wrong


def _attempt(case: Case, inputs: Path, folder: Path, keep: Path | None) -> Made:
    """Make one case, whatever happens.

    Args:
        case: The case.
        inputs: Folder of the inputs.
        folder: An empty one.
        keep: Where to keep its pictures, without a suffix.

    Returns:
        What is written of it.
    """
    began = time.perf_counter()
    torch.manual_seed(0)
    try:
        made = case.make(inputs, folder)
        seconds = time.perf_counter() - began
        result = describe(made) | {"wrong": case.fails, "seconds": seconds}
        if keep is not None:
            result["kept"] = _keep(made, keep)
    except Exception as error:
        seconds = time.perf_counter() - began
        plain = isinstance(error, (Refused, ValueError)) or "LipSyncError" in _kinds(error)
        text = f"{type(error).__name__}: {error}"
        result = {"error": text, "wrong": not (case.fails and plain), "seconds": seconds}
    text = json.dumps(result)
    for place, name in ((inputs, "INPUTS"), (folder, "OUT")):
        text = text.replace(json.dumps(str(place))[1:-1], name)
    result = json.loads(text)
    if "error" in result:
        result["error"] = re.sub(r"[\s─│╭╮╰╯]+", " ", result["error"])
    return result


def _kinds(error: Exception) -> list[str]:
    """Name what kinds of error one is.

    Args:
        error: The error.

    Returns:
        Names of its class and of those above.
    """
    return [kind.__name__ for kind in type(error).__mro__]


def run_apart(root: Path, out: Path, inputs: Path, only: str, keep: Path | None) -> int:
    """Make all cases of a checkout, in a process of its own that uses one thread.

    Args:
        root: The checkout.
        out: The JSON file that is written.
        inputs: Folder of the inputs, made if it has none.
        only: Cases whose names have this text.
        keep: Where to keep pictures.

    Returns:
        How many cases went wrong, and at least 1 if the process did not end well.
    """
    script = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        folders = {"LIPSYNC_CACHE": f"{scratch}/cache", "LIPSYNC_WEIGHTS": f"{scratch}/weights"}
        plain = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
        path = {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, script, "work", out.resolve(), inputs.resolve()]
        words += ["--only", only, *(() if keep is None else ("--keep", keep.resolve()))]
        env = {**os.environ, **threads, **folders, **plain, **path}
        line = [str(word) for word in words]
        return subprocess.run(line, env=env, cwd=root, check=False).returncode


# ---- comparing


def compare(first: Path, second: Path) -> int:
    """Print what two runs have in common.

    Args:
        first: JSON file of one run.
        second: JSON file of another.

    Returns:
        How many cases differ or went wrong.
    """
    a, b = (json.loads(path.read_text(encoding="utf-8")) for path in (first, second))
    other = {name for name, _ in {*a["inputs"].items()} ^ {*b["inputs"].items()}}
    if other:
        print(f"the runs had other inputs: {', '.join(sorted(other))}")
    wrong = 0
    for name in dict.fromkeys([*a["cases"], *b["cases"]]):
        verdict = _difference(a["cases"].get(name), b["cases"].get(name))
        wrong += bool(verdict)
        print(f"{name:44} {verdict or 'equal'}")
    print(f"{wrong} cases differ or went wrong; {a['seconds']:.0f} s and {b['seconds']:.0f} s")
    return wrong


def _difference(a: Made | None, b: Made | None) -> str:
    """Say how two runs of one case differ.

    Args:
        a: What is written of the one.
        b: What is written of the other.

    Returns:
        Words; none where they are equal and went well.
    """
    if a is None or b is None:
        return "MISSING in one of the runs"
    if a["wrong"] or b["wrong"]:
        return f"WENT WRONG: {a.get('error', 'done')} | {b.get('error', 'done')}"
    unlike = [name for name in COMPARED if a.get(name) != b.get(name)]
    plain = [name for name in unlike if name not in ("picture", "sound")]
    words = [f"{name}: {a.get(name)} | {b.get(name)}" for name in plain]
    if "sound" in unlike:
        words.append("other sound")
    if "picture" in unlike and "each" in a and "each" in b:
        pairs = list(zip(a["each"], b["each"], strict=False))
        words.append(f"{sum(x != y for x, y in pairs)} of {len(pairs)} frames{_levels(a, b)}")
    return f"DIFFERS: {'; '.join(words)}" if words else ""


def _levels(a: Made, b: Made) -> str:
    """Say how far the kept pictures of two runs are apart.

    Args:
        a: What is written of the one.
        b: What is written of the other.

    Returns:
        Words; none where the pictures are not there or have other sizes.
    """
    if not all(made.get("kept") and Path(made["kept"]).exists() for made in (a, b)):
        return ""
    one, two = (_kept(Path(made["kept"])) for made in (a, b))
    if one.shape != two.shape:
        return f", of sizes {one.shape} and {two.shape}"
    apart = np.abs(one.astype(np.float64) - two)
    return f", {apart.max():.4g} at most and {apart.mean():.4g} on average apart"


def _kept(path: Path) -> np.ndarray:
    """Read kept pictures.

    Args:
        path: A video, a picture, or an array.

    Returns:
        All of them as one array.
    """
    if path.suffix == ".npy":
        return np.load(path)
    return np.stack([array for array, _ in _decoded(path)])


def against(commit: str, only: str) -> int:
    """Compare this checkout with a commit.

    Args:
        commit: What git calls it.
        only: Cases whose names have this text.

    Returns:
        How many cases differ or went wrong.
    """
    root = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root), "worktree"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before = folder / "checkout"
        added = [*git, "add", "--detach", str(before), commit]
        subprocess.run(added, check=True, stdout=subprocess.DEVNULL)
        try:
            for name, checkout in (("before", before), ("now", root)):
                print(f"{name}: {checkout}", flush=True)
                (folder / name).mkdir()
                out, keep = folder / f"{name}.json", folder / name
                run_apart(checkout, out, folder / "inputs", only, keep)
                if not out.exists():
                    return 1
            return compare(folder / "before.json", folder / "now.json")
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=False)


# ---- the command line


def _run(out: Path, inputs: Path | None, only: str, keep: Path | None) -> int:
    """Make all cases of the package that Python finds here.

    Args:
        out: The JSON file that is written.
        inputs: Folder of the inputs; by default they are generated.
        only: Cases whose names have this text.
        keep: Where to keep pictures.

    Returns:
        How many cases went wrong.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = inputs or Path(folder) / "inputs"
        return run_apart(_package().resolve().parents[1], out, place, only, keep)


def main() -> None:
    """Read the command line and do what it says."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (("run", "make all cases"), ("work", "what run does in its process")):
        command = commands.add_parser(name, help=told)
        command.add_argument("out", type=Path, metavar="OUT.json")
        inputs = "inputs" if name == "work" else "--inputs"
        command.add_argument(inputs, type=Path, help="folder of the inputs, kept")
        command.add_argument("--keep", type=Path, help="folder for the pictures")
    command = commands.add_parser("compare", help="say which cases of two runs differ")
    command.add_argument("first", type=Path)
    command.add_argument("second", type=Path)
    commands.add_parser("against", help="compare with a commit").add_argument("commit")
    for name in ("run", "work", "against"):
        commands.choices[name].add_argument("--only", default="", help="part of a case's name")
    args = parser.parse_args()
    if args.command == "compare":
        wrong = compare(args.first, args.second)
    elif args.command == "against":
        wrong = against(args.commit, args.only)
    else:
        do = work if args.command == "work" else _run
        wrong = do(args.out, args.inputs, args.only, args.keep)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
