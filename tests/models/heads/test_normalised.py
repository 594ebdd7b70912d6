"""The GIM of encoders that are compared by directions: its weights are a softmax of cosines."""

import jax
import numpy as np
import pytest

from glscl_jax.models.heads.gim_alone import GIMHead
from glscl_jax.models.heads.glscl import GLSCLHead
from tests.heads import Alone, draw, encodings

LIM = {"queries": 2, "lim_layers": 1, "lim_heads": 2, "lim_feed_forward": 16}


def of_length(vectors, length):
    return length * vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def scorer(head, params):
    """Texts and videos to scores."""
    features = jax.jit(Alone(head).apply)
    return lambda *given: np.asarray(head.score(*features({"params": params}, *given)))


@pytest.mark.parametrize(
    ("head", "settings"), [(GIMHead, {}), (GLSCLHead, LIM)], ids=["gim", "glscl"]
)
def test_temperature_and_lengths_are_one_number(head, settings):
    """Of features whose lengths multiply to 60, temperature 3 is 0.05 of their directions."""
    texts, videos = encodings()
    texts["sentence"] = of_length(texts["sentence"], 5.0)
    videos["frames"] = of_length(videos["frames"], 12.0)
    drawn = draw(head(temperature=3.0, **settings))
    params = {f"learned_{name}": x for name, x in drawn.params.items()}
    raw = scorer(drawn.head, params)
    cosines = scorer(head(temperature=0.05, normalised=True, **settings), params)
    expected = raw(texts, videos)
    np.testing.assert_allclose(cosines(texts, videos), expected, atol=2e-6)
    # And lengths are nothing to it.
    texts["sentence"] = of_length(texts["sentence"], 0.1)
    np.testing.assert_allclose(cosines(texts, videos), expected, atol=2e-6)
    assert np.abs(raw(texts, videos) - expected).max() > 1e-3
