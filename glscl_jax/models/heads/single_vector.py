"""A head's score by one vector a text and one a video: what an index of vectors would rank by.

    sim[a,b] = <t_a, v_b>

with `t` the head's `text_vector` and `v` its `video_vector`. Of `mean` this is the score itself, of
`gim` and `glscl` an approximation: the mean of the frames stands for what each sentence pools.
Heads whose score comes of tokens and frames in pairs have no such vectors.
"""

import dataclasses

import jax
import jax.numpy as jnp

from glscl_jax.models.heads.explanation import Explanation
from glscl_jax.models.heads.features import Features
from glscl_jax.models.heads.head import HEADS, Cost, Head


@dataclasses.dataclass(frozen=True)
class SingleVector(Head):
    """Scores another head's features by its single vectors; it encodes nothing itself.

    Attributes:
      head: whose features and vectors they are.

    Raises:
      ValueError: the head has no single vectors; those that have are named.
    """

    name = "single_vector"
    legend = ()

    head: Head

    def __post_init__(self):
        if not has_vectors(type(self.head)):
            known = ", ".join(sorted(name for name, head in HEADS.items() if has_vectors(head)))
            raise ValueError(f"the head {self.head.name} has no single vectors; {known} have them")

    def prepare(self, video: Features) -> jax.Array:
        """The videos' vectors, float32 [B,E]."""
        vectors = self.head.video_vector(video)
        assert vectors is not None
        return vectors

    def score(
        self, text: Features, video: Features, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]; arguments as `Head.score`'s."""
        vectors = self.prepare(video) if prepared is None else prepared
        texts = self.head.text_vector(text)
        return jnp.einsum("AE,BE->AB", texts, vectors, precision=jax.lax.Precision.HIGHEST)

    def explain(self, text: Features, video: Features) -> Explanation:
        """As the head explains its own score, which this one stands for."""
        return self.head.explain(text, video)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """The mean of a video, and an inner product of sentence and concepts a pair."""
        del words
        pair = (1 + getattr(self.head, "queries", 0)) * width
        return Cost(prepared=frames * width, pair=pair)


def has_vectors(head: type[Head]) -> bool:
    """Whether a kind of head has a vector a text and a video."""
    return head.video_vector is not Head.video_vector
