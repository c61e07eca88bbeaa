"""Training: shards of clips, losses, loops, checkpoints and evaluation, for every recipe."""
