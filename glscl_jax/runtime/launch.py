"""Starts a program in several processes: they find each other, and end when one is lost.

A cluster says who is there (see `cluster`). Elsewhere `Peers` do, by flags: --coordinator host:port
--num_processes N --process_id I, in every process the same but for the last.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator

import jax
from ml_collections import ConfigDict

from glscl_jax.errors import UserError
from glscl_jax.runtime import cluster, jax_internals, processes

# sysexits.h's EX_UNAVAILABLE: nothing is wrong with what was asked for; start again.
PEER_LOST_STATUS = 69
_LOOK_SECONDS = 1.0
_END_TOGETHER_SECONDS = 5
_DAY_MILLISECONDS = 86_400_000
# What the numbers come from.
_NUMERIC = ("jax", "jaxlib", "flax", "optax", "tensorflow-datasets")
PACKAGE = pathlib.Path(__file__).parents[1]
_FORCED = "xla_force_host_platform_device_count"
_ONE_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


@dataclasses.dataclass(frozen=True)
class Peers:
    """How this process finds the others of its run; the flags of `launch_flags`.

    Attributes:
      coordinator: host:port of process 0, to start several by hand; "" leaves it to a cluster.
      num_processes: how many there are then.
      process_id: which of them this is then, from 0.
      peer_timeout: seconds to wait for the others at the start, and after which one that is not
        heard of ends the run.
    """

    coordinator: str = ""
    num_processes: int | None = None
    process_id: int | None = None
    peer_timeout: int = 60


@contextlib.contextmanager
def join(peers: Peers = Peers()) -> Iterator[None]:
    """Joins the run's other processes for the body, if there are any; before JAX's first use.

    While it runs, a process that dies ends the others with a line and `PEER_LOST_STATUS`; process
    0, through which they meet, with the runtime's own message and an abort.

    Raises:
      UserError: what `peers` says does not fit together, or the others cannot be reached.
    """
    jax_internals.forget_absent_tpu()
    place = _place(peers)
    if place is None:
        if _FORCED in os.environ.get("XLA_FLAGS", ""):
            _one_order()
        yield
        return
    timeout = peers.peer_timeout
    _connect(place, timeout)
    if jax_internals.peers() is None:
        print(
            f"warning: JAX {jax.__version__} does not tell which processes live: one that is lost "
            f"ends the others only when JAX notices, after {timeout} s or more",
            file=sys.stderr,
            flush=True,
        )
        yield
        jax.distributed.shutdown()
        return
    watch = _Watch()
    watch.start()
    try:
        yield
    except UserError:
        # Mostly one that all have met. Whoever left at once would take the others' words away.
        if _all_have_ended():
            _leave(watch, timeout)
        raise
    except jax.errors.JaxRuntimeError:
        # Communication that breaks off is mostly a peer's death, which the watch will name.
        watch.join(2 * timeout)
        raise
    _leave(watch, timeout)


def check_agreement(
    config: ConfigDict | None, given: dict | None = None, places: Collection[str] = ()
) -> None:
    """Whether all processes run the same code, and were asked for the same.

    Args:
      config: resolved, or None.
      given: flags beside it, names to values.
      places: what of `config.data` says where files lie. That is each host's own affair: what they
        hold is for `processes.check_same`.

    Raises:
      UserError: in all of them, naming what differs.
    """
    told = config.to_dict() if config is not None else {}
    if "data" in told:
        told["data"] = {name: x for name, x in told["data"].items() if name not in places}
    processes.check_same(
        {
            "the code of glscl_jax": _code(),
            **{f"version of {name}": importlib.metadata.version(name) for name in _NUMERIC},
            "devices": [len(jax.local_devices()), jax.local_devices()[0].device_kind],
            "config": json.loads(json.dumps(told, default=str)),
            **{f"--{name}": value for name, value in (given or {}).items()},
        }
    )


def _code() -> str:
    """A digest of this package's sources."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


def _place(peers: Peers) -> cluster.Place | None:
    """Which of several processes this is, as given or by a cluster; None if it is alone."""
    given = {
        "--num_processes": peers.num_processes is not None,
        "--process_id": peers.process_id is not None,
    }
    if peers.coordinator:
        if missing := [name for name, there in given.items() if not there]:
            raise UserError(f"--coordinator needs {missing[0]} beside it")
        host, colon, port = peers.coordinator.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise UserError(f"--coordinator {peers.coordinator}: give host:port, e.g. node1:1234")
        if peers.process_id >= peers.num_processes:
            raise UserError(
                f"--process_id {peers.process_id} of --num_processes {peers.num_processes}: "
                f"take 0 to {peers.num_processes - 1}"
            )
        if peers.num_processes == 1:
            return None
        return cluster.Place(peers.coordinator, peers.num_processes, peers.process_id)
    if alone := [name for name, there in given.items() if there]:
        raise UserError(f"{alone[0]} needs --coordinator host:port beside it")
    return cluster.place(peers.peer_timeout)


def _connect(place: cluster.Place, timeout: int) -> None:
    # Otherwise the runtime ends a process whose peer has died, with a page of its own words.
    jax.config.update("jax_enable_recoverability", True)
    _one_order()
    if place.number:
        _wait_for(place.address, timeout)
    told = f"could not meet the other processes at {place.address} within {timeout} s"
    way_out = "see that all are started and reach it, or raise --peer_timeout"
    try:
        jax.distributed.initialize(
            place.address,
            place.count,
            place.number,
            local_device_ids=cluster.own_gpu(),
            # It has been asked who is there.
            cluster_detection_method="deactivate",
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=timeout,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{told} ({reason}): {way_out}") from error
    state = jax_internals.peers()
    if state is None:
        return
    try:
        state.client.key_value_set(f"host/{state.process_id}", socket.gethostname())
        state.client.wait_at_barrier("start", 1000 * timeout)
    except RuntimeError as error:
        raise UserError(f"{told}: {way_out}") from error
    hosts = _hosts()
    if hosts.count(hosts[state.process_id]) == 1:
        _take_all_devices()


def _hosts() -> list[str]:
    """Of each process, once all have passed the start."""
    state = jax_internals.peers()
    ask = state.client.blocking_key_value_get
    return [ask(f"host/{number}", 10_000) for number in range(state.num_processes)]


def _take_all_devices() -> None:
    """Makes this process use every GPU of its host; before the backend starts.

    On SLURM and the like JAX takes a process for that of the one GPU which has the process's
    number on the host. Of a process that is alone on its host the others would stay idle.
    """
    for maker in ("cuda", "rocm"):
        jax.config.update(f"jax_{maker}_visible_devices", "all")


def _one_order() -> None:
    """Makes CPU devices run their collectives in one order; before the backend starts.

    XLA would let each device take up in any order those that do not depend on each other. Gloo
    tells them apart by their order: wrong sums, now and then an abort. In one process, devices
    that wait in different ones can take all of its threads, and wait for ever.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_ORDER}".strip()


def _all_have_ended() -> bool:
    """Whether all processes come here within seconds of each other."""
    try:
        _client().wait_at_barrier("ended", 1000 * _END_TOGETHER_SECONDS)
    except RuntimeError:
        return False
    return True


def _leave(watch: "_Watch", timeout: int) -> None:
    """Returns when all have done their work, and this process has nothing to do with them."""
    # However long one is at work alone: if it dies, the watch ends the others.
    _client().wait_at_barrier("done", _DAY_MILLISECONDS)
    watch.stop()
    # Nobody goes while another still watches.
    _client().wait_at_barrier("unwatched", 1000 * timeout)
    state = jax_internals.peers()
    if state.process_id == 0:
        # Has what the others meet through: one that finds it gone while it leaves aborts.
        end = time.monotonic() + timeout
        while len(_client().get_live_nodes(list(range(state.num_processes)))) > 1:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
    jax.distributed.shutdown()


def _end(named: str) -> None:
    """Ends this process for the loss of another."""
    print(
        f"error: lost process {named}: its own output says why; start all again to go on from the "
        "last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    # The main thread may wait for the lost one for ever.
    os._exit(PEER_LOST_STATUS)


def _wait_for(address: str, timeout: int) -> None:
    """Returns when something answers there; the runtime would abort if nothing did.

    Raises:
      UserError: nothing has for `timeout` seconds.
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"the coordinator {address} could not be reached within {timeout} s "
                    f"({error.strerror or error}): see that process 0 runs there, or raise "
                    "--peer_timeout"
                ) from error
        time.sleep(0.2)


def _client():
    return jax_internals.peers().client


class _Watch(threading.Thread):
    """Ends this process when another is not heard of any more."""

    def __init__(self):
        super().__init__(name="peers", daemon=True)
        state = jax_internals.peers()
        self._first = state.process_id == 0
        self._all = list(range(state.num_processes))
        self._hosts = _hosts()
        self._born = state.client.get_live_nodes(self._all)
        self._stopped = threading.Event()

    def stop(self) -> None:
        # What it has asked last may be answered only when the others have left.
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            lost = self._lost()
            if lost and not self._stopped.wait(_LOOK_SECONDS):
                # Process 0 answers the others, who are to see for themselves first.
                time.sleep(3 * _LOOK_SECONDS if self._first else 0)
                lost = self._lost() or lost
                _end(", ".join(f"{number} on {self._hosts[number]}" for number in lost))

    def _lost(self) -> list[int]:
        """Processes that do not live, or that were started anew, which is as bad."""
        try:
            live = _client().get_live_nodes(self._all)
        except (RuntimeError, AttributeError):
            return [0]  # who answers such questions
        return [number for number in self._all if live.get(number) != self._born.get(number)]
