"""Two towers: images and token ids to features in one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, and
what came of it: `clip_config.py` says in what such models differ, `variants.py` which there are.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from glscl_jax.models.encoders.attention import ALL, Seen, filled_up, is_fused
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.parameters import FSDP, Traits, state
from glscl_jax.models.encoders.probe import Probe
from glscl_jax.models.encoders.products import matmul, spread
from glscl_jax.models.encoders.rotary import turns_of
from glscl_jax.models.encoders.transformer import Linear, Transformer, layer_norm

_EMBEDDINGS = (
    "class_embedding",
    "positional_embedding",
    "patch_embedding",
    "patch_bias",
    "token_embedding",
)

state(
    Traits(
        # By rows: each device looks up what it has. Columns have to change places with examples,
        # which is little beside a table that would else lie whole on every device: MetaCLIP 2's
        # 901,629 rows are an odd number.
        split={"token_embedding": (FSDP, None)},
        otherwise={"token_embedding": (None, FSDP)},
        towers={
            "clip/vision/": (*_EMBEDDINGS, "/ln_pre/scale", "/ln_pre/bias"),
            "clip/text/": _EMBEDDINGS,
        },
        # CLIP's convolution, linear and attention weights and biases and the two projections, not
        # its LayerNorms, embeddings or logit scale.
        half=tuple(
            ("clip/", end)
            for end in (
                "patch_embedding",
                "patch_bias",
                "projection",
                "projection/kernel",
                "projection/bias",
                "attention/qkv_kernel",
                "attention/qkv_bias",
                "attention/out/kernel",
                "attention/out/bias",
                "mlp_in/kernel",
                "mlp_in/bias",
                "mlp_out/kernel",
                "mlp_out/bias",
            )
        ),
    )
)

# How temperatures begin: CLIP's at 1 / 0.07; SigLIP's at 10, with a bias that makes of most pairs
# what they are, no pairs (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023).
_SCALE, _SIGMOID_SCALE, _SIGMOID_BIAS = 1 / 0.07, 10.0, -10.0


class VisionTower(nn.Module):
    """Images [N,H,W,3] (float, normalised) to features [N,D]."""

    config: CLIPConfig
    dtype: jnp.dtype
    remat: str
    scan: bool
    attention: str = "plain"

    @nn.compact
    def __call__(self, images: jax.Array, all_tokens: bool = False) -> jax.Array:
        """Returns an image's feature [N,D], or with `all_tokens` that of each of its tokens, as if
        it were the class token's: [N,1+patches,D], without the 1 where there is no class token.
        """
        config, blocks = self.config, self.config.vision_blocks
        x = self._embedded(images)
        if config.pre_norm:
            x = layer_norm("ln_pre", blocks.epsilon)(x).astype(self.dtype)
        fused = is_fused(self.attention, self.dtype, config.image_tokens)
        x, seen = filled_up(x) if fused else (x, ALL)
        turns = None
        if config.rotary:
            turns = turns_of(config.side, blocks.head_width, config.class_token, x.shape[1])
        x = Transformer(blocks, self.dtype, self.remat, self.scan, fused, name="transformer")(
            x, seen, turns
        )
        x = self._pooled(x[:, : config.image_tokens], all_tokens)
        return projected(self, x, config.vision_projection, config.embed_dim)

    def _embedded(self, images: jax.Array) -> jax.Array:
        """Tokens [N,1+patches,D] with their positions."""
        config, width, side = self.config, self.config.vision_width, self.config.side
        scale = width**-0.5
        # A convolution whose stride is its kernel is a matrix product of flattened patches.
        patch = (config.patch_size, config.patch_size, 3)
        kernel = self.param("patch_embedding", initializers.lecun_normal(), (*patch, width))
        patches = images.reshape(-1, side, config.patch_size, side, config.patch_size, 3).transpose(
            0, 1, 3, 2, 4, 5
        )
        patches = patches.reshape(-1, side * side, int(np.prod(patch))).astype(self.dtype)
        x = matmul(patches, kernel.reshape(-1, width))
        if config.patch_bias:
            x = x + spread(self.param("patch_bias", initializers.zeros, (width,)), x)
        if config.class_token:
            first = self.param("class_embedding", initializers.normal(scale), (width,))
            first = jnp.broadcast_to(spread(first, x[:, :1]), (x.shape[0], 1, width))
            x = jnp.concatenate([first, x], axis=1)
        position = self.param(
            "positional_embedding", initializers.normal(scale), (config.image_tokens, width)
        )
        return x + spread(position, x)

    def _pooled(self, x: jax.Array, all_tokens: bool) -> jax.Array:
        """Tokens [N,1+patches,D] to what is projected, [N,D] or with `all_tokens` all of them."""
        config = self.config
        norm = layer_norm("ln_post", config.layer_norm_epsilon)
        if not all_tokens and config.vision_pooling == "class":
            x = x[:, 0]
        elif not all_tokens and config.vision_pooling == "mean":
            x = x[:, int(config.class_token) :].mean(axis=1)
        x = norm(x).astype(self.dtype)
        if not all_tokens and config.vision_pooling == "probe":
            x = Probe(config.probe, self.dtype, name="probe")(x)
        return x


class TextTower(nn.Module):
    """Token ids [A,L] to a feature of every token [A,L,D]."""

    config: CLIPConfig
    dtype: jnp.dtype
    remat: str
    scan: bool
    attention: str = "plain"

    @nn.compact
    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """ids int [A,L], mask [A,L] with 1 on real tokens.

        Raises:
          ValueError: L is none that this tower reads (`CLIPConfig.check_length`).
        """
        config, blocks, length = self.config, self.config.text_blocks, ids.shape[1]
        config.check_length(length)
        # OpenAI's initialisation.
        embedding = self.param(
            "token_embedding", initializers.normal(0.02), (config.vocab_size, blocks.width)
        )
        position = self.param(
            "positional_embedding", initializers.normal(0.01), (config.context_length, blocks.width)
        )
        x = embedding[ids].astype(self.dtype)
        x = x + spread(position[:length], x)
        fused = is_fused(self.attention, self.dtype, length)
        seen = Seen(None if config.sees_padding else mask, causal=config.causal)
        x = Transformer(blocks, self.dtype, self.remat, self.scan, fused, name="transformer")(
            x, seen
        )
        x = layer_norm("ln_final", blocks.epsilon)(x).astype(self.dtype)
        return projected(self, x, config.text_projection, config.embed_dim)


def projected(tower: nn.Module, x: jax.Array, kind: str, width: int) -> jax.Array:
    """x [...,F] to [...,D] by the tower's own projection, of a kind of `PROJECTIONS`."""
    init = initializers.normal(x.shape[-1] ** -0.5)
    if kind == "none":
        return x
    if kind == "biased":
        return Linear(width, tower.dtype, kernel_init=init, name="projection")(x)
    kernel = tower.param("projection", init, (x.shape[-1], width))
    return matmul(x, kernel)


def sentence_feature(tokens: jax.Array, ids: jax.Array, config: CLIPConfig) -> jax.Array:
    """The sentence's row of tokens [A,L,D] of ids [A,L] -> [A,D], by `config.text_pooling`."""
    if config.text_pooling == "last":
        return tokens[:, -1]
    # Of several places of one id the first, as PyTorch's argmax.
    wanted = ids if config.text_pooling == "highest" else ids == config.end_id
    return jnp.take_along_axis(tokens, jnp.argmax(wanted, axis=1)[:, None, None], axis=1)[:, 0]


class CLIP(nn.Module):
    """Both towers, the logit scale, and the logit's bias where there is one."""

    config: CLIPConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    scan: bool = True
    attention: str = "plain"

    def setup(self):
        self.vision = VisionTower(self.config, self.dtype, self.remat, self.scan, self.attention)
        self.text = TextTower(self.config, self.dtype, self.remat, self.scan, self.attention)
        # What is learned is the logarithm.
        scale = _SIGMOID_SCALE if self.config.logit_bias else _SCALE
        self.logit_scale = self.param("logit_scale", initializers.constant(np.log(scale)), ())
        if self.config.logit_bias:
            self.logit_bias = self.param("logit_bias", initializers.constant(_SIGMOID_BIAS), ())

    def __call__(self, images, ids, mask):
        """Touches every parameter: images [N,H,W,3], ids and mask [A,L]."""
        return self.vision(images), self.text(ids, mask), self.logit_scale
