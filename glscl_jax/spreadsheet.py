"""Other people's text in the cells of a CSV file, which spreadsheets open as well.

There a cell that begins with "=" and the like is a formula, which may read files and call
programs. It gets an apostrophe before it, with which a spreadsheet takes it for text; so does
what already has one there, so that every text comes back.
"""

import re

# Those that OWASP names (CSV injection), with the wide ones of East Asian keyboards.
_BEGINS = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(f"'*{_BEGINS}")
_ESCAPED = re.compile(f"'+{_BEGINS}")


def escape(text: str) -> str:
    """`text` as a cell that no spreadsheet computes."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(cell: str) -> str:
    """The text that `escape` made a cell of."""
    return cell[1:] if _ESCAPED.match(cell) else cell
