"""What other packs may put on a socket, and what it becomes."""

from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
import torch
from loading import Pack


@pytest.fixture
def convert(pack: Pack) -> ModuleType:
    return pack.part("lipsync_nodes.convert")


@pytest.fixture
def errors(pack: Pack) -> ModuleType:
    return pack.part("lipsync_core.errors")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_any_channels_is_rgb(convert: ModuleType, channels: int) -> None:
    image = torch.rand(2, 4, 5, channels, generator=torch.manual_seed(0))
    pixels = convert.frames(image).pixels
    assert pixels.shape == (2, 4, 5, 3)
    assert torch.equal(pixels[..., 2], image[..., min(2, channels - 1)])


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 4, 5, 2), (0, 4, 5, 3), (1, 0, 5, 3)])
def test_an_image_of_another_shape_is_refused(convert: ModuleType, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the image is"):
        convert.frames(torch.zeros(shape))


def test_an_image_of_whole_numbers_is_refused(convert: ModuleType) -> None:
    with pytest.raises(ValueError, match="uint8"):
        convert.frames(torch.zeros(1, 4, 5, 3, dtype=torch.uint8))


def test_values_outside_are_brought_inside_with_a_warning(
    convert: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    image = torch.full((1, 2, 2, 3), 0.5)
    convert.frames(image)
    assert caplog.text == ""
    image[0, 0, 0] = torch.tensor([-1.0, 2.0, float("nan")])
    assert convert.frames(image).pixels[0, 0, 0].tolist() == [0.0, 1.0, 0.0]
    assert "clamped" in caplog.text
    assert image[0, 0, 0, 0] == -1  # what came in belongs to others


def test_pictures_go_out_as_floats(convert: ModuleType) -> None:
    picture = torch.tensor([[[0, 128, 255]]], dtype=torch.uint8)
    assert convert.image(picture).tolist() == [[[[0.0, pytest.approx(128 / 255), 1.0]]]]


def test_sound_goes_in_and_out(convert: ModuleType) -> None:
    value = {"waveform": torch.rand(1, 2, 7, generator=torch.manual_seed(0)), "sample_rate": 44100}
    sound = convert.audio(value)
    assert sound.samples.shape == (2, 7) and sound.rate == 44100
    back = convert.audio_value(sound)
    assert torch.equal(back["waveform"], value["waveform"]) and back["sample_rate"] == 44100


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "no sound"),
        ({"waveform": torch.zeros(1, 2, 0), "sample_rate": 8000}, "empty"),
        ({"waveform": torch.zeros(1, 0, 9), "sample_rate": 8000}, "empty"),
        ({"waveform": torch.zeros(3, 2, 9), "sample_rate": 8000}, "batch of 3"),
        ({"waveform": torch.zeros(2, 9), "sample_rate": 8000}, r"\(2, 9\)"),
        ({"waveform": torch.zeros(1, 1, 9, dtype=torch.int16), "sample_rate": 8000}, "float"),
        ({"sample_rate": 8000}, "expected an AUDIO"),
        (torch.zeros(1, 1, 9), "expected an AUDIO"),
    ],
)
def test_what_is_no_sound_says_so(
    convert: ModuleType, errors: ModuleType, value: Any, says: str
) -> None:
    with pytest.raises((ValueError, errors.MediaError), match=says):
        convert.audio(value)


def test_broken_samples_are_silent(convert: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    value = {"waveform": torch.tensor([[[0.5, float("nan"), float("inf")]]]), "sample_rate": 8000}
    assert convert.audio(value).samples.tolist() == [[0.5, 0.0, 0.0]]
    assert "silent" in caplog.text


BOX = {"x": 1, "y": 2, "width": 3, "height": 4}
ROW = [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (BOX, [[ROW]]),
        ([BOX, BOX], [[ROW, ROW]]),
        ([[BOX], [], [BOX, BOX]], [[ROW], [], [ROW, ROW]]),
        ([], [[]]),
    ],
)
def test_bounding_boxes_come_in_three_shapes(
    convert: ModuleType, value: Any, rows: list[Any]
) -> None:
    boxes = convert.boxes_by_frame(value)
    assert [found.tolist() for found in boxes] == rows
    assert all(found.shape[1:] == (4,) for found in boxes)


@pytest.mark.parametrize(
    "value",
    [
        "box",
        3,
        {"x": 1},
        [BOX, [BOX]],
        [BOX | {"width": 0}],
        [BOX | {"x": float("nan")}],
        [BOX | {"y": None}],
    ],
)
def test_what_is_no_bounding_box_says_so(convert: ModuleType, value: Any) -> None:
    with pytest.raises(ValueError, match="box"):
        convert.boxes_by_frame(value)


def test_tracks_go_out_as_boxes_frame_by_frame(convert: ModuleType, pack: Pack) -> None:
    types = pack.part("lipsync_core.types")
    boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0]] * 2)
    track = types.FaceTrack(boxes, torch.zeros(2, 5, 2), torch.tensor([True, False]), start=1)
    found = convert.bounding_boxes([track], 3)
    assert [len(frame) for frame in found] == [0, 1, 0]
    assert {key: found[1][0][key] for key in BOX} == {
        key: float(value) for key, value in BOX.items()
    }
    (back,) = convert.boxes_by_frame(found[1:2])
    assert back.tolist() == [ROW]


@pytest.mark.parametrize(
    ("fps", "meant"),
    [
        (25.0, Fraction(25)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_a_rate_is_the_fraction_that_is_meant(
    convert: ModuleType, fps: float, meant: Fraction
) -> None:
    assert convert.rate(fps) == meant
