"""What is asked behind JAX's public interface, and what is said where a release has moved it."""

import contextlib
import os
import subprocess
import sys
import types

import jax
import pytest

from glscl_jax.errors import UserError
from glscl_jax.runtime import cluster, jax_internals, launch
from tests.server import REPO

_OF_DEVICES = ("JAX_PLATFORMS", *jax_internals._TPU_HOST)


@pytest.fixture
def moved(monkeypatch):
    """A release of JAX that has neither module."""
    monkeypatch.setattr(jax_internals, "_module", lambda name: None)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_")):
            monkeypatch.delenv(name)


def test_this_release_is_known():
    assert {kind.name for kind in jax_internals.cluster_types()} >= set(cluster._KNOWN)
    # Its client exists only in a run of several processes, which test_launch and test_multihost do.
    state = jax_internals._module("distributed").global_state
    assert all(hasattr(state, name) for name in ("client", "process_id", "num_processes"))
    assert jax_internals.peers() is None


@pytest.fixture
def tpu(monkeypatch):
    """What JAX looks for: a TPU, on a host that is told to have so many chips."""
    for name in jax_internals._TPU_HOST:
        monkeypatch.delenv(name, raising=False)
    known = {"cpu": 0, "tpu": 0}
    host = types.SimpleNamespace(
        _backend_factories=known, num_available_tpu_chips_and_device_id=lambda: (0, None)
    )
    monkeypatch.setattr(jax_internals, "_module", lambda name: host)
    monkeypatch.setattr(jax_internals, "jax", types.SimpleNamespace(config=host))
    host.jax_platforms = None
    return host


def test_a_tpu_that_is_not_there_is_not_looked_for(tpu):
    jax_internals.forget_absent_tpu()
    assert tpu._backend_factories == {"cpu": 0}


@pytest.mark.parametrize("variable", jax_internals._TPU_HOST)
def test_a_tpu_s_own_host_is_left_alone(tpu, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    jax_internals.forget_absent_tpu()
    assert "tpu" in tpu._backend_factories


def test_a_tpu_that_is_seen_or_asked_for_is_left_alone(tpu):
    tpu.jax_platforms = "tpu,cpu"
    jax_internals.forget_absent_tpu()
    tpu.jax_platforms = None
    tpu.num_available_tpu_chips_and_device_id = lambda: (4, None)
    jax_internals.forget_absent_tpu()
    del tpu.num_available_tpu_chips_and_device_id
    jax_internals.forget_absent_tpu()
    assert "tpu" in tpu._backend_factories


def test_with_libtpu_and_no_tpu_nothing_is_said():
    pytest.importorskip("libtpu", reason="the compiler for TPUs is not installed: make aot")
    if jax_internals._module("hardware_utils").num_available_tpu_chips_and_device_id()[0]:
        pytest.skip("here is a TPU")
    program = (
        "import jax; from glscl_jax.runtime import launch\n"
        "with launch.join(): print(jax.devices()[0].platform)"
    )
    environment = {x: y for x, y in os.environ.items() if x not in _OF_DEVICES}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=REPO
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("cpu", "gpu")


def test_a_module_that_is_not_there():
    assert jax_internals._module("no_such_module") is None


def test_the_client_is_asked_for_what_it_has(monkeypatch):
    class State:
        process_id, num_processes, client = 0, 2, type("Client", (), {})()

    module = type("Module", (), {"global_state": State})
    monkeypatch.setattr(jax_internals, "_module", lambda name: module)
    assert jax_internals.peers() is None
    for name in jax_internals._ASKED:
        setattr(State.client, name, None)
    assert jax_internals.peers() is State


def test_alone_nothing_is_lost(moved):
    assert jax_internals.cluster_types() is None
    assert cluster.place(1) is None
    assert cluster.own_gpu() is None


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_cluster_that_cannot_be_asked_is_not_taken_for_one_process(moved, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert cluster.place(1) is None
    monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match=rf"{name} tells of several .* give --coordinator"):
        cluster.place(1)


def test_without_a_client_the_run_goes_on_and_says_what_is_lost(moved, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(launch, "_place", lambda peers: cluster.Place("host:1", 2, 0))
    monkeypatch.setattr(launch, "_wait_for", lambda address: None)
    monkeypatch.setattr(launch, "_one_order", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **how: done.append("met"))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: done.append("left"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(launch.join())
        done.append("ran")
    assert done == ["met", "ran", "left"]
    assert "does not tell which processes live" in capsys.readouterr().err
