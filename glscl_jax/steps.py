"""What runs on the devices: making the state, one update, and encoding. Pure functions."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from glscl_jax.losses import Losses, LossWeights, glscl_losses
from glscl_jax.models.glscl import GLSCL, TextFeatures, VideoFeatures
from glscl_jax.optim import OptimConfig, cast_params, trainable
from glscl_jax.similarity import score

# CLIP's training held its temperature to at least 1 / 100, and so does the reference.
MAX_LOGIT_SCALE = float(np.log(100.0))


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step.

    Attributes:
      step: int32 [], updates done; also the position in the data.
      params: parameters.
      opt_state: the optimiser's.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState


@flax.struct.dataclass
class StepMetrics:
    """Float32 scalars of one update.

    Attributes:
      losses: of the batch, before the update.
      grad_norm: global norm of the trained parameters' gradient, before clipping.
      logit_scale: exp of the learned logarithm, after the update.
    """

    losses: Losses
    grad_norm: jax.Array
    logit_scale: jax.Array


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
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def batch_losses(
    params: dict,
    batch: dict[str, jax.Array],
    dropout_key: jax.Array | None,
    *,
    model: GLSCL,
    weights: LossWeights,
) -> Losses:
    """The losses of a batch of B pairs; no dropout without a key.

    `batch` holds text_ids and text_mask [B,L], frames [B,V,H,W,3] and frame_mask [B,V].
    """
    text, video, logit_scale = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch["frames"],
        batch["frame_mask"],
        deterministic=dropout_key is None,
        rngs={} if dropout_key is None else {"dropout": dropout_key},
    )
    config = model.config
    scores = score(text, video, temperature=config.temperature, lim_weight=config.lim_weight)
    return glscl_losses(scores, logit_scale, text.queries, video.queries, weights)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: GLSCL,
    optimizer: optax.GradientTransformation,
    optim: OptimConfig,
    weights: LossWeights,
    seed: int,
) -> tuple[TrainState, StepMetrics]:
    """One update. Dropout is a function of (seed, step) alone, whatever the devices."""
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss(params):
        losses = batch_losses(params, batch, dropout_key, model=model, weights=weights)
        return losses.total, losses

    grads, losses = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = hold_logit_scale(optax.apply_updates(state.params, updates))
    metrics = StepMetrics(
        losses,
        optax.global_norm(trainable(grads, optim)),
        jnp.exp(params["clip"]["logit_scale"].astype(jnp.float32)),
    )
    return TrainState(state.step + 1, params, opt_state), metrics


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
