"""FLOPs that a clip costs the model, counted by hand from its sizes.

XLA's own count of a compiled step is of no use for a rate: it counts a loop's body once however
often it runs (layers are scanned, micro-batches too), and on the other hand all that `remat`,
gradient caching and the blocked loss compute a second time, which is work but no progress.
"""

import dataclasses

from glscl_jax.models.encoders.temporal import multiply_adds
from glscl_jax.models.glscl import GLSCLConfig

# The backward pass of a product is two products of its size: by its input and by its weights.
# Nothing is taken off for frames' pixels, which need no gradient: 1 % at ViT-B/32.
TRAINING = 3


@dataclasses.dataclass(frozen=True)
class ForwardFlops:
    """A clip's share of a batch's forward pass, padding included, as computed.

    Two for each multiply-add of a matrix product. Softmax, norms, activations and the losses'
    sums over queries are left out: a few percent of what the products take, and no unit that
    peaks are stated for does them.

    Attributes:
      vision: the vision tower, all frames.
      text: the text tower.
      temporal: the module over frames.
      head: what the head makes of the caption and of the frames; GLSCL's decoder.
      score: of the caption against all videos of the batch.
    """

    vision: int
    text: int
    temporal: int
    head: int
    score: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def forward_flops(config: GLSCLConfig, *, batch: int, words: int, frames: int) -> ForwardFlops:
    """FLOPs of a forward pass for each of `batch` clips of `frames` frames and `words` tokens."""
    clip, width = config.clip, config.clip.embed_dim
    cost = config.head.cost(width, words, frames)
    return ForwardFlops(
        vision=2 * clip.video_multiply_adds(frames),
        text=2 * clip.text_multiply_adds(words),
        temporal=2 * multiply_adds(config.temporal, config.temporal_layers, frames, clip),
        head=2 * (cost.text + cost.video),
        score=2 * (batch * cost.pair + cost.prepared),
    )


def training_flops(
    config: GLSCLConfig, *, batch: int, words: int, frames: int, towers: bool = True
) -> int:
    """FLOPs of a forward and a backward pass for each clip, without recomputation."""
    forward = forward_flops(config, batch=batch, words=words, frames=frames)
    if not towers:
        forward = dataclasses.replace(forward, vision=0, text=0)
    return TRAINING * forward.total
