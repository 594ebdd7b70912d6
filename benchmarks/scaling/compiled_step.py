"""The training step compiled for a mesh of forced CPU devices: its counts, and what it computes."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Mapping

import jax
import numpy as np

from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.profiling import hlo
from glscl_jax.profiling.collectives import Collective, collectives, sent_by_axis
from glscl_jax.runtime import sharding
from glscl_jax.training import steps
from glscl_jax.training.objective import LOSS_BLOCK
from glscl_jax.training.optim import make_optimizer
from glscl_jax.training.optim_config import OptimConfig

OPTIM = OptimConfig()
# The counts are of what XLA makes before LLVM compiles it, which then need not be optimised.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

TINY = GLSCLConfig(
    clip=VARIANTS["tiny"], temporal_layers=2, head=GLSCLHead(lim_layers=2, lim_feed_forward=256)
)


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step: what is trained, on how many clips, by which devices.

    Attributes:
      config: the model.
      frames, words: V and L.
      batch: clips in a batch, over all devices.
      axes: devices along each of the mesh's axes.
      microbatch, loss_block: see `objective.gradient`.
    """

    config: GLSCLConfig
    frames: int
    words: int
    batch: int
    axes: tuple[tuple[str, int], ...] = (("data", 1),)
    microbatch: int = 0
    loss_block: int = LOSS_BLOCK

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along every axis."""
        return {axis: dict(self.axes).get(axis, 1) for axis in sharding.AXES}

    @property
    def devices(self) -> int:
        return math.prod(self.sizes.values())


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the compiled module says of one device and one step.

    Attributes:
      collectives: all that devices send each other.
      flops: of matrix products.
      held: bytes of its share of parameters, optimiser state and batch.
      temporary: bytes that the step takes besides.
    """

    collectives: list[Collective]
    flops: int
    held: int
    temporary: int

    @property
    def sent(self) -> Counter:
        """Bytes by (axes, kind)."""
        return sent_by_axis(self.collectives)


@functools.cache
def optimizer():
    return make_optimizer(OPTIM, 1000)


def initial_state(config: GLSCLConfig) -> TrainState:
    """The state before the first update."""
    return steps.init_state(init_params(GLSCL(config), 0), optimizer(), OPTIM)


def batch_of(step: Step) -> dict[str, np.ndarray]:
    """Random captions of 4 words or more, and random videos, some without their last frame."""
    rng, clip = np.random.default_rng(0), step.config.clip
    lengths = rng.integers(4, step.words + 1, step.batch)
    mask = (np.arange(step.words) < lengths[:, None]).astype(np.int32)
    ids = rng.integers(1, clip.vocab_size - 1, mask.shape).astype(np.int32) * mask
    ids[np.arange(step.batch), lengths - 1] = clip.vocab_size - 1
    frame_mask = np.ones((step.batch, step.frames), np.int32)
    frame_mask[::3, -1] = 0
    shape = (step.batch, step.frames, clip.image_size, clip.image_size, 3)
    frames = rng.integers(0, 256, shape, dtype=np.uint8)
    return {"text_ids": ids, "text_mask": mask, "frames": frames, "frame_mask": frame_mask}


def abstract_batch(step: Step, mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of `batch_of`, laid out as the step takes them."""
    side = step.config.clip.image_size
    shapes = {
        "text_ids": ((step.words,), np.int32),
        "text_mask": ((step.words,), np.int32),
        "frames": ((step.frames, side, side, 3), np.uint8),
        "frame_mask": ((step.frames,), np.int32),
    }
    return {
        name: jax.ShapeDtypeStruct((step.batch, *shape), dtype, sharding=sharding.by_batch(mesh))
        for name, (shape, dtype) in shapes.items()
    }


@functools.lru_cache(maxsize=1)
def compile_step(step: Step) -> jax.stages.Compiled:
    """`steps.train_step` as `train` compiles it, for arrays that have a shape only."""
    mesh = mesh_of(step)
    state = jax.eval_shape(lambda: initial_state(step.config))
    where = sharding.by_rules(state, mesh)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        where,
    )
    train_step = functools.partial(
        steps.train_step,
        model=GLSCL(step.config),
        optimizer=optimizer(),
        optim=OPTIM,
        weights=LossWeights(),
        seed=0,
        microbatch=step.microbatch,
        loss_block=step.loss_block,
        mesh=mesh,
    )
    jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(where, sharding.replicated(mesh)))
    return jitted.lower(state, abstract_batch(step, mesh)).compile(QUICK)


def mesh_of(step: Step):
    return sharding.make_mesh(jax.devices()[: step.devices], dict(step.axes))


def counts(step: Step) -> Counts:
    """What one device computes, holds and sends in `step`."""
    program = compile_step(step)
    module = hlo.Module(program.as_text())
    memory = program.memory_analysis()
    return Counts(
        collectives(module, step.sizes),
        hlo.flops(module),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def results(step: Step) -> Mapping[str, float]:
    """The first step's loss and gradient norm, computed by all of its devices."""
    mesh = mesh_of(step)
    state = jax.jit(lambda: initial_state(step.config))()
    state = jax.device_put(state, sharding.by_rules(state, mesh))
    _, metrics = compile_step(step)(state, sharding.put_batch(batch_of(step), mesh))
    return {"loss": float(metrics.losses.total), "grad_norm": float(metrics.grad_norm)}
