"""What a data set is short of, by its published counts."""

import dataclasses
import pathlib

import pytest

from glscl_jax.input_pipeline.annotations.benchmark import Count
from glscl_jax.input_pipeline.preparing.checkup import Checkup, Row


def a_checkup(rows, clips) -> Checkup:
    empty = {
        field.name: ()
        for field in dataclasses.fields(Checkup)
        if field.name not in ("dataset", "folder", "clips", "rows", "source", "median")
    }
    return Checkup("x", pathlib.Path(), clips, rows, "a paper", median=None, **empty)


def row(splits, videos, captions, published, readable=None):
    readable = videos if readable is None else readable
    return Row(splits, videos, readable, readable, captions, published)


DIDEMO = Count(("train",), (8_392, 8_395), (8_392, 8_395))


@pytest.mark.parametrize(
    ("told", "clips", "made", "note"),
    [
        # What papers differ by is whole, what is annotated and not there is not.
        (row(("train",), 8_392, 8_392, DIDEMO), {"train": 8_392}, {"train": 8_392}, ""),
        (row(("train",), 8_395, 8_395, DIDEMO), {"train": 8_395}, {"train": 8_395}, ""),
        (
            row(("train",), 8_395, 8_395, DIDEMO, readable=8_392),
            {"train": 8_395},
            {"train": 8_392},
            "8,392 of 8,395 train",
        ),
        (
            row(("train",), 8_000, 8_000, DIDEMO),
            {"train": 8_000},
            {"train": 8_000},
            "8,000 of 8,392",
        ),
        (
            row(("train",), 9_000, 9_000, DIDEMO),
            {"train": 9_000},
            {"train": 9_000},
            "9,000 of 8,395",
        ),
        (
            row(("train",), 8_392, 8_391, DIDEMO),
            {"train": 8_392},
            {"train": 8_392},
            "8,391 of 8,392 captions of train",
        ),
        # A validation split is a part of what is published for training.
        (
            row(("train", "val"), 8_393, 8_393, DIDEMO),
            {"train": 8_000, "val": 393},
            {"train": 8_000, "val": 392},
            "392 of 393 val",
        ),
        (row(("train",), 10, 20, None), {"train": 10}, {}, "0 of 10 train"),
    ],
)
def test_what_it_is_short_of(told, clips, made, note):
    found = a_checkup((told,), clips)
    assert found.partial(made).startswith(note)
    assert bool(found.partial(made)) == bool(note)
    # No data set is silently other than published.
    if told.published is not None and made == clips:
        assert bool(found.mismatches) == bool(note)
