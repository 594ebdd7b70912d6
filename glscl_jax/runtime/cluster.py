"""Which of several processes this is, where a cluster says so: SLURM, Open MPI, a TPU pod.

JAX knows how each of them tells it. A TPU pod does so by variables (GKE) or through Google's
metadata server, which JAX asks on a machine that has a TPU, and on no other.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import jax

from glscl_jax.errors import UserError
from glscl_jax.runtime import jax_internals

# Not Kubernetes as such: the pods of an indexed job are as often runs of their own.
_MPI, _SLURM, _GKE = "ompi", "slurm", "gketpu"
_KNOWN = {_MPI: "Open MPI", _SLURM: "SLURM", _GKE: "a TPU pod", "gcetpu": "a TPU pod"}
# Where GKE names the hosts of a TPU slice. A single host has its own name there, or none.
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
# What GKE sets where there are several slices.
_TPU_SLICES = ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID")

BY_HAND = "give --coordinator host:port --num_processes N --process_id I"


@dataclasses.dataclass(frozen=True)
class Place:
    """One of several processes.

    Attributes:
      address: host:port of process 0, where all meet.
      count: how many there are.
      number: which this is, from 0.
    """

    address: str
    count: int
    number: int


def place(timeout: int) -> Place | None:
    """This process's place in a cluster; None where none started it as one of several.

    Args:
      timeout: seconds to wait for the name of process 0's host to be known.

    Raises:
      UserError: there is a cluster, and it does not say who takes part.
    """
    if jax_internals.cluster_types() is None:
        _check_alone()
        return None
    found = None
    try:
        found = _cluster()
        if found is None:
            _check_tpu_variables()
            return None
        try:
            return _place_in(found, timeout)
        except OSError:
            # What requests raises for a metadata server that cannot be reached is one.
            if found.name != _GKE:
                raise
            with _single_slice():
                return _place_in(found, timeout)
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        # Of all of them only a TPU's metadata server is asked whether there is a cluster.
        kind = "a TPU pod" if found is None else _KNOWN[found.name]
        raise UserError(
            f"this looks like a process of {kind}, which does not tell who takes part "
            f"({_first_line(error)}): {BY_HAND} (N 1, I 0 for one alone)"
        ) from error


def own_gpu() -> list[int] | None:
    """The GPU that is this process's among those of its host, where a cluster counts them."""
    # A TPU's processes are not counted so, and asking for them could cost a query.
    found = next((x for x in _known((_MPI, _SLURM)) if x.is_env_present()), None)
    if found is None or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    try:
        return [found.get_local_process_id()]
    except (RuntimeError, KeyError, ValueError):
        return None  # told by the flags, it may lack what the cluster's way needs


def _cluster():
    """The cluster that JAX would take; raises what asking for one did where there is no other."""
    # Of one process JAX may want to know more than one has, a library for MPI for one.
    alone = os.environ.get("OMPI_COMM_WORLD_SIZE", "1") == "1"
    failure = None
    for found in _known(name for name in _KNOWN if not (alone and name == _MPI)):
        try:
            if found.is_env_present():
                return found
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            # JAX asks the metadata server before it looks at GKE's variables.
            failure = error
    if failure:
        raise failure
    return None


def _known(names) -> list:
    """In the order in which JAX asks for them."""
    names = set(names)
    return [x for x in jax_internals.cluster_types() or () if x.name in names]


def _check_alone() -> None:
    """Raises a `UserError` where variables tell of several processes that nobody can count."""
    for name, kind in (("SLURM_NTASKS", "SLURM"), ("OMPI_COMM_WORLD_SIZE", "Open MPI")):
        if os.environ.get(name, "1") != "1":
            raise UserError(
                f"{name} tells of several processes, but JAX {jax.__version__} does not let itself "
                f"be asked about {kind}: {BY_HAND} (N 1, I 0 for one alone), or install JAX 0.12"
            )
    _check_tpu_variables()


def _place_in(found, timeout: int) -> Place | None:
    count = found.get_process_count()
    if count == 1:
        return None
    number = found.get_process_id()
    address = found.get_coordinator_address(
        timeout_secs=timeout, override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT")
    )
    return Place(address, count, number)


@contextlib.contextmanager
def _single_slice() -> Iterator[None]:
    """GKE tells by variables of several slices: without them there is one, and nobody to ask."""
    added = [name for name in _TPU_SLICES if name not in os.environ]
    os.environ.update(dict.fromkeys(added, ""))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _check_tpu_variables() -> None:
    """Raises a `UserError` where variables tell of hosts that JAX will not look for."""
    for name in _TPU_HOSTS:
        if "," in (hosts := os.environ.get(name, "")):
            raise UserError(
                f"{name} names {hosts.count(',') + 1} hosts, but JAX finds no TPU here: install "
                f"its TPU build (jax[tpu]), unset {name}, or {BY_HAND}"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
