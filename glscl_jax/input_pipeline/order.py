"""Which clips a training step reads, and which of their captions: pure functions of its number."""

import dataclasses
import functools

import numpy as np

# Streams of random words that a seed has: one for the captions, then one for every epoch.
_CAPTION_STREAM, _FIRST_EPOCH_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class Picked:
    """What a step reads.

    Attributes:
      clips: int64 [B], places in the split.
      turns: int64 [B]; of its C captions a clip shows number `turn % C`.
    """

    clips: np.ndarray
    turns: np.ndarray


def train_order(step: int, *, num_clips: int, batch_size: int, seed: int) -> Picked:
    """What the global batch of a step holds.

    Each epoch passes over the clips in an order of its own and drops the last, partial batch, as
    the reference does, so no clip is twice in a batch. A clip's captions take turns from a random
    one on: C epochs show each of its C captions once.

    Args:
      step: 0 or more; any is equally fast to ask for.
      num_clips: clips in the split, `batch_size` or more.
      batch_size: B, clips in a global batch.
      seed: 0 or more.
    """
    epoch, batch = divmod(step, num_clips // batch_size)
    clips = _epoch_order(num_clips, seed, epoch)[batch * batch_size :][:batch_size].copy()
    return Picked(clips, _first_turns(num_clips, seed)[clips] + epoch)


@functools.lru_cache(maxsize=2)
def _epoch_order(num_clips: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(_random_words(num_clips, seed, _FIRST_EPOCH_STREAM + epoch), kind="stable")


@functools.lru_cache(maxsize=2)
def _first_turns(num_clips: int, seed: int) -> np.ndarray:
    # Two bits fewer leave room to add an epoch in int64.
    return (_random_words(num_clips, seed, _CAPTION_STREAM) >> np.uint64(2)).astype(np.int64)


def _random_words(count: int, seed: int, stream: int) -> np.ndarray:
    # NumPy keeps the words of a bit generator from version to version, but not what its
    # `permutation` makes of them, and a resumed run may have another version.
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)
