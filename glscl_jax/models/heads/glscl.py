"""GLSCL's score: `sim = GIM + lim_weight * LIM` (Zhang et al., 2024, section 3.5)."""

import dataclasses

import jax
import jax.numpy as jnp

from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.gim import frame_weights, gim_similarity, gram_matrices
from glscl_jax.models.heads.lim import lim_similarity
from glscl_jax.models.heads.told import Part, Told


@dataclasses.dataclass(frozen=True)
class GLSCLHead:
    """The GIM's score and, beside it, the LIM's. Hashable: static in what is compiled.

    Attributes:
      temperature: of the GIM's softmax over frames.
      lim_weight: of the LIM's score. Features without queries (K = 0) have only the GIM's.
      name: of the head.
      legend: how to read what it tells of a pair: terms, each with a paragraph.
    """

    temperature: float
    lim_weight: float

    name = "glscl"
    legend = (
        (
            "Under each frame: weight by the GIM",
            "How much of the pooled video that frame makes up for this caption: the softmax over"
            " frames of ⟨c, f⟩ / temperature. The heaviest frame is outlined; bars share one scale"
            " within a query.",
        ),
        (
            "Coloured squares: concepts of the LIM",
            "How alike each concept of the text (rows) is to each of the video (columns), as a"
            " cosine. Only the framed diagonal enters the score. One colour scale for the whole"
            " page.",
        ),
    )

    def prepare(self, video: VideoFeatures) -> jax.Array:
        """What is computed once a video, however many texts it meets: float32 [B,V,V]."""
        return gram_matrices(video.frames)

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
        gim = gim_similarity(text.sentence, video.frames, video.mask, self.temperature, prepared)
        if not text.queries.shape[1]:
            return gim
        return gim + self.lim_weight * lim_similarity(text.queries, video.queries)

    def tell(self, text: TextFeatures, video: VideoFeatures) -> Told:
        """What the score of one text and one video is made of; their features have no A and B."""
        sentence, frames = (x.astype(jnp.float32) for x in (text.sentence, video.frames))
        logits = jnp.einsum("VD,D->V", frames, sentence, precision=jax.lax.Precision.HIGHEST)
        weights = frame_weights(logits[None, None], video.mask, self.temperature)[0, 0]
        gim = gim_similarity(sentence[None], frames[None], video.mask[None], self.temperature)
        queries = (x.astype(jnp.float32) for x in (text.queries, video.queries))
        concepts = jnp.einsum("ID,JD->IJ", *queries, precision=jax.lax.Precision.HIGHEST)
        parts = [Part("GIM", 1.0, float(gim[0, 0]))]
        if not len(concepts):
            return Told(tuple(parts), weights, None)
        lim = jnp.trace(concepts) / len(concepts)
        return Told((*parts, Part("LIM", self.lim_weight, float(lim))), weights, concepts)
