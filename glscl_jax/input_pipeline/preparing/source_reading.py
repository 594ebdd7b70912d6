"""What is read, and told, of the annotations that are to be prepared."""

import dataclasses
import pathlib
from collections.abc import Sequence

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline.annotations import Reading, validation
from glscl_jax.input_pipeline.annotations.bad_rows import BadRow, BadRows
from glscl_jax.input_pipeline.annotations.file_names import read_names
from glscl_jax.input_pipeline.annotations.source import named_by
from glscl_jax.input_pipeline.preparing import failures
from glscl_jax.input_pipeline.preparing.checkup import finding
from glscl_jax.input_pipeline.preparing.options import Options


def read(options: Options, data_dir: pathlib.Path | None) -> Reading:
    """Reads the annotations; prints what is not taken of them, or read otherwise than written.

    Args:
      options: what is to be read.
      data_dir: where all rows that are not taken are listed; None: nowhere.

    Raises:
      UserError: nothing of them can be taken.
    """
    names = None
    try:
        if options.names:
            names = read_names(paths.local(options.names, "--names"))
        with named_by(names):
            reading = annotations.read(options.dataset, options.folder, options.video_folder)
    except BadRows as error:
        _tell(error.rows, (), data_dir)
        raise UserError(f"{error}{_listed(data_dir)}") from error
    if names:
        names.check_used()
        print(names.describe(), flush=True)
    print("\n".join(reading.notes), end="\n" * bool(reading.notes), flush=True)
    _tell(reading.bad, reading.left_out, data_dir)
    size = options.validation_size
    if size is None:
        size = validation.default_size(options.dataset, reading.clips)
    return dataclasses.replace(reading, clips=validation.carve(reading.clips, size))


def refusal(reading: Reading, data_dir: pathlib.Path | None) -> UserError | None:
    """What bad rows are, if there are any, where they may not be left out."""
    if not reading.bad:
        return None
    way_out = "mend that, or leave it out with --allow_partial"
    return UserError(f"{BadRows(reading.bad)}{_listed(data_dir)}: {way_out}")


def _listed(data_dir: pathlib.Path | None) -> str:
    return f"; {data_dir / failures.BAD_ROWS_FILE} lists all" if data_dir else ""


def _tell(bad: Sequence[BadRow], left_out: Sequence[BadRow], data_dir: pathlib.Path | None) -> None:
    """Prints the first of the rows that are not taken; lists all beside the data set."""
    for name, rows in (("bad rows", bad), ("rows left out", left_out)):
        if rows:
            print("\n".join(finding(name, rows, lambda row: row.description)), flush=True)
    if data_dir:
        try:
            failures.write_rows([*bad, *left_out], data_dir / failures.BAD_ROWS_FILE)
        except OSError as error:
            raise UserError(f"--data_dir {data_dir}: {error.strerror}") from error
