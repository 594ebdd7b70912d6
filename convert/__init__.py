"""Weights in and out: PyTorch names and layouts to Flax paths, and back."""
