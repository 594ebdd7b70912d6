"""What a run carries from step to step, and keeps in its checkpoints."""

import flax.struct
import jax
import optax

from glscl_jax.trees import merge


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step.

    Attributes:
      step: int32 [], batches done; also the position in the data.
      params: parameters.
      opt_state: the optimiser's. It counts the updates that were made, and its schedule goes by
        these.
      nonfinite: int32 [], how many of the steps were not applied: their loss or gradient was not
        finite.
      ema: float32, the moving average of what is trained (see `ema`), or None.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    nonfinite: jax.Array
    ema: dict | None = None

    @property
    def updates(self) -> jax.Array:
        """int32 [], updates made: the schedule's position."""
        return self.step - self.nonfinite

    @property
    def eval_params(self) -> dict:
        """The parameters to validate with and to keep: the average, where there is one."""
        return merge(self.params, self.ema)
