"""XLA's count of a program's operations, with every turn of its loops."""

from collections.abc import Callable

import jax
from jax.extend.core import jaxpr_as_fun


def flops(function: Callable, *arguments) -> float:
    """XLA's count: 2 for a multiply-add, 1 for any other operation on a number.

    Of the program as lowered, before a backend fuses or replaces any of it. Exponentials and
    roots are not in it: XLA counts those apart.

    Args:
      function: of arrays, which can be compiled.
      *arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    traced = jax.jit(function).trace(*arguments)
    return traced.lower().cost_analysis()["flops"] + further_turns(traced.jaxpr.jaxpr)


def further_turns(jaxpr) -> float:
    """What XLA leaves out: of a loop it counts the body once, however often that runs."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            body = equation.params["jaxpr"]
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in body.in_avals]
            once = jax.jit(jaxpr_as_fun(body)).lower(*shapes).cost_analysis()["flops"]
            every = once + further_turns(body.jaxpr)
            total += equation.params["length"] * every - _counted(**equation.params) * once
        else:
            total += sum(map(further_turns, _inner(equation.params)))
    return total


def _counted(length: int, unroll: int, **_) -> int:
    """How many of a loop's turns XLA counts: those that are written out."""
    return length if unroll >= length else unroll + length % unroll


def _inner(params: dict):
    """The programs that a call or a custom derivative holds."""
    for held in params.values():
        jaxpr = getattr(held, "jaxpr", held)
        if hasattr(jaxpr, "eqns"):
            yield jaxpr
