"""Weights in and out: PyTorch names and layouts to Flax paths, and back."""

import glscl_jax  # noqa: F401  Before any other library: it keeps their order (import_order).
