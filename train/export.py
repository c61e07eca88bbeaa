"""A training run -> the file that ships.

python -m train.export RUN/best.pt mine.safetensors
"""

import argparse
import importlib
from pathlib import Path

import torch
from torch import nn

from lipsync_core.errors import TrainingError
from lipsync_core.models.weights import save_model
from lipsync_core.training.checkpoints import load_state
from lipsync_core.training.settings import kept_settings
from train.recipe import ended, say

RECIPES = ("distil", "expert", "finetune", "lipgan", "mini", "speech2vid", "wav2lip")


def network_of(state: Path) -> nn.Module:
    """The network of a run's checkpoint, whichever recipe made it: the average that was judged.
    TrainingError for a checkpoint of none of them."""
    for name in RECIPES:
        recipe = importlib.import_module(f"train.{name}")
        try:
            kept_settings(state.parent, recipe.Settings)
        except TrainingError:
            continue
        return recipe.trained(state)
    raise TrainingError(f"{state.parent} is the folder of no run of {', '.join(RECIPES)}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("state", type=Path, help="last.pt or best.pt in the run's folder")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--licence", default="not stated", help="of the weights: the data, and who taught, decide"
    )
    parser.add_argument(
        "--source", default="a run of lipsync_core's recipes", help="who made them, of what"
    )
    args = parser.parse_args(argv)
    model = network_of(args.state)
    save_model(model, args.out, licence=args.licence, source=args.source, dtype=torch.float16)
    say(
        f"{args.out}: step {load_state(args.state, {}).step}, {args.out.stat().st_size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    ended(main)
