"""What JAX knows and does not offer: the one place that reaches behind its public interface.

Any release may move it, so all is looked up here, and each function says what is lost without.
Tried with JAX 0.10.2 and 0.12.0.
"""

import importlib
import os
from typing import Any

import jax

_ASKED = ("key_value_set", "blocking_key_value_get", "wait_at_barrier", "get_live_nodes")
# Variables that a TPU's host has, or that have JAX start a TPU whatever it sees.
_TPU_HOST = (
    "TPU_ACCELERATOR_TYPE",
    "TPU_PROCESS_ADDRESSES",
    "TPU_WORKER_HOSTNAMES",
    "TPU_WORKER_ID",
    "JAX_FORCE_TPU_INIT",
)


def cluster_types() -> list[Any] | None:
    """The kinds of cluster that JAX recognises, in the order in which it asks for them.

    None where they are not to be found: which of several processes this is, is then for flags to
    say. `jax.distributed.initialize` asks them, too, but does not say whether there is a cluster.
    """
    return getattr(getattr(_module("clusters"), "ClusterEnv", None), "_cluster_types", None)


def peers() -> Any | None:
    """What `jax.distributed.initialize` has made: `client`, `process_id` and `num_processes`.

    None where that is not to be found, or its client cannot be asked who lives: a process that is
    lost is then noticed by JAX alone, later and with less to say.
    """
    state = getattr(_module("distributed"), "global_state", None)
    client = getattr(state, "client", None)
    told = all(hasattr(state, name) for name in ("process_id", "num_processes"))
    return state if told and all(hasattr(client, name) for name in _ASKED) else None


def forget_absent_tpu() -> None:
    """Leaves TPUs out of what JAX looks for, on a host that has none; before its first device.

    Where libtpu is installed all the same, for `--compile_for`, JAX would start it, which takes
    seconds and prints errors that are none. A host that its variables, or the user, call a TPU's is
    left alone: what is wrong there is to be seen. Without what is asked for here all is said as
    JAX says it.
    """
    asked_for = jax.config.jax_platforms or any(name in os.environ for name in _TPU_HOST)
    count = getattr(_module("hardware_utils"), "num_available_tpu_chips_and_device_id", None)
    known = getattr(_module("xla_bridge"), "_backend_factories", None)
    if not asked_for and count is not None and known is not None and count()[0] == 0:
        known.pop("tpu", None)


def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(f"jax._src.{name}")
    except ImportError:
        return None
