"""Cells that say that nothing is in them, as programs write it."""

import collections
from collections.abc import Mapping

# Those of pandas.read_csv, and the errors of spreadsheets, whatever their case.
_WORDS = {"nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "nat"}
_WORDS |= {"none", "null", "n/a", "na", "<na>", "#na", "#n/a", "#n/a n/a"}
_WORDS |= {"#name?", "#value!", "#ref!", "#div/0!", "#num!", "#null!", "#error!", "#spill!"}
_WORDS |= {"#calc!", "#field!", "#blocked!", "#connect!", "#unknown!", "#busy!", "#getting_data"}


class EmptyCells:
    """Tells the cells of records that hold something, and counts those that only seem to."""

    def __init__(self):
        self._found = collections.Counter()

    def given(self, record: Mapping) -> dict:
        """What is not empty of a record."""
        return {name: value for name, value in record.items() if not self._is_empty(value)}

    def describe(self) -> list[str]:
        """A line on those that hold a word, if there were any."""
        if not self._found:
            return []
        each = ", ".join(f"{count:,} {word!r}" for word, count in self._found.most_common())
        total = self._found.total()
        return [f"{total:,} cell{'s' * (total > 1)} read as empty: {each}"]

    def _is_empty(self, value) -> bool:
        if value is None:
            return True
        # JSON as Python writes it has a number for it, which equals nothing.
        text = "NaN" if isinstance(value, float) and value != value else value
        if not isinstance(text, str):
            return False
        text = text.strip()
        if text.casefold() in _WORDS:
            self._found[text] += 1
            return True
        return not text
