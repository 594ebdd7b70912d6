"""Annotation files as rows, values and ids; what is wrong with one names the file and the row."""

import codecs
import json
import math
import pathlib
from collections.abc import Container, Iterable, Iterator

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations.bad_rows import Faults, RowError

# The longer first: UTF-32's begins with UTF-16's.
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def content(path: pathlib.Path) -> bytes:
    """A file's bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: mend that first") from error


def text(path: pathlib.Path) -> str:
    """A file's text, which is UTF-8, or UTF-16 as spreadsheets export it."""
    data = content(path)
    encoding = _encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding == "utf-8-sig" else f"whole {encoding.upper()}"
        raise UserError(f"{path} line {line}: not {name}: save the file as UTF-8") from error


def _encoding(data: bytes) -> str:
    """What a file's first bytes say that it is written in."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    # What annotation files begin with is ASCII.
    if data[1:2] == b"\0" and data[:1].isascii() and data[:1] != b"\0":
        return "utf-16-le"
    if data[:1] == b"\0" and data[1:2].isascii() and data[1:2] not in (b"", b"\0"):
        return "utf-16-be"
    return "utf-8-sig"


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line counted from 1, its text), without line ends; an empty last line is none."""
    # Not splitlines: a caption may hold one of the rarer line separators.
    for number, line in enumerate(text(path).removesuffix("\n").split("\n"), 1):
        yield number, line.removesuffix("\r")


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
    if not has_letters(told):
        raise RowError(f"{name} {told!r} has no letters: write one or delete the line")
    return told


def paragraph(sentences: Iterable) -> str:
    """All that is said of a video as one caption: stripped, in its order, with a space between.

    Raises:
      RowError: one is no text, or there is nothing to read in all of them.
    """
    return caption(" ".join(string(one, "sentence") for one in sentences))


def has_letters(caption: str) -> bool:
    """Whether something in a caption can be read aloud."""
    return any(character.isalnum() for character in caption)


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
