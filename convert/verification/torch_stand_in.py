"""open_clip and timm where torchvision is not installed, or does not go with PyTorch.

Both import it for images and for detectors, of which a tower's forward pass has nothing. Imported
only where PyTorch is needed.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator

import torch

ABSENT = "torchvision"


def import_library(name: str) -> types.ModuleType | None:
    """A library that imports torchvision, with or without it; None if it is not there itself."""
    try:
        # Before anything of the library is half imported.
        importlib.import_module(f"{ABSENT}.ops")
    except (ImportError, RuntimeError, OSError):
        with _standing_in():
            return _imported(name)
    return _imported(name)


def _imported(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError):
        return None


@contextlib.contextmanager
def _standing_in() -> Iterator[None]:
    """Whatever is imported of torchvision is there within, and computes nothing."""
    finder = _Finder()
    _forget()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget()


def _forget() -> None:
    """Nobody else is to find it among the imported."""
    for name in [x for x in sys.modules if x.split(".")[0] == ABSENT]:
        del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        """There is nothing to run."""


class _Names(type(torch.nn.Module)):
    """Members of an enumeration: their own names."""

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (torch.nn.Module,), {})
