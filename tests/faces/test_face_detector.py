"""The `mini` and `yunet` detectors, and what `mini` is trained with."""

import builtins
import importlib.util
import math
import os
import time
from pathlib import Path

import pytest
import skimage.data
import torch
from safetensors.torch import load_file, save_file

from lipsync_core.errors import WeightsError
from lipsync_core.faces.detector_mini import MiniDetector
from lipsync_core.faces.detector_yunet import YuNetDetector
from lipsync_core.image.boxes import box_iou, paired_giou
from lipsync_core.models.face_detector import (
    STRIDES,
    Cells,
    FaceDetector,
    FaceDetectorConfig,
    cell_centres,
)
from lipsync_core.models.weight_files import BUNDLED
from lipsync_core.models.weights import load_model
from lipsync_core.training import face_detection

ROOT = Path(__file__).parents[2]
# pupils, tip of the nose and corners of the mouth of scikit-image's astronaut, by eye, to about 1
# px
ASTRONAUT_POINTS = torch.tensor(
    [[203.5, 101.5], [246.2, 103.0], [223.7, 126.2], [204.2, 140.5], [243.5, 141.2]]
)


@pytest.fixture(scope="module")
def mini() -> MiniDetector:
    model = load_model("face_detector", kind="face_detector")
    assert isinstance(model, FaceDetector)
    return MiniDetector(model)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(skimage.data.astronaut())[None]  # (1,512,512,3) uint8


def _random_model(seed: int = 0) -> FaceDetector:
    torch.manual_seed(seed)
    model = FaceDetector(FaceDetectorConfig())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


# --- the network
# --------------------------------------------------------------------------------------------------


def test_folding_changes_nothing() -> None:
    model = _random_model()
    images = torch.rand(2, 3, 96, 128)
    with torch.inference_mode():
        for whole, folded in zip(model(images), model.folded()(images), strict=True):
            torch.testing.assert_close(folded, whole, atol=1e-3, rtol=1e-4)
    # the original stays as it was
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(("height", "width"), [(192, 320), (191, 317), (65, 33), (1, 1)])
def test_any_size_has_one_answer_per_cell(height: int, width: int) -> None:
    cells = sum(math.ceil(height / s) * math.ceil(width / s) for s in STRIDES)
    with torch.inference_mode():
        out = _random_model()(torch.rand(1, 3, height, width))
    assert out.logits.shape == (1, cells)
    assert out.boxes.shape == (1, cells, 4)
    assert out.points.shape == (1, cells, 5, 2)
    assert all(bool(part.isfinite().all()) for part in out)


def test_a_silent_head_points_at_its_own_cell() -> None:
    model = _random_model()
    torch.nn.init.zeros_(model.shape[1].weight)
    torch.nn.init.zeros_(model.shape[1].bias)
    with torch.inference_mode():
        out = model(torch.rand(1, 3, 64, 128))
    first = torch.tensor([4.0, 4.0])  # the first cell of stride 8 spans [0,8)
    torch.testing.assert_close(out.points[0, 0], first.expand(5, 2))
    # 4.5 strides
    torch.testing.assert_close(out.boxes[0, 0], torch.tensor([4 - 18.0, 4 - 18, 4 + 18, 4 + 18]))
    torch.testing.assert_close(out.points[0, :128, 0], cell_centres(8, 16, stride=8))


# --- the detector
# --------------------------------------------------------------------------------------------------


def test_the_bundled_file_is_small() -> None:
    assert BUNDLED["face_detector"].stat().st_size <= 500_000


def test_finds_the_astronaut_and_her_points(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    (found,) = mini.detect(astronaut)
    assert len(found.scores) == 1 and found.scores[0] >= 0.7
    error = (found.points[0] - ASTRONAUT_POINTS).norm(dim=-1)
    # the eyes are 43 px apart; YuNet is off by 6.1 and 3.7
    assert error.max() < 9 and error.mean() < 5, error
    x0, y0, x1, y1 = found.boxes[0].tolist()
    assert 165 < x0 < 195 and 250 < x1 < 280 and 50 < y0 < 80 and 160 < y1 < 190


@pytest.mark.parametrize("scale", [0.4, 0.6, 1.5, 3.0])
def test_a_resized_image_gives_resized_faces(
    mini: MiniDetector, astronaut: torch.Tensor, scale: float
) -> None:
    planar = astronaut.permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(
        planar, scale_factor=scale, mode="bilinear", antialias=True
    )
    (found,) = mini.detect(resized.permute(0, 2, 3, 1).clamp(0, 255) / 255)
    (whole,) = mini.detect(astronaut)
    assert len(found.scores) == 1
    assert box_iou(found.boxes / scale, whole.boxes).item() > 0.75
    assert (found.points / scale - whole.points).norm(dim=-1).max() < 9


def test_a_mirrored_image_gives_mirrored_faces(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    (found,) = mini.detect(astronaut.flip(2))
    (whole,) = mini.detect(astronaut)
    back = found.points[0, face_detection.FLIPPED_POINTS] * torch.tensor(
        [-1.0, 1.0]
    ) + torch.tensor([512.0, 0.0])
    assert (back - whole.points[0]).norm(dim=-1).max() < 9
    # the right eye is still the image-left one
    assert found.points[0, 0, 0] < found.points[0, 1, 0]


def test_bytes_and_floats_agree(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    for a, b in zip(mini.detect(astronaut), mini.detect(astronaut.float() / 255), strict=True):
        # px; where the network runs in bfloat16 the last bit of a pixel may turn the rounding of
        # its neighbours
        torch.testing.assert_close(a.points, b.points, atol=0.2, rtol=0)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=0)


def test_images_of_a_batch_do_not_mix(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    batch = torch.cat([astronaut, astronaut.flip(2), torch.zeros_like(astronaut)])
    together = mini.detect(batch)
    assert [len(d.scores) for d in together] == [1, 1, 0]
    for i, one in enumerate(together):
        (alone,) = mini.detect(batch[i : i + 1])
        torch.testing.assert_close(one.boxes, alone.boxes, atol=1e-2, rtol=0)
        torch.testing.assert_close(one.points, alone.points, atol=1e-2, rtol=0)
    assert mini.detect(batch[:0]) == []


def test_two_people_give_two_faces_best_first(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    head = astronaut[:, 0:240, 100:340]
    (found,) = mini.detect(torch.cat([head, head.flip(2)], 2))
    assert len(found.scores) == 2
    assert found.scores[0] >= found.scores[1]
    assert sorted((found.boxes[:, 0] > 200).tolist()) == [False, True]


def test_nothing_is_found_where_nothing_is(mini: MiniDetector) -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 96, 160, 3, generator=rng)
    flat = torch.full((1, 96, 160, 3), 128, dtype=torch.uint8)
    brick = torch.from_numpy(skimage.data.brick())[None, ..., None].expand(1, -1, -1, 3)
    for image in (noise, flat, brick, flat[:, :1, :1]):
        (found,) = mini.detect(image)
        assert (
            found.boxes.shape == (0, 4)
            and found.points.shape == (0, 5, 2)
            and found.scores.shape == (0,)
        )


@pytest.mark.parametrize("wrong", [{"min_score": 0.0}, {"min_score": 1.0}, {"long_side": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < min_score < 1"):
        MiniDetector(_random_model(), **wrong)  # pyright: ignore[reportArgumentType]


def test_overlap_of_boxes() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [10, 10, 12, 12]])
    b = torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [10, 10, 12, 14]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1 / 3, 1, 0], [0, 0, 0.5]]))


@pytest.mark.slow
def test_speed_at_320x192(mini: MiniDetector) -> None:
    """10 ms on two cores, with a face in the picture; the median of 50, so that a busy machine does
    not decide."""
    photo = torch.from_numpy(skimage.data.astronaut())[None]
    image = photo[:, 20:212, 64:384].contiguous()
    assert len(mini.detect(image)[0].scores) == 1
    times = []
    for _ in range(60):
        start = time.perf_counter()
        mini.detect(image)
        times.append(time.perf_counter() - start)
    assert sorted(times[10:])[25] < 0.010


# --- YuNet
# --------------------------------------------------------------------------------------------------


def test_yunet_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="lipsync models pull yunet"):
        YuNetDetector(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not an onnx file")
    with pytest.raises(WeightsError, match="cannot read"):
        YuNetDetector(broken)
    real = builtins.__import__

    def without_opencv(name: str, *args: object) -> object:
        if name == "cv2":
            raise ImportError("no cv2")
        return real(name, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", without_opencv)
    with pytest.raises(ImportError, match="pip install opencv-python-headless"):
        YuNetDetector(broken)


@pytest.mark.data
def test_yunet_and_mini_agree(mini: MiniDetector, astronaut: torch.Tensor) -> None:
    folder = Path(os.environ["LIPSYNC_DATA"]).parent / "weights"
    yunet = YuNetDetector(folder / "face_detection_yunet_2023mar.onnx")
    for theirs, ours in zip(yunet.detect(astronaut), mini.detect(astronaut), strict=True):
        assert box_iou(theirs.boxes, ours.boxes).item() > 0.75
        assert (theirs.points - ours.points).norm(dim=-1).max() < 9


# --- training
# --------------------------------------------------------------------------------------------------


def _dot(x: int, y: int) -> face_detection.Picture:
    """A black picture of 120x100 px with a white 3x3 spot whose centre is (x+.5, y+.5), as a face's
    first point."""
    pixels = torch.zeros(3, 100, 120, dtype=torch.uint8)
    pixels[:, y - 1 : y + 2, x - 1 : x + 2] = 255
    points = torch.tensor([[x + 0.5, y + 0.5]]).repeat(5, 1)[None] + torch.arange(5.0)[:, None]
    return face_detection.picture(
        pixels, torch.tensor([[x - 20.0, y - 25, x + 21, y + 26]]), points
    )


@pytest.mark.parametrize("seed", range(6))
def test_points_move_with_the_pixels(seed: int) -> None:
    source = _dot(70, 40)
    linear, mirrored = face_detection.random_linear(1.3, torch.Generator().manual_seed(seed))
    shift = torch.tensor([100.0, 90.0]) - linear @ torch.tensor([70.5, 40.5])
    matrix = torch.cat([linear, shift[:, None]], 1)
    tile, coverage = face_detection.warp(source, matrix, height=180, width=200)
    weight = tile[0] / tile[0].sum()
    y, x = torch.arange(180) + 0.5, torch.arange(200) + 0.5
    seen = torch.stack([(weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()])
    _, points = face_detection.move_faces(source.boxes, source.points, matrix, mirrored=mirrored)
    torch.testing.assert_close(points[0, 1 if mirrored else 0], seen, atol=0.3, rtol=0)
    assert coverage[0, 90, 100] == 1 and coverage.min() == 0


def test_a_turned_box_holds_the_turned_ellipse() -> None:
    box, points = torch.tensor([[10.0, 10, 50, 70]]), torch.zeros(1, 5, 2)
    same, _ = face_detection.move_faces(box, points, torch.eye(2, 3), mirrored=False)
    torch.testing.assert_close(same, box)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0]])  # a quarter turn about the origin
    turned, _ = face_detection.move_faces(box, points, turn, mirrored=False)
    torch.testing.assert_close(turned, torch.tensor([[-70.0, 10, -10, 50]]))
    slant = math.radians(30)
    matrix = torch.tensor(
        [[math.cos(slant), -math.sin(slant), 0], [math.sin(slant), math.cos(slant), 0]]
    )
    moved, _ = face_detection.move_faces(box, points, matrix, mirrored=False)
    angle = torch.linspace(0, 2 * math.pi, 3600)
    rim = torch.stack([30 + 20 * angle.cos(), 40 + 30 * angle.sin()], 1) @ matrix[:, :2].T
    torch.testing.assert_close(moved[0], torch.cat([rim.amin(0), rim.amax(0)]), atol=1e-3, rtol=0)


def _draw() -> face_detection.Draw:
    empty = face_detection.picture(
        torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0, 5, 2)
    )
    return face_detection.Draw(((_dot(70, 40),),), torch.ones(1), (empty,))


def test_mosaics_follow_their_seed_and_their_ranges() -> None:
    images, truth = face_detection.mosaic(
        _draw(), count=6, size=128, rng=torch.Generator().manual_seed(3)
    )
    again, _ = face_detection.mosaic(
        _draw(), count=6, size=128, rng=torch.Generator().manual_seed(3)
    )
    assert torch.equal(images, again)
    assert images.shape == (6, 3, 128, 128) and images.min() >= 0 and images.max() <= 1
    faces = truth.boxes[truth.kind == 1]
    assert len(faces) > 3
    size = (faces[:, 2:] - faces[:, :2]).prod(-1).sqrt()
    assert size.min() >= 17 and size.max() <= 128


def test_block_coding_is_an_identity_for_small_steps() -> None:
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(face_detection.block_quantize(image, 1e-5), image, atol=1e-3, rtol=0)
    coarse = face_detection.block_quantize(
        image, 10.0
    )  # only the mean of a block could survive, and it rounds to 0 here
    assert coarse.view(3, 3, 8, 4, 8).var(dim=(2, 4)).max() < 1e-6


def _truth(box: list[float], kind: int = 1) -> face_detection.Truth:
    boxes = torch.tensor([[box]])
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    return face_detection.Truth(
        boxes, middle[:, :, None].repeat(1, 1, 5, 1), torch.full((1, 1), kind)
    )


def _levels(height: int, width: int) -> torch.Tensor:
    return torch.cat(
        [torch.full((math.ceil(height / s) * math.ceil(width / s),), s) for s in STRIDES]
    )


def test_cells_at_the_centre_of_a_face_answer_for_it() -> None:
    # 100 px: too large for stride 8 (76), too small for stride 64 (141)
    truth = _truth([78.0, 78, 178, 178])
    assigned = face_detection.assign(truth, height=256, width=256)[0]
    level = _levels(256, 256)
    assert set(level[assigned >= 0].tolist()) == {16, 32}
    centres = torch.cat([cell_centres(256 // s, 256 // s, stride=s) for s in STRIDES])
    away = (centres[assigned >= 0] - 128).norm(dim=-1)
    assert away.max() < 24 and (assigned[level == 16] >= 0).sum() > 2
    assert (assigned == face_detection.IGNORED).any()
    assert assigned[0] == face_detection.BACKGROUND


def test_cut_faces_and_empty_images_teach_no_face() -> None:
    cut = face_detection.assign(_truth([78.0, 78, 178, 178], kind=-1), height=256, width=256)[0]
    assert (cut >= 0).sum() == 0 and (cut == face_detection.IGNORED).sum() > 100
    empty = face_detection.assign(_truth([0.0, 0, 0, 0], kind=0), height=256, width=256)
    assert bool((empty == face_detection.BACKGROUND).all())


def test_giou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]])
    b = torch.tensor([[0.0, 0, 2, 2], [2, 0, 3, 1]])
    torch.testing.assert_close(paired_giou(a, b), torch.tensor([1.0, 0 - 1 / 3]))


def test_perfect_cells_lose_nothing_and_wrong_ones_do() -> None:
    truth = _truth([60.0, 60, 120, 130])
    assigned = face_detection.assign(truth, height=256, width=256)
    count = assigned.shape[1]
    logits = torch.where(assigned >= 0, 20.0, -20.0)
    perfect = Cells(logits, truth.boxes.expand(1, count, 4), truth.points.expand(1, count, 5, 2))
    assert all(
        v.item() < 1e-6 for v in face_detection.detection_losses(perfect, truth, assigned).values()
    )
    wrong = Cells(-logits, perfect.boxes + 5, perfect.points + 5)
    assert all(
        v.item() > 0.01 for v in face_detection.detection_losses(wrong, truth, assigned).values()
    )


def test_the_recipe_resumes_to_the_same_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("train_detector", ROOT / "train" / "detector.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    monkeypatch.setattr(recipe, "SHAPES", ((64, 4),))
    source, faces = _dot(70, 40), tmp_path / "faces.safetensors"
    tensors = {
        "pixels": source.levels[0].permute(1, 2, 0).reshape(-1).contiguous(),
        "shapes": torch.tensor([[100, 120]]),
        "groups": torch.tensor([0]),
        "boxes": source.boxes,
        "points": source.points,
        "owner": torch.tensor([0]),
    }
    save_file(tensors, faces, {"groups": "portraits"})
    threads = torch.get_num_threads()
    try:
        for out, untils in (("whole", [3]), ("parts", [1, 3])):
            for until in untils:
                recipe.main(
                    [str(faces), str(tmp_path / out), "--steps", "4", "--until", str(until)]
                )
    finally:
        torch.set_num_threads(threads)
    states = [load_file(tmp_path / out / "face_detector.safetensors") for out in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    start = FaceDetector(FaceDetectorConfig()).state_dict()
    assert any(not torch.equal(states[0][k].float(), start[k].float()) for k in start)
