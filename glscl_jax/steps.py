"""What runs on the devices: making the state, one update, and encoding. Pure functions."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from glscl_jax import ema
from glscl_jax.losses import Losses, LossWeights
from glscl_jax.models.glscl import GLSCL, TextFeatures, VideoFeatures
from glscl_jax.objective import LOSS_BLOCK, gradient
from glscl_jax.optim import OptimConfig, cast_params, global_norm, trainable

# CLIP's training held its temperature to at least 1 / 100, and so does the reference.
MAX_LOGIT_SCALE = float(np.log(100.0))


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
    def evaluated(self) -> dict:
        """The parameters to validate with and to keep: the average, where there is one."""
        return ema.overlaid(self.params, self.ema)


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


def init_params(model: GLSCL, seed: int) -> dict:
    """Fresh parameters, a pure function of `seed`."""
    clip = model.config.clip
    frames = jnp.zeros((1, 1, clip.image_size, clip.image_size, 3), jnp.uint8)
    ids = jnp.zeros((1, 2), jnp.int32)
    variables = model.init(
        jax.random.key(seed), ids, jnp.ones_like(ids), frames, jnp.ones((1, 1), jnp.int32)
    )
    return variables["params"]


def init_state(
    params: dict, optimizer: optax.GradientTransformation, config: OptimConfig
) -> TrainState:
    """The state before the first update."""
    params = cast_params(params, config)
    # Made twice: a buffer that stands in two places cannot be donated.
    step, nonfinite = (jnp.zeros((), jnp.int32) for _ in range(2))
    return TrainState(step, params, optimizer.init(params), nonfinite, ema.begun(params, config))


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: GLSCL,
    optimizer: optax.GradientTransformation,
    optim: OptimConfig,
    weights: LossWeights,
    seed: int,
    microbatch: int = 0,
    loss_block: int = LOSS_BLOCK,
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
        mesh=mesh,
    )
    grad_norm = global_norm(trainable(grads, optim))
    finite = jnp.isfinite(losses.total) & jnp.isfinite(grad_norm)

    def applied():
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = hold_logit_scale(optax.apply_updates(state.params, updates))
        return params, opt_state, ema.moved(state.ema, params, optim)

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


def encode_text(params: dict, ids: jax.Array, mask: jax.Array, *, model: GLSCL) -> TextFeatures:
    """Features of A texts: ids and mask int32 [A,L]. No dropout."""
    return model.apply({"params": params}, ids, mask, method="encode_text")


def encode_video(
    params: dict, frames: jax.Array, mask: jax.Array, *, model: GLSCL
) -> VideoFeatures:
    """Features of B videos: frames uint8 [B,V,H,W,3], mask int32 [B,V]. No dropout."""
    return model.apply({"params": params}, frames, mask, method="encode_video")
