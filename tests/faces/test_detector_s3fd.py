"""S3FD against the public references (tests/reference/s3fd_*.npz) under recipe weights."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, integers, recipe
from torch import Tensor

from lipsync_core.faces.detector_s3fd import S3FDDetector, canonical_points, syncnet_detector
from lipsync_core.models import architectures
from lipsync_core.models.s3fd import S3FD, S3FDConfig

WANTED = np.load(REFERENCE / "s3fd_face_alignment.npz")


def images() -> Tensor:
    return integers(901, (2, 128, 160, 3))


@pytest.fixture(scope="module")
def model() -> S3FD:
    model = build(S3FD, S3FDConfig())
    assert isinstance(model, S3FD)
    return model


def test_names_and_shapes_are_the_public_file_s() -> None:
    """The digest is that of sorted lines "name shape" listed from the public file's state dict."""
    with torch.device("meta"):
        state = S3FD(S3FDConfig()).state_dict()
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    assert len(lines) == 65 and sum(value.numel() for value in state.values()) == 22_459_110
    assert (
        hashlib.sha256("\n".join(lines).encode()).hexdigest()
        == "ac2afef7d7e511f8ba7028a833862648f07b4db7946e9a90811c1d7e2f3eb88b"
    )


def test_maps_agree_with_the_reference(model: S3FD) -> None:
    with torch.inference_mode():
        maps = model(images().permute(0, 3, 1, 2) / 255)
    for level, pair in enumerate(maps):
        for name, got in zip(("cls", "reg"), pair, strict=True):
            wanted = torch.from_numpy(WANTED[f"{name}{level}"])
            tolerance = 1e-4 * max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)


def test_boxes_agree_with_the_reference(model: S3FD) -> None:
    for i, found in enumerate(S3FDDetector(model).detect(images())):
        wanted = torch.from_numpy(WANTED[f"det{i}"])
        assert found.scores.shape == wanted.shape[:1]
        # Scores near 1 tie in float32, so the order of equals is free: match by position instead.
        order = torch.cdist(wanted[:, :4].double(), found.boxes.double()).argmin(1)
        assert order.unique().numel() == len(order)
        torch.testing.assert_close(found.boxes[order], wanted[:, :4], atol=0.05, rtol=1e-4)
        torch.testing.assert_close(found.scores[order], wanted[:, 4], atol=1e-5, rtol=0)


def test_first_box_is_that_of_wav2lip(model: S3FD) -> None:
    """The reference was handed the arrays as BGR frames, which it flips to RGB: our frames are RGB
    from the start."""
    for found, wanted in zip(
        S3FDDetector(model).detect(images().flip(3)), WANTED["api_boxes_bgr_in"], strict=True
    ):
        assert found.boxes[0].clamp(min=0).trunc().long().tolist() == wanted.tolist()


def test_channel_order_is_the_only_difference_of_bgr(model: S3FD) -> None:
    trained = S3FD(S3FDConfig(channel_order="bgr")).eval()
    trained.load_state_dict(model.state_dict())
    pixels = images()[:1, :64, :64].permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        for (got, _), (wanted, _) in zip(trained(pixels.flip(1)), model(pixels), strict=True):
            assert torch.equal(got, wanted)


def test_float_and_uint8_images_give_the_same_faces(model: S3FD) -> None:
    whole = S3FDDetector(model).detect(images()[:1])[0]
    again = S3FDDetector(model).detect(images()[:1].float() / 255)[0]
    assert torch.equal(whole.boxes, again.boxes) and torch.equal(whole.scores, again.scores)


def test_threshold_may_leave_no_face(model: S3FD) -> None:
    (found,) = S3FDDetector(model, min_score=1.0).detect(images()[:1])
    assert (
        found.boxes.shape == (0, 4)
        and found.points.shape == (0, 5, 2)
        and found.scores.shape == (0,)
    )


def test_tiny_images_are_refused(model: S3FD) -> None:
    with pytest.raises(ValueError, match=r"40x31 px.*32 px or more"):
        S3FDDetector(model).detect(torch.zeros(1, 31, 40, 3, dtype=torch.uint8))


def test_canonical_points_lie_in_the_box_and_mirror() -> None:
    points = canonical_points(torch.tensor([[10.0, 20.0, 110.0, 140.0]]))[0]
    assert ((points > torch.tensor([10.0, 20.0])) & (points < torch.tensor([110.0, 140.0]))).all()
    mirrored = points * torch.tensor([-1.0, 1.0]) + torch.tensor([120.0, 0.0])
    torch.testing.assert_close(mirrored[[1, 0, 2, 4, 3]], points)


# ---- the detector of syncnet_python: the same network with other weights, names and details


@pytest.fixture(scope="module")
def syncnet_s3fd() -> S3FD:
    """Recipe weights under the names of ``sfd_face.pth``."""
    keys = json.loads((REFERENCE / "state_dict_keys.json").read_text(encoding="utf-8"))[
        "s3fd_syncnet_python"
    ]["keys"]
    public = {key: recipe(key, tuple(shape)) for key, (shape, _) in keys.items()}
    network = architectures.recognize(public, REFERENCE)
    model = S3FD(network.config)
    model.load_state_dict(architectures.to_our_names(network, public), strict=True)
    return model.eval()


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("score", [0.5, 0.9])
def test_boxes_agree_with_syncnet_python(syncnet_s3fd: S3FD, scale: float, score: float) -> None:
    wanted = torch.from_numpy(
        np.load(REFERENCE / "s3fd_syncnet_python.npz")[f"det_s{scale:g}_th{score}"]
    ).float()
    detector = replace(syncnet_detector(syncnet_s3fd), scale=scale, min_score=score)
    (found,) = detector.detect(integers(902, (240, 320, 3))[None])
    torch.testing.assert_close(found.boxes, wanted[:, :4], atol=0.05, rtol=0)
    torch.testing.assert_close(found.scores, wanted[:, 4], atol=1e-5, rtol=0)


def test_the_reference_looks_at_a_quarter_of_the_size(syncnet_s3fd: S3FD) -> None:
    detector = syncnet_detector(syncnet_s3fd)
    assert (detector.scale, detector.min_score, detector.max_overlap, detector.then_overlap) == (
        0.25,
        0.9,
        0.3,
        0.1,
    )
    pixels = integers(903, (1, 112, 134, 3))
    (found,) = replace(detector, min_score=0.1).detect(pixels)  # 28 px is the least
    (again,) = replace(detector, min_score=0.1).detect(pixels.float() / 255)
    assert torch.equal(found.boxes, again.boxes) and found.scores.numel() > 0
    with pytest.raises(ValueError, match=r"134x108 px; S3FD wants 112 px"):
        detector.detect(pixels[:, :108])


def test_a_second_suppression_leaves_out_what_the_first_let_pass(syncnet_s3fd: S3FD) -> None:
    detector = replace(syncnet_detector(syncnet_s3fd), scale=1.0, min_score=0.5)
    (twice,) = detector.detect(integers(902, (240, 320, 3))[None])
    (once,) = replace(detector, then_overlap=1.0).detect(integers(902, (240, 320, 3))[None])
    assert 0 < len(twice.boxes) < len(once.boxes)
    assert all(any(torch.equal(box, other) for other in once.boxes) for box in twice.boxes)
