"""What runs on the devices: making the state, and one update. Pure functions."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.models.glscl import GLSCL
from glscl_jax.training import ema
from glscl_jax.training.losses import Losses
from glscl_jax.training.objective import LOSS_BLOCK, gradient
from glscl_jax.training.optim import OptimConfig, cast_params, global_norm, trainable

# CLIP's training held its temperature to at least 1 / 100, and so does the reference.
MAX_LOGIT_SCALE = float(np.log(100.0))


@flax.struct.dataclass
class StepMetrics:
    """Scalars of one update, float32 but for the last.

    Attributes:
      losses: of the batch, before the update.
      grad_norm: global norm of the trained parameters' gradient, before clipping.
      logit_scale: exp of the learned logarithm, after the update.
      nonfinite: int32, the state's, after the update.
    """

    losses: Losses
    grad_norm: jax.Array
    logit_scale: jax.Array
    nonfinite: jax.Array


def init_state(
    params: dict, optimizer: optax.GradientTransformation, config: OptimConfig
) -> TrainState:
    """The state before the first update."""
    params = cast_params(params, config)
    # Made twice: a buffer that stands in two places cannot be donated.
    step, nonfinite = (jnp.zeros((), jnp.int32) for _ in range(2))
    return TrainState(step, params, optimizer.init(params), nonfinite, ema.init(params, config))


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: GLSCL,
    optimizer: optax.GradientTransformation,
    optim: OptimConfig,
    weights: Any,
    seed: int,
    microbatch: int = 0,
    loss_block: int = LOSS_BLOCK,
    joint: str = "softmax",
    gradient_dtype: str = "float32",
    mesh: Mesh | None = None,
) -> tuple[TrainState, StepMetrics]:
    """One update, be it of several micro-batches.

    Where the loss or the gradient is not finite there is none: the step is counted, but neither
    parameters nor their average, neither moments nor the schedule's position change. What is
    frozen needs no gradient, and what computes it is dropped in compiling, as nothing uses it;
    but of a stack that trains in part, the gradient of all layers is computed where they are
    scanned.

    Dropout is a function of (seed, step) and of the micro-batch's size, whatever the devices.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, losses = gradient(
        state.params,
        batch,
        dropout_key,
        model=model,
        weights=weights,
        microbatch=microbatch,
        loss_block=loss_block,
        joint=joint,
        gradient_dtype=gradient_dtype,
        mesh=mesh,
    )
    grad_norm = global_norm(trainable(grads, optim))
    finite = jnp.isfinite(losses.total) & jnp.isfinite(grad_norm)

    def applied():
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = hold_logit_scale(optax.apply_updates(state.params, updates))
        return params, opt_state, ema.update(state.ema, params, optim)

    params, opt_state, average = jax.lax.cond(
        finite, applied, lambda: (state.params, state.opt_state, state.ema)
    )
    nonfinite = state.nonfinite + ~finite
    logit_scale = jnp.exp(params["clip"]["logit_scale"].astype(jnp.float32))
    metrics = StepMetrics(losses, grad_norm, logit_scale, nonfinite)
    return TrainState(state.step + 1, params, opt_state, nonfinite, average), metrics


def hold_logit_scale(params: dict) -> dict:
    """`params` with CLIP's logit scale at most ln 100."""
    clip = params["clip"]
    held = jnp.minimum(clip["logit_scale"], MAX_LOGIT_SCALE)
    return {**params, "clip": {**clip, "logit_scale": held}}
