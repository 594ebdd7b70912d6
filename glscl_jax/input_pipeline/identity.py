"""What tells a prepared data set from any other, wherever it lies.

Settings and annotations name what was asked for; that the videos were the same is in the records.
Reading all of them would take as long as an epoch, so of each file the size and both ends count:
the first clips, and the last with the index of where every clip begins.
"""

import dataclasses
import hashlib
import os
import pathlib

import tensorflow_datasets as tfds

from glscl_jax.errors import UserError

_END = 1 << 20
# Settings that there were none of when runs first wrote down the identity of their data: it has
# them where they are not what they always were.
_LATER = ("resize", "interpolation")


def identity(settings, info: tfds.core.DatasetInfo) -> dict:
    """What is the same of a copy and different of other data, as JSON values.

    Args:
      settings: `prepared_data.Settings`; what they do not compare is left out, and what is None.
      info: of the data set, its files still there.

    Returns:
      the settings by name, and "splits": name -> {"clips", "bytes", "records"}: how many there
      are, of how many bytes, and a digest of the files' ends.

    Raises:
      UserError: a file cannot be read.
    """
    told = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.compare and getattr(settings, field.name) is not None
    }
    for name in _LATER:
        if told[name] == getattr(type(settings), name):
            del told[name]
    splits = {
        name: {
            "clips": split.num_examples,
            "bytes": split.num_bytes,
            "records": _ends([pathlib.Path(path) for path in split.filepaths]),
        }
        for name, split in sorted(info.splits.items())
    }
    return {**told, "splits": splits}


def _ends(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(size.to_bytes(8, "little") + file.read(_END))
                file.seek(max(_END, size - _END))
                digest.update(file.read())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
