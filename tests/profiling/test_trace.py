"""Traces: which steps --profile means. What a run leaves behind: programs/test_train.py."""

import contextlib
import json

import jax
import pytest

from glscl_jax.errors import UserError
from glscl_jax.profiling import trace

TOTAL = 40


@pytest.mark.parametrize(
    ("text", "done", "expected"),
    [
        ("", 0, None),
        ("1", 0, trace.Window(2, 2)),
        ("3", 0, trace.Window(2, 4)),
        ("3", 20, trace.Window(22, 24)),
        ("39", 0, trace.Window(2, 40)),
        ("1:1", 0, trace.Window(1, 1)),
        ("5:8", 0, trace.Window(5, 8)),
        ("21:40", 20, trace.Window(21, 40)),
    ],
)
def test_windows(text, done, expected):
    assert trace.read_window(text, done, TOTAL) == expected


@pytest.mark.parametrize(
    ("text", "done", "told"),
    [
        ("three", 0, "not understood"),
        ("-1", 0, "not understood"),
        ("5:", 0, "not understood"),
        ("1:2:3", 0, "not understood"),
        ("1.5", 0, "not understood"),
        ("٣", 0, "not understood"),
        ("0", 0, "no step"),
        ("8:5", 0, "no step"),
        ("0:5", 0, "no step"),
        ("40", 0, "steps 2 to 41, and this start of the run has steps 1 to 40"),
        ("39:41", 0, "steps 1 to 40"),
        ("20:21", 20, "steps 21 to 40"),
        ("1", 40, "no step left"),
    ],
)
def test_what_is_no_window(text, done, told):
    with pytest.raises(UserError, match=told) as raised:
        trace.read_window(text, done, TOTAL)
    assert f"--profile={text}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("flag", ["--profile=all", "--profile=1:99"])
def test_a_wrong_window_is_refused_before_anything_is_made(shapes, refusal, tmp_path, flag):
    assert flag in refusal("glscl_jax.train", *arguments(shapes, tmp_path / "run"), flag)
    assert not (tmp_path / "run").exists()


def arguments(shapes, workdir):
    return (
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.data.validation_split=",
        # Each step is waited for, so that what it runs lies within it.
        "--config.log_every=1",
    )


@pytest.fixture(scope="module")
def run(shapes, forks, tmp_path_factory):
    """A run of four steps, two of them traced: its work directory."""
    workdir = tmp_path_factory.mktemp("traced") / "run"
    forks("glscl_jax.train", *arguments(shapes, workdir), "--config.num_steps=4", "--profile=2:3")
    return workdir


@pytest.mark.slow
def test_it_goes_on_with_other_settings_and_traces_no_more(run, shapes, forks):
    def train(*more):
        return forks("glscl_jax.train", *arguments(shapes, run), "--profile=2:3", *more).stdout

    def kept(name):
        return json.loads((run / name).read_text())

    (first,) = kept("configs.json")["configs"]
    assert (first["from_step"], first["config"]) == (0, kept("config.json"))

    # A requeued command, whose window is past.
    printed = train("--config.num_steps=5", "--config.losses.alpha=1e-3")
    assert (
        "config.num_steps 4 -> 5: the schedule stretches from 4 to 5 updates; the rate" in printed
    )
    assert "config.losses.alpha 0.0001 -> 0.001: the loss is another from step 4 on" in printed
    assert "--profile=2:3: those steps are past" in printed
    assert "trained to step 5" in printed
    before, after = kept("configs.json")["configs"]
    assert before == first
    assert (after["from_step"], after["config"]) == (4, kept("config.json"))

    # A finished run keeps what it was made with.
    config = (run / "config.json").read_bytes()
    printed = train("--config.num_steps=5", "--config.optim.weight_decay=0.5")
    assert "nothing to train: the run has reached its last step, 5" in printed
    printed = train("--config.num_steps=4")
    assert "config.num_steps 4 is below the 5 steps that the run has done" in printed
    assert (run / "config.json").read_bytes() == config
    assert len(kept("configs.json")["configs"]) == 2
    assert kept("config.json")["num_steps"] == 5


def test_a_trace_that_cannot_be_written_ends_no_training(tmp_path, capsys):
    blocked = tmp_path / "profile"
    blocked.write_text("a file where the folder should be")
    pauses = []

    @contextlib.contextmanager
    def paused():
        yield
        pauses.append(None)

    tracer = trace.Trace(trace.Window(2, 3), blocked, paused)
    for number in range(1, 5):
        with tracer.step(number):
            jax.numpy.ones(3).block_until_ready()
    assert len(pauses) == 2
    assert "could not be written" in capsys.readouterr().out
