"""Local Interaction Module: shared learnable queries read concepts out of texts and videos.

K queries run through a transformer decoder whose memory is the tokens of a text or the frames
of a video; the k-th output of both sides is about the same concept. (Zhang et al., 2024,
section 3.3.)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from glscl_jax.models.encoders.attention import AttentionMask
from glscl_jax.models.encoders.parameters import Traits, state
from glscl_jax.models.encoders.products import spread
from glscl_jax.models.encoders.transformer import DecoderLayer, scan_layers

# Its decoder's stack is a transformer's; the videos', where they have one of their own, is not.
state(Traits(stacks=("video_decoder",)))


class LIM(nn.Module):
    """Queries and decoder, shared by the two sides or not.

    Attributes:
      queries: K.
      layers: of the decoder.
      width: D.
      heads, feed_forward, dropout: of each layer.
      share_queries: else the texts have queries of their own.
      share_decoder: else the videos have a decoder of their own.
      dtype: of the computation.
      scan: whether the layers are looped over (see `transformer.scan_layers`).
    """

    queries: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    dropout: float
    share_queries: bool
    share_decoder: bool
    dtype: jnp.dtype
    scan: bool

    def setup(self):
        def queries(name):
            # torch.rand: uniform in [0, 1).
            return self.param(name, nn.initializers.uniform(1.0), (self.queries, self.width))

        def decoder():
            stack = scan_layers(DecoderLayer, self.layers, scan=self.scan, same_init=True)
            return stack(self.heads, self.feed_forward, self.dropout, self.dtype)

        self.video_queries = queries("queries")
        self.text_queries = self.video_queries if self.share_queries else queries("text_queries")
        self.decoder = decoder()
        if not self.share_decoder:
            self.video_decoder = decoder()

    def text(self, tokens: jax.Array, mask=None, deterministic: bool = True) -> jax.Array:
        """Tokens [A,L,D] -> q^t float32 [A,K,D].

        All are read, padding too, as in the reference; with mask [A,L] those where it is 1.
        """
        return self._read(self.text_queries, self.decoder, tokens, mask, deterministic)

    def video(self, frames: jax.Array, mask=None, deterministic: bool = True) -> jax.Array:
        """Frame features [B,V,D] -> q^v float32 [B,K,D]; mask [B,V] as for texts."""
        decoder = self.decoder if self.share_decoder else self.video_decoder
        return self._read(self.video_queries, decoder, frames, mask, deterministic)

    def _read(self, queries, decoder, memory, mask, deterministic):
        shape = (memory.shape[0], self.queries, self.width)
        queries = spread(queries, jax.ShapeDtypeStruct(shape, self.dtype))
        start = jnp.broadcast_to(queries, shape)
        seen = AttentionMask(mask)
        concepts, _ = decoder(start, memory.astype(self.dtype), seen, deterministic)
        concepts = concepts.astype(jnp.float32)
        return concepts / jnp.linalg.norm(concepts, axis=-1, keepdims=True)


def lim_similarity(text_queries: jax.Array, video_queries: jax.Array) -> jax.Array:
    """`(1/K) sum_k <q^t_ak, q^v_bk>`: one inner product of K*D numbers a pair.

    Args:
      text_queries: [A,K,D], of any floating type.
      video_queries: [B,K,D], of any floating type.

    Returns:
      float32 [A,B].
    """
    # Two matrices: with two axes to sum over, the compiler transposes both sides first. As in
    # `gim`, float32 is not to be rounded by an accelerator.
    sums = jnp.einsum(
        "AC,BC->AB",
        text_queries.reshape(len(text_queries), -1),
        video_queries.reshape(len(video_queries), -1),
        preferred_element_type=jnp.float32,
        precision=jax.lax.Precision.HIGHEST,
    )
    return sums / text_queries.shape[1]


def lim_multiply_adds(
    queries: int, layers: int, feed_forward: int, width: int, *, memory: int
) -> int:
    """Multiply-adds of K queries' decoder over M tokens or frames.

    `N (6 K D^2 + 2 K^2 D + 2 M D^2 + 2 K M D + 2 K D F)`: attention among K queries, attention
    to the memory, whose keys and values are projected anew in each of N layers, and the
    feed-forward.
    """
    layer = (
        6 * queries * width**2
        + 2 * queries**2 * width
        + 2 * memory * width**2
        + 2 * queries * memory * width
        + 2 * queries * width * feed_forward
    )
    return layers * layer
