"""A step compiled by itself: the same results, compiled once, and an account of it."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.profiling import memory
from glscl_jax.profiling.compilation import CompiledStep


def step(state, batch):
    return state + batch @ batch, jnp.sum(batch)


@pytest.fixture
def arguments():
    x = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    return lambda: (jnp.asarray(x), jnp.asarray(x + 1))


def test_it_computes_what_the_step_does_and_compiles_once(arguments):
    traced, told = [], []

    @functools.partial(jax.jit, donate_argnums=0)
    def counted(state, batch):
        traced.append(1)
        return step(state, batch)

    compiled = CompiledStep(counted, told.append)
    for _ in range(3):
        expected = jax.jit(step)(*arguments())
        np.testing.assert_allclose(compiled(*arguments())[0], expected[0], rtol=1e-5, atol=1e-5)
    assert len(traced) == len(told) == 1
    assert 0 < told[0].seconds < 60


def test_its_plan_counts_a_donated_argument_once(arguments):
    told = []
    one = 64 * 64 * 4
    for donated in ((), (0,)):
        CompiledStep(jax.jit(step, donate_argnums=donated), told.append)(*arguments())
    apart, shared = (each.memory for each in told)
    assert apart.arguments == shared.arguments == 2 * one
    assert apart.results - shared.results == one
    assert shared.peak == shared.arguments + shared.results + shared.temporary


def test_memory_in_use_is_the_process_s_on_a_cpu():
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system has no /proc/self/status to compare with")
    found = memory.used()
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    assert found.place == "process"
    assert found.peak == pytest.approx(int(line.split()[1]) * 1024, rel=0.02)


class Accelerator:
    """A device that keeps count."""

    def __init__(self, peak):
        self._peak = peak

    def memory_stats(self):
        return {"peak_bytes_in_use": self._peak, "bytes_in_use": 1}


def test_memory_in_use_is_the_fullest_device_s_where_devices_count(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator(3 * 2**30), Accelerator(2**30)])
    found = memory.used()
    assert found == memory.Used(3 * 2**30, "device")
    assert str(found) == "3.00 GiB on a device"
