"""The platform that a program is compiled for: this process's own, unless another is asked for.

Compilers run without their device. Whatever the model chooses by device, it chooses by this.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_CHOSEN = contextvars.ContextVar("platform", default="")


def platform() -> str:
    """ "cpu", "gpu" or "tpu"."""
    return _CHOSEN.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Makes `platform` say "gpu" or "tpu" while its body traces."""
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
