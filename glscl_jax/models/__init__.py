"""Flax Linen modules: no I/O, no TensorFlow."""
