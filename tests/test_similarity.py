"""The fast scores against the formulas as the paper writes them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.models.glscl import TextFeatures, VideoFeatures
from glscl_jax.similarity import score, score_in_blocks


def features(texts, videos, frames=4, width=16, queries=3, seed=0):
    rng = np.random.default_rng(seed)

    def units(*shape):
        x = rng.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    real = rng.integers(1, frames + 1, videos)
    mask = (np.arange(frames) < real[:, None]).astype(np.int32)
    text = TextFeatures(rng.normal(size=(texts, width)), units(texts, queries, width))
    video = VideoFeatures(
        rng.normal(size=(videos, frames, width)), mask, units(videos, queries, width)
    )
    return text, video


def slow_score(text, video, temperature, lim_weight):
    """Pools every video for every sentence, one pair at a time, in float64."""
    found = np.zeros((len(text.sentence), len(video.frames)))
    for a, sentence in enumerate(text.sentence):
        for b, frames in enumerate(video.frames):
            weights = np.exp(frames @ sentence / temperature)
            weights = weights / weights.sum() * video.mask[b]
            pooled = weights @ frames
            gim = sentence @ pooled / np.linalg.norm(sentence) / np.linalg.norm(pooled)
            lim = np.mean(np.sum(text.queries[a] * video.queries[b], axis=-1))
            found[a, b] = gim + lim_weight * lim
    return found


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 5),
    st.sampled_from([1.0, 3.0, 10.0]),
    st.integers(0, 2**16),
)
def test_score_is_the_paper_s(texts, videos, frames, temperature, seed):
    text, video = features(texts, videos, frames, seed=seed)
    found = score(text, video, temperature=temperature, lim_weight=0.5)
    expected = slow_score(text, video, temperature, 0.5)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_blocks_change_nothing(block):
    text, video = features(7, 5)
    whole = score(text, video, temperature=3.0, lim_weight=0.5)
    found = score_in_blocks(text, video, temperature=3.0, lim_weight=0.5, block=block)
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_no_temporary_grows_with_the_width():
    def temporaries(width):
        text, video = features(64, 64, frames=4, width=width)
        compiled = jax.jit(lambda t, v: score(t, v, temperature=3.0, lim_weight=0.5))
        return compiled.lower(text, video).compile().memory_analysis().temp_size_in_bytes

    # [A,B,D] at D = 512 would be 8 MiB.
    assert temporaries(512) < 64 * 64 * 512 * 4 / 4
