"""Saves a run's state at step 3 and, with an array of 16 MiB in it, at step 6.

python -m tests.saving WORKDIR
"""

import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError

if __name__ == "__main__":
    checkpoints = Checkpoints(Workdir(pathlib.Path(sys.argv[1])), 2)
    for step, size in ((3, 10), (6, 2**22)):
        # Of numbers that take as much room however they are kept.
        numbers = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)
        state = TrainState(jnp.int32(step), {"numbers": numbers}, (), jnp.int32(0))
        try:
            checkpoints.save(state)
            checkpoints.wait()
        except UserError as error:
            print(error)
