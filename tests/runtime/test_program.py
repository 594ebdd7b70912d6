"""How programs start: flags with dashes, first arguments that run something else, and help."""

import functools
import os
import pty
import subprocess
import sys

import pytest

from glscl_jax.runtime.program import underscore
from tests.conftest import REPO, one_line_error


@pytest.fixture(scope="module")
def run(forks):
    """Runs the script; what came of it."""
    return functools.partial(forks, "tests.script", check=False)


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
    assert underscore(given) == meant


def test_a_first_argument_can_run_something_else(run):
    assert run("a-b", "--two-words=x-y").stdout == "main ['a-b'] x-y\n"
    assert run("other", "1", "2", "--two-words", "x-y").stdout == "other ['other', '1', '2'] x-y\n"
    assert "bad is bad" in one_line_error(run("other", "bad", "2"))
    assert "TWO is missing" in one_line_error(run("other", "1"))
    assert "unexpected argument '3'" in one_line_error(run("other", "1", "2", "3"))
    assert "WHAT is missing" in one_line_error(run())


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (["bare", "--unread"], "--unread"),
        (["bare", "--no-unread"], "--nounread"),
        (["bare", "--two-words", "x"], "--two_words"),
        (["bare", "--nonsense=1"], "--nonsense"),
        (["--two-words=x", "bare"], "--two_words"),
        (["other", "1", "2", "--two-words=x", "--unread"], "--unread"),
        # Before its value is looked at, which is none for it.
        (["bare", "--unread=perhaps"], "--unread"),
    ],
)
def test_a_flag_that_a_command_does_not_read_is_refused(run, given, flag):
    name = next(word for word in given if word in ("bare", "other"))
    assert f"{name} does not read {flag}: leave it out" in one_line_error(run(*given))


def test_a_command_takes_the_flags_that_every_program_has(run, tmp_path):
    flagfile = tmp_path / "flags"
    flagfile.write_text("--verbosity=-1\n")
    given = ("-v=1", "--verbosity", "-1", "--nologtostderr", f"--flagfile={flagfile}")
    done = run("other", "1", "2", *given)
    assert (done.returncode, done.stdout) == (0, "other ['other', '1', '2'] None\n")
    flagfile.write_text("--unread\n")
    assert "other does not read --unread" in one_line_error(run("other", "1", "2", *given))


def test_ctrl_c_is_a_line(run):
    stopped = run("other", "stop", "now")
    assert (stopped.returncode, stopped.stderr) == (130, "stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    "asked", ["--help", "--helpfull", pytest.param("-h", marks=pytest.mark.slow)]
)
def test_help_explains_the_program_and_its_own_flags_first(run, asked):
    # Before what is wrong with the other arguments.
    helped = run("--nonsense", asked)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("Explains the script.\n\nFlags:\n  --two_words: Says")
    assert ("--logtostderr" in helped.stdout.replace("[no]", "")) == (asked == "--helpfull")
    assert run("other", asked).stdout == "Explains the other.\n"
    # No help, but a value: what follows -- is no flag.
    assert "unexpected argument" in one_line_error(run("1", "--", asked))


PROGRAMS = {
    "glscl_jax.train": ("--workdir", "--coordinator"),
    "glscl_jax.evaluate": ("--checkpoint", "--coordinator"),
    "glscl_jax.input_pipeline.prepare": ("--source", "--data_dir"),
    "glscl_jax.input_pipeline.rendered": ("--out",),
    "convert.clip": ("--verify", "--activation"),
    "convert.glscl": ("--verify", "--tokenizer"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_help_with_an_example(forks, name):
    short, long, full = (forks(name, flag).stdout for flag in ("-h", "--help", "--helpfull"))
    assert short == long
    assert f"    python -m {name} " in long
    for flag in PROGRAMS[name]:
        assert f"\n  {flag}: " in long.replace("[no]", "")
    assert "absl" not in long
    assert "absl.logging" in full
    assert full.split("Flags of absl")[0].strip() == long.rpartition("\n\n")[0]


def test_compare_has_help_of_its_own(forks):
    said = forks("glscl_jax.evaluate", "compare", "--help").stdout
    assert "    python -m glscl_jax.evaluate compare results/one results/other" in said
    assert "--checkpoint" not in said


@pytest.mark.parametrize(
    "flags", [["--split=nope", "--checkpoint=/nowhere"], ["--config.data.dir=x"], ["--noreport"]]
)
def test_compare_takes_no_flags(forks, tmp_path, flags):
    told = one_line_error(forks("glscl_jax.evaluate", "compare", "a", "b", *flags, check=False))
    name = flags[0].partition("=")[0]
    assert told.startswith(f"error: compare does not read {name}: leave it out")


def test_compare_is_a_program_by_itself(forks):
    told = [
        one_line_error(forks(*name, "a", "b", "--verbosity=0", check=False))
        for name in (["glscl_jax.compare"], ["glscl_jax.evaluate", "compare"])
    ]
    assert told[0] == told[1]
    assert "a/results.json is not there" in told[0]
    assert "'split'" in one_line_error(forks("glscl_jax.compare", "--split=x", check=False))
    said = forks("glscl_jax.compare", "--help").stdout
    assert "    python -m glscl_jax.compare results/one results/other" in said
    assert "Flags" not in said


LOUD = """
import os, sys
from glscl_jax.runtime import program
def main(argv):
    for number in range(20000):
        print(number)
        print(number, file=sys.stderr)
    os.write(1, b"of a library")
    return 75
program.run(main)
"""


def loud(**options):
    return subprocess.Popen([sys.executable, "-c", LOUD], cwd=REPO, **options)


def test_a_program_goes_on_when_its_reader_has_gone():
    process = loud(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait() == 75


def test_a_program_goes_on_when_its_terminal_has_gone():
    ours, theirs = pty.openpty()
    process = loud(stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 1) == b"0"
    os.close(ours)
    assert process.wait() == 75


def test_help_to_a_reader_that_takes_one_line_says_nothing_more():
    command = f"{sys.executable} -m convert.clip --helpfull | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=REPO, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Converts a CLIP's weights to a checkpoint directory, and back.\n"
    # Nor where all that is printed fits a buffer and nobody takes any.
    command = f"{sys.executable} -m glscl_jax.input_pipeline.rendered -h | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=REPO, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
