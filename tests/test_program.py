"""How programs start: flags with dashes, and first arguments that run something else."""

import subprocess
import sys

import pytest

from glscl_jax.program import underscored
from tests.conftest import REPO, one_line_error

SCRIPT = """
from absl import flags
from glscl_jax import program
from glscl_jax.errors import UserError
FLAG = flags.DEFINE_string("two_words", None, "")
def main(argv):
    print("main", argv[1:], FLAG.value)
def other(argv):
    if argv[1] == "bad":
        raise UserError("bad is bad")
    print("other", argv, FLAG.value)
program.run(main, ("WHAT",), {"other": program.Command(other, ("ONE", "TWO"))})
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=REPO, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--save-features", "a-b"], ["--save_features", "a-b"]),
        (["--legacy-ties", "-no-report"], ["--legacy_ties", "-noreport"]),
        (
            ["--out=a-b=c-d", "--config.data.num-words=3"],
            ["--out=a-b=c-d", "--config.data.num_words=3"],
        ),
        (["--no-legacy-ties", "--normal-x"], ["--nolegacy_ties", "--normal_x"]),
        (["a-b", "--x-y", "--", "--x-y"], ["a-b", "--x_y", "--", "--x-y"]),
        (["--step", "-1", "-", "--"], ["--step", "-1", "-", "--"]),
        ([], []),
    ],
)
def test_dashes_in_the_names_of_flags(given, meant):
    assert underscored(given) == meant


def test_a_first_argument_can_run_something_else():
    assert run("a-b", "--two-words=x-y").stdout == "main ['a-b'] x-y\n"
    assert run("other", "1", "2", "--two-words", "x-y").stdout == "other ['other', '1', '2'] x-y\n"
    assert "bad is bad" in one_line_error(run("other", "bad", "2"))
    assert "TWO is missing" in one_line_error(run("other", "1"))
    assert "unexpected argument '3'" in one_line_error(run("other", "1", "2", "3"))
    assert "WHAT is missing" in one_line_error(run())
