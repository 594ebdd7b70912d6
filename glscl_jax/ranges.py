"""Which values a setting can have: what cannot be meant is refused in words."""

import dataclasses
import numbers
from collections.abc import Collection, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Whole:
    """Whole numbers from `least` to `most`, both among them."""

    least: int = 0
    most: int | None = None

    def holds(self, value) -> bool:
        """Whether a value is one of them."""
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and self.least <= value and (self.most is None or value <= self.most)

    def __str__(self):
        most = " or more" if self.most is None else f" to {self.most}"
        return f"a whole number, {self.least}{most}"


@dataclasses.dataclass(frozen=True)
class Real:
    """Finite numbers, as float32 has them: where they are computed with.

    Attributes:
      least: the smallest; none for no bound.
      above: all are larger.
      most, below: likewise at the other end.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value) -> bool:
        """Whether a value is one of them."""
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        with np.errstate(over="ignore", under="ignore"):
            value = np.float32(value)
        return bool(
            np.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self):
        told = {"": self.least, "above ": self.above, "at most ": self.most, "below ": self.below}
        bounds = [
            f"{word}{bound:g}{' or more' * (not word)}"
            for word, bound in told.items()
            if bound is not None
        ]
        return "a finite number" + "".join(f", {bound}" for bound in bounds)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Some values alone."""

    values: Collection

    def holds(self, value) -> bool:
        """Whether a value is one of them, and of its type: 1 is not True."""
        return any(type(value) is type(one) and value == one for one in self.values)

    def __str__(self):
        return f"one of {', '.join(map(str, self.values))}"


EITHER = OneOf((True, False))


@dataclasses.dataclass(frozen=True)
class Optional:
    """Values of a range, or None."""

    values: Whole | Real | OneOf

    def holds(self, value) -> bool:
        """Whether a value is one of them."""
        return value is None or self.values.holds(value)

    def __str__(self):
        return f"{self.values}, or None"


@dataclasses.dataclass(frozen=True)
class Each:
    """Tuples of `count` values of a range."""

    values: Whole | Real | OneOf
    count: int

    def holds(self, value) -> bool:
        """Whether a value is one of them."""
        return (
            isinstance(value, tuple)
            and len(value) == self.count
            and all(self.values.holds(one) for one in value)
        )

    def __str__(self):
        return f"{self.count} numbers in parentheses, each {self.values}"


def check(values: Mapping, ranges: Mapping[str, Whole | Real | OneOf | Optional | Each]) -> None:
    """Raises a `ValueError` that names the first value out of its range; others are not looked at.

    A range's name that has no value is passed over.
    """
    for name, allowed in ranges.items():
        if name in values and not allowed.holds(values[name]):
            raise ValueError(f"{name} is {values[name]!r}: give {allowed}")
