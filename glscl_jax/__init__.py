"""GLSCL text-video retrieval in JAX and Flax."""

import os

# Flax imports TensorFlow where it is installed, and TensorFlow greets with what it was compiled
# for. What it has to say of errors comes as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str):
    # On first use: importing the package alone is to cost nothing.
    if name == "load":
        from glscl_jax.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
