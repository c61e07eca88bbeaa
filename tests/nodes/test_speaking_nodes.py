"""Detect, select, generate: pictures speak, whatever kind they are of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from fake_host import Cancelled, ExecutionBlocker, Host, VideoFromFile
from loading import Pack


@pytest.fixture
def words(pack: Pack, speech: dict[str, Any]) -> dict[str, Any]:
    """0.6 seconds of speech: 15 frames at 25 a second."""
    rate = speech["sample_rate"]
    return {"waveform": speech["waveform"][..., rate : rate + rate * 6 // 10], "sample_rate": rate}


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """The face of the demo, 256 px."""
    whole = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(whole, 2).permute(1, 2, 0)[None].contiguous()


@pytest.fixture(scope="module")
def pair(photo: torch.Tensor) -> torch.Tensor:
    """Two faces beside each other, 512 x 256 px."""
    return torch.cat([photo, photo.flip(2)], 2)


def length(audio: dict[str, Any]) -> float:
    return audio["waveform"].shape[2] / audio["sample_rate"]


def test_a_photo_speaks(pack: Pack, host: Host, photo: torch.Tensor, words: dict[str, Any]) -> None:
    images, audio, mask, *_ = pack.run("Wav2LipGenerate", media=photo, audio=words)
    assert images.shape == (15, 256, 256, 3) and mask.shape == (15, 256, 256)
    assert length(audio) == pytest.approx(0.6)
    changed = (images - photo).abs().amax(3)
    assert float(changed[mask == 0].max()) < 1e-5 and float(changed[mask > 0.9].mean()) > 0.005
    assert 0.005 < float((mask > 0).float().mean()) < 0.2  # a mouth, not a picture
    values = [value for value, _, _ in host.bar]
    assert values == sorted(values) and values[-1] == 1000
    assert any(preview is not None for _, _, preview in host.bar)


def test_the_rate_of_images_is_the_users(
    pack: Pack, photo: torch.Tensor, words: dict[str, Any]
) -> None:
    images, audio, *_ = pack.run("Wav2LipGenerate", media=photo, audio=words, fps=10.0)
    assert len(images) == 6 and length(audio) == pytest.approx(0.6)


def test_images_that_do_not_fit_are_refused(
    pack: Pack, host: Host, photo: torch.Tensor, speech: dict[str, Any]
) -> None:
    host.free_bytes = 100_000_000
    error = pack.part("lipsync_core.errors").LipSyncError
    with pytest.raises(
        error, match=r"images of 256x256 px.*would take 0\.2 GB.*0\.1 GB are free.*VIDEO"
    ):
        pack.run("Wav2LipGenerate", media=photo, audio=speech)


def test_images_without_sound_say_what_is_missing(pack: Pack, photo: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="connect an audio"):
        pack.run("Wav2LipGenerate", media=photo)


def test_nobody_to_speak_is_an_error(
    pack: Pack, words: dict[str, Any], clip: Callable[..., Path]
) -> None:
    error = pack.part("lipsync_core.errors").NoFaceError
    for media in (torch.zeros(1, 64, 64, 3), VideoFromFile(str(clip()))):
        with pytest.raises(error, match="no face"):
            pack.run("Wav2LipGenerate", media=media, audio=words)


def test_a_video_goes_from_file_to_file(
    pack: Pack, host: Host, talking: Path, words: dict[str, Any]
) -> None:
    media = pack.part("lipsync_core.media")
    video, audio, mask, *_ = pack.run(
        "Wav2LipGenerate", media=VideoFromFile(str(talking)), audio=words
    )
    path = Path(video.get_stream_source())
    assert path.parent == host.base / "temp" and host.temporary() == [path.name]
    assert media.probe(path).frames == 15 and length(audio) == pytest.approx(0.6)
    assert isinstance(mask, ExecutionBlocker) and "Get Video Components" in (mask.message or "")
    sound = pack.run("LoadAudio", video=video)[0]
    share = torch.nn.functional.cosine_similarity(
        sound["waveform"][0, :, : 600 * 22], words["waveform"][0, :, : 600 * 22]
    )
    assert float(share) > 0.95


def test_a_part_of_a_video_speaks_its_own_sound(pack: Pack, talking: Path) -> None:
    part = VideoFromFile(str(talking), start_time=0.4, duration=0.8)
    video, audio, *_ = pack.run("Wav2LipGenerate", media=part)
    assert pack.part("lipsync_core.media").probe(video.get_stream_source()).frames == 20
    assert length(audio) == pytest.approx(0.8)


def test_a_video_that_speaks_its_own_sound_stays_as_long(pack: Pack, talking: Path) -> None:
    media = pack.part("lipsync_core.media")
    own = pack.run("LoadAudio", video=VideoFromFile(str(talking)))[0]
    assert length(own) > 2  # the last packet of AAC outlasts the picture
    video, audio, *_ = pack.run("Wav2LipGenerate", media=VideoFromFile(str(talking)))
    assert media.probe(video.get_stream_source()).frames == 50 and length(audio) == pytest.approx(2)


@pytest.mark.parametrize("at", [2, 5, 12])
def test_cancel_leaves_nothing_behind(pack: Pack, host: Host, talking: Path, at: int) -> None:
    host.cancel_at = at
    with pytest.raises(Cancelled):
        pack.run("Wav2LipGenerate", media=VideoFromFile(str(talking)))
    assert host.temporary() == []


def test_cancel_stops_images_within_a_batch(
    pack: Pack, host: Host, photo: torch.Tensor, speech: dict[str, Any]
) -> None:
    host.cancel_at = host.questions + 4
    with pytest.raises(Cancelled):
        pack.run("Wav2LipGenerate", media=photo, audio=speech, batch=4)
    assert host.bar[-1][0] < 500


def test_strength_0_shows_the_old_mouth(
    pack: Pack, photo: torch.Tensor, words: dict[str, Any]
) -> None:
    (blend,) = pack.run("BlendSettings", strength=0.0)
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=photo, audio=words, blend=blend)
    assert torch.equal(images, photo.expand_as(images)) and float(mask.max()) == 0


def test_the_settings_are_the_defaults(pack: Pack) -> None:
    (blend,) = pack.run("BlendSettings")
    assert blend == pack.part("lipsync_core.blend.blender").Blend()


@pytest.mark.parametrize("kind", ["images", "video"])
def test_another_blend_draws_nothing_and_another_precision_draws_anew(
    pack: Pack,
    talking: Path,
    photo: torch.Tensor,
    words: dict[str, Any],
    drawn: list[int],
    kind: str,
) -> None:
    media = photo if kind == "images" else VideoFromFile(str(talking))
    (model,) = pack.run("LoadLipSyncModel", precision="float32")
    made, *_ = pack.run("Wav2LipGenerate", media=media, audio=words, model=model)
    assert sum(drawn) == 15
    drawn.clear()
    (blend,) = pack.run("BlendSettings", strength=0.5)
    mixed, *_ = pack.run("Wav2LipGenerate", media=media, audio=words, model=model, blend=blend)
    assert drawn == []
    assert kind == "video" or 0 < float((mixed - photo).abs().sum()) < 0.6 * float(
        (made - photo).abs().sum()
    )
    (model,) = pack.run("LoadLipSyncModel", precision="bfloat16")
    pack.run("Wav2LipGenerate", media=media, audio=words, model=model, blend=blend)
    assert sum(drawn) == 15


# ---- two people


def test_faces_are_found_numbered_and_masked(pack: Pack, pair: torch.Tensor) -> None:
    tracks, boxes, count, preview, mask, marks = pack.run(
        "DetectFaces", media=pair.expand(3, -1, -1, -1)
    )
    assert count == 2 and len(boxes) == 3 and {len(frame) for frame in boxes} == {2}
    left, right = sorted(boxes[0], key=lambda box: box["x"])
    assert left["x"] + left["width"] < 256 < right["x"] and left["width"] > 40
    assert preview.ndim == 4 and mask.shape == (3, 256, 512)
    inside = mask[0, int(left["y"] + left["height"] / 2), int(left["x"] + left["width"] / 2)]
    assert float(inside) > 0.9 and float(mask[0, 0, 0]) == 0
    assert (tracks.frames, tracks.width, tracks.height) == (3, 512, 256)
    assert len(marks["frames"]) == 3 and marks["image_size"] == (256, 512)


def test_a_videos_faces_have_a_preview_and_no_mask(pack: Pack, talking: Path) -> None:
    _, boxes, count, preview, mask, _ = pack.run("DetectFaces", media=VideoFromFile(str(talking)))
    assert (count, len(boxes)) == (1, 50) and isinstance(mask, ExecutionBlocker)
    assert preview.shape[0] <= 16


def test_given_boxes_take_the_place_of_detection(pack: Pack, pair: torch.Tensor) -> None:
    _, boxes, *_ = pack.run("DetectFaces", media=pair)
    (left,) = [box for box in boxes[0] if box["x"] < 200]
    _, given, count, *_ = pack.run("DetectFaces", media=pair, bboxes=left)
    assert count == 1
    assert given[0][0]["x"] == pytest.approx(left["x"], abs=left["width"] / 4)


def test_two_people_speak_at_once(pack: Pack, pair: torch.Tensor, words: dict[str, Any]) -> None:
    tracks = pack.run("DetectFaces", media=pair)[0]
    (one,) = pack.run("SelectFace", tracks=tracks, rule="left", audio=words)
    assert len(one.speakers) == 1 and tracks.speakers == ()
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=pair, tracks=one)
    left, right = (images - pair).abs().amax(3).chunk(2, 2)
    mask_left, mask_right = mask.chunk(2, 2)
    assert float(left[mask_left > 0.9].mean()) > 0.005
    assert float(right.max()) == 0 and float(mask_right.max()) == 0
    (both,) = pack.run("SelectFace", tracks=one, rule="right", audio=words)
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=pair, tracks=both)
    assert images.shape == (15, 256, 512, 3)
    changed = (images - pair).abs().amax(3)
    for half, shown in zip(changed.chunk(2, 2), mask.chunk(2, 2), strict=True):
        assert float(half[shown > 0.9].mean()) > 0.005 and float(half[shown == 0].max()) < 1e-5


@pytest.mark.parametrize(
    ("inputs", "left"),
    [
        ({"rule": "left"}, True),
        ({"rule": "right"}, False),
        ({"rule": "index", "index": 1}, False),
        ({"rule": "point", "x": 110, "y": 60}, True),
    ],
)
def test_a_rule_chooses_a_face(
    pack: Pack, pair: torch.Tensor, inputs: dict[str, Any], left: bool
) -> None:
    tracks = pack.run("DetectFaces", media=pair)[0]
    (chosen,) = pack.run("SelectFace", tracks=tracks, **inputs)
    box = chosen.speakers[0].track.boxes[0]
    assert bool(box[0] < 256) == left


def test_like_image_needs_an_image_with_a_face(
    pack: Pack, pair: torch.Tensor, photo: torch.Tensor
) -> None:
    tracks = pack.run("DetectFaces", media=pair)[0]
    with pytest.raises(ValueError, match="connect one to 'reference'"):
        pack.run("SelectFace", tracks=tracks, rule="like image")
    with pytest.raises(pack.part("lipsync_core.errors").NoFaceError, match="reference"):
        pack.run(
            "SelectFace", tracks=tracks, rule="like image", reference=torch.zeros(1, 64, 64, 3)
        )
    (chosen,) = pack.run("SelectFace", tracks=tracks, rule="like image", reference=photo)
    assert len(chosen.speakers) == 1


def test_tracks_of_other_media_are_refused(
    pack: Pack, pair: torch.Tensor, photo: torch.Tensor, words: dict[str, Any]
) -> None:
    tracks = pack.run("DetectFaces", media=pair)[0]
    with pytest.raises(ValueError, match="connect both from the same place"):
        pack.run("Wav2LipGenerate", media=photo, audio=words, tracks=tracks)
