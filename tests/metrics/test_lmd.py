"""LMD through an ONNX file written here byte by byte: known points in, a known distance out, and
every wrong file."""

from pathlib import Path

import pytest
import torch
from helpers.networks import network, onnx

from lipsync_core.errors import WeightsError
from lipsync_core.faces.landmark_model import LandmarkModel, with_landmarks
from lipsync_core.metrics.lmd import LandmarkDistance
from lipsync_core.types import FaceTrack, Frames


def clip(red: int, green: int = 0, count: int = 9) -> Frames:
    pixels = torch.zeros(count, 50, 60, 3, dtype=torch.uint8)
    pixels[..., 0], pixels[..., 1] = red, green
    return Frames(pixels, 2)


def face(count: int = 9) -> FaceTrack:
    boxes = torch.tensor([[10.0, 8.0, 42.0, 40.0]]).repeat(count, 1)
    points = torch.tensor(
        [[[20.0, 20.0], [30.0, 20.0], [25.0, 26.0], [21.0, 32.0], [29.0, 32.0]]]
    ).repeat(count, 1, 1)
    visible = torch.ones(count, dtype=torch.bool)
    visible[3] = False
    return FaceTrack(boxes, points, visible, start=2)


pytest.importorskip("cv2", reason="landmarks need OpenCV")


def test_lips_lie_where_the_network_says(tmp_path: Path) -> None:
    found = dict(network(tmp_path).lips(clip(0), face()))
    assert sorted(found) == [2, 3, 4, 6, 7, 8, 9, 10]
    # the square is 48 px wide around (26, 24), so -1..1 spans 2..50 across; point 52 has the
    # numbers 104 and 105
    wanted = torch.tensor([2 + 24 * (1 + 0.01 * (104 % 7)), 0 + 24 * (1 + 0.01 * (105 % 7))])
    torch.testing.assert_close(found[2][0], wanted, atol=1e-3, rtol=0)
    assert found[2].shape == (20, 2)


@pytest.mark.parametrize("chunk", [1, 4, 9])
def test_a_track_gets_its_dense_points(tmp_path: Path, chunk: int) -> None:
    model, whole, person = network(tmp_path), clip(40), face()
    pieces = [Frames(whole.pixels[i : i + chunk], 2 + i) for i in range(0, 9, chunk)]
    (found,) = with_landmarks([person], pieces, model)
    assert (
        found.dense is not None
        and found.dense.shape == (9, 106, 2)
        and torch.equal(found.visible, person.visible)
    )
    assert not found.dense[3].any()  # no person is seen there
    for index, lips in model.lips(whole, person):
        torch.testing.assert_close(found.dense[index - 2, 52:72], lips)
    # nothing moves, and the absence weighs nothing
    (calm,) = with_landmarks([person], pieces, model, smoothing=3)
    assert calm.dense is not None
    torch.testing.assert_close(calm.dense, found.dense, atol=1e-3, rtol=0)


def test_distance_by_hand(tmp_path: Path) -> None:
    """Full red moves each lip by 0.1 * 24 px = 2.4 px; the eyes are 10 px apart."""
    metric = LandmarkDistance(network(tmp_path))
    metric.update(clip(0), clip(255), face())
    assert metric.compute() == pytest.approx(24, abs=1e-3) and len(metric.values) == 8


def test_where_the_whole_mouth_lies_does_not_count(tmp_path: Path) -> None:
    metric = LandmarkDistance(network(tmp_path))
    metric.update(clip(0), clip(0, green=200), face())
    assert metric.compute() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_batches_change_no_bit(tmp_path: Path, chunk: int) -> None:
    model = network(tmp_path)
    whole, pieces = LandmarkDistance(model), LandmarkDistance(model)
    real, fake = clip(10), clip(90)
    fake.pixels[4:] += 50
    whole.update(real, fake, face())
    for i in range(0, 9, chunk):
        pieces.update(*(Frames(f.pixels[i : i + chunk], 2 + i) for f in (real, fake)), face())
    assert pieces.compute() == whole.compute() is not None


def test_no_model_measures_nothing() -> None:
    metric = LandmarkDistance(None)
    metric.update(clip(0), clip(255), face())
    assert metric.compute() is None
    with pytest.raises(ValueError, match="expected the same frames twice"):
        metric.update(clip(0), clip(0, count=3), face())


def test_wrong_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    with pytest.raises(
        WeightsError, match=r"no file .*x\.onnx; expected InsightFace's 2d106det\.onnx"
    ):
        LandmarkModel(path)
    path.write_bytes(onnx([[0.0] * 136] * 3, [0.0] * 136))
    with pytest.raises(WeightsError, match="gives 136 numbers for a face; expected 212"):
        LandmarkModel(path)
    for content in (b"", b"no network", onnx([[0.0] * 212] * 3, [0.0] * 212)[:100]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="OpenCV cannot run"):
            LandmarkModel(path)
