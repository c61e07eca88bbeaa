"""Videos in, shards out: what training reads (``training.shards``), and a report on what was kept
and why."""
