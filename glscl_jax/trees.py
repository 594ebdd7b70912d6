"""Trees of parameters: the names of their leaves, parts of them, and one laid over another."""

import jax
import jax.numpy as jnp
from flax import traverse_util


def path_name(path) -> str:
    """A tree path as "clip/text/projection"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def copy(params: dict) -> dict:
    """float32 copies, also of what is float32: a buffer in two places cannot be donated."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)


def merge(params: dict, average: dict | None) -> dict:
    """`params` with what `average` has in its place."""
    if average is None:
        return params
    flat = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(average)
    return traverse_util.unflatten_dict(flat)


def part_of(params: dict, average: dict) -> dict:
    """Of `params` what `average` has, too."""
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict(
        {path: flat[path] for path in traverse_util.flatten_dict(average)}
    )
