"""Paragraph retrieval: all that is said of a video, as one caption."""

from collections.abc import Iterable

from glscl_jax.input_pipeline.annotations import tables


def paragraph(sentences: Iterable) -> str:
    """The sentences, stripped, in their order, with a space between.

    Raises:
      RowError: one is no text, or there is nothing to read in all of them.
    """
    return tables.caption(" ".join(tables.string(one, "sentence") for one in sentences))
