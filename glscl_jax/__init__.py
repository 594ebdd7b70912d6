"""GLSCL text-video retrieval in JAX and Flax."""

import os

from glscl_jax.runtime import import_order
from glscl_jax.version import __version__

import_order.keep()

# Flax imports TensorFlow where it is installed, and that greets on standard error with what it was
# compiled for. Here it only reads and decodes; its errors come as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    # On first use: importing the package alone is to cost nothing.
    if name == "load":
        from glscl_jax.retriever import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
