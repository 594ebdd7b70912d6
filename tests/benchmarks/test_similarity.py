"""The released way to score, which part a times, has the scores of this project."""

import jax.numpy as jnp
import numpy as np

from benchmarks.similarity import released
from benchmarks.similarity.features import FRAMES, QUERIES, WIDTH, WORDS


class FirstOnes:
    """In the LIM's place: the first of an item's vectors, at length 1."""

    def read(self, side, memory):
        del side
        queries = memory[:, :QUERIES]
        return queries / jnp.linalg.norm(queries, axis=-1, keepdims=True)

    def text(self, tokens):
        return np.asarray(self.read("text", tokens))

    def video(self, frames):
        return np.asarray(self.read("video", frames))


def test_the_released_way_has_the_same_scores():
    rng, size = np.random.default_rng(0), 2 * released.BLOCK
    tokens = rng.normal(size=(size, WORDS, WIDTH)).astype(np.float32)
    frames = rng.normal(size=(size, FRAMES, WIDTH)).astype(np.float32) / 4
    mask = np.ones((size, FRAMES), np.int32)
    found = released.of_corner(released.released(FirstOnes()), tokens, frames, mask)
    expected = released.ours(FirstOnes(), tokens, frames, mask)
    assert expected.std() > 0.02
    np.testing.assert_allclose(found, expected, atol=1e-5)
