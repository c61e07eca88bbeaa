"""Read a frozen lip-sync expert, from a run or from a weights file."""

from pathlib import Path

import torch

from lipsync_core.models.sync_expert import SyncExpert
from lipsync_core.models.weights import load_model
from train import expert
from train.harness import is_run_checkpoint


def read_expert(name: str) -> SyncExpert:
    """Read a frozen expert.

    Args:
        name: a run's checkpoint (RUN/best.pt), a weights file, or a bundled or pulled name.

    Returns:
        The expert in eval mode, without gradients.
    """
    model = (
        expert.RECIPE.load_trained(Path(name))
        if is_run_checkpoint(name)
        else load_model(name, kind="sync_expert")
    )
    assert isinstance(model, SyncExpert)  # load_model has checked the kind
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
