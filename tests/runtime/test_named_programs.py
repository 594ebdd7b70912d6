"""Several programs under one name, as people start them."""

import subprocess
import sys

import pytest

from glscl_jax.runtime import named_programs
from tests.conftest import REPO

CHOICES = {
    "convert": "clip, glscl, queries, push or pull",
    "glscl_jax.search": "index, query, serve or export",
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_none_of_them_is_one_line(name):
    for given, told in (["other"], "'other' is none"), ([], "none is named"):
        done = subprocess.run(
            [sys.executable, "-m", name, *given],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
        line = f"error: give {CHOICES[name]} first, {told} (--help says more)\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("name", CHOICES)
def test_help_to_a_reader_that_has_gone_says_nothing_more(name):
    command = f"{sys.executable} -m {name} --help | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_of_them_is_run_as_if_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["both", "first", "--flag"])
    monkeypatch.setattr(named_programs.importlib, "import_module", lambda name: Program(name))
    named_programs.run({"first": "a.first", "second": "a.second"}, "")
    # A TPU that is not there is forgotten before the program can ask for devices.
    told = "forgotten\na.first of ['both', '--flag']\n"
    assert capsys.readouterr().out == told


class Program:
    """A module of a program."""

    def __init__(self, name):
        self.name = name

    def cli(self):
        print(f"{self.name} of {sys.argv}")

    def forget_absent_tpu(self):
        print("forgotten")
