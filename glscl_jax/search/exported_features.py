"""An index's features as a file for other engines: windows, their vectors, what scores them.

Read and written a block at a time: neither what is mapped nor the file has to fit into memory.
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.files import unfinished
from glscl_jax.models.glscl import model_config
from glscl_jax.models.heads.head import Head
from glscl_jax.search import engine, location
from glscl_jax.search.feature_files import Arrays
from glscl_jax.search.index_run import TIMES
from glscl_jax.search.scan import windows_of
from glscl_jax.search.store import INDEX, Snapshot, Store

VECTOR = "vector"
_BLOCK = 1024
_HIDDEN = ("row", "windows", "size", "modified", "sha256")
_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
}
# What readers of safetensors take: the names of all videos are in there.
_LONGEST_HEADER = 100_000_000


def export_features(index: str | os.PathLike, out: str | os.PathLike) -> int:
    """Writes a file; how many windows are in it.

    Args:
      index: the directory, or its address in a bucket.
      out: the file, which is not there yet; its suffix says what it is.

    Raises:
      UserError: there is no index, nothing in it, no such suffix, or the file cannot be written.
    """
    path = paths.local(out, "--out")
    writers: dict[str, Callable] = {".parquet": _write_parquet, ".safetensors": _write_safetensors}
    if path.suffix not in writers:
        raise UserError(f"--out {path}: name a file that ends in .parquet or .safetensors")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: {path.parent} is no folder: make it, or name another")
    if os.path.lexists(path):
        raise UserError(f"--out {path} is there already: name another, or remove it")
    place = location.to_read(index)
    with place.named():
        store = Store.open(place.path)
        snapshot = store.snapshot()
        head = _head(store)
        if not len(snapshot.rows):
            raise UserError(f"--index {store.directory} has no windows: index videos first")
    try:
        with unfinished(path) as part:
            writers[path.suffix](part, snapshot, head)
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror or error}") from error
    names = ", ".join(f"{name} {list(x.shape[1:])}" for name, x in _first(snapshot, head).items())
    print(f"{path}: {len(snapshot.rows):,} windows; {names}")
    return len(snapshot.rows)


def _head(store: Store) -> Head:
    try:
        return model_config(store.about["made_of"]["model"]).head
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{store.directory / INDEX} is damaged ({error}): index into another directory"
        ) from error


def _blocks(snapshot: Snapshot, head: Head) -> Iterator[tuple[np.ndarray, Arrays]]:
    """Rows, and their arrays by the names that they are written under."""
    arrays = {name: x for name, x in snapshot.arrays.items() if name != TIMES}
    features = windows_of(head, arrays).features
    for start in range(0, len(snapshot.rows), _BLOCK):
        rows = snapshot.rows[start : start + _BLOCK]
        part = {name: np.asarray(x[rows]) for name, x in vars(features).items()}
        vector = head.video_vector(head.video_features(**part))
        found = {} if vector is None else {VECTOR: np.asarray(vector)}
        yield rows, found | part | {TIMES: np.asarray(snapshot.arrays[TIMES][rows])}


def _first(snapshot: Snapshot, head: Head) -> Arrays:
    return next(_blocks(snapshot, head))[1]


def _write_parquet(path: pathlib.Path, snapshot: Snapshot, head: Head) -> None:
    parquet = engine.module("pyarrow.parquet")
    shown = [name for name in snapshot.table.column_names if name not in _HIDDEN]
    writer, start = None, 0
    try:
        for rows, arrays in _blocks(snapshot, head):
            told = snapshot.table.slice(start, len(rows)).combine_chunks()
            start += len(rows)
            columns = {"row": pa.array(rows), **{name: told[name] for name in shown}}
            for name, array in arrays.items():
                # A column of metadata.csv may have the same name.
                columns[name if name not in columns else f"features.{name}"] = _listed(array)
            table = pa.table(columns)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


def _listed(array: np.ndarray) -> pa.Array:
    """[B,...] as a column of lists in lists; Parquet has no bfloat16."""
    if array.dtype == jnp.bfloat16:
        array = array.astype(np.float32)
    made = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        made = pa.FixedSizeListArray.from_arrays(made, size)
    return made


def _write_safetensors(path: pathlib.Path, snapshot: Snapshot, head: Head) -> None:
    names = snapshot.table["video"].to_pylist()
    videos = {name: number for number, name in enumerate(dict.fromkeys(names))}
    own = {
        "row": snapshot.rows.astype(np.int64),
        "video": np.array([videos[name] for name in names], np.int64),
        "start": snapshot.table["start"].to_numpy(),
        "end": snapshot.table["end"].to_numpy(),
    }
    count, first = len(snapshot.rows), _first(snapshot, head)
    told = own | {name: np.broadcast_to(x[:1], (count, *x.shape[1:])) for name, x in first.items()}
    header, end = {"__metadata__": {"videos": json.dumps(list(videos))}}, 0
    for name, array in told.items():
        begin, end = end, end + array.size * array.dtype.itemsize
        kind, shape = _TYPES[array.dtype.name], list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise UserError(f"the names of {len(videos):,} videos are too many for a header: .parquet")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in own.values():
            file.write(array.tobytes())
        for name in first:
            for _, arrays in _blocks(snapshot, head):
                file.write(np.ascontiguousarray(arrays[name]).tobytes())
