"""What training minimises, and its gradient: of a batch whole, or in micro-batches."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glscl_jax.models.encoders.products import summing_gradients
from glscl_jax.models.glscl import GLSCL
from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.runtime.sharding import constrain_activations
from glscl_jax.training.blocked_loss import block_count, blocked_contrastive, blocked_sigmoid
from glscl_jax.training.gradient_cache import cached_gradient
from glscl_jax.training.losses import Losses, contrastive, sigmoid_contrastive

# Texts that are scored against all videos at once; a batch of no more is scored whole. Each holds
# about ten float32 [B,V] in the backward pass: of 32,768 videos of 12 frames, 4 GB for a block.
LOSS_BLOCK = 256

# By their names in the config: of scores, of features in blocks, and what is learned beside these.
_JOINT = {
    "softmax": (contrastive, blocked_contrastive, ("logit_scale",)),
    "sigmoid": (sigmoid_contrastive, blocked_sigmoid, ("logit_scale", "logit_bias")),
}


@flax.struct.dataclass
class PairFeatures:
    """What the losses need of a batch of B pairs: the head's features, arrays [B,...]."""

    text: Features
    video: Features


def encode_pairs(
    params: dict, batch: dict[str, jax.Array], dropout_key: jax.Array | None, *, model: GLSCL
) -> PairFeatures:
    """Features of a batch of B pairs; no dropout without a key. Arguments as `batch_losses`'."""
    rest = {
        "deterministic": dropout_key is None,
        "rngs": {} if dropout_key is None else {"dropout": dropout_key},
    }
    if "sentence" in batch:  # What encoders made of them; these train no more.
        text, video, _ = model.apply(  # pyright: ignore[reportAssignmentType]
            {"params": params}, **batch, method="from_features", **rest
        )
    else:
        text, video, _ = model.apply(  # pyright: ignore[reportAssignmentType]
            {"params": params},
            batch["text_ids"],
            batch["text_mask"],
            batch["frames"],
            batch["frame_mask"],
            **rest,
        )
    return PairFeatures(text, video)


def feature_losses(
    params: dict,
    features: PairFeatures,
    *,
    model: GLSCL,
    weights: Any,
    loss_block: int = LOSS_BLOCK,
    joint: str = "softmax",
    mesh: Mesh | None = None,
) -> Losses:
    """The losses of a batch of B pairs; of `params` they need the logit's scale and bias alone.

    `joint` says which contrastive loss, of `losses.CONTRASTIVE`; "sigmoid" takes a model with a
    logit's bias.
    """
    text, video, head = features.text, features.video, model.config.head
    whole, blocked, names = _JOINT[joint]
    scalars = [params["clip"][name].astype(jnp.float32) for name in names]
    batch = count_of(text)
    if batch > loss_block:
        blocks = block_count(batch, loss_block, mesh)
        joint = blocked(text, video, *scalars, score=head.score, blocks=blocks, mesh=mesh)
    else:
        joint = whole(head.score(text, video), *scalars)
    return Losses.of(joint, head.losses(text, video, weights))


def batch_losses(
    params: dict,
    batch: dict[str, jax.Array],
    dropout_key: jax.Array | None,
    *,
    model: GLSCL,
    weights: Any,
    loss_block: int = LOSS_BLOCK,
    joint: str = "softmax",
    mesh: Mesh | None = None,
) -> Losses:
    """The losses of a batch of B pairs; no dropout without a key.

    `batch` holds text_ids and text_mask [B,L], frames [B,V,H,W,3] and frame_mask [B,V]; or, of
    frozen encoders, what they made: sentence [B,D], tokens [B,L,D] where the head reads them,
    text_mask, frames [B,V,D] and frame_mask.
    """
    with constrain_activations(mesh):
        features = encode_pairs(params, batch, dropout_key, model=model)
    return feature_losses(
        params,
        features,
        model=model,
        weights=weights,
        loss_block=loss_block,
        joint=joint,
        mesh=mesh,
    )


def gradient(
    params: dict,
    batch: dict[str, jax.Array],
    dropout_key: jax.Array | None,
    *,
    model: GLSCL,
    weights: Any,
    microbatch: int = 0,
    loss_block: int = LOSS_BLOCK,
    joint: str = "softmax",
    gradient_dtype: str = "float32",
    mesh: Mesh | None = None,
) -> tuple[dict, Losses]:
    """The gradient of a batch's total loss, and the losses.

    Args:
      params: parameters.
      batch: see `batch_losses`.
      dropout_key: none for no dropout. A micro-batch draws its dropout from the key and its own
        number, the same at both of its passes; a batch without micro-batches from the key alone.
      model: the model.
      weights: of the head's own losses, its `loss_weights`.
      microbatch: pairs whose activations are held at once, a divisor of B (see
        `gradient_cache`); 0, or B, for all of them.
      loss_block: a larger batch is scored so many texts at a time (see `blocked_loss`).
      joint: which contrastive loss (see `feature_losses`).
      gradient_dtype: in which a parameter's gradient is summed over examples and devices, whatever
        the model computes in; over micro-batches it is so in float32.
      mesh: the devices that share the batch; none for a single one.
    """
    with summing_gradients(gradient_dtype):
        return _gradient(
            params,
            batch,
            dropout_key,
            microbatch,
            model=model,
            weights=weights,
            loss_block=loss_block,
            joint=joint,
            mesh=mesh,
        )


def _gradient(params, batch, dropout_key, microbatch, *, model, mesh, **more):
    size = len(batch["frame_mask"])
    options = {"model": model, "mesh": mesh, **more}
    if microbatch in (0, size):

        def whole(params):
            losses = batch_losses(params, batch, dropout_key, **options)
            return losses.total, losses

        return jax.grad(whole, has_aux=True)(params)

    def encode(params, part, index):
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        with constrain_activations(mesh):
            return encode_pairs(params, part, key, model=model)

    def of_features(params, features):
        losses = feature_losses(params, features, **options)
        return losses.total, losses

    return cached_gradient(encode, of_features, params, batch, count=size // microbatch, mesh=mesh)
