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
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.models.encoders.parameters import FSDP, Traits, state
from glscl_jax.models.encoders.products import matmul, spread
from glscl_jax.models.encoders.transformer import Transformer, block_multiply_adds, layer_norm

_EMBEDDINGS = ("class_embedding", "positional_embedding", "patch_embedding", "token_embedding")

state(
    Traits(
        # By rows: each device looks up what it has. Columns would have to change places with
        # examples.
        split={"token_embedding": (FSDP, None)},
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
                "projection",
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


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of the towers; the defaults are ViT-B/32's.

    Attributes:
      image_size: side of a frame in pixels, a multiple of `patch_size`.
      patch_size: side of a patch in pixels.
      vision_width, vision_layers: the vision tower's.
      text_width, text_layers: the text tower's.
      embed_dim: D, the width that texts and frames share.
      context_length: rows of the text positional embedding.
      vocab_size: rows of the token embedding.
      activation: of the MLPs, a key of `transformer.ACTIVATIONS`.
      vision_head_width, text_head_width: of attention.
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
    vision_head_width: int = 64  # OpenAI's, whatever the width.
    text_head_width: int = 64

    def check(self) -> None:
        """Raises a `ValueError` for sizes that do not fit together."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch {self.patch_size}"
            )
        for name in ("vision", "text"):
            width, head = getattr(self, f"{name}_width"), getattr(self, f"{name}_head_width")
            if width % head:
                raise ValueError(
                    f"{name}_width {width} is no multiple of {head}, a head's width "
                    f"({name}_head_width)"
                )

    @property
    def patches(self) -> int:
        """How many an image is cut into."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def preprocessing(self) -> Preprocessing:
        """What images are to look like: as CLIP's training images."""
        return Preprocessing(self.image_size)

    def vision_multiply_adds(self) -> int:
        """Of an image's matrix products."""
        width = self.vision_width
        return (
            self.patches * 3 * self.patch_size**2 * width
            + self.vision_layers * block_multiply_adds(1 + self.patches, width)
            + width * self.embed_dim  # Only the class token is projected.
        )

    def text_multiply_adds(self, words: int) -> int:
        """Of a text's matrix products."""
        width = self.text_width
        blocks = self.text_layers * block_multiply_adds(words, width)
        return blocks + words * width * self.embed_dim


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
        x = matmul(patches, kernel.reshape(-1, width))

        first = self.param("class_embedding", initializers.normal(scale), (width,))
        first = jnp.broadcast_to(spread(first, x[:, :1]), (x.shape[0], 1, width))
        position = self.param(
            "positional_embedding", initializers.normal(scale), (1 + side * side, width)
        )
        x = jnp.concatenate([first, x], axis=1)
        x = x + spread(position, x)
        x = layer_norm("ln_pre")(x).astype(self.dtype)
        tokens = x.shape[1]
        fused = is_fused(self.attention, self.dtype, tokens)
        x, seen = filled_up(x) if fused else (x, ALL)
        x = Transformer(
            config.vision_layers,
            width // config.vision_head_width,
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
        return matmul(x, projection)


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
        x = embedding[ids].astype(self.dtype)
        x = x + spread(position[:length], x)
        x = Transformer(
            config.text_layers,
            width // config.text_head_width,
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
        return matmul(x, projection)


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
