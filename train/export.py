"""Training runs -> the files that ship.

python -m train.export generator RUN/last.pt lipsync_core/assets/mini.safetensors
python -m train.export expert RUN/best.pt lipsync_core/assets/judge.safetensors
"""

import argparse
from pathlib import Path

import torch

from lipsync_core.models.generator import MINI, Generator
from lipsync_core.training.checkpoints import load_state
from lipsync_core.weights import save_model
from train.expert import trained

LICENCE = "Apache-2.0"
SOURCE = "lipsync-core, trained on GRID (CC BY 4.0) and openly licensed clips; see the model card beside this file"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["generator", "expert"])
    parser.add_argument("state", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.kind == "expert":
        model = trained(args.state)
        step = load_state(args.state, {}).step
    else:
        average = torch.optim.swa_utils.AveragedModel(Generator(MINI), use_buffers=True)
        step = load_state(args.state, {"average": average}).step
        model = average.module
    save_model(model, args.out, licence=LICENCE, source=SOURCE, dtype=torch.float16)
    print(f"{args.out}: step {step}, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
