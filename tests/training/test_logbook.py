"""The log's figures by hand, on a clock that stands still but for what is meant to take time."""

import json
import math

import jax.numpy as jnp
import pytest

from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.profiling import memory
from glscl_jax.profiling.compilation import Compilation
from glscl_jax.profiling.peak_flops import Peak
from glscl_jax.profiling.utilisation import Utilisation
from glscl_jax.training import logbook
from glscl_jax.training.logbook import Log, Logbook, read_figures
from glscl_jax.training.losses import Losses
from glscl_jax.training.steps import StepMetrics
from tests.events import tensorboard_scalars

TOTAL, BATCH, DEVICES = 9, 8, 2


class Clock:
    """Goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


class UnderWay:
    """A result that takes a while, once it is waited for."""

    def __init__(self, clock, seconds):
        self._clock, self._seconds = clock, seconds

    def block_until_ready(self):
        self._clock.pass_by(self._seconds)
        self._seconds = 0.0

    def __array__(self, dtype=None, copy=None):
        return jnp.float32(1.0).__array__(dtype)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logbook, "time", clock)
    return clock


@pytest.fixture
def make_log(tmp_path):
    from configs.demo import get_config

    def make(silent=False):
        config = get_config()
        config.batch_size, config.log_every = BATCH, 4
        workdir = Workdir(tmp_path)
        # 10 MFLOP a clip and a peak of 100 MFLOP/s a device: 20 clips/s are all there is.
        use = Utilisation(10_000_000, DEVICES, Peak(100e6, "float32", published=False))
        return Log(config, None if silent else Logbook(workdir, 0), 0, TOTAL, use)

    return make


def figures(clock, seconds):
    zero = jnp.zeros(())
    return StepMetrics(
        Losses(zero, zero, {"diversity": zero, "consistency": zero}),
        UnderWay(clock, seconds),
        zero,
        zero,
    )


def batches(clock, wait):
    for number in range(TOTAL):
        clock.pass_by(wait)
        yield number


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_speeds_by_hand(clock, make_log, tmp_path, capsys):
    log = make_log()
    for number in log.watch(batches(clock, wait=0.5)):
        # The first compiles. Half a second of input, one and a half of each step.
        log.add(figures(clock, 100.0 if number == 0 else 1.5))
        if number == 5:
            with log.paused():
                clock.pass_by(1000.0)
    log.close()
    logged = rows(tmp_path)
    assert [row["step"] for row in logged] == [4, 8, 9]
    for row in logged:
        assert row["speed/clips_per_second"] == pytest.approx(BATCH / 2.0)
        assert row["speed/clips_per_second_per_device"] == pytest.approx(BATCH / 2.0 / DEVICES)
        assert row["speed/input_wait"] == pytest.approx(0.25)
        assert row["speed/mfu"] == pytest.approx(4.0 / 20.0)
        assert row["memory/process_peak_gib"] > 0.01
    printed = capsys.readouterr().out.splitlines()
    assert (
        "  4 clips/s, 2 clips/s/device, 25% waiting for input, 20.0% MFU, 0:10 left" in printed[0]
    )
    assert printed[-1].startswith("most memory in use: ")
    assert printed[-1].endswith("GiB resident, the whole process")


def test_a_pause_does_not_hide_the_step_it_waits_for(clock, make_log, tmp_path):
    log = make_log()
    for _ in log.watch(batches(clock, wait=0.0)):
        log.add(figures(clock, 3.0))
        with log.paused():
            clock.pass_by(50.0)
    assert rows(tmp_path)[0]["speed/clips_per_second"] == pytest.approx(BATCH / 3.0)


def test_a_log_without_a_book_is_silent(clock, make_log, tmp_path, capsys):
    log = make_log(silent=True)
    log.write_compiled(Compilation(1.0, None))
    for _ in log.watch(batches(clock, wait=0.1)):
        done = log.add(figures(clock, 1.0))
    assert done == TOTAL
    with log.paused():
        pass
    log.write_validation({"R@1": 1.0})
    log.close()
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_compiling(make_log, tmp_path, capsys):
    log = make_log()
    plan = memory.Plan(arguments=2**30, results=2**29, temporary=2**31)
    log.write_compiled(Compilation(12.34, plan))
    said = capsys.readouterr().out
    assert "compiled in 12.3 s" in said
    assert "3.50 GiB a device at its peak" in said
    assert "0.01 GFLOP a clip" in said
    assert "measured" in said
    (row,) = rows(tmp_path)
    assert row == {
        "step": 0,
        "start/compile_seconds": 12.34,
        "start/clip_flops": 1e7,
        "start/peak_flops": 1e8,
        "start/planned_gib": 3.5,
    }


FIGURES = {
    "loss/total": math.nan,
    "gradient_norm": math.inf,
    "speed/mfu": -math.inf,
    "validation/v2t R@1": 0.1,
}


def no_json(word):
    raise AssertionError(f"{word} is no JSON")


def test_what_is_not_finite_is_json_and_comes_back(tmp_path):
    book = Logbook(Workdir(tmp_path), 0)
    book.write(4, FIGURES)
    book.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=no_json)["loss/total"] == "NaN"
    (row,) = read_figures(tmp_path / "metrics.jsonl")
    assert row == {"step": 4, **FIGURES} | {"loss/total": pytest.approx(math.nan, nan_ok=True)}
    assert all(isinstance(row[name], float) for name in FIGURES)


def test_a_figure_has_one_name_everywhere(tmp_path):
    book = Logbook(Workdir(tmp_path), 0)
    book.write(4, FIGURES)
    book.write(5, FIGURES)
    book.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    scalars = tensorboard_scalars(events)
    assert scalars.keys() == rows(tmp_path)[0].keys() - {"step"} == FIGURES.keys()
    assert scalars["validation/v2t R@1"] == {4: pytest.approx(0.1), 5: pytest.approx(0.1)}
    assert math.isnan(scalars["loss/total"][4])


def test_a_run_that_goes_on_keeps_whole_lines_of_its_past(tmp_path):
    path = tmp_path / "metrics.jsonl"
    # The second as it was once written.
    path.write_text('{"step": 1, "x": 0.1}\n{"step": 2, "x": NaN}\n{"step": 3, "x": 1}\n{"st')
    Logbook(Workdir(tmp_path), 2).close()
    assert path.read_text() == '{"step": 1, "x": 0.1}\n{"step": 2, "x": "NaN"}\n'
    path.write_text('{"step": 1, "x": "Infinity"}\n3\n')
    Logbook(Workdir(tmp_path), 2).close()
    assert path.read_text() == '{"step": 1, "x": "Infinity"}\n'
    path.write_text("3\n")
    with pytest.raises(ValueError, match="no line of figures"):
        read_figures(path)
