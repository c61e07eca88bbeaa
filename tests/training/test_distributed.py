"""Two processes on the CPU against one with twice the batch."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lipsync_core.training.distributed import World, join_processes
from lipsync_core.training.losses import contrastive, cosine_bce
from lipsync_core.training.optim import step_optimizer

CLIPS, WINDOWS, STEPS = 6, 5, 4


def tower(channels: int, norm: bool) -> nn.Sequential:
    """A bias before a batch norm has no gradient but rounding, which Adam would blow up."""
    return nn.Sequential(
        nn.Linear(channels, 16, bias=not norm),
        nn.BatchNorm1d(16) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Linear(16, 6),
    )


class Towers(nn.Module):
    """Embeds sounds (N,7) and lips (N,9); with batch norm or without, and with the temperature
    among the parameters."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.audio, self.video = tower(7, norm), tower(9, norm)
        self.log_temperature = nn.Parameter(torch.tensor(-1.5))

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embed = nn.functional.normalize
        return embed(self.audio(audio)), embed(self.video(video)), self.log_temperature.exp()


def towers(norm: bool) -> Towers:
    torch.manual_seed(5)
    return Towers(norm=norm)


def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    audio, video = (
        torch.randn(CLIPS, WINDOWS, 7, generator=rng),
        torch.randn(CLIPS, WINDOWS, 9, generator=rng),
    )
    return audio, video, torch.randint(0, 12, (CLIPS, WINDOWS), generator=rng)


def verdict(audio: Tensor, video: Tensor, starts: Tensor, temperature: Tensor, kind: str) -> Tensor:
    if kind == "bce":  # a mean over samples needs no other process's
        labels = (starts % 2).flatten().float()
        return cosine_bce(audio.flatten(0, 1), video.flatten(0, 1), labels) + 0 * temperature
    return contrastive(audio, video, starts, temperature, among="batch")


def optimiser_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01)


def learn(world: World, model: Towers, kind: str) -> list[float]:
    """A few steps of this rank's part of the batch: its clips."""
    optimiser, together, losses = optimiser_of(model), world.wrap(model), []
    for step in range(STEPS):
        audio, video, starts = (x.chunk(world.size)[world.rank] for x in batch(step))
        k, w = starts.shape
        sounds, lips, temperature = together(audio.flatten(0, 1), video.flatten(0, 1))
        sounds, lips = sounds.view(k, w, -1), lips.view(k, w, -1)
        if kind == "contrastive":
            sounds, lips, starts = (world.gather(x) for x in (sounds, lips, starts))
        loss = verdict(sounds, lips, starts, temperature, kind)
        step_optimizer(loss, optimiser, rate=0.01, clip_norm=0.5)
        losses.append(loss.item())
    return losses


def learn_by_halves(model: Towers) -> None:
    """One process that takes the statistics of its batch norms per half of the batch."""
    optimiser = optimiser_of(model)
    for step in range(STEPS):
        audio, video, starts = batch(step)
        halves = [
            model(a.flatten(0, 1), v.flatten(0, 1))
            for a, v in zip(audio.chunk(2), video.chunk(2), strict=True)
        ]
        sounds, lips = (
            torch.cat([half[i] for half in halves]).view(CLIPS, WINDOWS, -1) for i in (0, 1)
        )
        step_optimizer(
            verdict(sounds, lips, starts, halves[0][2], "contrastive"),
            optimiser,
            rate=0.01,
            clip_norm=0.5,
        )


def one_of_two(rank: int, port: int, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "USE_LIBUV": "0"}
    with join_processes("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (rank, 2, rank == 0)
        found = {}
        for kind, norm in (("contrastive", False), ("bce", False), ("contrastive", True)):
            model = towers(norm)
            losses = learn(world, model, kind)
            found[f"{kind}{norm}"] = {"losses": losses, "state": model.state_dict()}
        assert world.any(rank == 1) and not world.any(False)
        assert world.gather(torch.tensor([rank])).tolist() == [0, 1]
        torch.save(found, out / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes ended with."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, out), nprocs=2)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", ["contrastive", "bce"])
def test_two_processes_equal_one_with_twice_the_batch(two: list[dict], kind: str) -> None:
    model = towers(norm=False)
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    losses = learn(World(), model, kind)
    for name, value in model.state_dict().items():
        for rank in range(2):
            torch.testing.assert_close(
                two[rank][f"{kind}False"]["state"][name], value, atol=1e-5, rtol=0
            )
    learnt = [
        name
        for name, value in model.state_dict().items()
        if float((value - begun[name]).abs().max()) > 1e-3
    ]
    assert {"audio.0.weight", "audio.3.weight", "video.0.weight", "video.3.weight"} <= set(learnt)
    mean = (
        torch.tensor(two[0][f"{kind}False"]["losses"])
        + torch.tensor(two[1][f"{kind}False"]["losses"])
    ) / 2
    torch.testing.assert_close(mean, torch.tensor(losses), atol=1e-5, rtol=0)


def test_batch_norms_take_their_statistics_per_process_on_cpus(two: list[dict]) -> None:
    whole, halves = towers(norm=True), towers(norm=True)
    learn(World(), whole, "contrastive")
    learn_by_halves(halves)
    states = [two[rank]["contrastiveTrue"]["state"] for rank in range(2)]
    differs = False
    for name, parameter in halves.named_parameters():
        for state in states:
            torch.testing.assert_close(state[name], parameter.detach(), atol=1e-5, rtol=0)
        differs |= bool((dict(whole.named_parameters())[name] - parameter).abs().max() > 1e-4)
    assert differs  # or this shows nothing


def test_alone_nothing_is_wrapped() -> None:
    with join_processes("cpu") as world:
        assert world == World()
        x, model = torch.ones(2, requires_grad=True), nn.Linear(1, 1)
        assert (
            world.gather(x) is x
            and world.wrap(model) is model
            and world.any(True)
            and not world.any(False)
        )
