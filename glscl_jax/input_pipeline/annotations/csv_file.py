"""A CSV file as records, with the separator, and in the encoding, that its program wrote it in."""

import csv
import io
import pathlib
import re
from collections.abc import Iterator, Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.bad_rows import RowError

# Comma first: of a header of one column it is as good as any.
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# A first line by which Excel is told the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)


def csv_records(
    path: pathlib.Path, required: Sequence[str], known: Sequence[str] = ()
) -> Iterator[tuple[int, dict | RowError]]:
    """Yields (line, record) of each row that is not blank; a record that is no row is an error.

    Args:
      path: a file with a header, whose columns a comma, a semicolon or a tab separates.
      required: columns that must be there. They, and the separator, are found in the header.
      known: columns that may be there. The case of a known or required one does not matter; any
        others are in the records as the header has them.

    Raises:
      UserError: the header is not one.
    """
    text, first = tables.text(path), 1
    if told := _SEPARATOR_LINE.match(text):
        text, first = text[told.end() :], 2
    separator = told[1] if told else _separator(text, required)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise UserError(f"{path} line {first}: not CSV ({error}): mend its quotes") from error
    header = [column(name, (*required, *known)) for name in names]
    _check_header(path, first, header, required, known)
    while True:
        # A row can span lines, where a cell holds a line break: name the one it starts in.
        line = reader.line_num + first
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, RowError(f"not CSV ({error}): mend its quotes")
            continue
        if any(cell.strip() for cell in cells):
            yield line, _record(header, cells, separator)


def column(name: str, known: Sequence[str]) -> str:
    """A column's name, as it is known where it is, whatever its case."""
    stripped = name.strip()
    folded = stripped.casefold()
    return folded if folded in known else stripped


def _record(header: list[str], cells: list[str], separator: str) -> dict | RowError:
    while len(cells) > len(header) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    return RowError(
        f"{len(cells)} cells where the header has {len(header)}: put captions that hold a"
        f' {SEPARATORS.get(separator, "separator")} between double quotes (")'
    )


def _separator(text: str, required: Sequence[str]) -> str:
    """The separator with which the header has the required columns, else most columns."""
    # Only the header knows: captions are full of all of them.
    most, found = 0, ","
    for separator in SEPARATORS:
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            continue
        if {column(name, required) for name in names} >= set(required):
            return separator
        if len(names) > most:
            most, found = len(names), separator
    return found


def _check_header(path: pathlib.Path, line: int, header: list[str], required, known) -> None:
    if not any(header):
        wanted = ",".join(known or required)
        raise UserError(f"{path}: no header in line {line}: start with {wanted}")
    for name in required:
        if name not in header:
            unknown = ""
            if len(header) == 1 and len(required) > 1:
                unknown = f": separate columns by a {', '.join(SEPARATORS.values())}"
            raise UserError(f"{path}: no column {name!r} in line {line}, only {header}{unknown}")
    for name in (*required, *known):
        if header.count(name) > 1 and name:
            raise UserError(f"{path}: column {name!r} is there twice: take one out")
