"""GLSCL without its LIM: the GIM's score, no parameters, no losses of its own.

`sim[a,b] = cos(c_a, p_ab)`, see `gim`. (Zhang et al., 2024, the ablation without the local module.)
The LIM alone is GLSCL's head with `gim_weight` 0.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from glscl_jax import ranges
from glscl_jax.models.heads.explanation import Explanation
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures, directions
from glscl_jax.models.heads.glscl import GIM_LEGEND, GLSCLHead
from glscl_jax.models.heads.head import Cost, Head, register
from glscl_jax.ranges import EITHER, Real


@register
@dataclasses.dataclass(frozen=True)
class GIMHead(Head):
    """The GIM's score alone.

    Attributes:
      temperature: of the softmax over frames.
      normalised: see `GLSCLHead`.
    """

    temperature: float = 3.0
    normalised: bool = False

    name = "gim"
    legend = (GIM_LEGEND,)

    def __post_init__(self):
        ranges.check(vars(self), {"temperature": Real(above=0), "normalised": EITHER})

    @property
    def _whole(self) -> GLSCLHead:
        """Features without queries have its GIM alone."""
        return GLSCLHead(temperature=self.temperature)

    def text(self, modules, sentence, tokens, mask, deterministic) -> TextFeatures:
        """The sentence [A,D], of length 1 where the head is `normalised`."""
        sentence = directions(sentence) if self.normalised else sentence
        return super().text(modules, sentence, tokens, mask, deterministic)

    def video(self, modules, frames, mask, deterministic) -> VideoFeatures:
        """The frames [B,V,D], likewise, and their mask [B,V]."""
        frames = directions(frames) if self.normalised else frames
        return super().video(modules, frames, mask, deterministic)

    def prepare(self, video: VideoFeatures) -> jax.Array:
        """What is computed once a video, however many texts it meets: float32 [B,V,V]."""
        return self._whole.prepare(video)

    def score(
        self, text: TextFeatures, video: VideoFeatures, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Every text against every video, float32 [A,B]; arguments as `Head.score`'s."""
        return self._whole.score(text, video, prepared)

    def outline(self, video: VideoFeatures) -> dict[str, np.ndarray]:
        """Of each video's frames: see `gim_bound.outline`."""
        return self._whole.outline(video)

    def bound(self, text: TextFeatures, video: VideoFeatures, outline: Mapping) -> jax.Array:
        """What no score is above, float32 [A,B]."""
        return self._whole.bound(text, video, outline)

    def text_vector(self, text: TextFeatures) -> jax.Array:
        """The sentence's direction, float32 [A,D]."""
        return self._whole.text_vector(text)

    def video_vector(self, video: VideoFeatures) -> jax.Array:
        """The mean frame's direction, float32 [B,D]."""
        return self._whole.video_vector(video)

    def frame_importance(self, text: TextFeatures, video: VideoFeatures) -> np.ndarray:
        """The frame weights of `explain`, of B videos at once: float32 [B,V]."""
        return self._whole.frame_importance(text, video)

    def explain(self, text: TextFeatures, video: VideoFeatures) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""
        return self._whole.explain(text, video)

    def cost(self, width: int, words: int, frames: int) -> Cost:
        """The Gram matrix, and of a pair `V (D + V)`."""
        return Cost(prepared=frames**2 * width, pair=frames * (width + frames))
