"""Runs a program that looks often at what it has to send, and soon gives a bucket up.

python -m tests.beside_bucket glscl_jax.train --workdir=s3://bucket/run ...
"""

import runpy
import sys

from glscl_jax.runtime import mirror

if __name__ == "__main__":
    mirror.INTERVAL, mirror.PATIENCE = 0.1, 1.0
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
