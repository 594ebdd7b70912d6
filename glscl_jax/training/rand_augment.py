"""RandAugment of the training clips, on the device: random operations, the same for all frames.

Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
2019, as the reference trains with it: 4 of 15 operations, drawn with replacement, each applied
with probability 0.5 at a magnitude of N(7, 0.5) out of 10, all of them in the forms that grow
stronger with it. Each operation is Pillow's to within 1 of 255.

It sees what `prepare` stored: frames that are resized and cropped, where the reference augments
the whole frame and resizes after. What moves in at an edge is therefore grey here where the
reference may still show what lay beyond the crop, and shifts are shares of the crop.

What is drawn is a function of (seed, step, place in the global batch) alone: a run that resumes,
or goes on with other devices, sees the same pictures.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from glscl_jax.runtime import sharding
from glscl_jax.training import image_operations as images

DRAWS = 4
PROBABILITY = 0.5
MAGNITUDE, DEVIATION = 7.0, 0.5  # of STRONGEST
# Random numbers apart from those of dropout, which come from the same seed and step.
_STREAM = 0x52616E64
# A draw is a place in this order.
OPERATIONS = {
    "AutoContrast": images.auto_contrast,
    "Equalize": images.equalize,
    "Invert": images.invert,
    "Rotate": images.rotate,
    "Posterize": images.posterize,
    "Solarize": images.solarize,
    "SolarizeAdd": images.solarize_add,
    "Color": images.color,
    "Contrast": images.contrast,
    "Brightness": images.brightness,
    "Sharpness": images.sharpness,
    "ShearX": images.shear_x,
    "ShearY": images.shear_y,
    "TranslateX": images.translate_x,
    "TranslateY": images.translate_y,
}


@flax.struct.dataclass
class Drawn:
    """What happens to the B clips of a batch.

    Attributes:
      operations: int32 [B,4], places in `OPERATIONS`; its length where nothing is to happen.
      magnitudes: float32 [B,4], -10 to 10; only operations that have two directions look at the
        sign.
    """

    operations: jax.Array
    magnitudes: jax.Array


def draw(seed: int, step: jax.Array, batch: int) -> Drawn:
    """What happens to the clips of a step's global batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), _STREAM)
    which, whether, strength, direction = jax.random.split(key, 4)
    shape = (batch, DRAWS)
    operations = jax.random.randint(which, shape, 0, len(OPERATIONS))
    applied = jax.random.bernoulli(whether, PROBABILITY, shape)
    magnitudes = MAGNITUDE + DEVIATION * jax.random.normal(strength, shape)
    signs = jax.random.rademacher(direction, shape)
    return Drawn(
        jnp.where(applied, operations, len(OPERATIONS)),
        signs * jnp.clip(magnitudes, 0.0, images.STRONGEST),
    )


def augment(frames: jax.Array, drawn: Drawn) -> jax.Array:
    """Frames uint8 [B,V,H,W,3] after what was drawn for each clip."""
    # One clip after the other: each runs its own operations alone, where a batched choice would
    # run all fifteen and pick.
    return lax.map(lambda clip: _augment_clip(*clip), (frames, drawn.operations, drawn.magnitudes))


def _augment_clip(clip: jax.Array, operations: jax.Array, magnitudes: jax.Array) -> jax.Array:
    branches = [*OPERATIONS.values(), lambda clip, magnitude: clip]

    def one(clip, drawn):
        return lax.switch(drawn[0], branches, clip, drawn[1]), None

    return lax.scan(one, clip, (operations, magnitudes))[0]


def augment_step(step: Callable, *, seed: int, mesh: Mesh) -> Callable:
    """A training step (state, batch) -> ..., its batch's clips augmented first.

    Args:
      step: what follows; `state.step` says what is drawn.
      seed: the run's.
      mesh: each of its devices augments the clips that it holds.
    """
    each = sharding.by_batch(mesh).spec
    apply = jax.shard_map(augment, mesh=mesh, in_specs=(each, each), out_specs=each)

    @functools.wraps(step)
    def with_augmentation(state, batch):
        drawn = draw(seed, state.step, len(batch["frames"]))
        return step(state, {**batch, "frames": apply(batch["frames"], drawn)})

    return with_augmentation
