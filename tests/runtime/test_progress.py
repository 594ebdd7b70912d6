"""Progress passes items through and says how far they are."""

import subprocess
import sys

import pytest

from glscl_jax.runtime import progress
from tests.conftest import REPO


def test_items_pass_through_and_a_line_ends_it(capsys):
    assert list(progress.track(iter([1, 2, 3]), "counting", 5, "numbers", each=2)) == [1, 2, 3]
    told = capsys.readouterr().err
    # The last item stands for one number only.
    assert told.startswith("counting: 5 of 5, ")
    assert "numbers/s, 0:00 left" in told


def test_a_loop_with_lines_of_its_own_is_quiet(capsys):
    assert list(progress.track([1, 2], "counting", 2, plain=False)) == [1, 2]
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar():
    script = (
        "import time\nfrom glscl_jax.runtime.progress import track\n"
        "for _ in track(range(4), 'counting', 4, 'numbers'): time.sleep(0.2)"
    )
    # `script` gives the process a terminal of its own.
    command = ["script", "-qec", f'{sys.executable} -c "{script}"', "/dev/null"]
    try:
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("util-linux's `script` is not installed")
    assert "━" in done.stdout
    assert "numbers/s" in done.stdout
    assert "4/4" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.4, "0:00"), (75, "1:15"), (3600, "1:00:00"), (86_399, "23:59:59")]
)
def test_durations(seconds, written):
    assert progress.duration(seconds) == written
