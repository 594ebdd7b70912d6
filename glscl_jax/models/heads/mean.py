"""The mean of the frames: CLIP4Clip's head without parameters ("meanP"; Luo et al., 2021).

`sim = cos(c_a, mean_v f_bv / |f_bv|)`, over real frames. What CLIP alone can do: the
baseline of the other heads.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.models.heads.explanation import Explanation, Part
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.features import unit as _unit
from glscl_jax.models.heads.head import Cost, Head, register

_ROUNDING = 1e-5


@register
@dataclasses.dataclass(frozen=True)
class MeanHead(Head):
    """The cosine of the sentence and the mean frame."""

    name = "mean"
    legend = (("Under each frame: its share", "Every frame counts alike, for every caption."),)

    def prepare(self, video: VideoFeatures) -> jax.Array:
        """The mean of each video's frames, each of length 1, itself of length 1: float32 [B,D]."""
        frames = _unit(video.frames.astype(jnp.float32))
        real = video.mask.astype(jnp.float32)
        # The sum's length cancels: to divide by the number of frames changes nothing.
        return _unit(jnp.einsum("BVD,BV->BD", frames, real, precision=jax.lax.Precision.HIGHEST))

    def score(
        self, text: TextFeatures, video: VideoFeatures, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]; arguments as `Head.score`'s."""
        means = self.prepare(video) if prepared is None else prepared
        sentences = _unit(text.sentence.astype(jnp.float32))
        return jnp.einsum("AD,BD->AB", sentences, means, precision=jax.lax.Precision.HIGHEST)

    def outline(self, video: VideoFeatures) -> dict[str, np.ndarray]:
        """The mean again: nothing bounds the score better than the score."""
        return {"mean": np.asarray(self.prepare(video))}

    def bound(self, text: TextFeatures, video: VideoFeatures, outline: Mapping) -> jax.Array:
        """The score itself, and what rounding may make of it; float32 [A,B]."""
        return self.score(text, video, outline["mean"]) + _ROUNDING

    def text_vector(self, text: TextFeatures) -> jax.Array:
        """The sentence's direction, float32 [A,D]."""
        return _unit(text.sentence.astype(jnp.float32))

    def video_vector(self, video: VideoFeatures) -> jax.Array:
        """The mean, float32 [B,D], whose inner product is the score."""
        return self.prepare(video)

    def explain(self, text: TextFeatures, video: VideoFeatures) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""
        text, video = jax.tree.map(lambda x: x[None], (text, video))
        score = float(self.score(text, video)[0, 0])
        weights = video.mask[0] / jnp.sum(video.mask)
        return Explanation((Part("cosine", 1.0, score),), weights, None)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """The mean of a video, and an inner product a pair."""
        return Cost(prepared=frames * width, pair=width)
