"""Train an expert and a generator for a few steps, to see that every part of training works.

    python -m train.prepare VIDEOS SHARDS
    python -m examples.train_tiny SHARDS OUT [STEPS]

With two steps the weights are useless. Real settings are in ``train/configs``; see
``train/README.md``.
"""

import sys
from pathlib import Path

from train import expert, export, wav2lip

# Small networks, few windows per step. What is left out has the default of the recipe's Settings.
EXPERT = """
network = "teacher"
projection = false
window = 3
contrastive_steps = 1
clips = 2
windows = 2
stretch = 6
"""
GENERATOR = """
network = "mini"
windows = 2
"""
PLAN = """
[plan]
steps = {steps}
save_every = {steps}
evaluate_every = {steps}
report_every = 1
tensorboard = false
"""


def main(shards: str, out: str, steps: str = "2") -> None:
    """Train with the clips of ``shards``, and write ``out/tiny.safetensors``."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, settings in (("expert", EXPERT), ("generator", GENERATOR)):
        text = settings + PLAN.format(steps=steps)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    # 1. An expert learns which sound belongs to which lips.
    expert.main([str(folder / "expert.toml"), shards, str(folder / "expert")])
    # 2. A generator learns to draw lips that the frozen expert finds in sync.
    judged_by = ["--expert", str(folder / "expert" / "last.pt")]
    wav2lip.main([str(folder / "generator.toml"), shards, str(folder / "generator"), *judged_by])
    # 3. Its weights become a file that `lipsync dub --model` takes.
    export.main([str(folder / "generator" / "last.pt"), str(folder / "tiny.safetensors")])


if __name__ == "__main__":
    main(*sys.argv[1:])
