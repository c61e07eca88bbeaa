"""Sheets that show what would be redrawn."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import skimage.data
import skimage.io
import torch
from helpers.dubs import ASTRONAUT, clip, pixels, portrait
from helpers.faces import face as dense_face
from helpers.lips import face as lip_face
from helpers.lips import lip_warp
from helpers.networks import small
from helpers.occluders import occluder, pasted
from helpers.streams import FPS, mini, opacities, person, voice
from torch import Tensor
from typer.testing import CliRunner, Result

from lipsync_core.blend.parser_masks import LABELS
from lipsync_core.cli.main import app
from lipsync_core.errors import MediaError, NoFaceError, WeightsError
from lipsync_core.faces.parser import FaceParser
from lipsync_core.media.clip import Clip, ImageClip, open_clip
from lipsync_core.options import Blend, Cut
from lipsync_core.pipelines.dub_plan import plan_preview
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.preview import draw_mask_sheet, tint
from lipsync_core.pipelines.reference import find_unoccluded
from lipsync_core.pipelines.roles import FaceDub
from lipsync_core.pipelines.track_faces import Finding, find_people, load_parser
from lipsync_core.types import FaceTrack, Frames

CPU = torch.device("cpu")
LENGTH, FRAME = 12, 3


@pytest.fixture(scope="module")
def track() -> FaceTrack:
    """The astronaut in a picture of 144 px, of which her face fills more than half; away in the
    first three frames."""
    (found,), _ = find_people(ImageClip(portrait()[None], FPS), Finding(cache=False), CPU, stop=1)
    corner = found.boxes[0, :2] - 24
    boxes, points = found.boxes - corner.floor().repeat(2), found.points - corner.floor()
    visible = torch.arange(LENGTH) >= FRAME
    return FaceTrack(boxes.repeat(LENGTH, 1), points.repeat(LENGTH, 1, 1), visible)


@pytest.fixture(scope="module")
def media(track: FaceTrack) -> ImageClip:
    """Her picture, held still, with a microphone before the mouth in frame 3 alone."""
    (found,), _ = find_people(ImageClip(portrait()[None], FPS), Finding(cache=False), CPU, stop=1)
    x, y = (found.boxes[0, :2] - 24).floor().int().tolist()
    width, height = (track.boxes[0, 2:] + 24).int().tolist()
    planes = (portrait()[y : y + height, x : x + width].permute(2, 0, 1) / 255).repeat(
        LENGTH, 1, 1, 1
    )
    here = slice(FRAME, FRAME + 1)
    planes[here] = pasted(
        planes[here], *occluder("microphone", planes[here], track.points[here], torch.zeros(1, 2))
    )
    return ImageClip((planes.permute(0, 2, 3, 1) * 255).round().byte(), FPS)


def skin_parser() -> FaceParser:
    """Untrained: what it takes for skin are some places of the picture."""
    network = small()
    with torch.no_grad():
        head = network.get_parameter("conv_out.conv_out.weight").zero_()
        head[LABELS.index("skin"), ::2], head[LABELS.index("skin"), 1::2] = 20, -30
    return FaceParser(network, precision="float32")


def mask_sheet(
    media: Clip,
    tracks: list[FaceTrack],
    length: int,
    *,
    blend: Blend,
    moves: bool = False,
    parser: FaceParser | None = None,
    **layout: int,
) -> Tensor:
    """The sheet of a model that draws whole faces, or moves pixels."""
    blend = replace(blend, own_pixels=moves)
    model = LipSync(mini(), blend=blend, precision="float32", parser=parser)
    return draw_mask_sheet(plan_preview(media, tracks, length, model), model, **layout)


def green(sheet: Tensor) -> Tensor:
    """(h,w) bool: where there is more green than anything else, by far."""
    red, middle, blue = sheet.int().unbind(-1)
    return middle - torch.maximum(red, blue) > 20


@pytest.mark.parametrize(
    ("blend", "dense"),
    [
        (Blend(), False),
        (Blend(), True),
        (Blend("face", strength=0.5), False),
        (Blend("box", "paste"), False),
        (Blend("lower", feather_px=2), True),
        (Blend("lower", occlusion="compare"), False),
        (Blend("face", occlusion="parse"), True),
    ],
)
def test_a_sheet_shows_what_the_stream_redraws(
    blend: Blend, dense: bool, track: FaceTrack, media: ImageClip
) -> None:
    """The region round so large a face is the whole frame, so that px are px."""
    track = (
        replace(track, dense=(dense_face(68) * 1.2 + 35).repeat(LENGTH, 1, 1)) if dense else track
    )
    parser, (width, height) = skin_parser(), media.size
    sheet = mask_sheet(
        media,
        [track],
        LENGTH,
        blend=blend,
        moves=True,
        parser=parser,
        count=1,
        width=width,
    )
    sync = LipSync(mini(), blend=blend, precision="float32", parser=parser)
    plain = find_unoccluded(media, track, length=LENGTH) if blend.occlusion == "compare" else None
    stream = sync.render(
        [Frames(media.pixels[FRAME : FRAME + 1], FRAME)],
        [FaceDub(voice(1), track, unoccluded=plain)],
        fps=FPS,
        opacity=True,
    )
    (opacity,) = opacities(stream)
    wanted = tint(media.pixels[FRAME].permute(2, 0, 1) / 255, opacity, half=blend.strength / 2)
    assert 0.03 < float((opacity > 0).float().mean()) < 0.6
    off = (sheet.int() - wanted.int()).abs().amax(-1)
    # the line may move by a px
    assert sheet.shape == (height, width, 3) and float((off > 1).float().mean()) < 0.002


@pytest.mark.parametrize("marked", [True, False])
def test_a_sheet_shows_which_lips_would_be_moved(
    marked: bool, track: FaceTrack, media: ImageClip
) -> None:
    """As a stream has it with a resting mouth: only speech says how far the chin falls."""
    model, (width, height) = lip_warp(), media.size
    with torch.no_grad():
        model.neutral[2] = 0.4  # no chin falls
    marks = lip_face(size=min(width, height)).repeat(LENGTH, 1, 1) if marked else None
    track = replace(track, dense=marks)
    sync = LipSync(model, precision="float32")
    sheet = draw_mask_sheet(plan_preview(media, [track], LENGTH, sync), sync, count=1, width=width)
    stream = sync.render(
        [Frames(media.pixels[FRAME : FRAME + 1], FRAME)],
        [FaceDub(voice(1), track, speech_weight=torch.zeros(LENGTH))],
        fps=FPS,
        opacity=True,
    )
    (opacity,) = opacities(stream)
    wanted = tint(media.pixels[FRAME].permute(2, 0, 1) / 255, opacity)
    assert 0.03 < float((opacity > 0).float().mean()) < 0.6
    off = (sheet.int() - wanted.int()).abs().amax(-1)
    assert sheet.shape == (height, width, 3) and float((off > 3).float().mean()) < 0.01


def test_what_lies_before_the_mouth_is_left_out(track: FaceTrack, media: ImageClip) -> None:
    plain, kept = (
        mask_sheet(
            media,
            [track],
            LENGTH,
            blend=Blend("lower", occlusion=kind),
            count=1,
            width=media.size[0],
        )
        for kind in ("ignore", "compare")
    )
    # the middle of the mouth, where the microphone's ball is
    x, y = track.points[FRAME, 3:].mean(0).long().tolist()
    assert (
        green(plain)[y, x]
        and not green(kept)[y, x]
        and torch.equal(kept[y, x], media.pixels[FRAME, y, x])
    )
    assert float(green(kept).float().mean()) > 0.03


def test_small_faces_are_shown_large_and_all_of_them() -> None:
    grey = ImageClip(torch.full((8, 301, 403, 3), 120, dtype=torch.uint8), FPS)
    left, right = person(10, count=8, scale=30), person(300, count=8, scale=30, hidden=slice(4, 8))
    one = mask_sheet(grey, [left], 8, blend=Blend("face"), count=4, width=400)
    assert one.shape[1] == 400 and one.dtype == torch.uint8
    for tile in (one[: one.shape[0] // 2, :200], one[one.shape[0] // 2 :, 200:]):
        share = green(tile).float()
        assert 0.1 < float(share.mean()) < 0.5  # of the frame the mask covers less than 1 %
        rows, columns = share.nonzero().float().mean(0).tolist()
        assert abs(rows / tile.shape[0] - 0.5) < 0.2 and abs(columns / tile.shape[1] - 0.5) < 0.15
    both = mask_sheet(grey, [left, right], 8, blend=Blend("face"), count=1, width=400)
    assert both.shape[0] < 100  # a strip that holds both
    assert (
        green(both)[:, :100].any()
        and green(both)[:, 300:].any()
        and not green(both)[:, 120:280].any()
    )


def test_parts_without_the_face_are_left_out() -> None:
    media = ImageClip(torch.full((12, 64, 64, 3), 90, dtype=torch.uint8), FPS)
    track = person(0, count=12, scale=40, hidden=slice(3, 9))
    sheet = mask_sheet(media, [track], 12, blend=Blend(), count=4, width=200)
    first, last = sheet[:, :100], sheet[:, 100:]
    assert green(first).any() and green(last).any()  # two of four parts, side by side
    with pytest.raises(NoFaceError, match="none of 1 chosen faces is visible in 12 frames"):
        mask_sheet(media, [person(0, count=12, hidden=slice(0, 12))], 12, blend=Blend())
    with pytest.raises(ValueError, match="width is 0 px"):
        mask_sheet(media, [track], 12, blend=Blend(), width=0)
    with pytest.raises(ValueError, match="most 0"):
        mask_sheet(media, [track], 12, blend=Blend(), count=0)


@pytest.mark.parametrize(
    ("x", "scale"), [(-60.0, 70.0), (170.0, 90.0), (-300.0, 900.0), (500.0, 70.0), (60.0, 2.0)]
)
def test_faces_at_the_edge_and_beyond_it_make_sheets(x: float, scale: float) -> None:
    media = ImageClip(torch.rand(3, 121, 199, 3, generator=torch.Generator().manual_seed(0)), FPS)
    sheet = mask_sheet(media, [person(x, count=3, scale=scale)], 3, blend=Blend("face"), width=300)
    assert sheet.shape[1] == 300 and sheet.shape[2] == 3 and sheet.dtype == torch.uint8


def test_without_a_mask_the_picture_stays_and_the_line_is_white_in_black() -> None:
    picture = torch.randint(1, 255, (3, 20, 20), generator=torch.Generator().manual_seed(1)) / 255
    share = torch.zeros(20, 20)
    assert torch.equal(tint(picture, share).permute(2, 0, 1), (picture * 255).round().byte())
    share[5:15, 5:15] = 1
    share[2:4] = 0.3
    drawn = tint(picture, share)
    assert bool((drawn[5, 5:15] == 255).all()) and bool((drawn[4, 4:16] == 0).all())
    centre, faint = drawn[10, 10].float() / 255, drawn[2, 10].float() / 255
    color = torch.tensor([0.0, 1.0, 0.25])
    torch.testing.assert_close(
        centre, torch.lerp(picture[:, 10, 10], color, 0.4), atol=0.003, rtol=0
    )
    torch.testing.assert_close(
        faint, torch.lerp(picture[:, 2, 10], color, 0.12), atol=0.003, rtol=0
    )
    weak = tint(picture, share * 0.4, half=0.2)
    assert bool((weak[5, 5:15] == 255).all())  # the line runs where half of what is most is seen


def test_a_file_and_the_same_in_memory_look_alike(tmp_path: Path) -> None:
    face = clip(tmp_path / "face.mp4", portrait().expand(6, -1, -1, -1))
    footage = open_clip(face, Cut())
    people, length = find_people(footage, Finding(cache=False), CPU, stop=6)
    media = ImageClip(pixels(face), Fraction(25))
    blend = Blend("lower", occlusion="compare")
    coded, plain = (mask_sheet(m, people, length, blend=blend, count=2) for m in (footage, media))
    assert coded.shape == plain.shape and float((coded.float() - plain.float()).abs().mean()) < 1
    assert 0.05 < float(green(coded).float().mean()) < 0.4


def test_a_parser_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="face_parsing"):
        load_parser(CPU)


def mask(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["mask", *map(str, arguments)])


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the command would change the number of threads for every test after it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("one_thread")
def test_the_command_writes_a_sheet_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "mask.png"
    command = (ASTRONAUT, "-o", out, "--no-cache", "--mask", "lower", "--feather-px", 2)
    assert mask(*command).exit_code == 0
    sheet = torch.from_numpy(skimage.io.imread(out))
    assert sheet.shape[1:] == (1280, 3) and 0.05 < float(green(sheet).float().mean()) < 0.4
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
    written = out.read_bytes()
    refused = mask(*command)
    assert (
        refused.exit_code == 2 and "--overwrite" in refused.output and out.read_bytes() == written
    )
    assert (
        mask(*command, "--overwrite", "--strength", 0.3).exit_code == 0
        and out.read_bytes() != written
    )


@pytest.mark.usefixtures("one_thread")
def test_what_the_command_cannot_do_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    wall = clip(tmp_path / "wall.mp4", torch.full((3, 64, 64, 3), 90, dtype=torch.uint8))
    photo, out = tmp_path / "photo.png", tmp_path / "mask.png"
    skimage.io.imsave(photo, skimage.data.astronaut()[:64, :64], check_contrast=False)
    read = photo.read_bytes()
    for wrong in (tmp_path / "mask.jpg", tmp_path / "nowhere" / "mask.png", tmp_path):
        assert mask(photo, "-o", wrong).exit_code == 2
    assert isinstance(mask(photo, "-o", out, "--face", "no-such-face").exception, ValueError)
    assert isinstance(mask(wall, "-o", out, "--no-cache").exception, NoFaceError)
    assert isinstance(mask(photo, "-o", photo, "--overwrite").exception, MediaError)
    assert isinstance(mask(tmp_path / "missing.mp4", "-o", out).exception, MediaError)
    assert isinstance(mask(wall, "-o", out, "--no-cache", "--start", "9").exception, MediaError)
    assert isinstance(mask(photo, "-o", out, "--model", "no-such-model").exception, WeightsError)
    assert photo.read_bytes() == read and sorted(p.name for p in tmp_path.iterdir()) == [
        "photo.png",
        "wall.mp4",
    ]
