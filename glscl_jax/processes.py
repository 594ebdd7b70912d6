"""What several processes of a run tell each other, and what only the first of them does."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from glscl_jax.errors import UserError


def gathered(value: Any) -> list:
    """Every process's `value`, in the order of their numbers; all must call this.

    Args:
      value: what JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    told = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(told)))
    # A power of two: each size is a program of its own.
    room = 1 << int(sizes.max()).bit_length()
    rows = multihost_utils.process_allgather(np.pad(told, (0, room - len(told))))
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def by_first(action: Callable[[], None]) -> None:
    """Runs `action` in the first process while the others wait; all must call this.

    Raises:
      UserError: in every process, where `action` raises it.
    """
    told = None
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            told = str(error)
    if refused := gathered(told)[0]:
        raise UserError(refused)
