"""What training draws, how it judges, and that a run resumes where it stopped."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipsync_core.audio.features import CepstrumFeatures, MelFeatures, log_mel, mel_windows
from lipsync_core.errors import LipSyncError
from lipsync_core.models.layers import Stage
from lipsync_core.models.precision import has_bfloat16_units
from lipsync_core.models.sync_expert import SyncExpert, SyncExpertConfig
from lipsync_core.training.augment import degrade, disguise, disturb, grimace, recolor, warp_grid
from lipsync_core.training.clips import FPS, Clip, load_clips, speaker_weights
from lipsync_core.training.losses import (
    contrastive,
    cosine_bce,
    discriminator_loss,
    mouth,
    perceptual_loss,
    shift_loss,
    slopes,
    sync_loss,
)
from lipsync_core.training.shards import ShardWriter
from lipsync_core.training.sync_eval import (
    crop_center,
    draw_pairs,
    embed,
    remove_margin,
    score_expert_on_clips,
)
from lipsync_core.types import Audio


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sound(seconds: float, seed: int = 0) -> Tensor:
    return torch.randn(round(16000 * seconds), generator=rng(seed)) * 0.1


def clip(count: int, *, speaker: str = "a", first: int = 0, seconds: float = 4) -> Clip:
    faces = np.random.default_rng(count).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return Clip(
        f"{speaker}{count}", speaker, faces, log_mel(Audio(sound(seconds)[None], 16000)), first
    )


def test_a_clip_s_windows_are_the_pipeline_s() -> None:
    audio = Audio(sound(4)[None], 16000)
    for lead in (0, 40, 80):
        wanted = mel_windows(audio, FPS, 0, 100, features=MelFeatures(lead_ms=lead))
        assert torch.equal(clip(100).mels(list(range(100)), lead_ms=lead), wanted)
    assert torch.equal(clip(50, first=30).mels([0, 7, 3]), clip(100).mels([30, 37, 33]))


def test_clips_are_read_with_their_offset_mended(tmp_path: Path) -> None:
    """A clip whose sound is early by 5 frames (3200 samples, 16 columns) is paired so that sound
    and lips agree."""
    wave = sound(6)
    # what belongs to frame i sounds at frame i - 5
    early = torch.cat([wave[3200:], torch.zeros(3200)])
    with ShardWriter(tmp_path) as writer:
        for name, samples, offset in (("right", wave, 0), ("early", early, 5)):
            mel = log_mel(Audio(samples[None], 16000)).T.numpy()
            arrays = {"faces": np.zeros((100, 12, 12, 3), np.uint8), "mel": mel}
            writer.add(name, speaker=name, facts={"first": -offset}, arrays=arrays)
    fixed, right = load_clips(tmp_path)
    assert (fixed.name, right.name) == ("early", "right")
    frames = list(range(10, 90))
    torch.testing.assert_close(fixed.mels(frames), right.mels(frames), atol=1e-5, rtol=0)


def test_frames_are_planar_and_halves_do_not_meet(tmp_path: Path) -> None:
    one = clip(20)
    assert torch.equal(one.frames(5, 3), torch.from_numpy(one.faces[5:8]).permute(0, 3, 1, 2))
    mel = log_mel(Audio(sound(1)[None], 16000)).T.numpy()
    with ShardWriter(tmp_path) as writer:
        for name, speaker in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")):
            count = 6 if name == "c1" else 41
            faces = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
            writer.add(
                name, speaker=speaker, facts={"first": 0}, arrays={"faces": faces, "mel": mel}
            )
    halves = [
        {(c.name, int(f)) for c in load_clips(tmp_path, half=h) for f in c.faces[:, 0, 0, 0]}
        for h in (0, 1)
    ]
    everything = {(c.name, int(f)) for c in load_clips(tmp_path) for f in c.faces[:, 0, 0, 0]}
    assert halves[0].isdisjoint(halves[1]) and halves[0] | halves[1] == everything
    assert all({name[0] for name, _ in half} == {"a", "b"} for half in halves)  # c is too short
    (second,) = (c for c in load_clips(tmp_path, half=1) if c.name == "b1")
    assert second.first == int(second.faces[0, 0, 0, 0]) == 20  # its sound moved along


def test_speakers_with_hours_do_not_drown_the_others() -> None:
    clips = [clip(300, speaker="long"), clip(100, speaker="long"), clip(100, speaker="short")]
    weights = speaker_weights(clips, power=0.5)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(3)  # within a speaker by length
    assert (weights[0] + weights[1]) / weights[2] == pytest.approx(2)  # (400 / 100) ** 0.5


def test_one_warp_for_all_frames_of_a_clip() -> None:
    grid = warp_grid(4, 96, 128, rng())
    assert grid.shape == (4, 96, 96, 2)
    assert float(grid.abs().max()) < 1.02  # the crop stays within its margin
    plain = warp_grid(64, 96, 96, rng(), strength=0)
    axis = (torch.arange(96) + 0.5) / 96 * 2 - 1
    mirrored = plain[:, 0, 0, 0] > 0
    assert 10 < int(mirrored.sum()) < 54
    for grid, mirror in zip(plain, mirrored, strict=True):
        torch.testing.assert_close(grid[..., 0], (-axis if mirror else axis).expand(96, 96))
        torch.testing.assert_close(grid[..., 1], axis[:, None].expand(96, 96))


def test_one_colour_for_all_frames_of_a_clip() -> None:
    faces = torch.rand(3, 1, 3, 16, 16, generator=rng()).expand(-1, 4, -1, -1, -1)
    got = recolor(faces, rng(1))
    assert got.shape == faces.shape and float(got.min()) >= 0 and float(got.max()) <= 1
    torch.testing.assert_close(got, got[:, :1].expand_as(got))
    assert torch.equal(got, recolor(faces, rng(1))) and not torch.equal(got, recolor(faces, rng(2)))
    assert all(float((got[i] - faces[i]).abs().mean()) > 0.01 for i in range(3))


def test_a_grimace_moves_the_mouth_and_nothing_far_from_it() -> None:
    still = warp_grid(2, 96, 96, rng(), strength=0).repeat_interleave(7, 0)
    moved = grimace(still, 7, rng(1)).view(2, 7, 96, 96, 2)
    off = (moved - still.view_as(moved)).norm(dim=-1) * 48  # px
    assert off[:, :, 65].amax() > 1 and off.amax() < 12
    assert off[:, :, :24].amax() < 0.5
    assert (moved[:, 1:] - moved[:, :-1]).abs().amax() > 0  # it goes on moving
    assert torch.equal(moved, grimace(still, 7, rng(1)).view_as(moved))


def test_degrading_keeps_shape_and_range() -> None:
    faces = torch.rand(12, 2, 3, 24, 30, generator=rng())
    before = faces.clone()
    got = degrade(faces, rng(1))
    assert got.shape == faces.shape and float(got.min()) >= 0 and float(got.max()) <= 1
    assert torch.equal(faces, before)
    changed = [not torch.equal(a, b) for a, b in zip(got, faces, strict=True)]
    assert any(changed) and not all(changed)


def test_disturbed_faces_change_as_one_clip_and_can_be_learnt_through() -> None:
    faces = (
        torch.rand(6, 1, 3, 24, 24, generator=rng())
        .expand(-1, 3, -1, -1, -1)
        .clone()
        .requires_grad_()
    )
    got = disturb(faces, rng(1))
    assert got.shape == faces.shape and bool(((got >= 0) & (got <= 1)).all())
    assert torch.equal(got, disturb(faces, rng(1)))
    off = (got - faces).detach().abs().mean((1, 2, 3, 4))
    assert float(off.min()) > 0.02  # no clip is shown as it is
    # but for noise, its frames are treated alike
    assert float((got - got[:, :1]).detach().abs().mean()) < 0.02
    (gradient,) = torch.autograd.grad(got.sum(), faces)
    assert bool(gradient.any((2, 3, 4)).all())


def test_one_voice_for_all_windows_of_a_clip() -> None:
    mels = torch.rand(3, 1, 1, 80, 16, generator=rng()).expand(-1, 5, -1, -1, -1) * 4 - 2
    got = disguise(mels, rng(1))
    assert got.shape == mels.shape and float(got.min()) >= -4 and float(got.max()) <= 4
    assert torch.equal(got, disguise(mels, rng(1)))
    # only the noise floor differs between the windows of a clip
    assert float((got - got[:, :1]).abs().mean()) < 0.2 < float((got - mels).abs().mean())


TINY = SyncExpertConfig(
    face=(Stage(8, stride=(2, 2)), Stage(8, stride=(2, 2)), Stage(8, 3, stride=(2, 2))),
    audio=(Stage(8, stride=(4, 2)), Stage(8, stride=(4, 2))),
    size=16,
    projection=6,
)


class Towers(SyncExpert):
    """A small expert whose towers end in means, so that any input size does."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.face_encoder.append(nn.AdaptiveAvgPool2d(1))
        self.audio_encoder.append(nn.AdaptiveAvgPool2d(1))


def test_embedding_in_batches_covers_every_window() -> None:
    torch.manual_seed(0)
    model = Towers().eval()
    faces, mels = (
        torch.rand(20, 3, 16, 16, generator=rng()),
        torch.rand(20, 1, 80, 16, generator=rng(1)) * 8 - 4,
    )
    audio, video = embed(model, faces, mels, batch=5)
    assert audio.shape == video.shape == (16, 6)
    with torch.inference_mode():
        one = model.embed_video(faces[None, 3:8])
    # embed runs in bfloat16 where there are units for it
    near = 0.03 if has_bfloat16_units(faces.device) else 1e-5
    torch.testing.assert_close(video[3:4], one, atol=near, rtol=0)
    torch.testing.assert_close(video.norm(dim=1), torch.ones(16))


def test_the_middle_of_a_crop() -> None:
    crops = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    crops[..., 3:9, 3:9] = 255
    assert torch.equal(crop_center(crops, 6), torch.ones(1, 3, 6, 6))


def test_crops_of_any_side_are_shown_without_their_margin() -> None:
    crops = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8, generator=rng())
    assert torch.equal(remove_margin(crops, 96), crop_center(crops, 96))
    assert remove_margin(crops, 64).shape == (2, 3, 64, 64)
    torch.testing.assert_close(
        remove_margin(crops, 48).mean(), crop_center(crops, 96).mean(), atol=2e-3, rtol=0
    )


def test_held_out_figures_know_a_good_expert_from_a_blind_one() -> None:
    """An expert that reads the number of the frame, written into sound and pictures, is
    always right."""

    class Reader(Towers):
        def embed_audio(self, mel: Tensor) -> Tensor:
            return self.vector(mel[:, 0, 0, 0] + 4)

        def embed_video(self, faces: Tensor) -> Tensor:
            return self.vector(faces[:, 0, 0, 0, 0] * 255 / 20)

        def vector(self, number: Tensor) -> Tensor:
            angle = number.float()[:, None] * torch.arange(1, 20) / 2
            return nn.functional.normalize(
                torch.cat([angle.cos(), angle.sin(), torch.ones_like(angle)], 1), dim=1
            )

    class Blind(Reader):
        def vector(self, number: Tensor) -> Tensor:
            return nn.functional.normalize(torch.ones(len(number), 3), dim=1)

    faces = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 28, 28, 3))
    mel = torch.zeros(80, 400)
    starts = [16 * f // 5 for f in range(60)]  # 3.2 columns a frame
    mel[0, starts] = torch.arange(60) / 20 - 4
    clips = [Clip("one", "a", faces, mel), Clip("two", "b", faces, mel)]
    good, blind = (
        score_expert_on_clips(Reader(), clips, apart=5),
        score_expert_on_clips(Blind(), clips, apart=5),
    )
    assert good["within_one"] == good["off_sync"] == 1 and good["confidence"] > 0.3
    assert blind["off_sync"] == 0 and blind["confidence"] < 1e-3 and blind["bce"] > good["bce"]


def test_the_contrastive_loss_prefers_the_right_pairing() -> None:
    audio = nn.functional.normalize(torch.randn(2, 6, 32, generator=rng()), dim=2)
    starts = torch.arange(0, 60, 10).expand(2, -1)
    temperature = torch.tensor(0.07)
    right = contrastive(audio, audio, starts, temperature)
    wrong = contrastive(audio, audio.roll(1, 1), starts, temperature)
    assert float(right) < 0.01 and float(wrong) > 5
    nothing = contrastive(torch.zeros(2, 6, 32), torch.zeros(2, 6, 32), starts, temperature)
    assert float(nothing) == pytest.approx(math.log(6), abs=1e-5)


def test_the_contrastive_loss_stays_within_a_clip_and_leaves_neighbours_out() -> None:
    """A rival one frame off is neither right nor wrong: it may be the very same window."""
    audio = torch.eye(4)[None].clone()
    video = audio.clone()
    video[0, 1] = video[0, 0]  # the second window's lips look like the first's
    near, far = torch.tensor([[0, 1, 20, 30]]), torch.tensor([[0, 10, 20, 30]])
    temperature = torch.tensor(0.1)
    assert contrastive(audio, video, near, temperature) < contrastive(
        audio, video, far, temperature
    )
    assert torch.isfinite(contrastive(audio, video, near, temperature))
    twins = contrastive(
        audio.expand(2, -1, -1), audio.expand(2, -1, -1), far.expand(2, -1), temperature
    )
    alone = contrastive(audio, audio, far, temperature)
    torch.testing.assert_close(twins, alone)  # a second clip with the same sounds is no rival


def test_rivals_may_come_from_the_whole_batch() -> None:
    audio = nn.functional.normalize(torch.randn(3, 4, 32, generator=rng()), dim=2)
    video = nn.functional.normalize(audio + 0.5 * torch.randn(3, 4, 32, generator=rng(1)), dim=2)
    starts, temperature = torch.tensor([[0, 1, 20, 30]] * 3), torch.tensor(0.1)
    got = contrastive(audio, video, starts, temperature, among="batch")
    logits = (video.flatten(0, 1) @ audio.flatten(0, 1).T) / 0.1
    # neighbours in a clip are neither right nor wrong, other clips' windows are wrong
    for clip in range(3):
        logits[4 * clip, 4 * clip + 1] = logits[4 * clip + 1, 4 * clip] = -torch.inf
    wanted = (logits.logsumexp(0) + logits.logsumexp(1) - 2 * logits.diagonal()).mean() / 2
    torch.testing.assert_close(got, wanted)


def test_the_shift_loss_is_the_cross_entropy_over_shifts() -> None:
    """Against the sum written out: three windows, four shifts to each side, of which those of one
    frame do not count."""
    heard = nn.functional.normalize(torch.randn(2, 3 + 8, 5, generator=rng()), dim=2)
    video = nn.functional.normalize(torch.randn(2, 3, 5, generator=rng(1)), dim=2)
    got = shift_loss(video, heard, apart=2, temperature=0.2)
    for k in range(2):
        logits = [float((video[k] * heard[k, s : s + 3]).sum(1).mean()) / 0.2 for s in range(9)]
        rivals = [logits[s] for s in range(9) if abs(s - 4) != 1]
        assert float(got[k]) == pytest.approx(
            math.log(sum(map(math.exp, rivals))) - logits[4], abs=1e-5
        )
    # lips that say what is heard
    assert float(shift_loss(heard[:, 4:7], heard, apart=2).max()) < 0.05
    # or what is said two frames later
    assert float(shift_loss(heard[:, 2:5], heard, apart=2).min()) > 2


def test_slopes_are_mean_differences_of_neighbours() -> None:
    # 2 a row down, -3 a column across
    ramp = torch.arange(4.0)[:, None] * 2 + torch.arange(5.0) * -3
    assert float(slopes(ramp.expand(2, 3, 4, 5))) == 5
    assert float(slopes(torch.full((1, 4, 4), 7.0))) == 0


def test_the_mouth_lies_inside_the_lower_half() -> None:
    at = mouth(96)
    assert at.shape == (1, 1, 48, 96) and float(at.min()) == 0 and float(at.max()) == 1
    torch.testing.assert_close(at, at.flip(3))
    assert (
        float(at[..., -8:, :].max()) == float(at[..., :20].max()) == 0
        and float(at[..., 0, :].max()) < 0.11
    )
    row = int(at[0, 0, :, 48].nonzero().float().mean().round()) + 48
    assert 64 <= row <= 70  # 70 % down an aligned crop
    torch.testing.assert_close(
        mouth(192).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)), at, atol=0.03, rtol=0
    )


def test_pairs_are_right_half_of_the_time_and_wrong_ones_lie_apart() -> None:
    starts = torch.arange(0, 40, 4).expand(200, -1)
    index, labels = draw_pairs(starts, rng(), apart=7)
    off = (starts.gather(1, index) - starts).abs()
    assert ((off == 0) == (labels == 1)).all() and off[labels == 0].min() == 8
    assert 0.45 < float(labels.mean()) < 0.55
    # every one of them is drawn
    assert set(index[labels[:, 5] == 0, 5].tolist()) == {0, 1, 2, 3, 7, 8, 9}
    crowded, certain = draw_pairs(torch.tensor([[0, 1, 2]]), rng(), apart=7)  # none lies so far
    assert crowded.tolist() == [[0, 1, 2]] and certain.tolist() == [[1, 1, 1]]
    assert torch.equal(index, draw_pairs(starts, rng(), apart=7)[0])


def test_the_cosine_is_clamped() -> None:
    one, other = torch.tensor([[3.0, 4.0]]) * 1.1, torch.tensor([[-3.0, -4.0]])
    assert float(sync_loss(one, one)) < 1e-6
    assert float(sync_loss(one, other)) == 100  # torch clamps the logarithm of 0 at -100
    assert float(cosine_bce(one, other, torch.zeros(1))) == 0
    wanted = -math.log(0.6)
    assert float(
        cosine_bce(torch.tensor([[1.0, 0]]), torch.tensor([[0.6, 0.8]]), torch.ones(1))
    ) == pytest.approx(wanted)


def test_the_discriminator_s_losses() -> None:
    real, fake = torch.tensor([[0.9], [0.8]]), torch.tensor([[0.3]])
    got = {name: float(v) for name, v in discriminator_loss(real, fake).items()}
    assert got == pytest.approx(
        {"real": -(math.log(0.9) + math.log(0.8)) / 2, "fake": -math.log(0.7)}
    )
    assert float(perceptual_loss(fake)) == pytest.approx(-math.log(0.3))


def test_a_clip_gives_every_network_what_it_hears() -> None:
    """From the sound of the shards as from the whole sound, a frame's sound being where the clip's
    offset says."""
    wave = (sound(6) * 32768).round().clamp(-32768, 32767)
    audio = Audio(wave[None] / 32768, 16000)
    faces = np.zeros((60, 12, 12, 3), np.uint8)
    one = Clip("a", "a", faces, log_mel(audio), 40, wave.to(torch.int16).numpy())
    for features in (MelFeatures(lead_ms=80), CepstrumFeatures(), MelFeatures(bands=40)):
        wanted = features.windows(audio, FPS, 70, 5)
        torch.testing.assert_close(one.windows(features, 30, 5), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(LipSyncError, match="a20 holds no sound at 16000 Hz for CepstrumFeatures"):
        clip(20).windows(CepstrumFeatures(), 0, 5)
