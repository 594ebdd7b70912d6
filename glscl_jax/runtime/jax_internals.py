"""What JAX knows and does not offer: the one place that reaches behind its public interface.

Any release may move it, so all is looked up here, and each function says what is lost without.
Tried with JAX 0.10.2 and 0.12.0.
"""

import importlib
from typing import Any

_ASKED = ("key_value_set", "blocking_key_value_get", "wait_at_barrier", "get_live_nodes")


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


def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(f"jax._src.{name}")
    except ImportError:
        return None
