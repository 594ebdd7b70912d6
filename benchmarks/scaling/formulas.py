"""What a training step sends, computes and holds on each of any number of devices, by formulas.

Derived from how the step is laid out, and compared by `benchmarks.scaling` with what the compiled
module says where it can be compiled. N parameters in the layers, E in the token
embedding; B clips in the batch of n = data x fsdp devices; V, K, D as everywhere.
"""

import dataclasses
import functools
import re

import jax
from jax.sharding import AbstractMesh

from benchmarks.scaling.compiled_step import OPTIM, Step, initial_state
from glscl_jax.profiling.model_flops import TRAINING, forward_flops
from glscl_jax.runtime import sharding
from glscl_jax.runtime.sharding import DATA, FSDP
from glscl_jax.training.blocked_loss import block_count
from glscl_jax.trees import path_name

FLOAT = 4  # Bytes of float32: parameters, gradients and what is gathered of features.
BATCH = f"{DATA}+{FSDP}"

# Of [A,B,V] float32, what the backward pass of a block's scores holds.
SCORE_COPIES = 10


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of a model: of its float32s, and of FLOPs.

    Attributes:
      state: parameters and moments.
      layers: N, trained parameters but the token embedding, the LIM's decoder counted twice: texts
        and videos pass through it apart, and each sends its gradient.
      embedding: E, the token embedding.
      clip_flops: a clip's forward and backward pass, without scores.
    """

    state: int
    layers: int
    embedding: int
    clip_flops: int


@functools.cache
def sizes(config, frames: int, words: int) -> Sizes:
    """`Sizes` of a model from the shapes of its parameters."""
    state = jax.eval_shape(lambda: initial_state(config))
    layers = embedding = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = path_name(path)
        if name.endswith("token_embedding"):
            embedding += leaf.size
        elif not any(re.search(pattern, name) for pattern in OPTIM.frozen):
            layers += leaf.size * (2 if name.startswith("lim/decoder") else 1)
    forward = forward_flops(config, batch=0, words=words, frames=frames)
    return Sizes(
        sum(leaf.size for leaf in jax.tree.leaves(state)),
        layers,
        embedding,
        TRAINING * (forward.total - forward.score),
    )


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device and one step.

    Attributes:
      sent: bytes along "data", "fsdp" and "data+fsdp" (both together).
      encoder_flops, score_flops: of matrix products; the latter in float32.
      memory: bytes, activations apart.
    """

    sent: dict[str, float]
    encoder_flops: float
    score_flops: float
    memory: float

    @property
    def flops(self) -> float:
        return self.encoder_flops + self.score_flops


def cost(step: Step) -> Cost:
    """`Cost` of a step on a mesh without `tensor`, of a batch that is scored in blocks.

    A ring sends (n-1)/n of a gathered array, and twice that of one that is summed. As compiled for
    CPUs, a gradient that is split over `fsdp` is summed whole, and cut afterwards; compilers for
    GPUs and TPUs make one reduce-scatter of the two, half the bytes.
    """
    size, config = sizes(step.config, step.frames, step.words), step.config
    data, fsdp = step.sizes[DATA], step.sizes[FSDP]
    width, pairs, blocks = config.clip.embed_dim, step.batch // (data * fsdp), blocks_of(step)
    micro = step.batch // step.microbatch if step.microbatch else 1
    # A micro-batch's layers are gathered for its features, and again forward and backward.
    passes = 3 * micro if micro > 1 else 2
    row = FLOAT * width * (1 + config.head.queries)
    # Texts are gathered once, before the loop over blocks; behind it each device gets the sum of
    # its own texts' gradient.
    features = 2 * step.batch * row
    # Rows of the token embedding that a device's neighbours along fsdp look up, and their slopes
    # on the way back; again forward for a micro-batch.
    rows = step.batch / data * step.words * config.clip.text_width * (3 if micro > 1 else 2)
    gram = 4 * step.frames**2 * width * blocks * pairs
    product = step.frames * (width + step.frames) + config.head.queries * width
    return Cost(
        {
            FSDP: _share(fsdp) * FLOAT * (size.layers * (passes + 2 * micro) + rows),
            DATA: 2 * _share(data) * FLOAT * (size.layers + size.embedding) / fsdp,
            BATCH: _share(data * fsdp) * features,
        },
        pairs * size.clip_flops * (4 / 3 if micro > 1 else 1),
        # Forward, again in the backward pass, and two products there for each.
        4 * 2 * product * pairs * step.batch + gram,
        FLOAT * (size.state + size.layers) / fsdp
        + 2 * step.batch // blocks * row
        + SCORE_COPIES * FLOAT * step.frames * step.batch * pairs / blocks,
    )


def blocks_of(step: Step) -> int:
    """Blocks of texts that the batch is scored in."""
    mesh = AbstractMesh(tuple(step.sizes.values()), sharding.AXES)
    return block_count(step.batch, step.loss_block, mesh)


def merge_axes(sent: dict[str, float], step: Step) -> dict[str, float]:
    """`sent` with an axis of one device left out of the names, as counts have it."""
    total = {}
    for axes, value in sent.items():
        name = "+".join(axis for axis in axes.split("+") if step.sizes[axis] > 1)
        total[name] = total.get(name, 0.0) + value
    return {name: value for name, value in total.items() if name}


def _share(devices: int) -> float:
    return (devices - 1) / devices


def clips_at_once(step: Step, per_clip: float, capacity: float) -> int:
    """Clips of a micro-batch, over all devices, that leave a tenth of `capacity` free; 0: none."""
    devices = step.devices
    left = 0.9 * capacity - cost(step).memory
    count = 1
    while step.batch / devices / count * per_clip > left:
        count *= 2
        if count > step.batch // devices:
            return 0
    return step.batch // count
