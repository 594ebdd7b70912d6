"""Whose features they are: what an identity.json says, and whether another's says the same.

A head is for the features that it trained on. An encoder's name alone does not tell them: layer,
pooling or prompt may be others, so all that an identity says counts, but for what tells one split,
or one set of data, from another.
"""

import pathlib
from collections.abc import Mapping

from glscl_jax.files import differences, read_json

CHECKPOINT = "checkpoint"
# What a run keeps beside it, of the arrays that it trained on.
CHECKSUM = "crc32 of arrays"
# Sizes are here since they are compared with the config.
_OF_DATA = frozenset(
    (
        CHECKSUM,
        "split",
        "videos",
        "records",
        "bytes of records",
        "dataset",
        "annotations",
        "jpeg_quality",
        "stored_pixels",
        "pictures_rate",
        "frames",
        "words",
        "eval_batch_size",
    )
)


def owned(identity: Mapping) -> bool:
    """Whether an identity says whose features it is of."""
    return bool(identity.get(CHECKPOINT) or identity.get("encoder"))


def owner_of(identity: Mapping) -> str:
    """Whose features they are: a checkpoint's SHA-256, or another encoder's name."""
    return str(identity.get(CHECKPOINT) or identity.get("encoder"))


def unlike(one: Mapping, other: Mapping) -> str:
    """In what two identities say that features were made otherwise; "" for nothing."""
    return differences(*({k: v for k, v in x.items() if k not in _OF_DATA} for x in (one, other)))


def trained_on(directory: pathlib.Path) -> dict[str, dict]:
    """What a run wrote down of the features that it trained on: split -> identity, train's first.

    Args:
      directory: a checkpoint's; of a run from clips, or of none, there is nothing.

    Raises:
      UserError: its data.json is damaged.
    """
    path = directory / "data.json"
    told = read_json(path) if path.exists() else {}
    return {name: x for name, x in told.items() if isinstance(x, dict) and owned(x)}
