"""Faces that are not upright or fill the picture: found, placed, and cropped upright."""

import math

import pytest
import skimage.data
import torch
from torch import Tensor

from lipsync_core.faces import detector_runs
from lipsync_core.faces.detector_mini import MiniDetector
from lipsync_core.faces.turned_faces import TurnedFaces
from lipsync_core.image.affine import Framing, apply, crop_to_frame, roll_of, rotation
from lipsync_core.image.crop import crop_pictures
from lipsync_core.models.face_detector import FaceDetector
from lipsync_core.models.weights import load_model
from lipsync_core.types import Detections, Frames

# pupils, tip of the nose and corners of the mouth of scikit-image's astronaut
ASTRONAUT = torch.tensor(
    [[203.5, 101.5], [246.2, 103.0], [223.7, 126.2], [204.2, 140.5], [243.5, 141.2]]
)


class Counting:
    """Counts the pictures that ``MiniDetector`` is shown."""

    def __init__(self) -> None:
        network = load_model("face_detector", kind="face_detector")
        assert isinstance(network, FaceDetector)
        self._mini = MiniDetector(network)
        self.pictures = 0

    def detect(self, pixels: Tensor) -> list[Detections]:
        self.pictures += len(pixels)
        return self._mini.detect(pixels)


@pytest.fixture(scope="module")
def detector() -> Counting:
    return Counting()


def turned(degrees: float, scale: float = 1.0, side: int = 256) -> tuple[Tensor, Tensor]:
    """The astronaut's face in a square picture, turned about its middle, and where its points are."""
    turn = rotation(torch.tensor([math.radians(degrees)]))
    face = torch.tensor([225.0, 120.0])
    linear = turn.mT / scale
    middle = torch.full((2,), side / 2)
    shift = face - (linear @ middle[:, None])[..., 0]
    to_source = torch.cat([linear, shift[..., None]], -1)
    source = torch.from_numpy(skimage.data.astronaut())[None]
    picture = (crop_pictures(source, to_source, side)[0].permute(1, 2, 0) * 255).round().byte()
    return picture, (ASTRONAUT - face) @ turn[0].mT * scale + middle


@pytest.mark.parametrize("degrees", [0, 40, -60, 90, 135, 180])
def test_a_face_is_found_at_any_roll(detector: Counting, degrees: float) -> None:
    picture, points = turned(degrees)
    (found,) = TurnedFaces(detector).detect([picture], starts=[True])
    assert (found.points[0] - points).norm(dim=1).max() < 8  # a fifth of the distance of the eyes
    assert (
        abs(math.remainder(float(roll_of(found.points[:1])) - math.radians(degrees), math.tau))
        < 0.2
    )
    assert ((found.boxes[0, :2] + found.boxes[0, 2:]) / 2 - points.mean(0)).norm() < 20


def test_a_face_as_wide_as_the_picture_is_found(detector: Counting) -> None:
    picture, points = turned(0, scale=640 / 95, side=640)
    assert not len(detector.detect(picture[None])[0].scores)
    (found,) = TurnedFaces(detector).detect([picture], starts=[True])
    assert len(found.scores) == 1 and (found.points[0] - points).norm(dim=1).max() < 58


def test_upright_faces_cost_nothing_and_a_known_roll_little(detector: Counting) -> None:
    faces, pictures = TurnedFaces(detector), detector.pictures
    faces.detect([turned(0)[0]] * 4, starts=[True, False, False, False])
    assert detector.pictures - pictures == 4
    faces.detect([turned(90)[0]], starts=[True])
    pictures = detector.pictures
    (found,) = faces.detect([turned(100)[0]], starts=[False])
    assert len(found.scores) == 1
    assert detector.pictures - pictures == 3  # upright, turned, and a closer look


def test_searches_in_vain_become_rare() -> None:
    class EmptyDetector:
        pictures = 0

        def detect(self, pixels: Tensor) -> list[Detections]:
            self.pictures += len(pixels)
            return [Detections(torch.zeros(0, 4), torch.zeros(0, 5, 2), torch.zeros(0))] * len(
                pixels
            )

    detector, picture = EmptyDetector(), torch.zeros(8, 8, 3)
    faces = TurnedFaces(detector)
    searched: list[int] = []
    for run in range(120):
        before = detector.pictures
        faces.detect([picture], starts=[run == 100])
        if detector.pictures > before + 1:
            searched.append(run)
    assert searched == [0, 3, 12, 39, 72, 100]
    runs = detector_runs.DetectorRuns(detector, 5)
    runs.run([Frames(torch.zeros(10, 8, 8, 3, dtype=torch.uint8))])
    assert [frame for frame, _ in runs.found] == [0, 5, 9]


@pytest.mark.parametrize("framing", [Framing(), Framing("box"), Framing("square")])
@pytest.mark.parametrize("degrees", [45, 90, 180, -120])
def test_crops_are_upright_in_the_frame_of_the_face(framing: Framing, degrees: float) -> None:
    box = torch.tensor([[80.0, 60, 160, 180]])
    places = torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.33, 0.8], [0.67, 0.8]])
    points = box[:, None, :2] + places * (box[:, 2:] - box[:, :2])[:, None]
    middle = torch.tensor([120.0, 120.0])
    turn = rotation(torch.tensor([math.radians(degrees)]))
    share = math.sin(math.radians(degrees)) ** 2
    sides = torch.tensor([80.0, 120.0]) * (1 - share) + torch.tensor([120.0, 80.0]) * share
    rolled = torch.cat([middle - sides / 2, middle + sides / 2])[None]
    upright = crop_to_frame(box, points, framing, 96)
    own = crop_to_frame(rolled, (points - middle) @ turn.mT + middle, framing, 96)
    corners = torch.tensor([[[0.0, 0], [96, 0], [96, 96], [0, 96]]])
    wanted = (apply(upright, corners) - middle) @ turn.mT + middle
    # halfway between lying and upright a box says only how large the face is
    at_most = 25 if degrees in (45, -120) and framing.kind != "aligned" else 0.01
    assert (apply(own, corners) - wanted).norm(dim=2).max() < at_most
