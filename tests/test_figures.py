"""Figures, directions and files' names: which is better, and that each is written down once."""

import ast

import pytest

from glscl_jax import figures
from tests.server import REPO


def test_ranks_are_better_low_and_recalls_high():
    better = [name for name in figures.FIGURES if figures.more_is_better(name)]
    assert better == ["R@1", "R@5", "R@10", "R@50"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("MdR", ["glscl_jax/figures.py"]),
        ("text-to-video", ["glscl_jax/figures.py"]),
        ("failed.csv", ["glscl_jax/input_pipeline/preparing/failures.py"]),
    ],
)
def test_a_name_is_written_down_once(text, where):
    holds = {
        str(path.relative_to(REPO))
        for path in (REPO / "glscl_jax").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == text
    }
    assert sorted(holds) == where
