"""Peaks: devices by their names, and one that is measured, on a clock that we turn."""

import jax
import numpy as np
import pytest

from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.profiling import peak_flops
from glscl_jax.profiling.utilisation import Utilisation, of_training


@pytest.fixture(autouse=True)
def default_precision():
    # The tests' own setting, "highest", is one that no published figure is of.
    with jax.default_matmul_precision("default"):
        yield


@pytest.mark.parametrize(
    ("kind", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 80GB HBM3", "float32", 494),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H100 NVL", "bfloat16", 835),
        ("NVIDIA H200", "float16", 989),
        ("NVIDIA A100-SXM4-40GB", "float32", 156),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("Tesla T4", "float16", 65),
        ("TPU v3", "bfloat16", 61.5),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5", "float32", 459),
        ("TPU v6 lite", "bfloat16", 918),
        # Neither the whole GPU's figure nor that of its neighbour in the table.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("NVIDIA L40", "bfloat16", None),
        ("Tesla T4", "bfloat16", None),
        ("TPU v4 lite", "bfloat16", None),
        ("cpu", "float32", None),
    ],
)
def test_devices_by_name(kind, dtype, teraflops):
    expected = None if teraflops is None else teraflops * 1e12
    assert peak_flops.published_flops(kind, dtype) == expected


def test_every_published_row_is_found_and_none_twice():
    for pattern, row in peak_flops.KNOWN.items():
        assert {"bfloat16", "float32"} <= row.keys() or pattern.startswith("Tesla")
    for kind in ("NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA L4", "TPU v5", "TPU v5e"):
        assert (
            sum(bool(peak_flops.re.fullmatch(pattern, kind)) for pattern in peak_flops.KNOWN) == 1
        )


def test_no_published_figure_is_of_a_raised_precision():
    with jax.default_matmul_precision("highest"):
        assert peak_flops.published_flops("NVIDIA H200", "float32") is None
        assert peak_flops.published_flops("NVIDIA H200", "bfloat16") == 989e12


class Clock:
    """A clock that goes on by the next of `ticks` whenever it is read."""

    def __init__(self, ticks):
        self.now, self._ticks = 0.0, iter(ticks)

    def perf_counter(self):
        self.now += next(self._ticks)
        return self.now


def test_the_measured_peak_is_that_of_the_fastest_round(monkeypatch):
    # The first two readings are of the round that compiles; then 3, 2 and 4 seconds a round.
    ticks = [0, 100, 0, 3, 0, 2, 0, 4, *[0, 5] * 20]
    monkeypatch.setattr(peak_flops, "time", Clock(ticks))
    devices = jax.devices()[:2]
    flops = peak_flops.measured_flops("float32", devices)
    assert flops == pytest.approx(peak_flops.CPU.chain * 2 * peak_flops.CPU.size**3 / 2)


@pytest.mark.parametrize("count", [1, 8])
def test_what_is_timed_is_what_is_counted(count):
    # How fast it is no test can know: what else the machine does is part of it.
    work = peak_flops.Work(size=64, chain=3, seconds=0)
    devices = jax.devices()[:count]
    with jax.default_matmul_precision("highest"):
        done = peak_flops.chain_of_products(work, "float32", devices)()
    kernel = np.random.default_rng(0).standard_normal((64, 64), np.float32) / np.float32(8)
    expected = np.linalg.matrix_power(kernel, work.chain + 1)
    # Each device has work of its own, or eight devices of one CPU would have what one has alone.
    assert {shard.device for shard in done.addressable_shards} == set(devices)
    for shard in done.addressable_shards:
        np.testing.assert_allclose(shard.data, expected, atol=1e-4)


def test_what_is_not_published_is_measured():
    found = peak_flops.find_peak("float32", jax.devices()[:1])
    assert not found.published
    assert found.flops > 0
    assert "measured" in str(found)


def test_utilisation_by_hand():
    # 8 clips of 5 GFLOP a second are 40 GFLOP/s, on 4 devices of 100.
    use = Utilisation(5 * 10**9, 4, peak_flops.Peak(100e9, "float32", published=False))
    assert use.of(8.0) == pytest.approx(0.1)


def test_the_utilisation_of_a_run(monkeypatch):
    monkeypatch.setattr(peak_flops, "measured_flops", lambda dtype, devices: 1e9 * len(devices))
    from configs.demo import get_config
    from glscl_jax.runtime.sharding import make_mesh

    config = get_config("tiny")
    use = of_training(GLSCLConfig(VARIANTS["tiny"]), config, make_mesh(jax.devices()[:4]))
    assert use.devices == 4
    assert use.peak == peak_flops.Peak(4e9, "float32", published=False)
    assert use.clip_flops > 1e6
