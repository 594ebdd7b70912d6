"""The figure of the packages is of today's imports, and leaves out what follows alone."""

import re
import runpy
import types

import pytest

from tests.server import REPO


@pytest.fixture(scope="module")
def packages():
    return types.SimpleNamespace(
        **runpy.run_path(str(REPO / "docs" / "packages.py"), run_name="packages")
    )


def test_the_committed_figure_is_of_today_s_imports(packages):
    committed = (REPO / "docs" / "packages.svg").read_text(encoding="utf-8")
    assert packages.svg() == committed, "draw it again: python docs/packages.py"


def test_every_package_is_in_it(packages):
    labels = re.findall(r">([^<>]+)</text>", packages.svg())
    folders = {path.parent.name for path in (REPO / "glscl_jax").glob("*/__init__.py")}
    files = {path.name for path in (REPO / "glscl_jax").glob("*.py")} - {"__init__.py"}
    ground = next(label for label in labels if label.startswith("errors.py, ")).split(", ")
    assert set(labels) >= folders | {"convert"} | files - set(ground)
    assert set(ground) < files


def test_what_follows_is_left_out(packages):
    home = packages.house()
    drawn = packages.reduce(home.graph)
    for name in home.graph:
        assert packages.beyond(drawn, name) == packages.beyond(home.graph, name)
        for other in drawn[name]:
            assert packages.floor(home.graph, name) > packages.floor(home.graph, other)
    by_hand = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}
    assert packages.reduce(by_hand) == by_hand | {"a": frozenset("b")}
    assert home.tensorflow == {"input_pipeline"}
