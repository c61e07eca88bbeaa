"""Thin networks for the runs of recipes: the scripts are the same, and a step takes a tenth."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from helpers.recipes import saved, thin

from lipsync_core.models.sync_expert import SyncExpert
from train import distil, expert, finetune, mini, wav2lip


@pytest.fixture
def thin_networks() -> Iterator[None]:
    """Every recipe of a generator or an expert has an eighth of the channels."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in {
            distil: ("MINI",),
            finetune: ("PATCH_CRITIC",),
            mini: ("MINI", "PATCH_CRITIC"),
            wav2lip: ("MINI", "WAV2LIP_DISCRIMINATOR"),
        }.items():
            for name in names:
                patch.setattr(module, name, thin(getattr(module, name)))
        patch.setitem(expert.NETWORKS, "teacher", thin(expert.TEACHER))
        yield


@pytest.fixture(scope="session")
def thin_judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untaught expert of five frames."""
    torch.manual_seed(1)
    return saved(
        SyncExpert(thin(expert.JUDGE)), tmp_path_factory.mktemp("judge") / "judge.safetensors"
    )


@pytest.fixture(scope="session")
def thin_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untaught expert of three frames whose cosine is never negative; its audio encoder has the
    shape of the thin `mini-2`'s."""
    torch.manual_seed(0)
    return saved(
        SyncExpert(replace(thin(expert.TEACHER), projection=0, window=3)),
        tmp_path_factory.mktemp("expert") / "expert.safetensors",
    )
