"""What the newer widgets do: silence, references, turns, occlusion, restorers, meshes, and the
preview of masks."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from fake_host import Host, VideoComponents, VideoFromComponents, VideoFromFile
from loading import Pack


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """The face of the demo, 256 px."""
    whole = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(whole, 2).permute(1, 2, 0)[None].contiguous()


@pytest.fixture
def words(speech: dict[str, Any]) -> dict[str, Any]:
    """0.6 seconds of speech: 15 frames at 25 a second."""
    rate = speech["sample_rate"]
    return {"waveform": speech["waveform"][..., rate : rate + rate * 6 // 10], "sample_rate": rate}


@pytest.fixture
def late(words: dict[str, Any]) -> dict[str, Any]:
    """The same after 0.8 seconds of silence: 35 frames, of which the first 15 are silent even where
    lips open early."""
    waveform, rate = words["waveform"], words["sample_rate"]
    return {
        "waveform": torch.cat([waveform.new_zeros(1, 1, rate * 8 // 10), waveform], 2),
        "sample_rate": rate,
    }


@pytest.fixture
def frames(pack: Pack, talking: Path) -> torch.Tensor:
    """Twelve frames of a face that speaks, as an IMAGE of 174 px."""
    read = pack.part("lipsync_core.media").read_frames(talking, start=20, stop=32)
    return torch.cat([piece.pixels for piece in read])[:, :174].float() / 255


# ---- blend


def test_newer_settings_arrive(pack: Pack) -> None:
    kind = pack.part("lipsync_core.blend.blender").Blend
    (blend,) = pack.run(
        "BlendSettings", colour_match=True, colour="covariance", occlusion="compare", steady=0.5
    )
    assert blend == kind(colour_match="covariance", occlusion="compare", steady=0.5)
    (blend,) = pack.run("BlendSettings", colour_match=True)
    assert blend == kind(colour_match="spread")
    (blend,) = pack.run("BlendSettings", colour="covariance", feather_px=7.0)
    assert blend == kind(feather_px=7.0)


@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_cloth_before_the_mouth_stays(
    pack: Pack, photo: torch.Tensor, words: dict[str, Any], kind: str
) -> None:
    """A blue cloth over the mouth of the later frames; the earlier ones show them clear."""
    frames = photo.repeat(12, 1, 1, 1)
    box = pack.run("DetectFaces", media=frames)[1][0][0]
    top, left = round(box["y"] + 0.62 * box["height"]), round(box["x"])
    bar = (
        slice(6, 12),
        slice(top, top + round(0.33 * box["height"])),
        slice(left, left + round(box["width"])),
    )
    covered = frames.clone()
    stripes = (torch.arange(bar[2].stop - bar[2].start) / 2).sin()[
        :, None
    ]  # 12 px apart: what moves is seen to have moved
    covered[bar] = torch.tensor([0.2, 0.3, 0.7]) + 0.2 * stripes
    media: Any = covered
    if kind == "video":
        media = VideoFromComponents(VideoComponents(covered, Fraction(25), words))
    tracks = pack.run("DetectFaces", media=frames)[0]
    made: list[torch.Tensor] = []
    for settings in ({"strength": 0.0}, {}, {"occlusion": "compare"}):
        (blend,) = pack.run("BlendSettings", **settings)
        out = pack.run(
            "Wav2LipGenerate", media=media, audio=words, blend=blend, tracks=tracks, longer="trim"
        )[0]
        made.append(
            torch.cat([p.pixels for p in _read(pack, out)]).float() / 255
            if kind == "video"
            else out
        )
    untouched, over, kept = (frames[bar] for frames in made)
    assert float((kept - untouched).abs().mean()) < 0.4 * float((over - untouched).abs().mean())


def _mouth(pack: Pack, media: Any) -> tuple[int, int]:
    """x and y of the mouth in the first frame."""
    box = pack.run("DetectFaces", media=media)[1][0][0]
    return round(box["x"] + box["width"] / 2), round(box["y"] + 0.78 * box["height"])


def _openings(pack: Pack, pixels: torch.Tensor) -> torch.Tensor:
    """(N,) how far the mouth is open in pictures (N,H,W,3), by the bundled landmarks."""
    finding = pack.part("lipsync_core.pipelines.track_faces")
    pictures = pack.part("lipsync_core.media.clip").ImageClip(pixels, Fraction(25))
    (person,), _ = finding.find_people(
        pictures, finding.Finding(cache=False), torch.device("cpu"), stop=len(pixels)
    )
    return pack.part("lipsync_core.image.landmarks").mouth_opening(person.dense)


def _read(pack: Pack, video: Any) -> Any:
    return pack.part("lipsync_core.media").read_frames(Path(video.get_stream_source()))


def test_parsing_fetches_its_parser_first(
    pack: Pack,
    host: Host,
    photo: torch.Tensor,
    words: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is drawn, and the error is that of the download, which says what to do."""
    asked, error = list[str](), pack.part("lipsync_core.errors").WeightsError

    def pull(name: str, **_: Any) -> Path:
        asked.append(name)
        raise error("cannot pull; by hand: ...")

    monkeypatch.setattr(pack.part("lipsync_core.models.hub"), "pull", pull)
    (blend,) = pack.run("BlendSettings", occlusion="parse")
    for node, inputs in (("Wav2LipGenerate", {"audio": words}), ("PreviewMask", {})):
        with pytest.raises(error, match="by hand"):
            pack.run(node, media=photo, blend=blend, **inputs)
    assert asked == ["face_parsing", "face_parsing"]


def test_a_parser_sees_the_faces(
    pack: Pack, photo: torch.Tensor, words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes everything for background leaves the picture as it is."""
    labels = len(pack.part("lipsync_core.blend.parser_masks").LABELS)

    class Blind:
        def faces(
            self, frames: Any, points: torch.Tensor, placed: torch.Tensor, size: int
        ) -> torch.Tensor:
            background = torch.nn.functional.one_hot(
                torch.zeros(len(points), size, size).long(), labels
            )
            return background.permute(0, 3, 1, 2).float()

    monkeypatch.setattr(pack.part("lipsync_core.models.hub"), "pull", lambda name, **_: Path(name))
    monkeypatch.setattr(pack.part("lipsync_nodes.dub"), "load_parser", lambda *_: Blind())
    (blend,) = pack.run("BlendSettings", occlusion="parse")
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=photo, audio=words, blend=blend)
    assert float(mask.max()) == 0 and float((images - photo).abs().max()) < 1e-5


# ---- silence and references


def test_a_photo_keeps_its_mouth_in_silence(
    pack: Pack, photo: torch.Tensor, late: dict[str, Any]
) -> None:
    images, _, mask, *_ = pack.run("Wav2LipGenerate", media=photo, audio=late, silence="keep")
    assert len(images) == 35 and torch.equal(images[:15], photo.expand(15, -1, -1, -1))
    assert float(mask[:15].max()) == 0 and float(mask[25:].max()) > 0.9
    made, *_ = pack.run("Wav2LipGenerate", media=photo, audio=late)
    assert torch.equal(made[-1], images[-1]) and not torch.equal(made[0], images[0])


@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_mouth_closes_in_silence(
    pack: Pack, talking: Path, frames: torch.Tensor, late: dict[str, Any], kind: str
) -> None:
    """It rests: frame by frame the same mouth, where the old one speaks."""
    media: Any = (
        frames if kind == "images" else VideoFromFile(str(talking), start_time=0.8, duration=0.48)
    )
    made: dict[str, torch.Tensor] = {}
    for silence in ("keep", "close"):
        out = pack.run("Wav2LipGenerate", media=media, audio=late, silence=silence, longer="hold")[
            0
        ]
        made[silence] = (
            out
            if kind == "images"
            else torch.cat([p.pixels for p in _read(pack, out)]).float() / 255
        )
    openings = {name: _openings(pack, out[:10]) for name, out in made.items()}
    assert float(openings["close"].std()) < 0.5 * float(openings["keep"].std())
    assert float(openings["close"].mean()) < float(openings["keep"].mean())


def test_drawings_are_known_by_what_they_are_drawn_from(
    pack: Pack, frames: torch.Tensor, words: dict[str, Any], drawn: list[int]
) -> None:
    (before,) = pack.run("LoadLipSyncModel", model="mini-2 (bundled)")

    def drew(model: Any = before, **wishes: Any) -> int:
        drawn.clear()
        pack.run("Wav2LipGenerate", media=frames, audio=words, model=model, **wishes)
        return sum(drawn)

    assert drew() == 15
    assert drew(silence="keep") == 0
    assert drew(reference="first") == 15
    assert drew(silence="close") == 15  # from a closed mouth
    assert drew(reference="nearest-closed") == 0
    assert drew(silence="close", reference="first") == 15
    # of this model they are the same
    assert drew(reference="auto") == 15 and drew(reference="current") == 0
    assert drew(None) == 15  # another model
    assert drew(None, silence="close") == 0  # which closes lips by itself


# ---- turns


def test_whoever_speaks_is_heard_and_seen_in_a_video(
    pack: Pack, talking: Path, words: dict[str, Any], drawn: list[int]
) -> None:
    video = VideoFromFile(str(talking))
    for _ in range(2):
        drawn.clear()
        out, audio, *_ = pack.run(
            "Wav2LipGenerate", media=video, audio=words, speakers="whoever speaks"
        )
        assert (
            pack.part("lipsync_core.media").probe(out.get_stream_source()).frames == 15
            and sum(drawn) > 5
        )
    assert audio["waveform"].shape[2] == pytest.approx(0.6 * audio["sample_rate"], abs=1)
    tracks = pack.run("DetectFaces", media=video)[0]
    pack.run("Wav2LipGenerate", media=video, tracks=tracks, speakers="whoever speaks")


def test_turns_that_cannot_be_told_say_what_to_do(
    pack: Pack, talking: Path, photo: torch.Tensor, words: dict[str, Any], speech: dict[str, Any]
) -> None:
    wish, video = {"audio": words, "speakers": "whoever speaks"}, VideoFromFile(str(talking))
    with pytest.raises(ValueError, match=r"images have no sound.*connect a VIDEO"):
        pack.run("Wav2LipGenerate", media=photo, **wish)
    (chosen,) = pack.run("SelectFace", tracks=pack.run("DetectFaces", media=video)[0])
    with pytest.raises(ValueError, match=r"'Select Face' chose.*'Detect Faces' itself"):
        pack.run("Wav2LipGenerate", media=video, tracks=chosen, **wish)
    in_memory = VideoFromComponents(
        VideoComponents(photo.expand(3, -1, -1, -1), Fraction(25), speech)
    )
    with pytest.raises(ValueError, match=r"no part of its file.*'Save Video'"):
        pack.run("Wav2LipGenerate", media=in_memory, **wish)


# ---- restorers


@pytest.fixture
def spandrel(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packages that are there; none of them is imported."""
    there = ["spandrel"]
    monkeypatch.setattr(
        pack.part("lipsync_nodes.host"), "find_spec", lambda name: name if name in there else None
    )
    return there


def test_restorers_are_public_names_and_files_of_two_folders(
    pack: Pack, host: Host, spandrel: list[str]
) -> None:
    side, models = pack.part("lipsync_nodes.host"), host.base / "models"
    for name in (
        "facerestore_models/a.pth",
        "facerestore_models/b.onnx",
        "lipsync/a.pth",
        "lipsync/c.safetensors",
    ):
        (models / name).write_bytes(b"x")
    assert side.restorer_names() == [
        *("gfpgan (Hub)", "restoreformer (Hub)", "codeformer (Hub)"),
        *("a.pth", "c.safetensors"),
    ]
    (restore,) = pack.run("LoadFaceRestorer", network="a.pth", strength=0.5, mask="lower")
    wanted = pack.part("lipsync_core.pipelines.restore").Restore(
        models / "facerestore_models/a.pth", 0.5, "lower"
    )
    assert restore == wanted
    node = pack.nodes["LoadFaceRestorer"]
    before = node.fingerprint_inputs(network="a.pth", strength=1.0)
    (models / "facerestore_models/a.pth").write_bytes(b"changed")
    assert node.fingerprint_inputs(network="a.pth") != before
    for name in ("b.onnx", "../secret.pth"):
        with pytest.raises(pack.part("lipsync_core.errors").WeightsError, match="reload the page"):
            side.restorer_file(name)


def test_public_restorers_are_fetched_where_their_package_is(
    pack: Pack, spandrel: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, error = list[str](), pack.part("lipsync_core.errors").LipSyncError
    monkeypatch.setattr(
        pack.part("lipsync_core.models.hub"), "pull", lambda name, **_: asked.append(name)
    )
    assert pack.run("LoadFaceRestorer")[0].network == "gfpgan"
    with pytest.raises(error, match="pip install spandrel_extra_arches"):
        pack.run("LoadFaceRestorer", network="codeformer (Hub)")
    spandrel.clear()
    with pytest.raises(error, match="ComfyUI's Python: python -m pip install spandrel"):
        pack.run("LoadFaceRestorer")
    assert asked == ["gfpgan"]


@pytest.mark.parametrize("kind", ["photo", "images", "video"])
def test_a_restorer_has_the_last_word(
    pack: Pack,
    talking: Path,
    frames: torch.Tensor,
    photo: torch.Tensor,
    words: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """One that makes faces black, at half strength, darkens mouths by half."""
    core = pack.part("lipsync_core.pipelines.restore")
    restore = pack.part("lipsync_core.pipelines.restore").Restore("black", 0.5)

    def load(wanted: Any, *_: Any, **__: Any) -> Any:
        assert wanted is restore
        return core.Restorer(
            lambda faces: faces * 0,
            "black",
            "none",
            core.replace(core.MOUTH, kind="feather", strength=wanted.strength),
        )

    monkeypatch.setattr(pack.part("lipsync_core.pipelines.restore"), "load_restorer", load)
    media = {
        "photo": photo,
        "images": frames,
        "video": VideoFromFile(str(talking), start_time=0.8, duration=0.48),
    }[kind]
    x, y = _mouth(pack, media)
    level: list[float] = []
    for restorer in ({}, {"restorer": restore}):
        out = pack.run("Wav2LipGenerate", media=media, audio=words, **restorer)[0]
        out = (
            torch.cat([p.pixels for p in _read(pack, out)]).float() / 255
            if kind == "video"
            else out
        )
        level.append(float(out[:, y - 4 : y + 4, x - 4 : x + 4].mean()))
    assert level[1] == pytest.approx(level[0] / 2, rel=0.1)


# ---- meshes and masks


@pytest.fixture
def mesh(pack: Pack, photo: torch.Tensor) -> Callable[[int], dict[str, Any]]:
    """A FACE_LANDMARKS of so many points: the usual places, and a jaw that is a circle of 8 px
    round the mouth."""
    track = pack.run("DetectFaces", media=photo)[0].tracks[0]
    layout = pack.part("lipsync_core.blend.landmark_masks").LAYOUTS[478]
    points, box = track.points[0], track.boxes[0]
    middle = points[3:].mean(0)

    def make(count: int) -> dict[str, Any]:
        marks = middle.expand(478, 2).clone()
        for place, ids in zip(points, ((33, 133), (362, 263), (1,), (61,), (291,)), strict=True):
            marks[list(ids)] = place
        angle = torch.linspace(torch.pi, 0, len(layout.jaw))
        marks[list(layout.jaw)] = middle + 8 * torch.stack([angle.cos(), angle.sin()], 1)
        marks[list(layout.nose)] = middle + torch.tensor(
            [[-6.0, -5], [-3, -5], [0, -5], [3, -5], [6, -5]]
        )
        return {"frames": [[{"bbox_xyxy": box.tolist(), "landmarks_xy": marks[:count].numpy()}]]}

    return make


@pytest.mark.parametrize("count", [468, 478])
def test_masks_follow_a_mesh(
    pack: Pack,
    photo: torch.Tensor,
    words: dict[str, Any],
    mesh: Callable[[int], dict[str, Any]],
    count: int,
) -> None:
    tracks = pack.run("DetectFaces", media=photo, face_landmarks=mesh(count))[0]
    assert tracks.tracks[0].dense.shape == (1, 468, 2)
    # mini wants landmarks of its own layout
    (model,) = pack.run("LoadLipSyncModel", model="mini-2 (bundled)")
    _, _, usual, *_ = pack.run("Wav2LipGenerate", media=photo, audio=words, model=model)
    _, _, small, *_ = pack.run(
        "Wav2LipGenerate", media=photo, audio=words, tracks=tracks, model=model
    )
    places = (small[0] > 0.02).nonzero()
    spread = places.amax(0) - places.amin(0)
    assert 4 < int(spread.max()) <= 18  # the circle's 16 px
    assert 3 * len(places) < int((usual[0] > 0.02).sum())


def test_a_mask_is_shown_before_anything_is_drawn(
    pack: Pack, host: Host, talking: Path, frames: torch.Tensor, drawn: list[int]
) -> None:
    for media in (frames, VideoFromFile(str(talking)), frames[:1]):
        (sheet,) = pack.run("PreviewMask", media=media)
        assert (
            sheet.ndim == 4
            and sheet.shape[0] == 1
            and sheet.shape[2] <= 1280
            and host.shown[-1] is sheet
        )
        green = sheet[..., 1] - sheet[..., [0, 2]].amax(3)
        assert 0.01 < float((green > 0.1).float().mean()) < 0.3
    assert drawn == []


def test_a_mask_is_that_of_the_blend_the_tracks_and_the_model(
    pack: Pack, photo: torch.Tensor
) -> None:
    def green(**inputs: Any) -> torch.Tensor:
        (sheet,) = pack.run("PreviewMask", media=pair, **inputs)
        return (sheet[0, ..., 1] - sheet[0, ..., [0, 2]].amax(2) > 0.1).float()

    pair = torch.cat([photo, photo.flip(2)], 2)
    (face,) = pack.run("BlendSettings", mask="face")
    one, wide = float(green().mean()), float(green(blend=face).mean())
    assert wide > 1.1 * one  # of pixels that mini moves, the upper half stays
    tracks = pack.run("DetectFaces", media=pair)[0]
    (left,) = pack.run("SelectFace", tracks=tracks, rule="left")
    (both,) = pack.run("SelectFace", tracks=left, rule="right")
    halves = [half.mean() for half in green(tracks=both).chunk(2, 1)]
    assert min(halves) > 0.01 and float(halves[0]) == pytest.approx(float(halves[1]), rel=0.2)
    (model,) = pack.run("LoadLipSyncModel")
    assert float(green(model=model).mean()) == one


def test_a_mask_of_nobody_or_of_other_media_says_so(pack: Pack, photo: torch.Tensor) -> None:
    with pytest.raises(pack.part("lipsync_core.errors").NoFaceError, match="no face"):
        pack.run("PreviewMask", media=torch.zeros(1, 64, 64, 3))
    tracks = pack.run("DetectFaces", media=photo)[0]
    with pytest.raises(ValueError, match="connect both from the same place"):
        pack.run("PreviewMask", media=photo[:, :200], tracks=tracks)


def test_landmarks_go_out_as_the_hosts_nodes_take_them_and_come_back(
    pack: Pack, photo: torch.Tensor
) -> None:
    *_, marks = pack.run("DetectFaces", media=photo)
    height, width = photo.shape[1:3]
    assert marks["image_size"] == (height, width) and len(marks["frames"]) == 1
    sets = marks["connection_sets"]
    assert all(0 <= point < 102 for pairs in sets.values() for pair in pairs for point in pair)
    # closed: every point has two neighbours
    for part in ("face_oval", "lips", "left_eye", "right_eye"):
        points = [point for pair in sets[part] for point in pair]
        assert points and all(points.count(point) == 2 for point in points)
    track = pack.run("DetectFaces", media=photo)[0].tracks[0]
    place = (
        torch.rand(1, 102, 2, generator=torch.Generator().manual_seed(0)) * 60
        + track.boxes[:, None, :2]
    )
    convert = pack.part("lipsync_nodes.convert")
    known = replace(track, dense=place, dense_scores=torch.full((1,), 0.75))
    told = convert.face_landmarks([known], 1, width, height)
    (face,) = told["frames"][0]
    assert face["score"] == face["presence"] == 0.75 and face["landmarks_xy"].shape == (102, 2)
    again = pack.run("DetectFaces", media=photo, face_landmarks=told)
    torch.testing.assert_close(again[0].tracks[0].dense, place)
    assert again[-1] is told
