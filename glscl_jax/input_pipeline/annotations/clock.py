"""Times as people write them: 95, 95.5, 95,5, 1:35, 0:01:35.500."""

import re

from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.bad_rows import RowError

# hh:mm:ss or mm:ss, with a fraction after either mark (subtitles have a comma).
_CLOCK = re.compile(r"(?:(\d+):(?=\d+:))?(\d+):(\d{1,2}(?:[.,]\d*)?)", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\d+,\d+", re.ASCII)


def seconds(value, name: str) -> float:
    """A time in seconds, 0 or more, of a number, or of a text of one or of a clock.

    Raises:
      RowError: it is none, or can mean two things.
    """
    if not isinstance(value, str):
        return tables.seconds(value, name)
    text = value.strip()
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, rest = clock.groups()
        rest = float(rest.replace(",", "."))
        if rest >= 60 or (hours and int(minutes) >= 60):
            raise RowError(f"{name} {text!r} is no time: minutes and seconds end at 59")
        return int(hours or 0) * 3600 + int(minutes) * 60 + rest
    if ":" in text:
        raise RowError(f"{name} {text!r} is no time: give seconds, mm:ss or hh:mm:ss.ms")
    if _DECIMAL_COMMA.fullmatch(text):
        whole, fraction = text.split(",")
        if len(fraction) == 3 and whole != "0":
            raise RowError(
                f"{name} {text!r} can mean {whole}.{fraction} and {whole}{fraction}: write which"
            )
        text = f"{whole}.{fraction}"
    return tables.seconds(text, name)
