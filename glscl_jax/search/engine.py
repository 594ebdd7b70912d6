"""The libraries that search alone needs, imported where they are used."""

import importlib
import os
from types import ModuleType

from glscl_jax.errors import UserError

INSTALL = (
    'pip install "glscl-jax[search]" (from a checkout: pip install -r requirements-search.txt)'
)
# What `--qdrant` needs beside it.
QDRANT = 'pip install "glscl-jax[qdrant]" (from a checkout: pip install -r requirements-qdrant.txt)'

# Else LanceDB tells on stderr of every table that is made.
os.environ.setdefault("LANCEDB_LOG", "error")


def module(name: str, install: str = INSTALL) -> ModuleType:
    """Imports a module of such a library.

    Args:
      name: of the module.
      install: the command that installs it.

    Raises:
      UserError: it is not installed; with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"search needs {error.name}: {install}") from error
