"""X-Pool against its formula, a pair at a time and with its matrices after the pooling."""

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.models.heads.x_pool import Attention, XPoolHead
from tests.heads import cosine, draw, slow_scores, softmax


def layer_norm(x, norm):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * norm["scale"] + norm["bias"]


def linear(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def pair(params, sentence, tokens, frames):
    own = params["pooling"]
    query = linear(layer_norm(sentence, own["norm_1"]), own["query"])
    normed = [layer_norm(frame, own["norm_1"]) for frame in frames]
    logits = [query @ linear(x, own["key"]) / np.sqrt(len(sentence)) for x in normed]
    attended = sum(
        weight * linear(x, own["value"])
        for weight, x in zip(softmax(np.array(logits)), normed, strict=True)
    )
    pooled = layer_norm(linear(attended, own["out"]), own["norm_2"])
    pooled = pooled + pooled @ own["linear_kernel"] + own["linear_bias"]
    return cosine(sentence, layer_norm(pooled, own["norm_3"]))


def test_against_one_pair_at_a_time():
    drawn = draw(XPoolHead())
    found = drawn.head.score(drawn.text, drawn.video)
    np.testing.assert_allclose(found, slow_scores(drawn, pair), rtol=0, atol=1e-5)


def test_a_wide_one_keeps_its_digits():
    # Quadratic forms of inner products in place of the vectors' own squares.
    drawn = draw(XPoolHead(), width=64, frames=12)
    found = drawn.head.score(drawn.text, drawn.video)
    np.testing.assert_allclose(found, slow_scores(drawn, pair), rtol=0, atol=1e-5)


def test_it_starts_as_released():
    features = jnp.zeros((1, 2, 4))
    params = Attention(4).init(
        jax.random.key(0), features, jnp.ones((1, 2), jnp.int32), method="video"
    )["params"]
    for name in ("key", "value", "out"):
        np.testing.assert_array_equal(params[name]["kernel"], np.eye(4))
    np.testing.assert_array_equal(params["linear_kernel"], np.eye(4))
    assert not params["linear_bias"].any()
