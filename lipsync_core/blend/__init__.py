"""Blending of generated mouths into frames; tensors only."""
