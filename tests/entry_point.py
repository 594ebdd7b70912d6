"""Starts a program as its installed script does.

python -m tests.entry_point glscl_jax.train:cli --help
"""

import importlib
import sys

if __name__ == "__main__":
    module, _, function = sys.argv.pop(1).partition(":")
    getattr(importlib.import_module(module), function)()
