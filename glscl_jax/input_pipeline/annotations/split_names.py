"""The splits that a caption file names, however each is written."""

import collections
from collections.abc import Iterable

# What others call the three splits, all in lower case.
_SYNONYMS = {
    "train": ("training",),
    "val": ("validation", "valid", "dev"),
    "test": ("testing",),
}


class SplitNames:
    """Maps each spelling of a split to its name.

    Case does not matter: train, val and test are named so, another split as it is written first.
    A synonym of one of the three stands for it where nothing else in the file does.
    """

    def __init__(self, written: Iterable[str]):
        self._counts = collections.Counter(written)
        known = dict.fromkeys(name.casefold() for name in self._counts)
        self._name = {name: name for name in _SYNONYMS}
        for name, synonyms in _SYNONYMS.items():
            there = [spelling for spelling in (name, *synonyms) if spelling in known]
            if len(there) == 1:
                self._name[there[0]] = name
        for spelling in self._counts:
            self._name.setdefault(spelling.casefold(), spelling)

    def __getitem__(self, spelling: str) -> str:
        return self._name[spelling.casefold()]

    def describe(self) -> list[str]:
        """A line on what is written otherwise than the split is named, if anything is."""
        others = [
            f"{spelling!r} as {self[spelling]} ({count:,})"
            for spelling, count in self._counts.items()
            if self[spelling] != spelling
        ]
        return [f"splits read: {', '.join(others)}"] if others else []
