"""The LIM again, with `Options`: without any it has the parameters and concepts of the product's.

Its modules have the names of those in `glscl_jax.models.heads.lim` and `encoders.transformer`, so
that the same seed draws the same. Options are chosen among by numbers, and what is not chosen has a
gradient of 0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from benchmarks.lim_study.options import Options
from glscl_jax.models.encoders.attention import HIDDEN
from glscl_jax.models.encoders.products import matmul
from glscl_jax.models.encoders.transformer import (
    Attention,
    Linear,
    layer_norm,
    scan_layers,
    torch_linear_uniform,
)

_FLOAT32 = jnp.dtype(jnp.float32)


def _signs(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Diagonal matrices [K,D,D] of drawn signs: each is orthogonal, and no two are alike."""
    count, width, _ = shape
    return jnp.eye(width) * jax.random.rademacher(key, (count, 1, width), jnp.float32)


class StudyLIM(nn.Module):
    """Queries and decoder; arguments and names as `LIM`'s."""

    queries: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    share_queries: bool
    share_decoder: bool
    # Tokens or frames that have places.
    places: int
    options: Options

    def setup(self):
        def learned(name, init, *shape):
            return self.param(name, init, shape)

        def decoder():
            stack = scan_layers(Layer, self.layers, same_init=True)
            return stack(self.heads, self.feed_forward)

        shape = (self.queries, self.width)
        self.video_queries = learned("queries", initializers.uniform(1.0), *shape)
        self.text_queries = self.video_queries
        if not self.share_queries:
            self.text_queries = learned("text_queries", initializers.uniform(1.0), *shape)
        self.decoder = decoder()
        if not self.share_decoder:
            self.video_decoder = decoder()
        # Behind what the product's LIM draws: within a module numbers are drawn one by one.
        places = (initializers.normal(0.02), self.places, self.width)
        self.text_places, self.video_places = (
            learned(f"{side}_places", *places) for side in ("text", "video")
        )
        self.text_norm, self.video_norm = (layer_norm(f"{side}_norm") for side in ("text", "video"))
        self.projections = learned("projections", _signs, self.queries, self.width, self.width)
        # Called a bias, so that no weight decay pulls it.
        self.weight_bias = learned("weight_bias", initializers.zeros)

    def weight(self) -> jax.Array:
        """The LIM's weight in the score, float32 []."""
        return self.options.lim_weight + self.options.learned * self.weight_bias

    def text(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Tokens [A,L,D] and mask [A,L] -> unit vectors, float32 [A,K,D]."""
        places, norm = self.text_places, self.text_norm
        return self._read(self.text_queries, self.decoder, tokens, mask, places, norm)

    def video(self, frames: jax.Array, mask: jax.Array) -> jax.Array:
        """Frames [B,V,D] and mask [B,V] -> unit vectors, float32 [B,K,D]."""
        places, norm = self.video_places, self.video_norm
        decoder = self.decoder if self.share_decoder else self.video_decoder
        return self._read(self.video_queries, decoder, frames, mask, places, norm)

    def _read(self, queries, decoder, memory, mask, places, norm):
        options = self.options
        memory = memory + options.positions * places[: memory.shape[1]]
        memory = jnp.where(options.memory_norm > 0, norm(memory), memory)
        hidden = jnp.where((mask > 0) | (options.masked == 0), 0.0, HIDDEN)
        start = jnp.broadcast_to(queries, (len(memory), *queries.shape))
        concepts, _ = decoder(start, memory, hidden, options.repeated * queries, options)
        return self._told_apart(concepts)

    def _told_apart(self, concepts):
        """Concepts [n,K,D] as the options have them, of length 1."""
        options, count = self.options, self.queries
        own = jnp.einsum("nKD,KDE->nKE", concepts, self.projections)
        concepts = jnp.where(options.projected > 0, own, concepts)
        slices = jnp.arange(self.width) * count // self.width == jnp.arange(count)[:, None]
        concepts = jnp.where((options.sliced > 0) & ~slices, 0.0, concepts)
        concepts = concepts - options.centred * jnp.mean(concepts, axis=1, keepdims=True)
        return concepts / jnp.linalg.norm(concepts, axis=-1, keepdims=True)


class Layer(nn.Module):
    """`DecoderLayer` without dropout, with options."""

    heads: int
    feed_forward: int

    @nn.compact
    def __call__(self, x, memory, hidden, repeated, options: Options):
        """x [B,K,D] attends to itself, then to memory [B,M,D]. Returns (x, None).

        Args:
          x: [B,K,D].
          memory: [B,M,D].
          hidden: [B,M], added to the logits of its places.
          repeated: [K,D], added before every attention.
          options: see there.
        """
        width = x.shape[-1]
        inits = (initializers.xavier_uniform(), torch_linear_uniform(width))
        self_attention = Attention(self.heads, _FLOAT32, *inits, name="self_attention")
        cross_attention = CrossAttention(self.heads, name="cross_attention")

        def linear(features, fan_in, name):
            init = torch_linear_uniform(fan_in)
            return Linear(features, _FLOAT32, kernel_init=init, bias_init=init, name=name)

        def feed_forward(x):
            inner = jax.nn.relu(linear(self.feed_forward, width, "linear_1")(x))
            return linear(width, self.feed_forward, "linear_2")(inner)

        def added(x, update, name):
            norm, before = layer_norm(name), options.pre_norm > 0
            total = x + update(jnp.where(before, norm(x), x))
            return jnp.where(before, total, norm(total))

        x = added(x, lambda x: self_attention(x + repeated), "norm_1")
        x = added(x, lambda x: cross_attention(x + repeated, memory, hidden, options), "norm_2")
        return added(x, feed_forward, "norm_3"), None


class CrossAttention(nn.Module):
    """`Attention` to a memory, whose places may be shared out among the queries."""

    heads: int

    @nn.compact
    def __call__(self, x, memory, hidden, options: Options):
        """x [B,Q,D], memory [B,M,D] and what is added to its logits [B,M] -> [B,Q,D]."""
        width = x.shape[-1]
        shape = (width, 3 * width)
        kernel = self.param("qkv_kernel", initializers.xavier_uniform(), shape)
        offset = self.param("qkv_bias", initializers.zeros, (3 * width,))

        def project(y, part):
            product = matmul(y, kernel[:, part]) + offset[part]
            return product.reshape(*y.shape[:-1], -1, width // self.heads)

        query = project(x, slice(width))
        key, value = jnp.split(project(memory, slice(width, None)), 2, axis=2)
        logits = jnp.einsum("BQHD,BMHD->BHQM", query * query.shape[-1] ** -0.5, key)
        bias = hidden[:, None, None, :]
        shares = jax.nn.softmax(logits, axis=2) * (bias == 0)
        shares = shares / (jnp.sum(shares, axis=3, keepdims=True) + 1e-6)
        weights = jax.nn.softmax(logits + bias, axis=3)
        weights = jnp.where(options.competing > 0, shares, weights)
        mixed = jnp.einsum("BHQM,BMHD->BQHD", weights, value).reshape(x.shape)
        return Linear(width, _FLOAT32, kernel_init=torch_linear_uniform(width), name="out")(mixed)
