"""Preparation: videos become shards for training, with a report on what was kept and why."""
