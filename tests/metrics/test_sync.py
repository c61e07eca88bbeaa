"""Scores of planted embeddings: the offset, what a clip can carry, how sure it is, and what is no
verdict."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipsync_core.audio.features import MelFeatures, mel_windows
from lipsync_core.image.affine import Framing
from lipsync_core.metrics.sync import (
    SEARCH,
    SyncMeter,
    embed_audio_windows,
    find_offset,
    offset_curve,
    score_sync,
    score_tracks,
    search_range,
    shift_distances,
)
from lipsync_core.metrics.sync_embedder import ExpertScorer
from lipsync_core.models.sync_expert import WAV2LIP_EXPERT, SyncExpert
from lipsync_core.models.weights import load_model
from lipsync_core.types import Audio, FaceTrack, Frames, SyncScore


def planted(count: int, shift: int, noise: float, seed: int = 601) -> tuple[Tensor, Tensor]:
    """(audio, video) embeddings of a clip whose sound is early by ``shift`` frames."""
    base = np.random.RandomState(seed).standard_normal((count + 80, 256))
    video = base[40 : 40 + count]
    audio = base[40 + shift : 40 + shift + count] + noise * np.random.RandomState(
        7
    ).standard_normal((count, 256))
    return tuple(
        nn.functional.normalize(torch.from_numpy(x).float(), dim=1) for x in (audio, video)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("shift", [0, 3, -4, 15, -15])
def test_a_planted_offset_is_found(shift: int) -> None:
    """Positive: the sound is early, as in the public evaluation (its third case, +3)."""
    curve = offset_curve(*planted(60, shift, 0.5))
    assert curve.shape == (31,)
    offset, confidence = find_offset(curve)
    assert offset == shift and confidence > 0.5
    # its partner lies out of reach
    assert find_offset(offset_curve(*planted(60, 40, 0.5)))[1] < 0.2


def test_short_clips_have_fewer_shifts() -> None:
    curve = offset_curve(*planted(9, 2, 0.1))
    assert int(curve.isnan().sum()) == 31 - 17
    assert find_offset(curve)[0] == 2


@dataclass(frozen=True)
class Planted:
    """A scorer whose vectors are planted: a crop's first pixel is the number of its row in
    ``video``, and the sound's windows are the rows of ``sound``, whatever the samples."""

    video: Tensor
    sound: Tensor
    name: str = "planted"
    fps: Fraction = Fraction(25)
    window: int = 5
    rate: int = 16000
    size: int = 2
    framing: Framing = Framing()

    def embed_video(self, crops: Tensor) -> Tensor:
        return self.video[(crops[: crops.shape[0] - 4, 0, 0, 0] * 1000).round().long()]

    def embed_audio(self, audio: Audio, start: int, count: int) -> Tensor:
        return self.sound[start : start + count]


def crops(count: int, first: int = 0) -> Tensor:
    return ((torch.arange(count) + first) / 1000)[:, None, None, None].expand(-1, 3, 2, 2)


def speech(frames: int, level: float = 0.1) -> Audio:
    noise = torch.randn(1, frames * 640, generator=torch.Generator().manual_seed(0))
    return Audio(level * noise, 16000)


def scored(frames: int, shift: int, noise: float, *, reach: int = 0) -> SyncScore:
    """The score of ``frames`` frames; with ``reach`` the sound goes on that much to both sides of
    them."""
    sound, video = planted(frames - 4 + 2 * reach, shift, noise)
    scorer = Planted(video, sound)
    return score_sync(crops(frames, reach), speech(frames + 2 * reach), scorer, start=reach)


@pytest.mark.parametrize("shift", [0, 3, -4, 10])
def test_score_of_a_planted_clip(shift: int) -> None:
    score = scored(75, shift, 0.5)
    assert (score.offset_frames, score.offset_ms, score.search_frames) == (shift, 40.0 * shift, 15)
    assert score.distance == pytest.approx(float(score.curve.min())) and score.curve.shape == (31,)
    assert score.confidence == pytest.approx(float(score.curve.median() - score.curve.min()))
    # nothing but the rounding to whole frames
    assert score.uncertainty == pytest.approx(12**-0.5, abs=0.05)
    assert score.frame_confidence.shape == (75,) and score.reason is None
    assert float(score.frame_confidence.nanmedian()) == pytest.approx(score.confidence, abs=0.1)


def test_distances_are_of_true_pairs_only() -> None:
    sound, video = planted(20, 0, 0.5)
    found = shift_distances(video, sound, start=0, search=3)
    assert found.isnan().nonzero().tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 0],
        [1, 1],
        [2, 0],
        [17, 6],
        [18, 5],
        [18, 6],
        [19, 4],
        [19, 5],
        [19, 6],
    ]
    assert float(found[5, 1]) == pytest.approx(float((video[5] - sound[3]).norm()), abs=1e-6)
    # beyond a track's own ends the clip's sound is heard
    assert not shift_distances(video[5:15], sound, start=5, search=3).isnan().any()


@pytest.mark.parametrize(
    ("frames", "reach", "search"),
    [(75, 0, 15), (34, 0, 15), (30, 0, 13), (25, 0, 10), (12, 0, 4), (12, 15, 15), (12, 6, 10)],
)
def test_the_search_is_as_wide_as_the_clip_carries(frames: int, reach: int, search: int) -> None:
    windows = frames - 4
    video, sound = torch.zeros(windows, 8), torch.zeros(windows + 2 * reach, 8)
    assert search_range(shift_distances(video, sound, start=reach)) == search


def test_half_a_second_is_enough_when_it_is_clear() -> None:
    score = scored(13, 2, 0.3)
    assert (score.offset_frames, score.search_frames) == (2, 4)


def test_less_than_that_is_no_verdict() -> None:
    score = scored(8, 0, 0.0)
    assert score.offset_frames is None and score.reason is not None and "too short" in score.reason
    assert np.isnan(score.distance) and score.search_frames == 0


def test_short_clips_are_less_sure() -> None:
    errors = [scored(frames, 1, 16.0).uncertainty for frames in (250, 75, 50, 40)]
    assert None not in errors and errors == sorted(errors)  # type: ignore[type-var]
    assert errors[0] < 0.3 and errors[-1] > 2  # type: ignore[operator]


def test_chance_gives_no_verdict_in_nineteen_of_twenty_clips() -> None:
    """Strangers' speech: no offset is planted within the search."""
    verdicts = 0
    for seed in range(100):
        base = torch.from_numpy(np.random.RandomState(seed).standard_normal((2, 80, 64))).float()
        # neighbours alike, as windows that share frames are
        smooth = base.cumsum(1)[:, 5:] - base.cumsum(1)[:, :-5]
        video, sound = nn.functional.normalize(smooth, dim=2)
        score = score_sync(crops(75), speech(75), Planted(video, sound[:71]))
        verdicts += score.offset_frames is not None
    assert verdicts <= 12


def test_silence_and_a_still_face_give_no_verdict() -> None:
    sound, video = planted(71, 0, 0.5)
    silent = score_sync(crops(75), speech(75, level=0), Planted(video, sound[:1].expand(71, -1)))
    assert silent.offset_frames is None and silent.reason == "the sound is silent"
    still = score_sync(crops(75), speech(75), Planted(video[:1].expand(75, -1), sound))
    assert still.offset_frames is None and still.reason is not None and "flat" in still.reason
    assert still.uncertainty is None and still.offset_ms is None


def far(shift: int, *, frames: int = 150, search: int = SEARCH) -> SyncScore:
    """The score of sound that is early by ``shift`` frames, which may be many."""
    base = torch.from_numpy(np.random.RandomState(601).standard_normal((600, 64))).float()
    noise = torch.from_numpy(np.random.RandomState(7).standard_normal((600, 64))).float() / 2
    base, noisy = (nn.functional.normalize(x, dim=1) for x in (base, base + noise))
    video, sound = base[200 : 196 + frames], noisy[200 + shift : 196 + shift + frames]
    return score_sync(crops(frames), speech(frames), Planted(video, sound), search=search)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (14, None),
        (15, "at the edge of ±15 frames (0.6 s): the sound is about 15 frames early"),
        (-16, "beyond ±15 frames (0.6 s): the sound is about 16 frames late"),
        (25, "beyond ±15 frames (0.6 s): the sound is about 25 frames early"),
        (-50, "beyond ±15 frames (0.6 s): the sound is about 50 frames late"),
    ],
)
def test_an_offset_outside_the_search_is_named_and_not_called_flat(
    shift: int, said: str | None
) -> None:
    score = far(shift)
    assert score.offset_frames == (None if said else shift) and score.curve.shape == (31,)
    assert score.reason is None if said is None else score.reason.startswith(said)  # type: ignore[union-attr]


def test_a_wider_search_finds_what_is_further_off() -> None:
    score = far(-50, search=75)
    assert (score.offset_frames, score.search_frames, score.reason) == (-50, 73, None)
    assert far(3, search=75).offset_frames == 3


def test_the_draws_of_a_wide_search_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = far(4, search=50)
    monkeypatch.setattr("lipsync_core.metrics.sync._NUMBERS", 20_000)
    parts = far(4, search=50)
    assert (whole.uncertainty, whole.offset_frames) == (parts.uncertainty, parts.offset_frames)


def test_the_score_does_not_depend_on_the_pieces() -> None:
    sound, video = planted(71, 3, 0.8)
    scorer, audio = Planted(video, sound), speech(75)
    whole = score_sync(crops(75), audio, scorer)
    for size in (1, 2, 7, 32):
        pieces = score_sync(crops(75).split(size), audio, scorer)
        assert torch.equal(pieces.curve, whole.curve)
        assert torch.equal(
            pieces.frame_confidence.nan_to_num(9), whole.frame_confidence.nan_to_num(9)
        )
        assert (pieces.offset_frames, pieces.uncertainty) == (3, whole.uncertainty)


def test_no_window_spans_a_gap() -> None:
    sound, video = planted(96, 2, 0.3)
    meter = SyncMeter(Planted(video, sound), speech(100))
    meter.update(crops(50), 0)
    meter.update(crops(40, 60), 60)
    score = meter.compute()
    assert score.offset_frames == 2 and score.frame_confidence.shape == (100,)
    assert score.frame_confidence.isnan().nonzero()[:, 0].tolist() == [52, 53, 54, 55, 56, 57]


def test_every_track_is_scored_in_one_pass() -> None:
    """Frames whose grey tells their number; two faces, one of them later and with a pause."""
    frames = [
        Frames((torch.arange(i, i + 20) / 1000)[:, None, None, None].expand(-1, 64, 64, 3), i)
        for i in range(0, 80, 20)
    ]
    points = torch.tensor([[20.0, 20], [40, 20], [30, 30], [24, 40], [36, 40]])

    def track(start: int, count: int, away: list[int]) -> FaceTrack:
        visible = torch.ones(count, dtype=torch.bool)
        visible[away] = False
        return FaceTrack(
            torch.tensor([10.0, 10, 50, 50]).expand(count, -1),
            points.expand(count, -1, -1),
            visible,
            start,
        )

    sound, video = planted(76, 4, 0.3)
    scorer, audio = Planted(video, sound), speech(80)
    one, two = score_tracks(
        frames, audio, scorer, tracks=[track(0, 80, []), track(30, 50, [15, 16])]
    )
    assert torch.allclose(one.curve, score_sync(crops(80), audio, scorer).curve)
    assert (one.offset_frames, two.offset_frames) == (4, 4) and two.frame_confidence.shape == (50,)


def test_sound_that_cannot_be_heard_is_refused() -> None:
    scorer = Planted(*planted(10, 0, 0))
    with pytest.raises(ValueError, match=r"0.16 s.*0.2 s"):
        embed_audio_windows(speech(4), scorer)
    with pytest.raises(ValueError, match="16000"):
        embed_audio_windows(Audio(torch.zeros(1, 48000), 48000), scorer)
    with pytest.raises(ValueError, match="search is 1"):
        SyncMeter(scorer, speech(14), search=1)


def test_the_judge_as_a_scorer() -> None:
    """The windows are those that the network was trained on: five frames from k on, and the mel
    window that begins with k."""
    model = load_model("judge")
    assert isinstance(model, SyncExpert)
    faces = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    audio = speech(20)
    with torch.inference_mode():
        video = model.embed_video(torch.stack([faces[k : k + 5] for k in range(4)]))
        sound = model.embed_audio(
            mel_windows(audio, Fraction(25), 3, 4, features=model.config.features)
        )
    scorer = ExpertScorer(model, "judge")
    assert (scorer.fps, scorer.window, scorer.size, scorer.rate, scorer.name) == (
        25,
        5,
        96,
        16000,
        "judge",
    )
    # bfloat16 where the CPU is built for it
    assert torch.allclose(scorer.embed_video(faces), video, atol=0.03)
    assert torch.allclose(scorer.embed_audio(audio, 3, 4), sound, atol=0.03)
    assert embed_audio_windows(audio, scorer).shape == (16, 160)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_experts_of_every_window_look_25_times_a_second(window: int) -> None:
    """200 ms of sound lie around 1, 3 or 5 frames: of three frames, 40 ms of it on either side."""
    config = replace(WAV2LIP_EXPERT, window=window, features=MelFeatures(lead_ms=(5 - window) * 20))
    with torch.device("meta"):
        model = SyncExpert(config).eval()
    assert ExpertScorer(model, "judge").fps == 25
