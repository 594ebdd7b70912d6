"""Memory of a run: what a compiled program will take, and what has been taken."""

import dataclasses
import sys

import jax

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Plan:
    """What XLA says a program takes on each device, in bytes.

    Attributes:
      arguments: parameters, optimiser state, the batch; results that take their place included.
      results: those that have a place of their own.
      temporary: activations and all else between.
    """

    arguments: int
    results: int
    temporary: int

    @property
    def peak(self) -> int:
        return self.arguments + self.results + self.temporary

    def __str__(self) -> str:
        return (
            f"{self.peak / GIB:.2f} GiB a device at its peak by XLA's analysis "
            f"({self.arguments / GIB:.2f} state and batch, {self.temporary / GIB:.2f} temporary)"
        )


def plan_of(compiled: jax.stages.Compiled) -> Plan | None:
    """The program's plan, or None where the backend has no such analysis."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return Plan(found.argument_size_in_bytes, results, found.temp_size_in_bytes)


@dataclasses.dataclass(frozen=True)
class Used:
    """The most memory that was in use so far.

    Attributes:
      peak: bytes.
      place: "device", the fullest of this process, or "process": its resident set, where the
        backend keeps no count (a CPU's does not), the interpreter and input included.
    """

    peak: int
    place: str

    def __str__(self) -> str:
        where = "on a device" if self.place == "device" else "resident, the whole process"
        return f"{self.peak / GIB:.2f} GiB {where}"


def used() -> Used | None:
    """See `Used`; None where the system does not say either."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in stats if one and "peak_bytes_in_use" in one]
    if peaks:
        return Used(max(peaks), "device")
    try:
        import resource  # Not on Windows.
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return Used(peak if sys.platform == "darwin" else peak * 1024, "process")
