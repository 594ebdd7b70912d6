"""Multiply-adds of a traced program, counted product by product."""

import math


def multiply_adds_of(jaxpr) -> int:
    """Those of every dot_general, times the trips of the loops around it."""
    total = 0
    for equation in jaxpr.eqns:
        assert equation.primitive.name != "while", "a loop whose trips nobody knows"
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            summed = math.prod(left[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * summed
        for inner in inner_jaxprs(equation.params):
            total += equation.params.get("length", 1) * multiply_adds_of(inner)
    return total


def inner_jaxprs(params: dict):
    """What a call, a loop or a custom derivative holds."""
    for value in params.values():
        for held in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(held, "jaxpr", held)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
