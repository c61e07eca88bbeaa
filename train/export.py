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
from lipsync_core.training.settings import load_settings, read_recipe
from train.harness import print_line, run_command

RECIPES = {
    "distil": "train.distil",
    "expert": "train.expert",
    "finetune": "train.finetune",
    "lipgan": "train.baselines.lipgan",
    "mini": "train.mini",
    "speech2vid": "train.baselines.speech2vid",
    "speech_lips": "train.speech_lips",
    "wav2lip": "train.wav2lip",
}


def network_of(state: Path) -> nn.Module:
    """Load the network of a run's checkpoint: the average that was validated.

    Args:
        state: last.pt or best.pt in a run's folder. Runs begun before settings.json named its
            recipe are tried with each.

    Raises:
        TrainingError: If the folder holds no run of a known recipe.
    """
    name = read_recipe(state.parent)
    for module in RECIPES.values() if name not in RECIPES else [RECIPES[name]]:
        recipe = importlib.import_module(module).RECIPE
        try:
            load_settings(state.parent, recipe.settings)
        except TrainingError:
            continue
        return recipe.load_trained(state)
    raise TrainingError(f"{state.parent} is the folder of no run of {', '.join(RECIPES)}")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
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
    print_line(
        f"{args.out}: step {load_state(args.state, {}).step}, {args.out.stat().st_size / 1e6:.2f} "
        "MB"
    )


if __name__ == "__main__":
    run_command(main)
