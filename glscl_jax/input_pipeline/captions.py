"""The captions of a prepared split, without its frames.

The records hold them, but to read those is to read all frames. So the captions are kept beside
them as well, in captions-SPLIT.json of the data set's folder, when it is prepared, or when a data
set without them is first trained on.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from glscl_jax.errors import UserError
from glscl_jax.files import unfinished
from glscl_jax.input_pipeline.prepared_data import PreparedData
from glscl_jax.input_pipeline.records import Records
from glscl_jax.runtime import progress

# Records that are in memory at once: of ActivityNet, at 64 or more frames, some 7 MB each.
_AT_ONCE = 16


def captions(data: PreparedData, split: str) -> list[list[str]]:
    """The captions of each clip, in the order of the records.

    Raises:
      UserError: there is no such split, a record cannot be read, or a clip has no captions.
    """
    if split not in data.captions:
        with data.records(split) as records:
            path = pathlib.Path(data.builder.data_dir) / f"captions-{split}.json"
            found = _kept(path, len(records))
            if found is None:
                ticks = progress.track(_read(records, split), "reading captions", len(records))
                found = list(ticks)
                _keep(path, found)
        data.captions[split] = found
    return data.captions[split]


def caption_counts(data: PreparedData, split: str) -> np.ndarray:
    """The number of captions of each clip, int64 [N]; order and errors are those of `captions`."""
    return np.array([len(of_clip) for of_clip in captions(data, split)], np.int64)


def _kept(path: pathlib.Path, total: int) -> list[list[str]] | None:
    """What a file says, if it is whole and of so many clips."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(found, list) and len(found) == total
    return found if fits and all(map(_are_captions, found)) else None


def _are_captions(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _keep(path: pathlib.Path, found: list[list[str]]) -> None:
    """Writes a file, whole or not at all, and not where the data set can only be read."""
    # Other hosts read, too.
    with contextlib.suppress(OSError), unfinished(path, many_writers=True) as part:
        part.write_text(f"{json.dumps(found, ensure_ascii=False)}\n", encoding="utf-8")


def _read(records: Records, split: str) -> Iterator[list[str]]:
    for first in range(0, len(records), _AT_ONCE):
        places = range(first, min(first + _AT_ONCE, len(records)))
        for record in map(tf.train.Example.FromString, records.read(places)):
            found = record.features.feature["captions"].bytes_list.value
            if not found:
                (clip_id,) = record.features.feature["clip_id"].bytes_list.value
                raise UserError(
                    f"split {split!r} of the prepared data set: clip {clip_id.decode()} has no"
                    " captions; prepare it again with --overwrite"
                )
            yield [caption.decode() for caption in found]
