"""LayerNorm in two steps against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax import target
from glscl_jax.models.encoders.split_norm import SplitNorm
from glscl_jax.models.encoders.transformer import layer_norm

EPSILON = 1e-5
FLAX = nn.LayerNorm(epsilon=EPSILON, dtype=jnp.float32, use_fast_variance=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16)])
def test_values_and_gradients_are_flax_s(shape, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2, 3, shape), dtype)
    # A row of one number has a variance of 0.
    x = x.at[0].set(1.5)
    slope = jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {name: jnp.asarray(rng.normal(size=16), jnp.float32) for name in ("scale", "bias")}

    def outcome(module):
        def loss(params, x):
            y = module.apply({"params": params}, x)
            return (y * slope).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    (_, found), found_grads = outcome(SplitNorm(EPSILON))
    (_, expected), grads = outcome(FLAX)
    assert found.dtype == expected.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found_grads[0]["scale"], grads[0]["scale"], atol=1e-4)
    np.testing.assert_allclose(found_grads[0]["bias"], grads[0]["bias"], atol=1e-4)
    assert found_grads[1].dtype == x.dtype
    # Half precision has 8 bits, of which Flax's loses one: it sums two parts in it.
    near = 1e-5 if dtype == "float32" else 2e-2
    found_slopes, slopes = (x[1].astype(jnp.float32) for x in (found_grads, grads))
    # Where nothing varies they are 300 times as large: by rows.
    bound = near * np.abs(slopes).max(-1, keepdims=True)
    assert (np.abs(found_slopes - slopes) <= bound).all()


def test_a_gpu_s_program_alone_has_it_under_flax_s_names():
    x = jnp.ones((2, 8))
    assert isinstance(layer_norm("ln"), nn.LayerNorm)
    with target.compiling_for("gpu"):
        module = layer_norm("ln")
    assert isinstance(module, SplitNorm)
    found, expected = (m.init(jax.random.key(0), x) for m in (module, FLAX))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
