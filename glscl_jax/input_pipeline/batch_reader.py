"""Examples of a tf.data pipeline -> batches, put together where they stay."""

import itertools
import os
import re
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.records import Records

# tf.data gathers a batch's examples and then copies them: at 128 clips of 12 frames of 224 x 224
# that is 231 MB twice, and as much again of memory that is not given back. So it makes parts of a
# batch, of about so many bytes, and they go into the batch one after the other. Of parts four
# times as large glibc kept up to 0.5 GB more.
_PART_BYTES = 8 << 20
# Parts that wait ready. While a step runs the batch after it fills, so few are enough.
_READY_PARTS = 8
# JAX takes arrays over as they are, on a CPU, where they begin at such an address.
_ALIGNMENT = 64


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def part_size(batch_size: int, clip_bytes: int) -> int:
    """Clips in a part of a batch: its largest divisor that makes parts of at most 8 MiB, or 1."""
    most = min(batch_size, max(1, _PART_BYTES // clip_bytes))
    return max(size for size in range(1, most + 1) if batch_size % size == 0)


def join(parts: Iterable[dict[str, np.ndarray]], batch_size: int) -> dict[str, np.ndarray]:
    """A batch from its parts, taken in one by one; a single part is the batch."""
    whole, filled = {}, 0
    for part in parts:
        size = len(next(iter(part.values())))
        if size == batch_size:
            return part
        for name, values in part.items():
            if name not in whole:
                whole[name] = _aligned((batch_size, *values.shape[1:]), values.dtype)
            whole[name][filled : filled + size] = values
        filled += size
    return whole


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As `np.empty`."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


class Reader:
    """Reads ahead until it is at its end, fails, is closed or dropped, or the interpreter exits."""

    def __init__(
        self, records: Records, parts: tf.data.Dataset, split: str, count: int, convert: Callable
    ):
        """Takes parts of batches.

        Args:
          records: what the parts are read from, to be closed in the end.
          parts: as a dataset.
          split: what they are of, for errors.
          count: parts in a batch.
          convert: a batch from an iterator of its parts.
        """
        options = tf.data.Options()
        # A pool of its own, no larger than the cores that JAX's step needs as well; and nothing
        # that grows by itself.
        options.threading.private_threadpool_size = cores()
        options.threading.max_intra_op_parallelism = 1
        options.autotune.enabled = False
        ready = parts.prefetch(_READY_PARTS).with_options(options)
        self._running = [ready.as_numpy_iterator()]
        self._records, self._split, self._count, self._convert = records, split, count, convert
        # At exit too: TensorFlow's threads call Python, and would wait for it for ever.
        self.close = weakref.finalize(self, _end, self._running, records)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._running:
            raise StopIteration
        (parts,) = self._running
        try:
            first = next(parts)
            return self._convert(itertools.chain([first], itertools.islice(parts, self._count - 1)))
        except StopIteration:
            self.close()
            raise
        except tf.errors.OpError as error:
            self.close()
            if self._records.fault:
                raise self._records.fault from error
            raise UserError(
                f"split {self._split!r} of the prepared data set: {_reason(error)}; prepare it"
                " again with --overwrite"
            ) from error


def _end(running: list, records: Records) -> None:
    running.clear()
    records.close()


def _reason(error: tf.errors.OpError) -> str:
    # TensorFlow wraps what an operation said in the names of the nodes around it.
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]", "", error.message).split("[Op:")[0]
    return " ".join(text.replace("assertion failed:", "").split()).strip("[]")
