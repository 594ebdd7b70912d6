"""X-Pool: every sentence attends to every video's frames, and two layers follow.

With layer norms LN_1 to LN_3, linear layers Q, K, V, O, F, and softmax over real frames,

    w_abv = softmax_v( <Q LN_1(c_a), K LN_1(f_bv)> / sqrt(D) )
    o_ab = O sum_v w_abv V LN_1(f_bv)
    r_ab = LN_2(o_ab)
    z_ab = LN_3(r_ab + F r_ab)
    sim[a,b] = cos(c_a, z_ab)

(Gorti et al., "X-Pool: Cross-Modal Language-Video Attention for Text-Video Retrieval", 2022, arXiv
2203.15086; one attention head, all matrices started as the identity and biases as 0, as released.)
Left out is the dropout of 0.3 on F's output at training. The paper has as many frames of every
video; here padded ones are not attended to.

As written a pair takes two products with a [D,D] matrix. But O and V are linear in the frame and
weights sum up to 1, so `o_ab = sum_v w_abv x_bv` with `x_bv = O V LN_1(f_bv)`, made once a video. A
layer norm takes the mean from each `x_bv` alone, divides by the one number `s2_ab`, and scales by
g_2: linear again but for that number. So with `n_bv = (1 + F) g_2 (x_bv - mean)`, each less its
mean, and e for the constants of LN_2 and F, less their mean,

    z_ab ~ sum_v (w_abv / s2_ab) g_3 n_bv + g_3 e + s3_ab b_3

is a weighted sum of V + 2 vectors, and the cosine needs their products with c_a and each other
alone, as GIM's (`gim_similarity`). `s2_ab^2` and `s3_ab^2` are quadratic in the weights. What a
pair takes is `2 V D + O(V^2)` in place of `2 D^2 + 2 V D`: the same number, to rounding.
"""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax.models.encoders.products import matmul
from glscl_jax.models.encoders.transformer import LAYER_NORM_EPS, Linear
from glscl_jax.models.heads.explanation import Explanation, Part
from glscl_jax.models.heads.head import Cost, Head, register

_einsum = functools.partial(
    jnp.einsum, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST
)


@flax.struct.dataclass
class Sentences:
    """What the score needs of A texts.

    Attributes:
      sentence: [A,D], c.
      query: [A,D], Q LN_1(c) / sqrt(D).
    """

    sentence: jax.Array
    query: jax.Array


@flax.struct.dataclass
class Pooling:
    """What the score needs of B videos.

    Attributes:
      key: [B,V,D], K LN_1(f).
      mask: int32 [B,V], 1 on real frames.
      rows: [B,V+2,D], what z is a weighted sum of: g_3 n, g_3 e and b_3.
      second: float32 [B,V,V], of which w^T second w + epsilon is s2^2.
      third: float32 [B,V+1,V+1], likewise for s3^2, of w / s2 with a 1 appended.
    """

    key: jax.Array
    mask: jax.Array
    rows: jax.Array
    second: jax.Array
    third: jax.Array


class Norm(nn.Module):
    """The scale and the shift of a layer norm, float32 [D] each."""

    width: int

    @nn.compact
    def __call__(self):
        scale = self.param("scale", initializers.ones, (self.width,))
        return scale, self.param("bias", initializers.zeros, (self.width,))


class Attention(nn.Module):
    """All that is learned: Q, K, V, O, F and three layer norms; computed in float32."""

    width: int

    def setup(self):
        def linear():
            return Linear(self.width, jnp.dtype(jnp.float32), kernel_init=_identity)

        self.query, self.key, self.value, self.out = (linear() for _ in range(4))
        # F's, by themselves: its bias is no part of what a frame gives.
        self.linear_kernel = self.param("linear_kernel", _identity, (self.width, self.width))
        self.linear_bias = self.param("linear_bias", initializers.zeros, (self.width,))
        self.norm_1, self.norm_2, self.norm_3 = (Norm(self.width) for _ in range(3))

    def text(self, sentence: jax.Array) -> jax.Array:
        """Sentences [A,D] -> Q LN_1(c) / sqrt(D), float32 [A,D]."""
        return self.query(self._first(sentence)) * self.width**-0.5

    def video(self, frames: jax.Array, mask: jax.Array) -> Pooling:
        """Frames [B,V,D], mask [B,V] -> what the score needs of them."""
        normed = self._first(frames)
        values = _centred(self.out(self.value(normed)))
        (scale_2, bias_2), (scale_3, bias_3) = self.norm_2(), self.norm_3()
        constant = self._with_linear(bias_2[None]) + self.linear_bias
        constant, shift = (
            jnp.broadcast_to(x, (len(frames), 1, self.width)) for x in (constant, bias_3)
        )
        rows = jnp.concatenate([self._with_linear(values * scale_2), constant], axis=1)
        rows = _centred(rows)
        return Pooling(
            key=self.key(normed),
            mask=mask,
            rows=jnp.concatenate([rows * scale_3, shift], axis=1),
            second=_gram(values) / self.width,
            third=_gram(rows) / self.width,
        )

    def _with_linear(self, rows: jax.Array) -> jax.Array:
        """Rows [...,D] and F of them, without F's bias."""
        return rows + matmul(rows, self.linear_kernel)

    def _first(self, features: jax.Array) -> jax.Array:
        scale, bias = self.norm_1()
        features = _centred(features.astype(jnp.float32))
        square = jnp.mean(jnp.square(features), axis=-1, keepdims=True)
        return features / jnp.sqrt(square + LAYER_NORM_EPS) * scale + bias


def _identity(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    """The identity matrix, as an initializer."""
    return jnp.eye(*shape, dtype=dtype)


def _centred(vectors: jax.Array) -> jax.Array:
    """Vectors [...,D] less their own mean."""
    return vectors - jnp.mean(vectors, axis=-1, keepdims=True)


def _gram(rows: jax.Array) -> jax.Array:
    """Inner products of each item's rows: [B,N,D] -> float32 [B,N,N]."""
    return _einsum("BND,BMD->BNM", rows, rows)


@register
@dataclasses.dataclass(frozen=True)
class XPoolHead(Head):
    """Text-conditioned attention over frames."""

    name = "x_pool"
    legend = (
        (
            "Under each frame: attention",
            "How much of the pooled video that frame makes up for this caption. Bars share one"
            " scale within a query.",
        ),
    )
    text_features, video_features = Sentences, Pooling

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, nn.Module]:
        """The attention and what follows it."""
        return {"pooling": Attention(width)}

    def text(self, modules, sentence, tokens, mask, deterministic) -> Sentences:
        """The sentence [A,D] and its query."""
        query = modules["pooling"].text(sentence)
        return Sentences(sentence, query.astype(sentence.dtype))

    def video(self, modules, frames, mask, deterministic) -> Pooling:
        """Keys and what is pooled, of frames [B,V,D]."""
        found = modules["pooling"].video(frames, mask)
        key, rows = (x.astype(frames.dtype) for x in (found.key, found.rows))
        return found.replace(key=key, rows=rows)

    def prepare(self, video: Pooling) -> jax.Array:
        """Inner products of the rows that are pooled: float32 [B,V+2,V+2]."""
        return _gram(video.rows)

    def score(
        self, text: Sentences, video: Pooling, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]. The largest temporary is [B,V+2,A]."""
        gram = self.prepare(video) if prepared is None else prepared
        weights = _attention(text, video)
        second = jnp.sqrt(_form(video.second, weights) + LAYER_NORM_EPS)
        ones = jnp.ones_like(weights[:, :1])
        weights = jnp.concatenate([weights / second[:, None], ones], axis=1)
        third = jnp.sqrt(_form(video.third, weights) + LAYER_NORM_EPS)
        weights = jnp.concatenate([weights, third[:, None]], axis=1)
        inner = _einsum("BND,AD->BNA", video.rows, text.sentence)
        inner = jnp.sum(weights * inner, axis=1)
        length = jnp.linalg.norm(text.sentence.astype(jnp.float32), axis=-1)
        return (inner / jnp.sqrt(_form(gram, weights))).T / length[:, None]

    def explain(self, text: Sentences, video: Pooling) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""
        one = jax.tree.map(lambda x: x[None], (text, video))
        weights = _attention(*one)[0, :, 0]
        return Explanation((Part("cosine", 1.0, float(self.score(*one)[0, 0])),), weights, None)

    def directed(self, text: Sentences, video: Pooling) -> tuple[tuple, tuple]:
        """The sentences. A layer norm gives any frame a direction."""
        return (text.sentence[:, None], None), (video.key, video.mask)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """Of a video K, V, O and F for each frame, and its two matrices.

        Of a pair the weights, V D; the rows' products with the sentence, (V + 2) D; and three
        quadratic forms.
        """
        square, rows = width**2, frames + 1
        return Cost(
            text=square,
            video=4 * frames * square + (frames**2 + rows**2) * width,
            prepared=(frames + 2) ** 2 * width,
            pair=(2 * frames + 2) * width + frames**2 + rows**2 + (rows + 1) ** 2,
        )


def _attention(text: Sentences, video: Pooling) -> jax.Array:
    """w, float32 [B,V,A]."""
    logits = _einsum("BVD,AD->BVA", video.key, text.query)
    return jax.nn.softmax(jnp.where(video.mask[:, :, None] > 0, logits, -jnp.inf), axis=1)


def _form(matrices: jax.Array, weights: jax.Array) -> jax.Array:
    """w^T M w: matrices [B,N,N], weights [B,N,A] -> float32 [B,A]."""
    return jnp.sum(weights * _einsum("BNM,BMA->BNA", matrices, weights), axis=1)
