"""Checksums in what Orbax writes: a bit that changes on disk is an error, not another figure.

Each piece of an array is stored with its CRC-32C, which TensorStore makes while it writes and
checks while it reads. Orbax has no setting for it, so the one function that says how an array is
stored is wrapped; without that function nothing is written. Checkpoints without checksums are read
as ever.
"""

from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.serialization import tensorstore_utils

_usual = tensorstore_utils._build_zarr3_metadata


def checked(context: ocp.Context) -> ocp.Context:
    """The same settings, to save with checksums."""
    context.array.saving.use_zarr3 = True
    return context


def _with_checksums(*arguments, **named) -> dict:
    metadata = _usual(*arguments, **named)
    pieces = metadata["codecs"][0]["configuration"]["codecs"]
    pieces.append({"name": "crc32c"})
    return metadata


tensorstore_utils._build_zarr3_metadata = _with_checksums
