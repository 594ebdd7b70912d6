"""A program's matrix products, counted in its jaxpr: what utilisation is a share of."""

import math

import jax


def product_flops(function, *arguments) -> int:
    """FLOPs of every matrix product that `function` does: 2 for a multiply-add, nothing else.

    A loop counts as often as it runs. Recomputation would be counted too: give a function
    without any for what a model needs.

    Args:
      function: anything that JAX can trace.
      *arguments: arrays, or what has their shapes and dtypes.

    Raises:
      ValueError: there is a product in a loop whose trips are not known before it runs.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            summed = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * summed
        inner = sum(_of_jaxpr(held) for held in _held(equation.params))
        if inner and equation.primitive.name == "while":
            raise ValueError("a product in a loop of unknown trips")
        total += equation.params.get("length", 1) * inner
    return total


def _held(params: dict):
    """The jaxprs that a call, a loop, a condition or a custom derivative holds."""
    for value in params.values():
        for held in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(held, "jaxpr", held)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
