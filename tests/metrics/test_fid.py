"""The FID Inception and the Frechet distance against pytorch-fid's numbers
(tests/reference/fid.npz), and batching."""

import numpy as np
import pytest
import torch
from helpers.golden import REFERENCE, build, integers
from torch import Tensor

from lipsync_core.metrics.fid import FID, Moments, MomentStream, extract_features, frechet_distance
from lipsync_core.models.inception import Inception, InceptionConfig
from lipsync_core.models.layers import prepare_for_inference
from lipsync_core.types import FaceTrack, Frames

WANTED = np.load(REFERENCE / "fid.npz")


@pytest.fixture(scope="module")
def network() -> Inception:
    model = build(Inception, InceptionConfig())
    assert isinstance(model, Inception)
    return model


@torch.inference_mode()
def test_features_agree_with_the_reference_and_folding_keeps_them(network: Inception) -> None:
    pixels = integers(21, (2, 3, 96, 96)) / 255
    seen: dict[str, Tensor] = {}
    hook = network.get_submodule("Mixed_6e").register_forward_hook(
        lambda *a: seen.update(six=a[2].mean((2, 3)))
    )
    wanted = torch.from_numpy(WANTED["feat"])
    torch.testing.assert_close(network(pixels), wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        seen["six"], torch.from_numpy(WANTED["block2_mean"]), atol=1e-4, rtol=0
    )
    hook.remove()
    torch.testing.assert_close(prepare_for_inference(network)(pixels), wanted, atol=1e-4, rtol=0)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def test_inception_refuses_pictures_without_a_last_map() -> None:
    with pytest.raises(ValueError, match="size is 74 px; expected at least 75"):
        InceptionConfig(size=74)


def normal(seed: int, rows: int, width: int = 64) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal((rows, width))


def golden_sets(rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    mixing = np.eye(64) + 0.1 * normal(12, 64)
    first, second = normal(11, rows[0]), normal(13, rows[1]) @ mixing + 0.2
    return torch.from_numpy(first), torch.from_numpy(second)


def test_frechet_distance_agrees_with_the_reference() -> None:
    first, second = map(Moments.of, golden_sets((300, 320)))
    assert frechet_distance(first, second) == pytest.approx(float(WANTED["frechet_full"]), rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(float(WANTED["frechet_full"]), rel=1e-6)
    assert 0 <= frechet_distance(first, first) < 1e-6


def test_frechet_distance_of_singular_covariances() -> None:
    first, second = map(Moments.of, golden_sets((40, 60)))
    assert frechet_distance(first, second) == pytest.approx(
        float(WANTED["frechet_singular"]), rel=1e-3
    )


def test_moments_are_numpy_s() -> None:
    rows = normal(5, 30, 8) + 100  # far from 0, where sums of squares would cancel
    moments = Moments.of(torch.from_numpy(rows))
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-14)
    np.testing.assert_allclose(
        moments.covariance, np.cov(rows, rowvar=False), rtol=1e-10, atol=1e-12
    )
    with pytest.raises(ValueError, match="1 images have no covariance; expected at least 2"):
        _ = Moments.of(torch.zeros(1, 8)).covariance


@pytest.mark.parametrize("chunk", [1, 2, 7, 256, 600])
def test_a_stream_of_features_does_not_depend_on_its_pieces(chunk: int) -> None:
    rows = torch.from_numpy(normal(6, 600, 8))
    whole, pieces = MomentStream(8), MomentStream(8)
    whole.update(rows)
    for piece in rows.split(chunk):
        pieces.update(piece)
        pieces.compute()  # looking changes nothing
    a, b = whole.compute(), pieces.compute()
    assert (
        a.count == b.count == 600
        and torch.equal(a.mean, b.mean)
        and torch.equal(a.scatter, b.scatter)
    )


def test_merged_halves_are_the_whole() -> None:
    rows = torch.from_numpy(normal(7, 50, 8)) * 3 + 10
    whole, half = Moments.of(rows), Moments.of(rows[:20])
    for merged in (
        half.merged(Moments.of(rows[20:])),
        Moments.of(rows[20:]).merged(half),
        Moments.none(8).merged(whole),
    ):
        assert merged.count == 50
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-13, atol=0)
        torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-11, atol=1e-11)


def small() -> Inception:
    """The same layers on pictures of 75 px, which costs a twentieth."""
    model = build(Inception, InceptionConfig(size=75))
    assert isinstance(model, Inception)
    return model


def pictures(count: int) -> Frames:
    return Frames(integers(31, (count, 40, 60, 3)))


def track(count: int) -> FaceTrack:
    boxes = torch.tensor([[8.3, 4.2, 40.1, 37.7]]).repeat(count, 1)
    visible = torch.ones(count, dtype=torch.bool)
    visible[2] = False
    return FaceTrack(boxes, torch.zeros(count, 5, 2), visible, start=1)


@pytest.fixture(scope="module")
def tiny() -> Inception:
    return small()


@pytest.mark.parametrize("region", ["frame", "face"])
def test_fid_does_not_depend_on_batches_and_merges(tiny: Inception, region) -> None:
    frames = pictures(18)  # more than a pass of the network
    face = track(17) if region == "face" else None

    def filled(chunk: int, half: slice = slice(None)) -> FID:
        fid = FID(tiny, region=region)
        for start in range(18)[half][::chunk]:
            stop = min(start + chunk, range(18)[half][-1] + 1)
            piece = Frames(frames.pixels[start:stop], start)
            fid.update(piece, "real", track=face)
            fid.update(Frames(255 - piece.pixels.flip(2), start), "generated", track=face)
        return fid

    wanted = filled(18)
    for chunk in (1, 2, 7):
        got = filled(chunk)
        for side in ("real", "generated"):
            a, b = wanted.moments(side), got.moments(side)
            assert torch.equal(a.mean, b.mean) and torch.equal(a.scatter, b.scatter)
    first, second = filled(4, slice(0, 10)), filled(3, slice(10, 18))
    for side in ("real", "generated"):
        first.merge(side, second.moments(side))
        a, b = wanted.moments(side), first.moments(side)
        # frame 0 has no track, one is not visible
        assert a.count == b.count == (18 if region == "frame" else 16)
        torch.testing.assert_close(a.mean, b.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(a.scatter, b.scatter, rtol=0, atol=1e-5)


def test_the_result_states_its_region_and_its_weakness(tiny: Inception) -> None:
    fid = FID(tiny, region="face")
    fid.update(pictures(5), "real", track=track(5))
    fid.update(pictures(5), "generated", track=track(5))
    result = fid.compute()
    assert (result.region, result.real, result.generated) == ("face", 3, 3)
    assert result.distance == pytest.approx(0, abs=1e-4)
    assert result.note == "3 images for 2048 features: the distance is biased upwards"


def test_faces_and_frames_are_not_mixed(tiny: Inception) -> None:
    with pytest.raises(ValueError, match="FID of faces: expected the track of the face"):
        FID(tiny, region="face").update(pictures(1), "real")
    with pytest.raises(ValueError, match="FID of frames: expected no track"):
        FID(tiny, region="frame").update(pictures(3), "real", track=track(3))
    with pytest.raises(ValueError, match="region is 'crop'; expected face or frame"):
        FID(tiny, region="crop")  # pyright: ignore[reportArgumentType]


def test_float_frames_are_the_same_pictures(tiny: Inception) -> None:
    whole, again = FID(tiny, region="frame"), FID(tiny, region="frame")
    whole.update(pictures(3), "real")
    again.update(Frames(pictures(3).pixels / 255), "real")
    torch.testing.assert_close(
        whole.moments("real").mean, again.moments("real").mean, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("face", [None, track(17)], ids=["frame", "face"])
def test_features_kept_in_files_give_the_same_moments(
    tiny: Inception, face: FaceTrack | None
) -> None:
    pieces = [Frames(pictures(18).pixels[i : i + 5], i) for i in range(0, 18, 5)]
    fid, stream = FID(tiny, region="frame" if face is None else "face"), MomentStream()
    for piece in pieces:
        fid.update(piece, "real", track=face)
    stream.update(extract_features(tiny, pieces, track=face))
    a, b = fid.moments("real"), stream.compute()
    assert a.count == b.count == (18 if face is None else 16)
    torch.testing.assert_close(a.mean, b.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(a.scatter, b.scatter, rtol=0, atol=1e-5)
