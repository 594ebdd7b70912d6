"""WTI: each token's best frame and each frame's best token, by learned weights.

With token and frame features of length 1, `s_albv = <t_al, f_bv>`, and over real tokens and frames

    sim[a,b] = ( sum_l x_al max_v s_albv + sum_v y_bv max_l s_albv ) / 2

where `x_a = softmax_l(MLP(t_al))` and `y_b = softmax_v(MLP(f_bv))`, of the features before they are
scaled to length 1. Each MLP is D -> D -> 1 with a ReLU, started from a normal of 0.02 with biases
of 0, and each side has its own. (Wang et al., "Disentangled Representation Learning for Text-Video
Retrieval", 2022, arXiv 2203.07111: the weighted token-wise interaction. The two layers are the
default of its released code.)

The released code gives a padded token or frame the similarity 0, which can be the largest where all
real ones are negative; here, as in the formula, padding has no part. Left out is the paper's second
half, the regularisation of channels (CDCR), a loss that its released recipe weighs by 0.001.
"""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax.models.encoders.transformer import Linear
from glscl_jax.models.heads.explanation import Explanation, Part
from glscl_jax.models.heads.features import directions
from glscl_jax.models.heads.head import Cost, Head, register

_einsum = functools.partial(
    jnp.einsum, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST
)


@flax.struct.dataclass
class Tokens:
    """What the score needs of A texts.

    Attributes:
      tokens: [A,L,D], of length 1.
      mask: int32 [A,L], 1 on real tokens.
      weights: float32 [A,L], which sum up to 1; 0 at padding.
    """

    tokens: jax.Array
    mask: jax.Array
    weights: jax.Array


@flax.struct.dataclass
class Frames:
    """What the score needs of B videos.

    Attributes:
      frames: [B,V,D], of length 1.
      mask: int32 [B,V], 1 on real frames.
      weights: float32 [B,V], which sum up to 1; 0 at padding.
    """

    frames: jax.Array
    mask: jax.Array
    weights: jax.Array


class Weights(nn.Module):
    """How much each of a sequence's features counts: [n,M,D] and mask [n,M] -> float32 [n,M]."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, features, mask):
        init = initializers.normal(0.02)
        hidden = Linear(self.width, self.dtype, kernel_init=init, name="linear_1")(features)
        logits = Linear(1, self.dtype, kernel_init=init, name="linear_2")(jax.nn.relu(hidden))
        logits = jnp.where(mask > 0, logits[..., 0].astype(jnp.float32), -jnp.inf)
        return jax.nn.softmax(logits, axis=-1)


@register
@dataclasses.dataclass(frozen=True)
class WTIHead(Head):
    """The weighted token-wise interaction of DRL."""

    name = "wti"
    reads_tokens = True
    legend = (
        (
            "Under each frame: its learned weight",
            "How much the frame's nearest word counts, for every caption alike.",
        ),
    )
    text_features, video_features = Tokens, Frames

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, nn.Module]:
        """The MLP of each side."""
        return {"token_weights": Weights(width, dtype), "frame_weights": Weights(width, dtype)}

    def text(self, modules, sentence, tokens, mask, deterministic) -> Tokens:
        """Real tokens [A,L,D] of length 1 and their weights; the end token is among them."""
        weights = modules["token_weights"](tokens, mask)
        return Tokens(directions(tokens), mask, weights)

    def video(self, modules, frames, mask, deterministic) -> Frames:
        """Frames [B,V,D] of length 1 and their weights."""
        weights = modules["frame_weights"](frames, mask)
        return Frames(directions(frames), mask, weights)

    def prepare(self, video: Frames) -> None:
        """Nothing: all of a video is in its features."""

    def score(self, text: Tokens, video: Frames, prepared: None = None) -> jax.Array:
        """Every text against every video, float32 [A,B]. The largest temporary is [A,L,B,V]."""
        by_token, by_frame = self._halves(text, video)
        return (by_token + by_frame) / 2

    def _halves(self, text: Tokens, video: Frames) -> tuple[jax.Array, jax.Array]:
        """The score's two sums, float32 [A,B] each."""
        cosines = _einsum("ALD,BVD->ALBV", text.tokens, video.frames)
        frames = jnp.max(jnp.where(video.mask > 0, cosines, -jnp.inf), axis=-1)
        tokens = jnp.where(text.mask[:, :, None, None] > 0, cosines, -jnp.inf)
        tokens = jnp.max(tokens, axis=1)
        return (
            jnp.sum(frames * text.weights[:, :, None].astype(jnp.float32), axis=1),
            jnp.sum(tokens * video.weights.astype(jnp.float32), axis=-1),
        )

    def explain(self, text: Tokens, video: Frames) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""
        one = jax.tree.map(lambda x: x[None], (text, video))
        by_token, by_frame = (float(half[0, 0]) for half in self._halves(*one))
        parts = (Part("tokens' nearest frames", 0.5, by_token),)
        parts += (Part("frames' nearest tokens", 0.5, by_frame),)
        return Explanation(parts, video.weights.astype(jnp.float32), None)

    def directed(self, text: Tokens, video: Frames) -> tuple[tuple, tuple]:
        """Real tokens and real frames."""
        return (text.tokens, text.mask), (video.frames, video.mask)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """`D^2 + D` for each token's and each frame's weight, and `L V D` a pair."""
        each = width**2 + width
        return Cost(text=words * each, video=frames * each, pair=words * frames * width)
