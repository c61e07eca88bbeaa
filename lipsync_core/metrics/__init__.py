"""How good a dubbed clip is: sync and image quality, on tensors."""
