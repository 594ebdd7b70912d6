"""Random features of the paper's sizes, and the LIM that reads concepts out of them."""

import jax
import ml_dtypes
import numpy as np

from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead

QUERIES, WORDS, FRAMES, WIDTH = 8, 32, 12, 512
BLOCKING = {"head": GLSCLHead(temperature=3.0, lim_weight=0.5)}
# What a pair's score multiplies and adds: <c,f> of every frame, G w of the GIM, and the LIM.
PAIR_FLOPS = 2 * (FRAMES * WIDTH + FRAMES * FRAMES + QUERIES * WIDTH)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Lim:
    """The LIM of a fresh model, run once an item, batch after batch."""

    def __init__(self, batch: int = 200):
        self.model, self.batch = GLSCL(GLSCLConfig()), batch
        self.params = jax.jit(lambda: init_params(self.model, 0)["lim"])()
        self._text = jax.jit(lambda tokens: self.read("text", tokens))
        self._video = jax.jit(lambda frames: self.read("video", frames))

    def read(self, side: str, memory: jax.Array) -> jax.Array:
        """Tokens [A,L,D] or frames [B,V,D] -> unit queries [.,K,D]."""
        variables = {"params": {"lim": self.params}}
        method = lambda module, x: getattr(module.lim, side)(x)  # noqa: E731
        return self.model.apply(variables, memory, method=method)

    def text(self, tokens: np.ndarray) -> np.ndarray:
        return self._all(self._text, tokens)

    def video(self, frames: np.ndarray) -> np.ndarray:
        return self._all(self._video, frames)

    def _all(self, read, items) -> np.ndarray:
        starts = range(0, len(items), self.batch)
        return np.concatenate([read(items[i : i + self.batch]) for i in starts])


def texts(count: int, dtype=np.float32, seed: int = 0) -> TextFeatures:
    rng = np.random.default_rng(seed)
    return TextFeatures(
        _normal(rng, (count, WIDTH), dtype),
        _normal(rng, (count, QUERIES, WIDTH), dtype, WIDTH**-0.5),
    )


def videos(count: int, dtype=np.float32, seed: int = 1) -> VideoFeatures:
    """With 1 to V real frames each."""
    rng = np.random.default_rng(seed)
    real = rng.integers(1, FRAMES + 1, count)
    return VideoFeatures(
        _normal(rng, (count, FRAMES, WIDTH), dtype, 0.25),
        (np.arange(FRAMES) < real[:, None]).astype(np.int32),
        _normal(rng, (count, QUERIES, WIDTH), dtype, WIDTH**-0.5),
    )


def _normal(rng, shape: tuple[int, ...], dtype, scale: float = 1.0) -> np.ndarray:
    numbers = np.empty(shape, dtype)
    # A slice at a time: whole in float32 would take twice what is to be measured.
    for start in range(0, len(numbers), 1000):
        part = numbers[start : start + 1000]
        part[:] = scale * rng.standard_normal(part.shape, np.float32)
    return numbers
