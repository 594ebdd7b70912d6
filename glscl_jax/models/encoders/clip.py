"""CLIP's two towers: images and token ids to features in one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from glscl_jax.models.encoders.attention import ALL, Seen, filled_up, is_fused
from glscl_jax.models.encoders.transformer import Transformer, layer_norm, matmul

# Statistics of CLIP's training images; every CLIP weight expects them.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# Every CLIP, and every transformer that starts from one, has heads of this width.
HEAD_WIDTH = 64


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of the towers; the defaults are ViT-B/32's.

    Attributes:
      image_size: side of a frame in pixels, a multiple of `patch_size`.
      patch_size: side of a patch in pixels.
      vision_width, vision_layers: the vision tower's; heads are `HEAD_WIDTH` wide.
      text_width, text_layers: the text tower's.
      embed_dim: D, the width that texts and frames share.
      context_length: rows of the text positional embedding.
      vocab_size: rows of the token embedding.
      activation: of the MLPs, a key of `transformer.ACTIVATIONS`.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    text_width: int = 512
    text_layers: int = 12
    embed_dim: int = 512
    context_length: int = 77
    vocab_size: int = 49408
    activation: str = "quick_gelu"


_LARGE = CLIPConfig(
    patch_size=14,
    vision_width=1024,
    vision_layers=24,
    text_width=768,
    embed_dim=768,
)

VARIANTS = {
    "tiny": CLIPConfig(
        image_size=32,
        patch_size=16,
        vision_width=128,
        vision_layers=2,
        text_width=128,
        text_layers=4,
        embed_dim=128,
        context_length=32,
        vocab_size=1024,
    ),
    "ViT-B/32": CLIPConfig(),
    "ViT-B/16": CLIPConfig(patch_size=16),
    "ViT-L/14": _LARGE,
    "ViT-L/14@336": dataclasses.replace(_LARGE, image_size=336),
}


def normalize(frames: jax.Array, mask: jax.Array) -> jax.Array:
    """Pixels as CLIP was trained on them; places without a frame become zero.

    Args:
      frames: uint8 [B,V,H,W,3], or float already normalised (only masked then).
      mask: [B,V], 1 on real frames.

    Returns:
      float32 [B,V,H,W,3].
    """
    if frames.dtype == jnp.uint8:
        pixels = frames.astype(jnp.float32) / 255.0
        frames = (pixels - jnp.array(IMAGE_MEAN)) / jnp.array(IMAGE_STD)
    return jnp.where(mask[:, :, None, None, None] > 0, frames.astype(jnp.float32), 0.0)


class VisionTower(nn.Module):
    """Images [N,H,W,3] (float, normalised) to features [N,D]."""

    config: CLIPConfig
    dtype: jnp.dtype
    remat: str
    scan: bool
    attention: str = "plain"

    @nn.compact
    def __call__(self, images: jax.Array, all_tokens: bool = False) -> jax.Array:
        """Returns the class token's feature [N,D], or with `all_tokens` [N,1+patches,D]."""
        config, width = self.config, self.config.vision_width
        side = config.image_size // config.patch_size
        scale = width**-0.5

        # A convolution whose stride is its kernel is a matrix product of flattened patches.
        patch = (config.patch_size, config.patch_size, 3)
        kernel = self.param("patch_embedding", initializers.lecun_normal(), (*patch, width))
        patches = images.reshape(-1, side, config.patch_size, side, config.patch_size, 3).transpose(
            0, 1, 3, 2, 4, 5
        )
        patches = patches.reshape(-1, side * side, int(np.prod(patch))).astype(self.dtype)
        x = matmul(patches, kernel.reshape(-1, width).astype(self.dtype))

        first = self.param("class_embedding", initializers.normal(scale), (width,))
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], 1, width))
        position = self.param(
            "positional_embedding", initializers.normal(scale), (1 + side * side, width)
        )
        x = jnp.concatenate([first, x], axis=1) + position.astype(self.dtype)
        x = layer_norm("ln_pre")(x).astype(self.dtype)
        tokens = x.shape[1]
        fused = is_fused(self.attention, self.dtype, tokens)
        x, seen = filled_up(x) if fused else (x, ALL)
        x = Transformer(
            config.vision_layers,
            width // HEAD_WIDTH,
            self.dtype,
            activation=config.activation,
            remat=self.remat,
            scan=self.scan,
            fused=fused,
            name="transformer",
        )(x, seen)
        x = x[:, :tokens] if all_tokens else x[:, 0]
        x = layer_norm("ln_post")(x).astype(self.dtype)
        projection = self.param("projection", initializers.normal(scale), (width, config.embed_dim))
        return matmul(x, projection.astype(self.dtype))


class TextTower(nn.Module):
    """Token ids [A,L] to a feature of every token [A,L,D]."""

    config: CLIPConfig
    dtype: jnp.dtype
    remat: str
    scan: bool
    attention: str = "plain"

    @nn.compact
    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """ids int [A,L], mask [A,L] with 1 on real tokens."""
        config, width, length = self.config, self.config.text_width, ids.shape[1]
        # OpenAI's initialisation.
        embedding = self.param(
            "token_embedding", initializers.normal(0.02), (config.vocab_size, width)
        )
        position = self.param(
            "positional_embedding", initializers.normal(0.01), (config.context_length, width)
        )
        x = embedding[ids].astype(self.dtype) + position[:length].astype(self.dtype)
        x = Transformer(
            config.text_layers,
            width // HEAD_WIDTH,
            self.dtype,
            activation=config.activation,
            remat=self.remat,
            scan=self.scan,
            fused=is_fused(self.attention, self.dtype, length),
            name="transformer",
        )(x, Seen(mask, causal=True))
        x = layer_norm("ln_final")(x).astype(self.dtype)
        projection = self.param(
            "projection", initializers.normal(width**-0.5), (width, config.embed_dim)
        )
        return matmul(x, projection.astype(self.dtype))


def sentence_feature(tokens: jax.Array, ids: jax.Array) -> jax.Array:
    """The end token's row of tokens [A,L,D] -> [A,D]; it has the highest id of ids [A,L]."""
    return jnp.take_along_axis(tokens, jnp.argmax(ids, axis=1)[:, None, None], axis=1)[:, 0]


class CLIP(nn.Module):
    """Both towers and the logit scale."""

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    scan: bool = True
    attention: str = "plain"

    def setup(self):
        self.vision = VisionTower(self.config, self.dtype, self.remat, self.scan, self.attention)
        self.text = TextTower(self.config, self.dtype, self.remat, self.scan, self.attention)
        # CLIP starts its temperature at 1 / 0.07 and learns the logarithm.
        self.logit_scale = self.param("logit_scale", initializers.constant(np.log(1 / 0.07)), ())

    def __call__(self, images, ids, mask):
        """Touches every parameter: images [N,H,W,3], ids and mask [A,L]."""
        return self.vision(images), self.text(ids, mask), self.logit_scale


def variant_of(clip: CLIPConfig) -> str | None:
    """The name of a model's towers, whatever its vocabulary, activation and text positions."""
    own = ("vocab_size", "activation", "context_length")
    for name, config in VARIANTS.items():
        if dataclasses.replace(clip, **{key: getattr(config, key) for key in own}) == config:
            return name
    return None
