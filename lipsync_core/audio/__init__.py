"""Sound as tensors: resampling and mixing, features of the networks, voice activity."""
