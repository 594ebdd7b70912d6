"""What every head is: a function, the shapes it is given, and its cost derived by hand."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is compared; the defaults are what the published costs are of.

    Attributes:
      texts, videos: A and B.
      words, frames: L tokens a text, V frames a video.
      queries: K, GLSCL's queries; also the number of DiCoSA's concepts.
      width: D.
    """

    texts: int = 1000
    videos: int = 1000
    words: int = 32
    frames: int = 12
    queries: int = 8
    width: int = 512

    @property
    def pairs(self) -> int:
        return self.texts * self.videos


@dataclasses.dataclass(frozen=True)
class Head:
    """A similarity head, or a part of one.

    Attributes:
      function: of the arrays that `inputs` describes.
      inputs: sizes -> the function's arguments as trees of `jax.ShapeDtypeStruct`.
      multiply_adds: sizes -> those of the function's matrix products. What is elementwise or a
        plain sum (softmax, norms, layer norms, activations) is not in it.
    """

    function: Callable[..., Any]
    inputs: Callable[[Sizes], tuple]
    multiply_adds: Callable[[Sizes], int]


def float32(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of a float32 array that nobody has to make."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def sentences_and_frames(sizes: Sizes) -> tuple:
    """Sentences [A,D], frames [B,V,D] and their mask [B,V]: what the peers' heads start from."""
    return (
        float32(sizes.texts, sizes.width),
        float32(sizes.videos, sizes.frames, sizes.width),
        float32(sizes.videos, sizes.frames),
    )


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
