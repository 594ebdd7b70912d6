"""Features of a split as another's encoder may leave them."""

import numpy as np

from glscl_jax.files import write_json
from glscl_jax.retrieval.encoded_split import Store

# Three videos, of which the second has two texts; texts in another order than videos.
IDS, OWNERS = ["a", "b", "c"], ["b", "a", "c", "b"]


def written(folder, changes=None, identity=None, **counts):
    """A split as others may write it."""
    rng = np.random.default_rng(0)
    arrays = {
        "video": {
            "ids": np.array(IDS),
            "frames": rng.normal(size=(3, 2, 4)).astype(np.float16),
            "lengths": np.array([2, 1, 2]),
        },
        "text": {
            "ids": np.array(OWNERS),
            "sentence": rng.normal(size=(4, 4)).astype(np.float16),
            "tokens": rng.normal(size=(4, 5, 4)).astype(np.float16),
            "lengths": np.array([5, 2, 3, 4]),
        },
    }
    for (kind, name), value in (changes or {}).items():
        if value is None:
            del arrays[kind][name]
        else:
            arrays[kind][name] = value
    store = Store.open(folder, identity=identity or {"encoder": "theirs"})
    for kind, content in arrays.items():
        np.savez(folder / f"{kind}-00000.npz", **content)
    store.finish()
    if counts:
        write_json(folder / "complete.json", {"video": 1, "text": 1, **counts})
    return arrays
