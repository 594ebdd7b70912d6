"""A report that several files look at."""

import pytest

from tests.evaluation.reports import Page, Split


@pytest.fixture(scope="module")
def split():
    """Random features, whose report `write` writes."""
    return Split()


@pytest.fixture(scope="module")
def path(split, tmp_path_factory):
    """That report, written."""
    return split.write(tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def page(path):
    """Its elements and texts."""
    return Page(path.read_text(encoding="utf-8"))
