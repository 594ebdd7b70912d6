"""Two towers: images and token ids to features in one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, and
what came of it: `clip_config.py` says in what such models differ, `variants.py` which there are.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from glscl_jax.models.encoders import patches
from glscl_jax.models.encoders.attention import ALL, AttentionMask, is_fused, pad_tokens
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.in_parts import side_by_side
from glscl_jax.models.encoders.parameters import FSDP, Traits, state
from glscl_jax.models.encoders.probe import Probe
from glscl_jax.models.encoders.products import look_up, matmul, spread
from glscl_jax.models.encoders.rotary import rotary_angles
from glscl_jax.models.encoders.sinusoids import sinusoids
from glscl_jax.models.encoders.transformer import Linear, Transformer, layer_norm
from glscl_jax.models.encoders.video_tower import VideoTower

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
        x = patches.embed(self, config, self.dtype, images)
        if config.pre_norm:
            x = layer_norm("ln_pre", blocks.epsilon)(x).astype(self.dtype)
        fused = is_fused(self.attention, self.dtype, config.image_tokens)
        x, seen = pad_tokens(x) if fused else (x, ALL)
        angles = None
        if config.rotary:
            angles = rotary_angles(config.side, blocks.head_width, config.class_token, x.shape[1])
        shape = x.shape
        if not (fused or config.rotary) and (beside := side_by_side(*shape[:2])) > 1:
            x = x.reshape(shape[0] // beside, beside * shape[1], shape[2])
            seen = AttentionMask(groups=beside)
        x = Transformer(blocks, self.dtype, self.remat, self.scan, fused, name="transformer")(
            x, seen, angles
        ).reshape(shape)
        x = self._pooled(x[:, : config.image_tokens], all_tokens)
        return project(self, x, config.vision_projection, config.embed_dim)

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
    """Token ids [A,L] to a feature of every token [A,L,D], [A,L+1,D] with a class token."""

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
        x = self._embedded(ids)
        if config.text_pooling == "class":
            # Behind the padding, which it does not see; it has no place of its own.
            mask = jnp.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        fused = is_fused(self.attention, self.dtype, length)
        seen = AttentionMask(None if config.sees_padding else mask, causal=config.causal)
        x = Transformer(blocks, self.dtype, self.remat, self.scan, fused, name="transformer")(
            x, seen
        )
        x = layer_norm("ln_final", blocks.epsilon, blocks.offset)(x).astype(self.dtype)
        return project(self, x, config.text_projection, config.embed_dim)

    def _embedded(self, ids: jax.Array) -> jax.Array:
        """Tokens with their positions, [A,L,D], and behind them the class token."""
        config, width, length = self.config, self.config.text_width, ids.shape[1]
        is_learned = config.text_positions == "learned"
        # OpenAI's initialisation; where the embedding is multiplied, as Vaswani et al. (2017) do
        # beside sinusoids, so that it begins at about 1.
        scale = 1.0 if is_learned else width**0.5
        init = initializers.normal(0.02 if is_learned else 1 / scale)
        embedding = self.param("token_embedding", init, (config.vocab_size, width))
        x = look_up(embedding, ids, self.dtype)
        if is_learned:
            position = self.param(
                "positional_embedding", initializers.normal(0.01), (config.context_length, width)
            )
            x = x + spread(position[:length], x)
        else:
            x = x * scale + sinusoids(length, width).astype(self.dtype)
        if config.text_pooling == "class":
            last = self.param("class_embedding", init, (width,))
            last = jnp.broadcast_to(spread(last, x[:, :1]) * scale, (ids.shape[0], 1, width))
            x = jnp.concatenate([x, last], axis=1)
        return x


def project(tower: nn.Module, x: jax.Array, kind: str, width: int) -> jax.Array:
    """x [...,F] to [...,D] by the tower's own projection, of a kind of `PROJECTIONS`."""
    init = initializers.normal(x.shape[-1] ** -0.5)
    if kind == "none":
        return x
    if kind == "biased":
        return Linear(width, tower.dtype, kernel_init=init, name="projection")(x)
    kernel = tower.param("projection", init, (x.shape[-1], width))
    return matmul(x, kernel)


def sentence_feature(tokens: jax.Array, ids: jax.Array, config: CLIPConfig) -> jax.Array:
    """The sentence's row of `TextTower`'s tokens of ids [A,L] -> [A,D], by `text_pooling`."""
    if config.text_pooling in ("last", "class"):
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
        attention = self.attention if self.config.can_fuse else "plain"
        if self.config.is_video:
            self.vision = VideoTower(self.config, self.dtype, self.remat, self.scan)
        else:
            self.vision = VisionTower(self.config, self.dtype, self.remat, self.scan, attention)
        self.text = TextTower(self.config, self.dtype, self.remat, self.scan, attention)
        # What is learned is the logarithm.
        scale = _SIGMOID_SCALE if self.config.logit_bias else _SCALE
        self.logit_scale = self.param("logit_scale", initializers.constant(np.log(scale)), ())
        if self.config.logit_bias:
            self.logit_bias = self.param("logit_bias", initializers.constant(_SIGMOID_BIAS), ())

    def __call__(self, images, ids, mask):
        """Touches every parameter: images [N,H,W,3], ids and mask [A,L]."""
        if isinstance(self.vision, VideoTower):
            features = self.frames(images[:, None], jnp.ones((len(images), 1), jnp.int32))[:, 0]
        else:
            features = self.vision(images)
        return features, self.text(ids, mask), self.logit_scale

    def frames(self, frames: jax.Array, mask: jax.Array) -> jax.Array:
        """Frames [B,V,H,W,3] (float, normalised) to features [B,V,D]; mask [B,V], 1 on real ones.

        A tower of images encodes each by itself, one of videos all of a video together.
        """
        if isinstance(self.vision, VideoTower):
            return self.vision(frames, mask)
        features = self.vision(frames.reshape(-1, *frames.shape[2:]))
        return features.reshape(*frames.shape[:2], -1)

    def texts(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ids and mask [A,L] to sentences [A,D] and tokens [A,L,D]."""
        tokens = self.text(ids, mask)
        sentence = sentence_feature(tokens, ids, self.config)
        return sentence, tokens[:, :-1] if self.config.text_pooling == "class" else tokens
