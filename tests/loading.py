"""One of several processes that each load a checkpoint and encode captions and videos of their own.

    python -m tests.loading DIRECTORY COORDINATOR PROCESSES NUMBER

Prints as JSON what came of it: the score of its rows, and of what it may not do.
"""

import json
import sys

import jax
import numpy as np


def main(directory: str, coordinator: str, processes: int, number: int) -> dict:
    """Encodes `number` + 2 of each, so that no two processes do the same, nor at the same time."""
    jax.distributed.initialize(coordinator, processes, number)
    import glscl_jax
    from glscl_jax.runtime import sharding

    told = {"devices": jax.device_count()}
    if number == 0:
        # Of all devices: rows of others would be among those of this one.
        try:
            glscl_jax.load(directory, mesh=sharding.make_mesh())
        except ValueError as error:
            told["refused"] = str(error)
    loaded = glscl_jax.load(directory)
    told["scores"] = scores(loaded, number + 2).tolist()
    if number == 0:
        # Once more, alone.
        glscl_jax.load(directory)
    return told


def scores(loaded, count: int) -> np.ndarray:
    """float32 [count,count] of captions and videos that no other count has."""
    random = np.random.default_rng(count)
    tokens = loaded.tokenize([f"caption {random.integers(100)} of {count}" for _ in range(count)])
    text = loaded.encode_text(tokens.ids, tokens.mask)
    size = loaded.config.clip.image_size
    frames = random.integers(0, 256, (count, 2, size, size, 3)).astype(np.uint8)
    return loaded.score(text, loaded.encode_video(frames, np.ones((count, 2), np.int32)))


if __name__ == "__main__":
    where, address, *numbers = sys.argv[1:]
    print(json.dumps(main(where, address, *map(int, numbers))), flush=True)
    # Together: the first to leave would take the others down.
    jax.distributed.shutdown()
