"""A user's `captions.csv` or `captions.jsonl` as records."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.bad_rows import RowError
from glscl_jax.input_pipeline.annotations.csv_file import column, csv_records
from glscl_jax.input_pipeline.annotations.source import outside

NAMES = ("captions.csv", "captions.tsv", "captions.jsonl")
REQUIRED_COLUMNS = ("video", "caption")
COLUMNS = (*REQUIRED_COLUMNS, "start", "end", "split")


def find(source: pathlib.Path) -> pathlib.Path:
    """The caption file of a folder.

    Raises:
      UserError: there is none, or more than one.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    found = [source / name for name in NAMES if (source / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{source}: both {found[0].name} and {found[1].name} in it: keep one")
    if found and (told := outside(source, found[0])):
        raise UserError(told)
    if found:
        return found[0]
    near = sorted(path.name for path in source.iterdir() if _is_near(path))
    way_out = f"rename {near[0]}" if near else f"write one (columns {', '.join(COLUMNS)})"
    raise UserError(f"{source}: no {' or '.join(NAMES[::2])} in it: {way_out}")


def _is_near(path: pathlib.Path) -> bool:
    """Captions.CSV, caption.csv, captions.csv.txt ..."""
    name = path.name.casefold()
    suffixes = {pathlib.Path(known).suffix for known in NAMES}
    return name.startswith("caption") and bool(suffixes & {s.lower() for s in path.suffixes})


def records(path: pathlib.Path) -> Iterator[tuple[int, dict | RowError]]:
    """Yields (line, record) of each row that is not blank; a record that is no row is an error.

    A record's keys are `COLUMNS`, and whatever others its row has.

    Raises:
      UserError: it is not such a file.
    """
    if path.suffix == ".jsonl":
        return _json_records(path)
    return csv_records(path, REQUIRED_COLUMNS, COLUMNS)


def _json_records(path: pathlib.Path) -> Iterator[tuple[int, dict | RowError]]:
    for line, text in tables.lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text, object_pairs_hook=_object)
        except RowError as error:
            yield line, error
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            yield line, RowError(f"not JSON ({reason}): write one object a line")
        else:
            no_object = RowError('not an object: write {"video": ..., "caption": ...}')
            yield line, record if isinstance(record, dict) else no_object


def _object(pairs: Sequence[tuple[str, object]]) -> dict:
    """A JSON object, known keys named so whatever their case; JSON itself keeps the last of two."""
    record = {}
    for key, value in pairs:
        name = column(key, COLUMNS)
        if name in record and record[name] != value:
            raise RowError(f"{name!r} is there twice, and says two things: keep one")
        record[name] = value
    return record
