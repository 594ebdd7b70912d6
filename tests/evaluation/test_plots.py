"""The pictures' numbers against counting, their files, and that their colours can be read."""

import dataclasses
import itertools
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax.evaluation import plots
from glscl_jax.retrieval import metrics
from tests.conftest import REPO

THEMES = pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK], ids=["light", "dark"])
DRAWINGS = pytest.mark.parametrize("draw", [plots.recall_curves, plots.rank_histogram])


def some_ranks(items: int, queries: int = 40, seed: int = 0) -> metrics.Ranks:
    """Mostly low ranks, some of them ties."""
    rng = np.random.default_rng(seed)
    first = np.ceil(items ** rng.uniform(size=queries))
    return metrics.Ranks(first, np.minimum(items, first + rng.integers(2, size=queries)))


def some_result(items: int) -> metrics.Retrieval:
    return metrics.Retrieval(some_ranks(items), some_ranks(items, seed=1))


@given(st.integers(1, 3000), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_numbers_agree_with_counting(items, queries, seed):
    ranks = some_ranks(items, queries, seed).mean
    edges = plots.bin_edges(items)
    assert edges[0] == 0
    assert edges[-1] == items
    assert (np.diff(edges) > 0).all()
    counted = [sum(rank <= k for rank in ranks) / queries for k in edges]
    np.testing.assert_allclose(plots.recalls_at(ranks, edges), np.multiply(counted, 100))
    inside = [sum(low < rank <= high for rank in ranks) for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(plots.shares(ranks, edges), np.divide(inside, queries / 100))
    # No query is left out.
    assert sum(inside) == queries


def test_edges_are_the_recalls_of_the_table():
    assert plots.bin_edges(1000).tolist() == [0, 1, 5, 10, 50, 100, 500, 1000]
    assert plots.bin_edges(60_000).tolist()[-3:] == [10_000, 50_000, 60_000]
    assert plots.bin_edges(1).tolist() == [0, 1]


@DRAWINGS
@THEMES
def test_a_picture_is_one_svg_that_asks_for_nothing(draw, theme):
    content = draw(some_result(1000), 1000, theme)
    tree = ElementTree.fromstring(content)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not name.endswith("href") or value.startswith(("#", "data:")), value
    text = content.decode()
    # Both directions are drawn, and text as shapes: no font has to be there.
    assert theme.t2v in text
    assert theme.v2t in text
    assert "<text" not in text
    assert content == draw(some_result(1000), 1000, theme)


@DRAWINGS
@pytest.mark.parametrize("items", [1, 2, 7, 123_456])
def test_a_gallery_of_any_size(draw, items):
    ElementTree.fromstring(draw(some_result(items), items, plots.LIGHT))


def test_the_curve_is_drawn_where_the_recall_is():
    # Two of four queries at rank 1, one at 10, one at 100: the curve's corners, in parts of the
    # axes, are read back from the file.
    ranks = np.array([1.0, 1, 10, 100])
    both = metrics.Ranks(ranks, ranks)
    content = plots.recall_curves(metrics.Retrieval(both, both), 100, plots.LIGHT)
    tree = ElementTree.fromstring(content)
    line = next(
        path
        for path in tree.iter("{http://www.w3.org/2000/svg}path")
        if f"stroke: {plots.LIGHT.t2v}" in path.get("style", "")
    )
    numbers = np.array([float(x) for x in line.get("d").replace("M", "L").split() if x != "L"])
    x, y = numbers.reshape(-1, 2).T
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), [0, 0.5, 0.5, 1, 1], atol=1e-4)
    np.testing.assert_allclose((y - y[0]) / (y[-1] - y[0]), [0, 0, 0.5, 0.5, 1], atol=1e-4)


def test_colours_run_over_the_scale_and_stop_at_its_ends():
    found = plots.colours(np.array([[-9.0, -1, 0], [0.5, 1, 9]]), -1, 1)
    assert found.shape == (2, 3)
    assert found[0, 0] == found[0, 1] != found[0, 2]
    assert found[1, 1] == found[1, 2]
    assert len(set(found.ravel())) == 4
    assert all(len(colour) == 7 and colour[0] == "#" for colour in found.ravel())
    # One value alone has no scale to run over.
    assert len(set(plots.colours(np.zeros((2, 2)), 0, 0).ravel())) == 1


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@THEMES
def test_colours_can_be_told_apart(theme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in (theme.paper, theme.card):
        assert contrast(theme.ink, ground) > 7
        for name in ("muted", "t2v", "v2t"):
            assert contrast(getattr(theme, name), ground) > 4.5, (name, ground)
    assert len(set(dataclasses.astuple(theme))) == 7


def test_the_readme_s_figure_can_be_read_on_white_and_on_dark():
    """It has no ground of its own: text and arrows stand on the page, or on light boxes."""
    svg = (REPO / "docs" / "glscl.svg").read_text(encoding="utf-8")
    styles = re.findall(r'style="fill: ([#\w]+)(?:; stroke: ([#\w]+))?', svg)
    assert styles[0] == ("none", "")  # The ground.
    boxes = {fill for fill, stroke in styles if stroke not in ("", fill) and fill != "none"}
    texts = {fill for fill, stroke in styles if not stroke} - {"none"}
    arrows = {stroke for _, stroke in styles if stroke}
    inside = {text for text in texts if contrast(text, "#ffffff") > 7}
    assert texts > inside
    assert all(contrast(text, box) > 7 for text in inside for box in boxes)
    for page in ("#ffffff", "#0d1117"):  # GitHub's.
        assert all(contrast(colour, page) > 4 for colour in (texts - inside) | arrows)


def test_matplotlib_is_not_imported_before_something_is_drawn():
    program = "import sys, glscl_jax.evaluation.report; print('matplotlib' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n"
