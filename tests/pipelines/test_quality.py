"""The edge of image quality: clips made here, alone and beside the true one, and every figure that
cannot be had."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from helpers.golden import build
from helpers.media import levels, write_video
from torch import Tensor
from typer.testing import CliRunner

from lipsync_core.cli.main import app, main
from lipsync_core.errors import MediaError, NoFaceError, WeightsError
from lipsync_core.media import AudioSource, VideoWriter
from lipsync_core.models import hub
from lipsync_core.models.inception import Inception, InceptionConfig
from lipsync_core.models.weights import save_model
from lipsync_core.pipelines.quality import measure_quality
from lipsync_core.pipelines.track_faces import Finding
from lipsync_core.types import Audio, Frames, VideoInfo

FRESH = Finding(cache=False)
COUNT = 26
MOUTH = (slice(126, 156), slice(98, 152))  # rows and columns of the astronaut's, in a cut of 256 px


def pictures(count: int = COUNT) -> Tensor:
    """A head that nods: (N,256,256,3) uint8."""
    photo = torch.from_numpy(skimage.data.astronaut()[:256, 96:352].copy())
    return torch.stack([photo.roll(i % 3, 0) for i in range(count)])


def film(path: Path, pixels: Tensor, *, spoken: float | None = 0.4, fps: int = 25) -> Path:
    """``pixels`` under ``spoken`` seconds of noise that comes and goes as syllables do (steady
    noise is a background), and the silence after it; None: without a sound track."""
    seconds = len(pixels) / fps
    noise = 0.2 * torch.randn(1, round(16000 * seconds), generator=torch.Generator().manual_seed(0))
    noise *= 0.51 + 0.49 * torch.sin(torch.arange(noise.shape[1]) / 16000 * 2 * torch.pi * 4)
    if spoken is not None:
        noise[:, round(16000 * spoken) :] = 0
    sound = None if spoken is None else AudioSource(Audio(noise.clamp(-1, 1), 16000))
    info = VideoInfo(pixels.shape[2], pixels.shape[1], Fraction(fps), len(pixels))
    with VideoWriter(path, info, sound, preset="ultrafast", crf=8) as out:
        out.write(Frames(pixels))
    return path


def with_mouth(change: Callable[[Tensor], Tensor]) -> Tensor:
    pixels = pictures()
    pixels[:, MOUTH[0], MOUTH[1]] = change(pixels[:, MOUTH[0], MOUTH[1]])
    return pixels


def blurred(mouths: Tensor) -> Tensor:
    planes = F.pad(mouths.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="replicate")
    return F.avg_pool2d(planes, 7, 1).permute(0, 2, 3, 1).to(torch.uint8)


def mumbling(mouths: Tensor) -> Tensor:
    return torch.stack([mouth.flip(0) if i % 2 else mouth for i, mouth in enumerate(mouths)])


@pytest.fixture(autouse=True)
def nothing_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("clips") / "clip.mkv", pictures())


def test_a_clip_by_itself(clip: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = measure_quality(clip, finding=FRESH, on_progress=lambda *step: told.append(step))
    assert list(report.figures) == ["sharpness", "border_jitter", "mouth_motion"]
    for figure in report.figures.values():
        assert figure.value is not None and figure.real is None and figure.reason is None
    assert (report.real, report.region, report.fps, report.frames, report.with_face) == (
        None,
        None,
        25,
        COUNT,
        COUNT,
    )
    assert abs(report.centre[0] - 130) < 8 and abs(report.centre[1] - 120) < 8
    assert told[-1] == ("measure", COUNT, COUNT) and report.warnings == ()


def test_the_clip_itself_is_the_best_of_its_copies(clip: Path) -> None:
    report = measure_quality(clip, clip, finding=FRESH)
    psnr = report.figures["psnr_db"]
    assert psnr.value == math.inf and psnr.reason is not None
    assert report.figures["ssim"].value == pytest.approx(1)
    for name in ("sharpness", "border_jitter", "mouth_motion"):
        assert report.figures[name].value == report.figures[name].real is not None
    values = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert values["figures"]["psnr_db"] == {
        "value": None,
        "real": None,
        "reason": "all pictures are equal: infinite",
    }
    assert values["fps"] == "25" and values["region"] == "face" and values["real"] == str(clip)
    assert "lipsync models pull fid-inception" in values["figures"]["fid"]["reason"]
    assert (
        values["figures"]["lmd"] == {"value": 0, "real": None}
        and values["landmarks"] == "face_landmarks"
    )


def test_a_blurred_mouth_is_less_sharp_and_farther_from_the_truth(
    clip: Path, tmp_path: Path
) -> None:
    soft = film(tmp_path / "soft.mkv", with_mouth(blurred))
    face, frame = (
        measure_quality(soft, clip, region=region, finding=FRESH).figures
        for region in ("face", "frame")
    )
    sharp = face["sharpness"]
    assert sharp.value is not None and sharp.real is not None and sharp.value < 0.6 * sharp.real
    assert face["sharpness"] == frame["sharpness"]
    for name in ("psnr_db", "ssim"):  # all error lies in the face, and the frame dilutes it
        assert (face[name].value or 0) < (frame[name].value or 0)
    assert 20 < (face["psnr_db"].value or 0) < 40 and 0.5 < (face["ssim"].value or 0) < 0.99


def test_lips_that_move_in_silence_are_told(clip: Path, tmp_path: Path) -> None:
    moving = measure_quality(
        film(tmp_path / "moving.mkv", with_mouth(mumbling)), clip, finding=FRESH
    ).figures["mouth_motion"]
    assert moving.value is not None and moving.real is not None and moving.value > 5 + moving.real


def test_motion_wants_sound_with_silence_in_it(tmp_path: Path) -> None:
    loud = measure_quality(
        film(tmp_path / "loud.mkv", pictures(), spoken=9), finding=FRESH
    ).figures["mouth_motion"]
    mute = measure_quality(
        film(tmp_path / "mute.mkv", pictures(), spoken=None), finding=FRESH
    ).figures["mouth_motion"]
    assert loud.value is mute.value is None
    assert loud.reason == "the sound is never silent in two frames on end"
    assert mute.reason is not None and "no sound" in mute.reason


def test_the_shorter_decides_and_other_rates_are_told(clip: Path, tmp_path: Path) -> None:
    short = film(tmp_path / "short.mkv", pictures(15))
    for pair in ((short, clip), (clip, short)):
        report = measure_quality(*pair, finding=FRESH)
        assert (report.frames, report.with_face) == (15, 15) and (
            report.figures["psnr_db"].value or 0
        ) > 40
        assert (
            len(report.warnings) == 1
            and "differ in length: 15 frames are compared" in report.warnings[0]
        )
    fast = film(tmp_path / "fast.mkv", pictures().repeat_interleave(2, 0), fps=50)
    report = measure_quality(fast, clip, finding=FRESH)
    assert report.frames == COUNT and (report.figures["psnr_db"].value or 0) > 40
    assert len(report.warnings) == 1 and "50 fps" in report.warnings[0]


def test_lips_are_compared_where_there_is_a_model(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="landmarks need OpenCV")
    from helpers.networks import network

    dark = film(tmp_path / "dark.mkv", with_mouth(lambda mouths: mouths // 4))
    path = network(tmp_path).path  # lips part with mean red
    same, other = (
        measure_quality(one, clip, landmarks=path, finding=FRESH).figures["lmd"]
        for one in (clip, dark)
    )
    assert measure_quality(clip, clip, landmarks=path, finding=FRESH).landmarks == path.name
    assert same.value == 0 and other.value is not None and other.value > 0.1
    with pytest.raises(WeightsError, match=r"no file .*x\.onnx"):
        measure_quality(clip, clip, landmarks=tmp_path / "x.onnx", finding=FRESH)


def test_with_its_network_there_is_a_fid_that_says_how_weak_it_is(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers on small pictures, with weights made up here: what it says means nothing."""
    path = tmp_path / hub.HUB["fid-inception"].filename
    save_model(
        build(Inception, InceptionConfig(size=75)),
        path,
        licence="none",
        source="made up",
        dtype=torch.float16,
    )
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(
        hub.HUB, "fid-inception", replace(hub.HUB["fid-inception"], sha256=hub.file_sha256(path))
    )
    report = measure_quality(clip, film(tmp_path / "soft.mkv", with_mouth(blurred)), finding=FRESH)
    assert (report.figures["fid"].value or 0) > 0
    assert report.warnings == (
        f"FID: {COUNT} images for 2048 features: the distance is biased upwards",
    )


def test_what_cannot_be_measured_is_an_error(clip: Path, tmp_path: Path) -> None:
    grey = write_video(tmp_path / "grey.mp4", levels(8, width=64, height=64))
    with pytest.raises(
        ValueError, match=r"grey\.mp4 has 64x64 px and .* has 256x256; expected the same clip"
    ):
        measure_quality(grey, clip, finding=FRESH)
    with pytest.raises(NoFaceError, match="no face was found"):
        measure_quality(grey, finding=FRESH)
    with pytest.raises(NoFaceError, match="no frame has the face 4; 1 found"):
        measure_quality(clip, face="4", finding=FRESH)
    with pytest.raises(MediaError, match="photograph"):
        measure_quality(Path(skimage.data.__file__).parent / "astronaut.png", finding=FRESH)
    with pytest.raises(ValueError, match="region is 'crop'"):
        measure_quality(clip, clip, region="crop", finding=FRESH)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="give the true video"):
        measure_quality(clip, landmarks=tmp_path / "x.onnx", finding=FRESH)


def test_the_command_prints_a_table_or_json(clip: Path) -> None:
    table = CliRunner().invoke(app, ["quality", str(clip), str(clip), "--no-cache"])
    assert table.exit_code == 0, table.output
    assert (
        "PSNR: all pictures are equal: infinite" in table.output
        and "mouth sharpness" in table.output
    )
    alone = CliRunner().invoke(app, ["quality", str(clip), "--no-cache", "--json"])
    assert alone.exit_code == 0 and json.loads(alone.stdout)["real"] is None


def test_without_a_face_the_exit_code_is_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = write_video(tmp_path / "grey.mp4", levels(8, width=64, height=64))
    monkeypatch.setattr(sys, "argv", ["lipsync", "quality", str(grey), "--no-cache"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
