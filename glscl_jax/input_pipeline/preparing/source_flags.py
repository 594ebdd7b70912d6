"""The flags of `prepare` that say what to prepare, and what is read, and told, of it."""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline.annotations import Reading, validation
from glscl_jax.input_pipeline.annotations.bad_rows import BadRow, BadRows
from glscl_jax.input_pipeline.preparing import failures
from glscl_jax.input_pipeline.preparing.checkup import finding


def define() -> None:
    """Defines the flags."""
    readers = list(annotations.READERS)
    flags.DEFINE_enum("dataset", "folder", readers, "Whose annotation files --source holds.")
    paths.define("source", None, "Folder of annotations and videos.", required=True)
    paths.define("videos", None, "Folder of the videos, where that is another.")
    flags.DEFINE_boolean(
        "allow_partial",
        False,
        "Go on where videos are missing, rows of a caption file bad, or a benchmark other than what"
        " is published; the data set, and all that is trained or evaluated on it, says what it is"
        " short of.",
    )
    flags.DEFINE_alias("allow-partial", "allow_partial")
    flags.DEFINE_boolean(
        "follow_links",
        False,
        "Follow links, of files and of folders, that lead out of --source or --videos.",
    )
    flags.DEFINE_integer(
        "validation_size",
        None,
        "Training videos to hold out as split val. By default 500 of MSR-VTT and of ActivityNet,"
        " which have no validation split, and 0 elsewhere.",
        lower_bound=0,
    )


def videos() -> pathlib.Path:
    """The folder of the videos."""
    values = flags.FLAGS
    found = pathlib.Path(values.videos or values.source)
    for folder in (pathlib.Path(values.source), found):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    return found


def read(data_dir: pathlib.Path | None) -> Reading:
    """Reads the annotations; prints what is not taken of them, or read otherwise than written.

    Args:
      data_dir: where all rows that are not taken are listed; None: nowhere.

    Raises:
      UserError: nothing of them can be taken.
    """
    values = flags.FLAGS
    try:
        reading = annotations.read(values.dataset, pathlib.Path(values.source), videos())
    except BadRows as error:
        _tell(error.rows, (), data_dir)
        raise UserError(f"{error}{_listed(data_dir)}") from error
    print("\n".join(reading.notes), end="\n" * bool(reading.notes), flush=True)
    _tell(reading.bad, reading.left_out, data_dir)
    size = values.validation_size
    if size is None:
        size = validation.default_size(values.dataset, reading.clips)
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
            print("\n".join(finding(name, rows, lambda row: row.told)), flush=True)
    if data_dir:
        try:
            failures.write_rows([*bad, *left_out], data_dir / failures.BAD_ROWS_FILE)
        except OSError as error:
            raise UserError(f"--data_dir {data_dir}: {error.strerror}") from error
