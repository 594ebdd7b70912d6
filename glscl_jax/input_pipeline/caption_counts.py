"""How many captions each clip of a prepared split has.

The records say so, but to read them is to read all frames. So the numbers are kept beside them, in
captions-SPLIT.json of the data set's folder, when it is prepared, or when a data set without them
is first trained on.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from glscl_jax import progress
from glscl_jax.errors import UserError
from glscl_jax.files import unfinished
from glscl_jax.input_pipeline.builder import PreparedData
from glscl_jax.input_pipeline.records import Records

# Records that are in memory at once: of ActivityNet, at 64 or more frames, some 7 MB each.
_AT_ONCE = 16


def caption_counts(data: PreparedData, split: str) -> np.ndarray:
    """The number of captions of each clip, int64 [N], in the order of the records.

    Raises:
      UserError: there is no such split, a record cannot be read, or a clip has no captions.
    """
    if split not in data.counted:
        with data.records(split) as records:
            path = pathlib.Path(data.builder.data_dir) / f"captions-{split}.json"
            counts = _kept(path, len(records))
            if counts is None:
                ticks = progress.track(_counted(records, split), "counting captions", len(records))
                counts = list(ticks)
                _keep(path, counts)
        data.counted[split] = np.array(counts, np.int64)
    return data.counted[split]


def _kept(path: pathlib.Path, total: int) -> list[int] | None:
    """What a file says, if it is whole and of so many clips."""
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(counts, list) and len(counts) == total
    return counts if fits and all(type(count) is int and count > 0 for count in counts) else None


def _keep(path: pathlib.Path, counts: list[int]) -> None:
    """Writes a file, whole or not at all, and not where the data set can only be read."""
    # Other hosts count, too.
    with contextlib.suppress(OSError), unfinished(path, many_writers=True) as part:
        part.write_text(f"{json.dumps(counts)}\n", encoding="utf-8")


def _counted(records: Records, split: str) -> Iterator[int]:
    for first in range(0, len(records), _AT_ONCE):
        places = range(first, min(first + _AT_ONCE, len(records)))
        for record in map(tf.train.Example.FromString, records.read(places)):
            count = len(record.features.feature["captions"].bytes_list.value)
            if not count:
                (clip_id,) = record.features.feature["clip_id"].bytes_list.value
                raise UserError(
                    f"split {split!r} of the prepared data set: clip {clip_id.decode()} has no"
                    " captions; prepare it again with --overwrite"
                )
            yield count
