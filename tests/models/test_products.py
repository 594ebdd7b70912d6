"""In which type the gradient of what all examples share is summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax import target
from glscl_jax.models.encoders.products import matmul, spread, summing_gradients
from glscl_jax.models.encoders.transformer import Blocks, Transformer

# One more than bfloat16 can tell from 256.
EXAMPLES = 257


def slopes(dtype, x, *, flat=True):
    """By kernel, bias and x, of the sum of `x @ kernel + bias`, all ones."""

    def total(kernel, bias, x):
        product = matmul(x, kernel, flat)
        return jnp.sum(product + spread(bias, product), dtype=jnp.float32)

    arguments = (jnp.ones((4, 3)), jnp.ones(3), x)
    with summing_gradients(dtype):
        return jax.jit(jax.grad(total, (0, 1, 2)))(*arguments)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("dtype", "rounded"), [("float32", 257), ("bfloat16", 256)])
def test_gradients_are_summed_in_their_own_type(platform, flat, dtype, rounded):
    x = jnp.ones((EXAMPLES, 1, 4), jnp.bfloat16)
    with target.compiling_for(platform):
        by_kernel, by_bias, by_x = slopes(dtype, x, flat=flat)
    # They are parameters' for the optimiser, in their type, whatever they were summed in.
    assert by_kernel.dtype == by_bias.dtype == jnp.float32
    np.testing.assert_array_equal(by_kernel, np.full((4, 3), rounded))
    np.testing.assert_array_equal(by_bias, np.full(3, rounded))
    np.testing.assert_array_equal(by_x, np.full(x.shape, 3))
    assert by_x.dtype == jnp.bfloat16


def test_what_examples_share_may_have_axes_of_its_own():
    like = jnp.zeros((EXAMPLES, 2, 3), jnp.bfloat16)

    def total(position):
        return jnp.sum(like + spread(position, like), dtype=jnp.float32)

    with summing_gradients("float32"):
        found = jax.grad(total)(jnp.ones((2, 3)))
    np.testing.assert_array_equal(found, np.full((2, 3), 257))


@pytest.mark.parametrize("dtype", ["float32", ""])
def test_in_the_activations_own_type_nothing_is_added(dtype):
    x, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 5))
    with summing_gradients(dtype):
        traced = jax.make_jaxpr(lambda *arguments: matmul(*arguments))(x, kernel)
    assert "custom_vjp" not in str(traced)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_with_dots_no_product_of_parameters_is_computed_again(dtype):
    """Whatever type gradients are summed in: one of its own made "dots" keep nothing."""
    blocks, x = Blocks(32, 2, 16, 64), jnp.ones((2, 5, 32), jnp.bfloat16)

    def products(remat):
        stack = Transformer(blocks, jnp.dtype("bfloat16"), remat)
        params = stack.init(jax.random.key(0), x)
        with summing_gradients(dtype):
            traced = jax.make_jaxpr(
                jax.grad(lambda *given: stack.apply(*given).sum().astype("float32"))
            )
            return str(traced(params, x)).count("dot_general")

    # Logits and what they weigh, which have a batch, are; of "full" three projections besides.
    assert products("dots") == products("none") + 2
    assert products("full") == products("none") + 5
