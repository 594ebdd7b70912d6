"""DiCoSA: the cosines of K concepts, each by its own confidence.

A video is pooled for every sentence over its real frames, `p_ab = sum_v w_abv f_bv` with
`w = softmax_v(<c_a, f_bv> / temperature)`. Sentence and pooled video are cut into K concepts of
C = D/K numbers, t_ak and p_abk, and adaptive pooling adds up

    sim[a,b] = sum_k g_abk cos(t_ak, p_abk),    g_abk = MLP([t_ak, p_abk])

with one MLP for all concepts, 2C -> 4C -> 1 with a ReLU. (Jin et al., "Text-Video Retrieval with
Disentangled Conceptualization and Set-to-Set Alignment", 2023, arXiv 2305.12218; the MLP's sizes
are those of its released model.)

What its text does not fix is chosen here: the MLP starts from a normal of 0.02 and an offset of
1/K, so that the score begins as the mean of the concepts' cosines. Left out are its losses within
and between concepts, whose constants only its code has.

The MLP's first layer is linear, so that of a pair is `H_ak + sum_v w_abv J_bvk`, of parts that are
made once a text and once a video; and a concept's cosine needs inner products alone, as GIM's.
"""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax import ranges
from glscl_jax.models.encoders.transformer import Linear
from glscl_jax.models.heads.head import Cost, Head, register
from glscl_jax.models.heads.told import Part, Told
from glscl_jax.ranges import Real, Whole

_RANGES = {"temperature": Real(above=0), "queries": Whole(1)}

_einsum = functools.partial(
    jnp.einsum, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST
)


@flax.struct.dataclass
class TextConcepts:
    """What the score needs of A texts.

    Attributes:
      sentence: [A,D], K concepts of C one after the other.
      hidden: [A,K,4C], what they add to the MLP's hidden layer, its bias included.
      out: [A,4C+1], the MLP's last layer and its offset, the same for all texts.
    """

    sentence: jax.Array
    hidden: jax.Array
    out: jax.Array


@flax.struct.dataclass
class VideoConcepts:
    """What the score needs of B videos.

    Attributes:
      frames: [B,V,D], K concepts of C one after the other.
      mask: int32 [B,V], 1 on real frames.
      hidden: [B,V,K,4C], what each frame's concepts add to the MLP's hidden layer.
    """

    frames: jax.Array
    mask: jax.Array
    hidden: jax.Array


class Confidence(nn.Module):
    """The MLP [t, p] -> g, its first layer in two halves."""

    concepts: int
    width: int
    dtype: jnp.dtype

    def setup(self):
        init = initializers.normal(0.02)
        hidden = 4 * self.width // self.concepts
        self.of_text = Linear(hidden, self.dtype, kernel_init=init)
        self.of_video = nn.Dense(hidden, use_bias=False, dtype=self.dtype, kernel_init=init)
        self.out_kernel = self.param("out_kernel", init, (hidden,))
        start = initializers.constant(1 / self.concepts)
        self.out_bias = self.param("out_bias", start, (1,))

    def text(self, sentence: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sentences [A,D] -> their part of the hidden layer [A,K,4C], the last layer [A,4C+1]."""
        out = jnp.concatenate([self.out_kernel, self.out_bias])
        out = jnp.broadcast_to(out, (sentence.shape[0], *out.shape))
        return self.of_text(self._cut(sentence)), out

    def video(self, frames: jax.Array) -> jax.Array:
        """Frames [B,V,D] -> their part of the hidden layer [B,V,K,4C]."""
        return self.of_video(self._cut(frames))

    def _cut(self, features: jax.Array) -> jax.Array:
        return _cut(features, self.concepts).astype(self.dtype)


@register
@dataclasses.dataclass(frozen=True)
class DiCoSAHead(Head):
    """Concepts that are slices of the features, by their confidences.

    Attributes:
      temperature: of the softmax over frames.
      queries: K, the concepts.
    """

    temperature: float = 3.0
    queries: int = 8

    name = "dicosa"
    legend = (
        (
            "Under each frame: its share of the pooled video",
            "The softmax over frames of ⟨c, f⟩ / temperature, for this caption.",
        ),
        (
            "Concepts",
            "The cosine of each slice of the features, times the confidence that the model has in"
            " it for this pair.",
        ),
    )
    text_features, video_features = TextConcepts, VideoConcepts

    def __post_init__(self):
        ranges.check(vars(self), _RANGES)

    def check(self, width: int) -> None:
        """Raises a `ValueError` where features are not cut into K of one width."""
        if width % self.queries:
            raise ValueError(f"embed_dim {width} is no multiple of queries {self.queries}")

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, nn.Module]:
        """The MLP."""
        return {"confidence": Confidence(self.queries, width, dtype)}

    def text(self, modules, sentence, tokens, mask, deterministic) -> TextConcepts:
        """The sentence [A,D] and its part of the MLP."""
        return TextConcepts(sentence, *modules["confidence"].text(sentence))

    def video(self, modules, frames, mask, deterministic) -> VideoConcepts:
        """The frames [B,V,D] and their part of the MLP."""
        return VideoConcepts(frames, mask, modules["confidence"].video(frames))

    def prepare(self, video: VideoConcepts) -> jax.Array:
        """Inner products of each concept's frames: float32 [B,K,V,V]."""
        concepts = _cut(video.frames, self.queries)
        return _einsum("BVKC,BWKC->BKVW", concepts, concepts)

    def score(
        self, text: TextConcepts, video: VideoConcepts, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]. The largest temporary is [B,A,4C]."""
        gram = self.prepare(video) if prepared is None else prepared
        weights, inner = self._pooling(text, video)

        def concept(parts):
            gate, cosine = _concept(weights, text.out, *parts)
            return gate * cosine

        # One concept at a time: the hidden layer of all would be [B,A,4D].
        found = jax.lax.map(concept, self._parts(text, video, inner, gram))
        return jnp.sum(found, axis=0).T

    def _pooling(self, text, video) -> tuple[jax.Array, jax.Array]:
        """w, float32 [B,V,A], and the concepts' inner products, float32 [K,B,V,A]."""
        frames, sentence = (_cut(x, self.queries) for x in (video.frames, text.sentence))
        inner = _einsum("BVKC,AKC->KBVA", frames, sentence)
        logits = jnp.sum(inner, axis=0) / self.temperature
        logits = jnp.where(video.mask[:, :, None] > 0, logits, -jnp.inf)
        return jax.nn.softmax(logits, axis=1), inner

    def _parts(self, text, video, inner, gram) -> tuple[jax.Array, ...]:
        """What `_concept` takes of each concept, arrays [K,...]."""
        length = jnp.linalg.norm(_cut(text.sentence.astype(jnp.float32), self.queries), axis=-1)
        of_text, of_video = text.hidden.swapaxes(0, 1), jnp.moveaxis(video.hidden, 2, 0)
        return inner, gram.swapaxes(0, 1), length.T, of_text, of_video

    def tell(self, text: TextConcepts, video: VideoConcepts) -> Told:
        """What the score of one text and one video is made of; their features have no A and B."""
        text, video = jax.tree.map(lambda x: x[None], (text, video))
        weights, inner = self._pooling(text, video)
        all_parts = self._parts(text, video, inner, self.prepare(video))
        told = []
        for number in range(self.queries):
            found = _concept(weights, text.out, *(x[number] for x in all_parts))
            gate, cosine = (float(x[0, 0]) for x in found)
            told.append(Part(f"concept {number + 1}", gate, cosine))
        return Told(tuple(told), weights[0, :, 0], None)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """The MLP's first layer, `4 C D` an item and frame; of a pair `5 V D + K V^2`.

        The concepts' inner products take V D, the hidden layers 4 V D, the lengths K V^2.
        """
        layer = 4 * width * width // self.queries
        return Cost(
            text=layer,
            video=frames * layer,
            prepared=frames**2 * width,
            pair=5 * frames * width + self.queries * frames**2,
        )


def _cut(features: jax.Array, concepts: int) -> jax.Array:
    """Features [...,D] -> [...,K,C]."""
    width = features.shape[-1] // concepts
    return features.reshape(*features.shape[:-1], concepts, width)


def _concept(weights, out, inner, gram, length, of_text, of_video) -> tuple[jax.Array, jax.Array]:
    """Of one concept the confidence and the cosine of all pairs, float32 [B,A] each.

    Args:
      weights: float32 [B,V,A].
      out: [A,H+1].
      inner: float32 [B,V,A], the concept's inner products.
      gram: float32 [B,V,V], its frames'.
      length: float32 [A], of the texts' concept.
      of_text, of_video: [A,H] and [B,V,H], of the hidden layer.
    """
    square = jnp.sum(weights * _einsum("BVW,BWA->BVA", gram, weights), axis=1)
    product = jnp.sqrt(square) * length
    cosine = jnp.sum(weights * inner, axis=1) / jnp.where(product > 0, product, 1.0)
    hidden = _einsum("BVH,BVA->BAH", of_video, weights.astype(of_video.dtype))
    hidden = jax.nn.relu(hidden + of_text.astype(jnp.float32))
    out = out.astype(jnp.float32)
    return jnp.sum(hidden * out[:, :-1], axis=-1) + out[:, -1], cosine
