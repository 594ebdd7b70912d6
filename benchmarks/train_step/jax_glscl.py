"""This project's training step, compiled, and a batch for it: what benchmarks time."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.training import steps
from glscl_jax.training.optim import OptimConfig, make_optimizer

WORDS, FRAMES = 32, 12
OPTIM, TOTAL_STEPS = OptimConfig(), 1000


def make_inputs(
    clips: int, clip: CLIPConfig = VARIANTS["ViT-B/32"], frames: int = FRAMES
) -> dict[str, np.ndarray]:
    """A random batch: captions of 6 to 30 words and full videos, of the sizes that `clip` takes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, WORDS + 1, clips)
    mask = (np.arange(WORDS) < lengths[:, None]).astype(np.int32)
    ids = rng.integers(1, clip.vocab_size - 400, (clips, WORDS)).astype(np.int32) * mask
    ids[np.arange(clips), lengths - 1] = clip.vocab_size - 1
    shape = (clips, frames, clip.image_size, clip.image_size, 3)
    return {
        "text_ids": ids,
        "text_mask": mask,
        "frames": rng.integers(0, 256, shape).astype(np.uint8),
        "frame_mask": np.ones((clips, frames), np.int32),
    }


def fresh_state(config: GLSCLConfig) -> TrainState:
    """The state before the first step; the same for every layout of the same sizes."""
    model, optimizer = GLSCL(config), make_optimizer(OPTIM, TOTAL_STEPS)
    return steps.init_state(init_params(model, 0), optimizer, OPTIM)


def jitted_step(config: GLSCLConfig):
    """`steps.train_step` under jit: (state, batch) -> (state, metrics), the old state donated."""
    step = functools.partial(
        steps.train_step,
        model=GLSCL(config),
        optimizer=make_optimizer(OPTIM, TOTAL_STEPS),
        optim=OPTIM,
        weights=LossWeights(),
        seed=0,
    )
    return jax.jit(step, donate_argnums=0)


class JaxStep:
    """One training step a call, finished when the call returns."""

    def __init__(self, config: GLSCLConfig, inputs: dict[str, np.ndarray]):
        self.config, self.inputs = config, inputs
        self.state = jax.jit(functools.partial(fresh_state, config))()
        self.step = jitted_step(config)

    def __call__(self) -> None:
        self.state, metrics = self.step(self.state, self.inputs)
        jax.block_until_ready((self.state, metrics))


def count_flops(config: GLSCLConfig, inputs: dict[str, np.ndarray]) -> float:
    """FLOPs of one step by XLA's count, recomputation included.

    XLA counts the body of a loop once, however often it runs: the step is lowered with every
    layer written out.
    """
    written_out = dataclasses.replace(config, scan=False)
    state = jax.eval_shape(functools.partial(fresh_state, written_out))
    return jitted_step(written_out).lower(state, inputs).cost_analysis()["flops"]


def matmul_ceiling(dtype, size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a chain of large square matrix products."""
    x = jnp.ones((size, size), dtype)

    @jax.jit
    def chain(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: (y @ x) / size, x)

    chain(x).block_until_ready()
    start = time.perf_counter()
    chain(x).block_until_ready()
    return repeats * 2 * size**3 / (time.perf_counter() - start)
