"""What held-out figures mean: shown by generators whose work is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.shards import write_noise
from torch import Tensor

from lipsync_core.errors import TrainingError
from lipsync_core.image.affine import Framing
from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.wav2lip import MINI, Generator, init_as_copy
from lipsync_core.training.clips import Clip, load_clips
from lipsync_core.training.sync_eval import remove_margin
from lipsync_core.training.validation import choose_clips, compare_pictures, score_generator
from train.expert_weights import read_expert


class Perfect(Generator):
    """Gives back the frames that it ought to draw."""

    def forward(self, sound: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        return target


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return load_clips(write_noise(tmp_path_factory.mktemp("shards"), train="abc") / "train")


@pytest.fixture(scope="module")
def judge() -> SyncExpert:
    return read_expert("judge")


def test_a_perfect_generator_leaves_nothing_to_gain(clips: list[Clip], judge: SyncExpert) -> None:
    found = score_generator(Perfect(MINI).eval(), clips, judge, teacher=judge)
    figures = found.figures
    assert (
        figures["psnr"] == pytest.approx(100, abs=1e-3)
        and figures["l1"] == 0
        and figures["flicker"] == 0
    )
    assert figures["rebuilt_confidence"] == figures["real"]
    assert found.score == pytest.approx(1 + min(1, figures["confidence"] / figures["real"]))
    assert {name: tuple(x.shape) for name, x in found.pictures.items()} == {
        "faces": (3, 9 * 96, 6 * 96),
        "mouths": (3, 9 * 96, 6 * 96),
    }


def test_one_that_copies_gains_nothing(clips: list[Clip], judge: SyncExpert) -> None:
    """88 % of the reference and 12 % of grey, so noise comes nearer to the truth than the reference
    is; sizes agree with what the formula says of uniform noise: variance 1/12 each."""
    model = init_as_copy(Generator(MINI)).eval()
    found, faces = next(compare_pictures(model, clips, judge))
    share = 1 / (1 + torch.tensor(-2.0).exp())
    wanted = {"copied": torch.tensor(2 / 12), "psnr": (1 + share**2) / 12}
    for name, variance in wanted.items():
        assert found[name] == pytest.approx(float(-10 * variance.log10()), abs=0.1)
    truth = remove_margin(clips[0].frames(0, 41), 96)
    assert torch.equal(faces[0, 0], truth[0]) and torch.equal(
        faces[1, :, :, :48], faces[0, :, :, :48]
    )
    # |a - b| of uniform noise is 1/3
    assert found["flicker"] == pytest.approx(float((share - 1) * 255 / 3), rel=0.03)


class Listening(Perfect):
    """Keeps the sound that it heard."""

    def forward(self, sound: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        self.heard = [*getattr(self, "heard", []), sound]
        return target


def test_a_clip_alone_is_dubbed_with_its_sound_of_half_a_clip_away(
    clips: list[Clip], judge: SyncExpert
) -> None:
    """Copying would otherwise be in sync with the clip's own sound."""
    model = Listening(MINI).eval()
    ((found, _),) = compare_pictures(model, clips[:1], judge)
    # 41 frames, of which 21 belong to the second half
    rebuilt, dubbed = torch.cat(model.heard).chunk(2)
    assert torch.equal(torch.cat([dubbed[20:], dubbed[:20]]), rebuilt) and not torch.equal(
        dubbed, rebuilt
    )
    assert found["rebuilt_confidence"] == found["real"] != found["confidence"]
    short = replace(clips[0], faces=clips[0].faces[:31])
    with pytest.raises(
        TrainingError,
        match=r"a alone is held out and has 31 frames: .* expected 32, or a second clip",
    ):
        choose_clips([short], 3)
    with pytest.raises(TrainingError, match="a alone is held out"):
        next(compare_pictures(model, [short], judge))
    assert len(list(compare_pictures(model, [short], judge, voices=clips[1:]))) == 1
    with pytest.raises(TrainingError, match="0 clips would be judged"):
        choose_clips(clips, 0)


def test_the_judge_must_know_such_crops(clips: list[Clip], judge: SyncExpert) -> None:
    boxes = [replace(clip, framing=Framing("box")) for clip in clips]
    with pytest.raises(
        TrainingError, match="the shards hold box crops, the judge wants aligned ones"
    ):
        next(compare_pictures(Perfect(MINI), boxes, judge))


def test_clips_are_chosen_speaker_by_speaker(tmp_path: Path, clips: list[Clip]) -> None:
    a, b, _ = clips
    twice = replace(a, name="a2")
    assert [clip.name for clip in choose_clips([a, twice, b], 2)] == ["a", "b"]
    assert [clip.name for clip in choose_clips([a, twice, b], 9)] == ["a", "b", "a2"]
