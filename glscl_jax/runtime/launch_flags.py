"""The flags by which the processes of a run find each other, of every program that has several."""

import dataclasses

from absl import flags

from glscl_jax.runtime.launch import Peers

NAMES = tuple(field.name for field in dataclasses.fields(Peers))


def define() -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "coordinator",
        Peers.coordinator,
        "host:port of process 0, to start several processes by hand.",
    )
    flags.DEFINE_integer(
        "num_processes",
        Peers.num_processes,
        "With --coordinator: how many there are.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "process_id",
        Peers.process_id,
        "With --coordinator: which of them this is, from 0.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "peer_timeout",
        Peers.peer_timeout,
        "Seconds to wait for the other processes at the start, and after which one that is not "
        "heard of ends the run.",
        lower_bound=2,
    )


def given() -> Peers:
    """What they say, once they are parsed."""
    return Peers(**{name: flags.FLAGS[name].value for name in NAMES})
