"""Whose lips a dub shows, from videos: what is read of them, the command, and the benchmark's
table."""

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import write_sound
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from lipsync_core.cli.main import app
from lipsync_core.errors import MediaError
from lipsync_core.evaluation.lips import REFERENCES, LipJudge, Original, format_lips_section
from lipsync_core.image.landmarks import LIP_LAYOUTS, POINTS
from lipsync_core.media import AudioSource, VideoWriter, read_frames
from lipsync_core.metrics.mouth import MouthFollowing, compare_openings
from lipsync_core.pipelines import mouth_following, quality
from lipsync_core.pipelines.mouth_following import (
    MouthMeter,
    MouthReport,
    explain_following,
    measure_following,
    measure_openings,
)
from lipsync_core.types import Audio, Detections, FaceTrack, Frames, VideoInfo

COUNT, SIDE = 60, 64


class OpeningsInGrey:
    """Stands in for the landmark network: a mouth is as open as the picture is light, and black
    shows none."""

    def find(self, frames: Frames, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        light = frames.pixels.float().mean((1, 2, 3)) / 255
        layout, found = LIP_LAYOUTS[POINTS], torch.zeros(len(light), POINTS, 2)
        found[:, layout.eyes[1], 0] = 10
        for upper, lower in layout.gaps:
            found[:, upper] = torch.tensor([5.0, 20.0])
            found[:, lower] = torch.stack([torch.full_like(light, 5.0), 20 + 10 * light], 1)
        assert len(boxes) == len(points) == len(light)
        return found, (light > 0.02).float()


class EverywhereAFace:
    """Stands in for a detector."""

    def detect(self, pixels: Tensor) -> list[Detections]:
        points = torch.tensor([[[20.0, 24], [44, 24], [32, 36], [24, 46], [40, 46]]])
        return [
            Detections(torch.tensor([[12.0, 8, 52, 60]]), points, torch.ones(1)) for _ in pixels
        ]


def mouth(period: float, *, late: int = 0) -> Tensor:
    """(COUNT,) openings."""
    return 0.4 + 0.3 * torch.sin(2 * math.pi * (torch.arange(COUNT) - late) / period)


def film(path: Path, openings: Tensor, *, sound: bool = True) -> Path:
    pixels = (255 * openings).round().to(torch.uint8)[:, None, None, None].expand(-1, SIDE, SIDE, 3)
    time = torch.arange(16000 * len(openings) // 25) / 16000
    loud = openings.repeat_interleave(640)[None] * torch.sin(2 * math.pi * 200 * time)
    speech = AudioSource(Audio(loud, 16000)) if sound else None
    info = VideoInfo(SIDE, SIDE, Fraction(25), len(openings))
    with VideoWriter(path, info, speech, preset="ultrafast", crf=8) as out:
        out.write(Frames(pixels.contiguous()))
    return path


TRUTH, SOURCE = mouth(20.0), mouth(30.0)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth_following, "load_landmarks", lambda device: OpeningsInGrey())
    monkeypatch.setattr(
        mouth_following, "load_detector", lambda finding, device: (EverywhereAFace(), None)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    film(folder / "truth.mkv", TRUTH)
    film(folder / "source.mkv", SOURCE)
    film(folder / "good.mkv", mouth(20.0, late=1))
    film(folder / "black.mkv", torch.zeros(COUNT))
    return folder


def test_a_dub_is_compared_with_both_videos(folder: Path) -> None:
    told: list[str] = []
    report = measure_following(
        folder / "good.mkv",
        truth=folder / "truth.mkv",
        source=folder / "source.mkv",
        on_progress=lambda stage, done, total: told.append(stage),
    )
    found = report.following
    wanted = compare_openings(mouth(20.0, late=1)[:-1], TRUTH[:-1], SOURCE[:-1])
    assert (
        found.truth == pytest.approx(1, abs=0.02) and found.truth_lag == 1 and found.reasons == {}
    )
    for name in ("leak", "chance", "old", "new", "movement"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=0.05), name
    assert "102 points" in report.landmarks and "measure lips in good.mkv" in told
    values = json.loads(json.dumps(report.to_values()))
    assert values["truth"] == found.truth and values["source_video"] == str(folder / "source.mkv")


def test_the_undubbed_video_follows_the_old_lips(folder: Path) -> None:
    found = measure_following(
        folder / "source.mkv", truth=folder / "truth.mkv", source=folder / "source.mkv"
    ).following
    assert found.leak == pytest.approx(1) and found.truth == found.chance
    assert "still follow the old lips" in explain_following(found)


def test_what_is_missing_is_told(folder: Path) -> None:
    no_truth = measure_following(folder / "good.mkv", source=folder / "source.mkv").following
    assert (
        no_truth.truth is None
        and no_truth.leak is not None
        and "true speaker" in no_truth.reasons["truth"]
    )
    faceless = measure_following(folder / "good.mkv", truth=folder / "black.mkv").following
    assert faceless.truth is None and "shows a face in 0 of 60" in faceless.reasons["truth"]
    with pytest.raises(ValueError, match="the true speaker's video, the source, or both"):
        measure_following(folder / "good.mkv")
    with pytest.raises(MediaError, match="gone"):
        measure_following(folder / "good.mkv", truth=folder / "gone.mkv")


def test_the_first_seconds_can_be_measured_alone(folder: Path) -> None:
    meter = MouthMeter(OpeningsInGrey(), EverywhereAFace(), None)  # pyright: ignore[reportArgumentType]
    some, all_of_it = (
        meter.openings(folder / "truth.mkv", seconds=1.0),
        meter.openings(folder / "truth.mkv"),
    )
    assert len(all_of_it) == COUNT and torch.equal(some, all_of_it[:26])


def test_a_photo_as_source_has_no_old_lips(folder: Path) -> None:
    photo = folder / "photo.png"
    Image.new("RGB", (SIDE, SIDE), (90, 90, 90)).save(photo)
    found = measure_following(
        folder / "good.mkv", truth=folder / "truth.mkv", source=photo
    ).following
    assert found.truth == pytest.approx(1, abs=0.02) and found.leak is None
    assert (
        found.reasons["leak"]
        == found.reasons["old"]
        == "the source is a photo, whose mouth does not move"
    )
    with pytest.raises(MediaError, match="does not move; expected a video"):
        measure_following(folder / "good.mkv", truth=photo)


def test_openings_do_not_depend_on_the_pieces_that_frames_come_in() -> None:
    pixels = torch.randint(
        0, 255, (20, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels[7] = 0  # no landmarks
    visible = torch.ones(15, dtype=torch.bool)
    visible[4] = False
    person = FaceTrack(torch.rand(15, 4), torch.rand(15, 5, 2), visible, start=3)

    def measured(size: int) -> Tensor:
        pieces = [Frames(pixels[i : i + size], i) for i in range(0, 20, size)]
        return torch.cat([measure_openings(piece, person, OpeningsInGrey()) for piece in pieces])  # pyright: ignore[reportArgumentType]

    whole = measured(20)
    # 7 is not visible, and black
    assert whole.isnan().nonzero()[:, 0].tolist() == [0, 1, 2, 7, 18, 19]
    for size in (1, 3, 7):
        assert torch.equal(measured(size).nan_to_num(-1), whole.nan_to_num(-1))


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            {"truth": 0.9, "leak": 0.2, "old": 0.0, "new": 0.9},
            "follow the new speech, and hardly the old lips",
        ),
        (
            {"truth": 0.3, "leak": 0.8, "old": 0.8, "new": 0.1},
            "still follow the old lips, and hardly the new",
        ),
        ({"truth": 0.5, "leak": 0.7, "old": 0.6, "new": 0.4}, "old lips more than the new speech"),
        ({"truth": 0.7, "leak": 0.5, "old": 0.3, "new": 0.6}, "new speech more than the old lips"),
        ({"truth": 0.1, "leak": 0.1, "old": 0.1, "new": 0.0}, "neither"),
        ({"truth": 0.8}, "The lips follow the true speaker's"),
        ({"truth": 0.2}, "The lips hardly follow the true speaker's"),
        ({"leak": 0.9}, "The lips follow the old lips"),
        ({}, "cannot be told"),
    ],
)
def test_one_sentence_says_what_the_figures_mean(figures: dict[str, float], words: str) -> None:
    assert words in explain_following(MouthFollowing(**figures))  # pyright: ignore[reportArgumentType]


def original(folder: Path, sound: str = "truth.mkv", source: str = "source.mkv") -> Original:
    visible = torch.ones(COUNT, dtype=torch.bool)
    person = FaceTrack(torch.rand(COUNT, 4), torch.rand(COUNT, 5, 2), visible)
    path = folder / source
    return Original(path, folder / sound, person, Fraction(25), lambda: read_frames(path))


def judge() -> LipJudge:
    return LipJudge(MouthMeter(OpeningsInGrey(), EverywhereAFace(), None))  # pyright: ignore[reportArgumentType]


def looked_at(folder: Path, name: str) -> Tensor:
    meter = MouthMeter(OpeningsInGrey(), EverywhereAFace(), None)  # pyright: ignore[reportArgumentType]
    return meter.along(read_frames(folder / name), original(folder).person)


def test_the_benchmark_compares_a_dub_and_the_reference_mouth(folder: Path) -> None:
    lips, given = judge(), original(folder)
    good = lips.compare(looked_at(folder, "good.mkv"), given)
    assert (
        good["truth"] == pytest.approx(1, abs=0.02) and good["new"] > 0.9 and good["reasons"] == {}
    )
    references = lips.references(given)
    assert set(references) == set(REFERENCES)
    shapes = lips.shapes(looked_at(folder, "truth.mkv"), given)
    assert shapes["pcld"] == pytest.approx(1, abs=1e-3) and shapes["face"] == 1 and shapes["moved"]
    assert shapes["pd"] == pytest.approx(0, abs=1e-3)
    assert (lips.shapes(looked_at(folder, "source.mkv"), given)["pcld"] or 0) < 0.5
    assert (
        references["loudness alone"]["truth"] > 0.9
        and references["loudness alone"]["movement"] is None
    )
    page = format_lips_section(
        {"mini": [{"mouth": good}], "undubbed": [{"mouth": good, "mouth_references": references}]}
    )
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:]
        for line in page.splitlines()
        if line.startswith("| ")
    }
    assert rows["mini"][0].strip() == "1" and float(rows["mini"][1]) == pytest.approx(
        good["truth"], abs=1e-3
    )
    assert rows["loudness alone"][6].strip() == "–"
    assert (
        "loudness alone, null for 1 of 1: movement: loudness is in no distance between eyes" in page
    )


def test_a_sound_without_a_face_leaves_the_benchmark_null_with_a_reason(
    folder: Path, tmp_path: Path
) -> None:
    write_sound(tmp_path / "speech.wav", 0.1 * torch.randn(1, 16000 * 3), 16000)
    given = original(folder)
    given = Original(given.source, tmp_path / "speech.wav", given.person, given.fps, given.frames)
    lips = judge()
    found = lips.compare(looked_at(folder, "good.mkv"), given)
    assert found["truth"] is None and found["leak"] is not None
    assert found["reasons"]["truth"].startswith("the sound's file shows no face")
    references = lips.references(given)
    assert references["loudness alone"]["truth"] is None
    page = format_lips_section(
        {"mini": [{"mouth": found}], "undubbed": [{"mouth": found, "mouth_references": references}]}
    )
    assert "mini, null for 1 of 1: truth" in page


def test_a_video_under_its_own_sound_has_no_old_lips(folder: Path) -> None:
    found = judge().compare(looked_at(folder, "source.mkv"), original(folder, sound="source.mkv"))
    assert found["truth"] == pytest.approx(1) and found["leak"] is None
    assert found["reasons"]["new"] == "the true speaker's video is the source itself"
    loud = judge().references(original(folder, sound="source.mkv"))["loudness alone"]
    assert loud["new"] is None and loud["truth"] is not None


def test_the_command_prints_the_figures_and_what_they_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = quality.QualityReport(
        tmp_path / "dub.mp4",
        None,
        None,
        Fraction(25),
        50,
        50,
        (1, 2),
        {"sharpness": quality.Figure(0.5)},
        (),
    )
    following = compare_openings(mouth(20.0), TRUTH)
    asked: dict[str, object] = {}

    def lips(video: Path, **options: object) -> MouthReport:
        asked.update(options)
        return MouthReport(tmp_path / "truth.mkv", None, "points", following)

    monkeypatch.setattr(quality, "measure_quality", lambda *_, **__: report)
    monkeypatch.setattr(mouth_following, "measure_following", lips)
    for name in ("dub.mp4", "truth.mkv", "s.mkv"):
        (tmp_path / name).write_bytes(b"read by none of the functions below")
    monkeypatch.chdir(tmp_path)
    arguments = ["quality", str(tmp_path / "dub.mp4")]
    found = CliRunner().invoke(app, [*arguments, "--truth", "truth.mkv"])
    assert found.exit_code == 0 and asked["truth"] == Path("truth.mkv") and asked["source"] is None
    assert (
        "by points" in found.output
        and "The lips follow the true speaker's (correlation 1.00)" in found.output
    )
    assert "leak, chance, old, new: no source video was given" in found.output
    values = json.loads(CliRunner().invoke(app, [*arguments, "--source", "s.mkv", "--json"]).output)
    assert values["mouth"]["truth"] == pytest.approx(1) and values["mouth"]["leak"] is None
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)["mouth"] is None
