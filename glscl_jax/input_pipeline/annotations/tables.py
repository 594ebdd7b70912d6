"""Annotation files as rows, values and ids; what is wrong with one names the file and the row."""

import contextlib
import csv
import io
import json
import math
import pathlib
from collections.abc import Container, Iterator, Sequence

from glscl_jax.errors import UserError


class RowError(Exception):
    """What is wrong with a row and the way out."""


class Faults:
    """The bad rows of a file, told as one line: the first of them, and how many more."""

    def __init__(self, path: pathlib.Path):
        self._path, self._told = path, []

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Takes down a `RowError` of its body as being at a place, e.g. "line 3"."""
        try:
            yield
        except RowError as error:
            self._told.append(f"{self._path} {place}: {error}")

    def check(self) -> None:
        """Raises `UserError` if there were any."""
        if self._told:
            more = f" (and {len(self._told) - 1} more bad rows)" if len(self._told) > 1 else ""
            raise UserError(self._told[0] + more)


def content(path: pathlib.Path) -> bytes:
    """A file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: mend that first") from error


def text(path: pathlib.Path) -> str:
    """A file's text, which is UTF-8 with a byte order mark or without."""
    data = content(path)
    try:
        # Spreadsheets put a byte order mark in front.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line}: not UTF-8: save the file as UTF-8") from error


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line counted from 1, its text), without line ends; an empty last line is none."""
    # Not splitlines: a caption may hold one of the rarer line separators.
    for number, line in enumerate(text(path).removesuffix("\n").split("\n"), 1):
        yield number, line.removesuffix("\r")


def csv_records(
    path: pathlib.Path, required: Sequence[str], known: Sequence[str] | None = None
) -> Iterator[tuple[int, dict | RowError]]:
    """Yields (line, record) of each row; a record that is no row is an error.

    Args:
      path: a file with commas and a header.
      required: columns that must be there.
      known: the only ones that may be there; any others too if None.
    """
    reader = csv.reader(io.StringIO(text(path), newline=""), strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, required, known)
        # A row can span lines, where a cell holds a line break: name the one it starts in.
        line = reader.line_num + 1
        for cells in reader:
            record = dict(zip(header, cells, strict=False))
            if len(cells) != len(header) and any(cell.strip() for cell in cells):
                record = RowError(
                    f"{len(cells)} cells where the header has {len(header)}: put captions that"
                    ' hold a comma between double quotes (")'
                )
            yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {line}: not CSV ({error}): mend its quotes") from error


def _check_header(path: pathlib.Path, header: list[str], required, known) -> None:
    if not any(header):
        raise UserError(f"{path}: no header in line 1: start with {','.join(known or required)}")
    for name in required:
        if name not in header:
            raise UserError(f"{path}: no column {name!r} in line 1, only {header}")
    for number, name in enumerate(header):
        if known is not None and name not in known:
            raise UserError(f"{path}: unknown column {name!r}: rename it or take it out")
        if name in header[:number]:
            raise UserError(f"{path}: column {name!r} is there twice: take one out")


def json_value(path: pathlib.Path, kind: type[list] | type[dict]) -> list | dict:
    """A whole file of JSON, a list or an object as `kind` says.

    Raises:
      UserError: it is not that; or an object names a key twice and gives it different values, of
        which JSON's own rules keep the last.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict:
        made = {}
        for key, value in pairs:
            if key in made and made[key] != value:
                raise UserError(f"{path}: {key!r} is there twice, and says two things: keep one")
            made[key] = value
        return made

    try:
        value = json.loads(text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not JSON ({reason}): fetch the file anew") from error
    if not isinstance(value, kind):
        names = {list: "a list", dict: "an object"}
        raise UserError(f"{path}: not {names[kind]}, as this file is: fetch it anew")
    return value


def id_list(path: pathlib.Path) -> dict[str, int]:
    """The ids of a file with one a line -> the line; one that is there again counts once."""
    ids, faults = {}, Faults(path)
    for line, name in lines(path):
        with faults.at(f"line {line}"):
            ids.setdefault(video_id(name), line)
    faults.check()
    return ids


def video_id(value) -> str:
    """A video's id, which has to do for a file's name.

    Raises:
      RowError: it would not, or it would lead elsewhere.
    """
    name = string(value, "id")
    if not name:
        raise RowError("no id: delete the row")
    if name in (".", "..") or any(c in "/\\" or c < " " for c in name):
        raise RowError(f"id {name!r} is no name of a file: mend it")
    return name


def caption(value, name: str = "caption") -> str:
    """A caption, stripped.

    Raises:
      RowError: it is no text, or nothing in it can be read aloud.
    """
    told = string(value, name)
    if not any(character.isalnum() for character in told):
        raise RowError(f"{name} {told!r} has no letters: write one or delete the line")
    return told


def string(value, name: str) -> str:
    """A text, stripped.

    Raises:
      RowError: it is none.
    """
    if not isinstance(value, str):
        raise RowError(f"{name} {value!r} is not a text: put it between double quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{name} {value!r} holds half a character: mend it") from None
    return value.strip()


def seconds(value, name: str) -> float:
    """A time, 0 or more.

    Raises:
      RowError: it is none.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"{name} {value!r} is not a number: give seconds") from None
    if not math.isfinite(number) or number < 0:
        raise RowError(f"{name} {value!r}: give seconds, 0 or more")
    return abs(number)  # -0 is 0


def fields(value, *names: str) -> dict:
    """An object that has these keys.

    Raises:
      RowError: it is none, or has not.
    """
    if not isinstance(value, dict):
        raise RowError(f"not an object with {' and '.join(names)}: mend it")
    for name in names:
        if name not in value:
            raise RowError(f"no {name!r} in it: mend it")
    return value


def check_told(
    ids: dict[str, int], ids_path: pathlib.Path, told: Container[str], told_path: pathlib.Path
) -> None:
    """Raises `UserError` unless every id of a list has captions in the other file."""
    silent = [name for name in ids if name not in told]
    if silent:
        more = f" (and for {len(silent) - 1} more)" if len(silent) > 1 else ""
        raise UserError(
            f"{ids_path} row {ids[silent[0]]}: no caption of {silent[0]!r}{more} in {told_path}:"
            " take files that belong together, or take the id out"
        )


def check_apart(lists: dict[pathlib.Path, dict[str, int]]) -> None:
    """Raises `UserError` if an id is in two of the files, each a list of one split's ids."""
    first: dict[str, pathlib.Path] = {}
    for path, ids in lists.items():
        for name, row in ids.items():
            other = first.setdefault(name, path)
            if other != path:
                raise UserError(
                    f"{path} row {row}: {name!r} is in {other.name} row {lists[other][name]} too:"
                    " give it one split"
                )
