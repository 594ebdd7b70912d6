"""GLSCL's head with the study's LIM; without options it is the product's."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from benchmarks.lim_study.lim import StudyLIM
from benchmarks.lim_study.options import Options
from glscl_jax.models.heads.concept_losses import intra_diversity
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.gim import gim_similarity, gram_matrices
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import NoLosses
from glscl_jax.models.heads.lim import lim_similarity


@flax.struct.dataclass
class WeighedText(TextFeatures):
    """Features of A texts, and the LIM's weight, which is learned, float32 [A]."""

    weight: jax.Array


_REFERENCE = Options()


@dataclasses.dataclass(frozen=True)
class StudyHead(GLSCLHead):
    """The GIM's score and, beside it, that of a LIM with options.

    Attributes:
      options: see there. Weights of scores and losses are among them, and GLSCL's settings of the
        same names play no part.
      places: tokens or frames that have places.
    """

    options: Options = _REFERENCE
    places: int = 32

    name = "lim_study"
    loss_weights = NoLosses
    text_features = WeighedText

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, StudyLIM]:
        """The LIM."""
        return {
            "lim": StudyLIM(
                queries=self.queries,
                layers=self.lim_layers,
                width=width,
                heads=self.lim_heads,
                feed_forward=self.lim_feed_forward,
                share_queries=self.share_queries,
                share_decoder=self.share_decoder,
                places=self.places,
                options=self.options,
            )
        }

    def text(self, modules, sentence, tokens, mask, deterministic) -> WeighedText:
        """The sentence [A,D], the concepts of tokens [A,L,D], and the LIM's weight."""
        weight = jnp.broadcast_to(modules["lim"].weight(), (len(sentence),))
        return WeighedText(sentence, modules["lim"].text(tokens, mask), weight)

    def video(self, modules, frames, mask, deterministic) -> VideoFeatures:
        """The frames [B,V,D], mask [B,V], and their concepts."""
        return VideoFeatures(frames, mask, modules["lim"].video(frames, mask))

    def prepare(self, video: VideoFeatures) -> jax.Array:
        """Inner products of each video's frames, float32 [B,V,V]."""
        return gram_matrices(video.frames)

    def score(
        self, text: WeighedText, video: VideoFeatures, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]."""
        gim = gim_similarity(text.sentence, video.frames, video.mask, self.temperature, prepared)
        lim = lim_similarity(text.queries, video.queries)
        return self.options.gim_weight * gim + text.weight[:, None] * lim

    def losses(self, text: WeighedText, video: VideoFeatures, weights) -> dict[str, jax.Array]:
        """Of the concepts: "diversity" and "consistency"."""
        diversity = _diversity(video.queries, self.options)
        of_texts = _diversity(text.queries, self.options)
        return {
            "diversity": diversity + self.options.both_sides * of_texts,
            "consistency": _consistency(text.queries, video.queries, self.options),
        }


def _diversity(queries: jax.Array, options: Options) -> jax.Array:
    """`intra_diversity` of concepts [B,K,D], of the batch's mean or of each item."""
    of_batch = intra_diversity(queries, options)
    each = jax.vmap(lambda own: intra_diversity(own[None], options))(queries)
    return jnp.where(options.per_item > 0, jnp.mean(each), of_batch)


def _consistency(text: jax.Array, video: jax.Array, options: Options) -> jax.Array:
    """`inter_consistency` of concepts [B,K,D] with a `per_pair` that is a number."""
    count, queries, _ = video.shape
    apart = jnp.mean(video, axis=0) - jnp.mean(text, axis=0)
    pairs = jnp.einsum("BKD,BKD->K", video, text)
    pairs = pairs / jnp.where(options.per_pair > 0, count, queries)
    centre = options.centre * jnp.mean(apart**2)
    return centre + options.beta * jnp.sum((pairs - options.target) ** 2)
