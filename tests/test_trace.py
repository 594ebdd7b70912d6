"""Traces: which steps --profile means, and what a real run leaves behind."""

import gzip
import json
import sys

import jax
import pytest
from absl import flags

from glscl_jax import sharding, trace
from glscl_jax.errors import UserError
from tests.conftest import REPO

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
        f"--config={REPO / 'configs' / 'demo.py'}:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.num_steps=3",
        "--config.log_every=1",
        "--config.data.validation_split=",
        "--config.checkpoint_every=0",
    )


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A run of three steps, in this process, the last two traced: its work directory."""
    from glscl_jax import train

    workdir = tmp_path_factory.mktemp("traced") / "run"
    with pytest.MonkeyPatch.context() as patch:
        # One device: a program for eight takes several times as long to compile.
        make_mesh, device = sharding.make_mesh, jax.devices()[:1]
        patch.setattr(sharding, "make_mesh", lambda _=None, axes=None: make_mesh(device, axes))
        # ml_collections looks for its overrides in sys.argv itself.
        patch.setattr(sys, "argv", ["train", *arguments(shapes, workdir), "--profile=2"])
        flags.FLAGS(sys.argv)
        try:
            train.main([])
        finally:
            flags.FLAGS.unparse_flags()
    return workdir


def test_the_files_lie_where_tensorboard_looks(run):
    (time,) = (run / "profile" / "plugins" / "profile").iterdir()
    (plane,) = time.glob("*.xplane.pb")
    raw = plane.read_bytes()
    planes = jax.profiler.ProfileData.from_serialized_xspace(raw).planes
    names = [event.name for plane in planes for line in plane.lines for event in line.events]
    assert names.count("train") == 2


def test_perfetto_finds_the_steps_and_what_ran_in_them(run):
    (path,) = run.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    steps = {
        event["args"]["step_num"]: (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("name") == "train"
    }
    assert sorted(map(int, steps)) == [2, 3]
    # The step's matrix products, each within one of the two or right after it.
    products = [event for event in events if event.get("name", "").startswith("dot")]
    start, end = min(a for a, _ in steps.values()), max(b for _, b in steps.values())
    inside = [event for event in products if start <= event["ts"] <= end]
    assert len(inside) > 20
    assert len(inside) == len(products)


def test_a_trace_that_cannot_be_written_ends_no_training(tmp_path, capsys):
    blocked = tmp_path / "profile"
    blocked.write_text("a file where the folder should be")
    paused = []

    def pause(work):
        paused.append(work)
        work()

    tracer = trace.Trace(trace.Window(2, 3), blocked, pause)
    for number in range(1, 5):
        with tracer.step(number):
            jax.numpy.ones(3).block_until_ready()
    assert len(paused) == 2
    assert "could not be written" in capsys.readouterr().out
