"""Which of a person's own mouths is shown for each frame of new speech."""

import logging
from dataclasses import replace

import pytest
import torch
from helpers.lips import FPS, PRIOR, face, lip_warp, noise
from torch import Tensor

from lipsync_core.faces.lip_matching import match_frames, measure_head_turns, pick_frames
from lipsync_core.image.landmarks import IRISES, NOSE_BRIDGE, OUTER_LIPS, lip_shapes
from lipsync_core.media.clip import ImageClip
from lipsync_core.models.wav2lip import MINI, Generator
from lipsync_core.options import Blend
from lipsync_core.pipelines.audio_inputs import read_audio_inputs
from lipsync_core.pipelines.dub_plan import PlanOptions, Speakers, choose_reference, plan_dub
from lipsync_core.pipelines.lipsync import LipSync
from lipsync_core.pipelines.reference import match_references
from lipsync_core.pipelines.run_log import RunLog
from lipsync_core.types import Audio, FaceTrack

SPREAD = PRIOR.spread
OPENINGS = [0.0, 0.02, 0.05, 0.09, 0.14, 0.2]


def mouths(openings: list[float]) -> Tensor:
    return torch.cat([face(opening) for opening in openings])


def still_head(count: int) -> Tensor:
    return measure_head_turns(face()).expand(count, -1)


def test_picked_frames_span_what_the_clip_has() -> None:
    clip = mouths([OPENINGS[i % 6] for i in range(120)])
    chosen = pick_frames(clip, torch.ones(120, dtype=torch.bool), SPREAD, 6)
    assert len(chosen) == 6 and chosen.tolist() == sorted(set(chosen.tolist()))
    assert sorted(OPENINGS[i % 6] for i in chosen.tolist()) == OPENINGS
    three = pick_frames(clip, torch.ones(120, dtype=torch.bool), SPREAD, 3)
    got = lip_shapes(clip[three])[:, 0]
    assert float(got.max() - got.min()) > 0.15 and len(three) == 3


def test_only_frames_that_can_be_believed_are_picked() -> None:
    clip = mouths([OPENINGS[i % 6] for i in range(60)])
    usable = torch.arange(60) >= 30
    assert bool((pick_frames(clip, usable, SPREAD, 9) >= 30).all())
    assert pick_frames(clip, torch.zeros(60, dtype=torch.bool), SPREAD, 9).tolist() == []
    one = torch.zeros(60, dtype=torch.bool)
    one[17] = True
    assert pick_frames(clip, one, SPREAD, 9).tolist() == [17]
    one[18] = True
    assert pick_frames(clip, one, SPREAD, 9).tolist() == [17, 18]


def test_turned_heads_are_picked_beside_straight_ones() -> None:
    clip = mouths([0.05] * 20)
    clip[10:, NOSE_BRIDGE, 0] += 6  # looks aside
    chosen = pick_frames(clip, torch.ones(20, dtype=torch.bool), SPREAD, 4)
    assert {bool(i >= 10) for i in chosen.tolist()} == {True, False}


def test_the_mouth_that_fits_is_shown() -> None:
    points = mouths(OPENINGS)
    shapes = lip_shapes(points)
    wanted = shapes.repeat_interleave(5, 0)
    found = match_frames(wanted, still_head(30), points, SPREAD)
    assert found.tolist() == [k for k in range(6) for _ in range(5)]


def test_what_stays_as_it_is_changes_no_picture() -> None:
    points = mouths(OPENINGS)
    shapes = lip_shapes(points)
    between, near = shapes[2:4].mean(0), shapes[2]
    trembling = near + 0.2 * SPREAD * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    found = match_frames(trembling, still_head(40), points, SPREAD)
    assert set(found.tolist()) == {2}
    constant = match_frames(between.expand(40, -1), still_head(40), points, SPREAD)
    assert len(set(constant.tolist())) == 1 and int(constant[0]) in (2, 3)
    assert (
        match_frames(between[None], still_head(1), points, SPREAD).tolist() == constant[:1].tolist()
    )


def test_a_head_that_is_turned_alike_is_preferred() -> None:
    points = mouths([0.05, 0.05])
    points[1, NOSE_BRIDGE, 0] += 6
    turns = measure_head_turns(points)[[0] * 6 + [1] * 6]
    found = match_frames(lip_shapes(points[:1]).expand(12, -1), turns, points, SPREAD)
    assert found.tolist() == [0] * 6 + [1] * 6


# ---- out of footage

COUNT = 40


def speaker(openings: list[float]) -> tuple[ImageClip, FaceTrack]:
    pixels = (noise(1, 96, 112).expand(len(openings), -1, -1, -1).permute(0, 2, 3, 1) * 255).byte()
    dense = torch.cat([face(opening, size=70) for opening in openings]) + torch.tensor([20.0, 10.0])
    points = dense[:, [IRISES.start, IRISES.stop - 1, NOSE_BRIDGE.stop - 1, 0, 10]]
    boxes = torch.cat([points.amin(1) - 12, points.amax(1) + 12], 1)
    return ImageClip(pixels, FPS), FaceTrack(
        boxes, points, torch.ones(len(openings), dtype=torch.bool), dense=dense
    )


def talk(count: int = COUNT) -> list[float]:
    return [0.1 + 0.1 * float(torch.tensor(i / 2).sin()) for i in range(count)]


def test_the_frames_own_mouth_does_not_matter() -> None:
    """Two pictures swap places outside of those that were picked: what is shown stays the same."""
    media, track = speaker(talk())
    wanted = PRIOR.neutral + SPREAD * torch.rand(
        COUNT, 3, generator=torch.Generator().manual_seed(2)
    )
    index = torch.arange(COUNT)
    found = match_references(media, track, wanted, SPREAD, length=COUNT, index=index, most=6)
    assert found is not None and len(found.patches) == 6 and len(found.index) == COUNT
    assert found.dense is not None and track.dense is not None
    picked = pick_frames(track.dense, track.visible, SPREAD, 6)
    others = [i for i in range(COUNT) if i not in picked.tolist()]
    dense = track.dense.clone()
    dense[others, : OUTER_LIPS.stop] = track.dense[list(reversed(others)), : OUTER_LIPS.stop]
    again = match_references(
        media, replace(track, dense=dense), wanted, SPREAD, length=COUNT, index=index, most=6
    )
    assert again is not None and torch.equal(again.index, found.index)


def test_without_landmarks_each_frame_is_its_own_picture() -> None:
    media, track = speaker(talk())
    wanted, index = PRIOR.neutral.expand(COUNT, -1), torch.arange(COUNT)
    for other in (replace(track, dense=None), replace(track, dense=torch.zeros(COUNT, 68, 2))):
        assert match_references(media, other, wanted, SPREAD, length=COUNT, index=index) is None
    photo = ImageClip(media.pixels[:1], FPS)
    assert match_references(photo, track, wanted, SPREAD, length=1, index=index) is None


def test_a_person_who_is_away_is_matched_in_each_stretch_alone() -> None:
    media, track = speaker(talk())
    track.visible[15:20] = False
    wanted = PRIOR.neutral + SPREAD * torch.rand(
        COUNT, 3, generator=torch.Generator().manual_seed(3)
    )
    found = match_references(
        media, track, wanted, SPREAD, length=COUNT, index=torch.arange(COUNT), most=8
    )
    assert found is not None
    first, second = set(found.index[:15].tolist()), set(found.index[20:].tolist())
    assert first and second and max(first) < min(second)


@pytest.mark.parametrize("reference", ["auto", "current", "first", "nearest-closed"])
def test_looks_follow_what_is_heard_where_lips_are_moved(reference: str) -> None:
    media, track = speaker(talk())
    sync = LipSync(lip_warp(), blend=Blend(), precision="float32")
    told: list[tuple[str, int, int]] = []
    log = RunLog(logging.getLogger("test"), lambda *stage: told.append(stage))
    sounds = [
        Audio(0.3 * torch.randn(1, 25600, generator=torch.Generator().manual_seed(i)), 16000)
        for i in (0, 1)
    ]

    def looks(*heard: Audio, silence: str = "generate"):
        audio = read_audio_inputs(heard, sync.config.features.rate, warn=log.warn)
        options = PlanOptions(silence=silence, reference=reference)  # type: ignore[arg-type]
        beside = replace(track, boxes=track.boxes + 500, points=track.points + 500)
        people, speakers = ([track, beside], COUNT), Speakers([track, beside])
        plan = plan_dub(media, audio, speakers, sync, options, people=people, log=log)
        assert len(plan.frame_order) == COUNT
        return [face.references for face in plan.faces]

    own = looks(*sounds)
    assert len(own) == 2
    if reference == "current":
        assert own == [None, None]
        return
    assert all(look is not None and len(look.index) == COUNT for look in own)
    assert told[-1][0] == "find references" and told[-1][1] == told[-1][2]
    if reference == "auto":
        one = looks(sounds[1])
        assert own[1] is not None and one[0] is not None and one[1] is not None
        assert torch.equal(own[1].index, one[0].index) and torch.equal(one[0].index, one[1].index)
        closes = looks(sounds[1], silence="close")
        assert closes[0] is not None and torch.equal(closes[0].index, one[0].index)


def test_auto_is_for_models_that_move_lips() -> None:
    moving, drawing = lip_warp(), Generator(MINI)
    assert (
        choose_reference("auto", "generate", moving) == "auto"
        and choose_reference("auto", "close", moving) == "auto"
    )
    assert choose_reference("current", "close", moving) == "current"
    assert (
        choose_reference("auto", "generate", drawing)
        == choose_reference("current", "keep", drawing)
        == "current"
    )
    assert (
        choose_reference("auto", "close", drawing)
        == choose_reference("current", "close", drawing)
        == "nearest-closed"
    )
    assert choose_reference("first", "close", drawing) == "first"
