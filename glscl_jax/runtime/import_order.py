"""Triton before TensorFlow: in the other order the process dies of a segmentation fault.

PyTorch's ordinary build for Linux, with CUDA, brings Triton, which PyTorch and transformers import
where they first need a model or a compiler. Its library and TensorFlow's (2.21; Triton 3.7) bear
each other only if Triton's is loaded first. Flax and TensorFlow Datasets import TensorFlow
themselves, so the order is kept where Python imports, whoever asks.

Also: what is not to be imported at all.
"""

import contextlib
import importlib.abc
import sys
from collections.abc import Iterator


class _TritonFirst(importlib.abc.MetaPathFinder):
    """Finds nothing; loads Triton, where it is installed, when TensorFlow is about to be."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "tensorflow" and "triton" not in sys.modules:
            # One that cannot be loaded, for whatever reason, is none of TensorFlow's concern.
            with contextlib.suppress(Exception):
                importlib.import_module("triton")


def keep() -> None:
    """Keeps the order from here on; where TensorFlow came first, Triton is no more imported.

    PyTorch and transformers then do without it, as where it is not installed.
    """
    if sys.modules.get("tensorflow") is not None:
        sys.modules.setdefault("triton", None)
    elif not any(isinstance(finder, _TritonFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TritonFirst())


@contextlib.contextmanager
def absent(name: str) -> Iterator[None]:
    """Imports within are made as if the package `name` were not installed.

    For libraries that import what is large and that nothing here asks them for. One that is
    imported already stays.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
