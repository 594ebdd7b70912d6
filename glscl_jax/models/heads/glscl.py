"""GLSCL's score: `sim = GIM + lim_weight * LIM` (Zhang et al., 2024, section 3.5)."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax import ranges
from glscl_jax.models.heads import gim_bound
from glscl_jax.models.heads.concept_figures import ALIKE, concept_figures
from glscl_jax.models.heads.concept_losses import LossWeights, inter_consistency, intra_diversity
from glscl_jax.models.heads.explanation import Explanation, Part
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures, directions
from glscl_jax.models.heads.gim import frame_weights, gim_similarity, gram_matrices
from glscl_jax.models.heads.head import Cost, Head, register
from glscl_jax.models.heads.lim import LIM, lim_multiply_adds, lim_similarity
from glscl_jax.ranges import EITHER, Real, Whole

_RANGES = {
    "temperature": Real(above=0),
    "normalised": EITHER,
    "gim_weight": Real(least=0),
    "lim_weight": Real(least=0),
    "queries": Whole(1),
    "lim_layers": Whole(1),
    "lim_heads": Whole(1),
    "lim_feed_forward": Whole(1),
    "lim_dropout": Real(least=0, below=1),
    "share_queries": EITHER,
    "share_decoder": EITHER,
    "mask_padding": EITHER,
}


# What the report says of its pictures.
GIM_LEGEND = (
    "Under each frame: weight by the GIM",
    "How much of the pooled video that frame makes up for this caption: the softmax over"
    " frames of ⟨c, f⟩ / temperature. The heaviest frame is outlined; bars share one scale"
    " within a query.",
)
_EVEN_LEGEND = (
    "Under each frame: its share",
    "The LIM scores alone, and weighs no frame by a caption: every frame counts alike.",
)
_LIM_LEGEND = (
    "Coloured squares: concepts of the LIM",
    "How alike each concept of the text (rows) is to each of the video (columns), as a"
    " cosine. Only the framed diagonal enters the score. One colour scale for the whole"
    " page.",
)


@register
@dataclasses.dataclass(frozen=True)
class GLSCLHead(Head):
    """The GIM's score and, beside it, the LIM's; the defaults are the reference's.

    Attributes:
      temperature: of the GIM's softmax over frames.
      normalised: whether the sentence and the frames are made of length 1 for the GIM, so that its
        weights are a softmax of cosines: for encoders that are compared so (docs/encoders.md).
      gim_weight: of the GIM's score; with 0 the LIM scores alone.
      lim_weight: of the LIM's score. Features without queries (K = 0) have only the GIM's.
      queries: K, the learnable queries.
      lim_layers, lim_heads, lim_feed_forward: the LIM decoder's sizes.
      lim_dropout: of the LIM decoder, the model's only dropout.
      share_queries, share_decoder: whether texts and videos share them.
      mask_padding: whether padding is hidden from the LIM's queries. The reference's read it, so
        that an item's concepts depend on how far it is filled up.
    """

    temperature: float = 3.0
    lim_weight: float = 0.5
    queries: int = 8
    lim_layers: int = 3
    lim_heads: int = 8
    lim_feed_forward: int = 2048
    lim_dropout: float = 0.1
    share_queries: bool = True
    share_decoder: bool = True
    gim_weight: float = 1.0
    normalised: bool = False
    mask_padding: bool = False

    name = "glscl"
    reads_tokens = True
    loss_weights = LossWeights

    def __post_init__(self):
        ranges.check(vars(self), _RANGES)
        if not self.gim_weight and not self.lim_weight:
            raise ValueError("gim_weight and lim_weight are both 0: nothing is left to score by")

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """What the pictures of the report show: (a term, what it is)."""
        return (GIM_LEGEND if self.gim_weight else _EVEN_LEGEND), _LIM_LEGEND

    def check(self, width: int) -> None:
        """Raises a `ValueError` where the LIM's heads do not divide D."""
        if width % self.lim_heads:
            raise ValueError(f"embed_dim {width} is no multiple of lim_heads {self.lim_heads}")

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, LIM]:
        """The LIM."""
        return {
            "lim": LIM(
                self.queries,
                self.lim_layers,
                width,
                self.lim_heads,
                self.lim_feed_forward,
                self.lim_dropout,
                self.share_queries,
                self.share_decoder,
                dtype,
                scan,
            )
        }

    def text(self, modules, sentence, tokens, mask, deterministic) -> TextFeatures:
        """The sentence [A,D] and the concepts that the LIM reads out of tokens [A,L,D]."""
        sentence = directions(sentence) if self.normalised else sentence
        concepts = modules["lim"].text(tokens, self._seen(mask), deterministic)
        return TextFeatures(sentence, concepts)

    def video(self, modules, frames, mask, deterministic) -> VideoFeatures:
        """The frames [B,V,D], mask [B,V], and the concepts that the LIM reads out of them."""
        concepts = modules["lim"].video(frames, self._seen(mask), deterministic)
        return VideoFeatures(directions(frames) if self.normalised else frames, mask, concepts)

    def _seen(self, mask: jax.Array) -> jax.Array | None:
        return mask if self.mask_padding else None

    def prepare(self, video: VideoFeatures) -> jax.Array | None:
        """What is computed once a video, however many texts it meets: float32 [B,V,V]."""
        return gram_matrices(video.frames) if self.gim_weight else None

    def score(
        self, text: TextFeatures, video: VideoFeatures, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video; differentiable.

        Args:
          text: features of A texts, float32 or half precision.
          video: features of B videos, float32 or half precision.
          prepared: `prepare(video)`, if already there.

        Returns:
          float32 [A,B]. The largest temporary is [B,V,A].
        """
        if not self.gim_weight:
            return self.lim_weight * lim_similarity(text.queries, video.queries)
        gim = gim_similarity(text.sentence, video.frames, video.mask, self.temperature, prepared)
        gim = self.gim_weight * gim
        if not text.queries.shape[1]:
            return gim
        return gim + self.lim_weight * lim_similarity(text.queries, video.queries)

    def outline(self, video: VideoFeatures) -> dict[str, np.ndarray]:
        """Of each video's frames: see `gim_bound.outline`."""
        return gim_bound.outline(video.frames, video.mask)

    def bound(self, text: TextFeatures, video: VideoFeatures, outline: Mapping) -> jax.Array:
        """The GIM's bound, times its weight, and the LIM's own share; float32 [A,B]."""
        gim = gim_bound.bound(text.sentence, video.frames, video.mask, self.temperature, outline)
        gim = self.gim_weight * gim
        if not text.queries.shape[1]:
            return gim
        return gim + self.lim_weight * lim_similarity(text.queries, video.queries)

    def text_vector(self, text: TextFeatures) -> jax.Array:
        """The sentence's direction, and the concepts: float32 [A,(1+K)*D]."""
        sentence = text.sentence.astype(jnp.float32)
        sentence /= jnp.linalg.norm(sentence, axis=-1, keepdims=True)
        concepts = text.queries.astype(jnp.float32).reshape(sentence.shape[0], -1)
        return jnp.concatenate([sentence, concepts], axis=1)

    def video_vector(self, video: VideoFeatures) -> jax.Array:
        """gim_weight of the mean frame's direction, lim_weight / K of the concepts, [B,(1+K)*D].

        Float32. All have the same length before it is made 1, so the LIM's part is exact up to a
        factor; for the GIM's the mean stands for every pooling.
        """
        real = video.mask.astype(jnp.float32)
        mean = jnp.einsum("BVD,BV->BD", video.frames.astype(jnp.float32), real)
        length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
        mean /= jnp.where(length > 0, length, 1)
        count = max(video.queries.shape[1], 1)
        concepts = video.queries.astype(jnp.float32).reshape(len(mean), -1)
        parts = [self.gim_weight * mean, self.lim_weight / count * concepts]
        joined = jnp.concatenate(parts, axis=1)
        return joined / jnp.linalg.norm(joined, axis=-1, keepdims=True)

    def explain(self, text: TextFeatures, video: VideoFeatures) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""
        sentence, frames = (x.astype(jnp.float32) for x in (text.sentence, video.frames))
        one = VideoFeatures(frames[None], video.mask[None], video.queries[None])
        weights = self._frame_weights(text, one)[0]
        parts = []
        if self.gim_weight:
            gim = gim_similarity(sentence[None], frames[None], video.mask[None], self.temperature)
            parts = [Part("GIM", self.gim_weight, float(gim[0, 0]))]
        queries = (x.astype(jnp.float32) for x in (text.queries, video.queries))
        concepts = jnp.einsum("ID,JD->IJ", *queries, precision=jax.lax.Precision.HIGHEST)
        if not len(concepts):
            return Explanation(tuple(parts), weights, None)
        lim = jnp.trace(concepts) / len(concepts)
        return Explanation((*parts, Part("LIM", self.lim_weight, float(lim))), weights, concepts)

    def figures(self, text: TextFeatures, video: VideoFeatures) -> dict[str, float]:
        """How alike concepts are and how many in effect, of texts and of videos; see there."""
        found = {}
        for side, queries in (("text", text.queries), ("video", video.queries)):
            if queries.shape[1] > 1:
                cosine, effective = concept_figures(queries)
                found[f"lim/concept_cosine/{side}"] = cosine
                found[f"lim/effective_concepts/{side}"] = effective
        return found

    def remarks(self, figures: Mapping[str, float]) -> list[str]:
        """A sentence where the concepts of an item are nearly one vector."""
        cosines, effective = (
            [figures.get(f"lim/{name}/{side}", 0.0) for side in ("text", "video")]
            for name in ("concept_cosine", "effective_concepts")
        )
        if max(cosines) < ALIKE:
            return []
        return [
            f"the concepts are alike: of the {self.queries} of an item there are in effect "
            f"{effective[0]:.1f} (texts) and {effective[1]:.1f} (videos), with a mean cosine "
            f"between them of {cosines[0]:.3f} and {cosines[1]:.3f}"
        ]

    def directed(self, text: TextFeatures, video: VideoFeatures) -> tuple[tuple, tuple]:
        """As `Head.directed`; the LIM alone needs its concepts, which are of length 1."""
        if not self.gim_weight:
            return (text.queries, None), (video.queries, None)
        return super().directed(text, video)

    def frame_importance(self, text: TextFeatures, video: VideoFeatures) -> np.ndarray:
        """The frame weights of `explain`, of B videos at once: float32 [B,V]."""
        return np.asarray(self._frame_weights(text, video))

    def _frame_weights(self, text: TextFeatures, video: VideoFeatures) -> jax.Array:
        """The GIM's, float32 [B,V]; where it has no part in the score, real frames' are alike."""
        if not self.gim_weight:
            return video.mask / jnp.sum(video.mask, axis=-1, keepdims=True)
        sentence, frames = (x.astype(jnp.float32) for x in (text.sentence, video.frames))
        logits = jnp.einsum("BVD,D->BV", frames, sentence, precision=jax.lax.Precision.HIGHEST)
        return frame_weights(logits[None], video.mask, self.temperature)[0]

    def losses(
        self, text: TextFeatures, video: VideoFeatures, weights: LossWeights
    ) -> dict[str, jax.Array]:
        """Of its concepts, the losses "diversity" and "consistency"."""
        return {
            "diversity": intra_diversity(video.queries, weights),
            "consistency": inter_consistency(text.queries, video.queries, weights),
        }

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """The LIM over tokens and over frames, the Gram matrix, and of a pair `V (D + V) + K D`.

        The pair's are frames' weights, a row of weights times the Gram matrix, and the inner
        product of the queries.
        """
        lim = (self.queries, self.lim_layers, self.lim_feed_forward, width)
        return Cost(
            text=lim_multiply_adds(*lim, memory=words),
            video=lim_multiply_adds(*lim, memory=frames),
            prepared=frames**2 * width if self.gim_weight else 0,
            pair=(frames * (width + frames) if self.gim_weight else 0) + self.queries * width,
        )
