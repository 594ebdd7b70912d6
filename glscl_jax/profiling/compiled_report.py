"""What a program compiled for other devices holds, computes, sends, and may take: told and kept."""

import dataclasses
import re
from collections.abc import Mapping

import jax

from glscl_jax.errors import UserError
from glscl_jax.profiling import collectives, hlo, memory, peak_flops, traffic
from glscl_jax.profiling.estimate import LEFT_OUT, Estimate, estimate
from glscl_jax.profiling.memory import GIB
from glscl_jax.profiling.topologies import Topology


@dataclasses.dataclass(frozen=True)
class Sent:
    """All that a device sends of one kind along the same axes in one call.

    Attributes:
      axes: the mesh's, "data" or "data+fsdp".
      kind: such as "all-gather".
      asynchronous: whether the device computes while it runs.
      bytes: of all of them.
      times: how often.
      outside: whether it goes from slice to slice of a TPU, over the data centre's network.
    """

    axes: str
    kind: str
    asynchronous: bool
    outside: bool
    bytes: float
    times: int

    def __str__(self) -> str:
        how = "while it computes" if self.asynchronous else "and waits for"
        where = f"{self.axes}, from slice to slice" if self.outside else self.axes
        return f"{self.bytes / 1e6:,.1f} MB in {self.times:,} {self.kind} along {where}, {how}"


@dataclasses.dataclass(frozen=True)
class DoesNotFit:
    """What the compiler for TPUs says of a program that the device's memory does not hold.

    Attributes:
      used: bytes that it would take.
      memory: bytes that there are.
    """

    used: int
    memory: int
    fits: bool = False

    def as_json(self) -> dict:
        """In plain values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        room = f"{self.used / GIB:.2f} of {self.memory / GIB:.2f} GiB a chip"
        return [f"  memory       DOES NOT FIT: {room}"]


@dataclasses.dataclass(frozen=True)
class CompiledReport:
    """One program on one of its devices.

    Attributes:
      name: what it does.
      topology: as it was asked for.
      mesh: axes and their sizes.
      memory: bytes that a device has for it.
      arguments, results, temporary: bytes, see `memory.Plan`.
      state: bytes of the arguments that stay from call to call.
      flops: of matrix products, as compiled.
      flops_by_dtype: the same by their factors' dtype.
      model_flops: of the model, a device's share; 0 where nothing is said.
      bytes_moved: to and from the large memory.
      sent: what devices send each other.
      peak: FLOP/s as published; None where nothing is.
      estimate: of the time.
    """

    name: str
    topology: str
    mesh: Mapping[str, int]
    memory: int
    arguments: int
    results: int
    temporary: int
    state: int
    flops: int
    flops_by_dtype: Mapping[str, int]
    model_flops: float
    bytes_moved: int
    sent: tuple[Sent, ...]
    peak: float | None
    estimate: Estimate

    @property
    def used(self) -> int:
        """Bytes at the peak."""
        return self.arguments + self.results + self.temporary

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.used <= self.memory

    @property
    def bound(self) -> float | None:
        """The most of its peak that a device can put into the model, 0 to 1, if the time is so."""
        if not self.peak or not self.model_flops or not self.estimate.seconds:
            return None
        return self.model_flops / (self.peak * self.estimate.seconds)

    def as_json(self) -> dict:
        """All of it, in plain values; bytes, seconds, FLOPs."""
        found = dataclasses.asdict(self)
        found["estimate"] |= {"seconds": self.estimate.seconds, "left_out": LEFT_OUT}
        found |= {"fits": self.fits, "left": self.memory - self.used}
        return found | {"utilisation_at_most": self.bound}

    def lines(self) -> list[str]:
        """What a person reads."""
        guess = self.estimate
        room = f"{self.used / GIB:.2f} of {self.memory / GIB:.2f} GiB a chip"
        parts = f"state {self.state / GIB:.2f}, other arguments "
        parts += (
            f"{(self.arguments - self.state) / GIB:.2f}, temporaries {self.temporary / GIB:.2f}"
        )
        left = f"{(self.memory - self.used) / GIB:.2f} left"
        model = f" (the model's own: {self.model_flops / 1e12:.3g})" if self.model_flops else ""
        lines = [
            f"  memory       {'fits' if self.fits else 'DOES NOT FIT'}: {room}: {parts}; {left}",
            f"  products     {self.flops / 1e12:.3g} TFLOP a chip{model}: "
            + ", ".join(f"{dtype} {x / 1e12:.3g}" for dtype, x in self.flops_by_dtype.items()),
            f"  main memory  {self.bytes_moved / 1e9:,.1f} GB read and written",
            *(f"  sends        {part}" for part in self.sent),
            f"  estimate     {1e3 * guess.seconds:,.3g} ms: computing {1e3 * guess.computing:,.3g} "
            f"({guess.method}), sending {1e3 * guess.waiting:,.3g} that it waits for and "
            f"{1e3 * guess.behind:,.3g} while it computes",
            f"               an estimate, not a measurement; it leaves out {LEFT_OUT}",
        ]
        if self.bound is not None:
            lines.append(
                f"  utilisation  at most {100 * self.bound:.0f} % of {self.peak / 1e12:.0f} "
                "TFLOP/s a chip"
            )
        return lines


def compiled_or_not(
    lowered: jax.stages.Lowered, topology: Topology
) -> jax.stages.Compiled | DoesNotFit:
    """Compiles a program for devices of `topology`.

    Raises:
      UserError: the compiler failed for another reason than memory.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text:
            reason = text.splitlines()[0][:300]
            raise UserError(f"the compiler for {topology.text} failed: {reason}") from error
    sizes = re.search(r"Used ([\d.]+)([KMG]) of|\(([\d.]+)([KMG])\) exceeds", text)
    number, unit = (part for part in sizes.groups() if part) if sizes else ("0", "G")
    used = float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit]
    return DoesNotFit(int(used), topology.memory)


def report(
    compiled: jax.stages.Compiled,
    topology: Topology,
    mesh: Mapping[str, int],
    *,
    name: str,
    dtype: str,
    state: int = 0,
    model_flops: float = 0,
) -> CompiledReport:
    """Reads a compiled program.

    Args:
      compiled: for devices of `topology`.
      topology: the devices.
      mesh: axes and their sizes.
      name: what the program does.
      dtype: of the computation, "float32", "bfloat16" or "float16".
      state: bytes of a device's arguments that stay from call to call.
      model_flops: a device's share of the model's.
    """
    module = hlo.Module(compiled.as_text())
    moved = collectives.collectives(module, mesh)
    plan = memory.plan_of(compiled)
    peak = peak_flops.published_flops(topology.chip.device_kind, dtype)
    fastest = peak or peak_flops.published_flops(topology.chip.device_kind, "bfloat16")
    return CompiledReport(
        name=name,
        topology=topology.text,
        mesh=dict(mesh),
        memory=topology.memory,
        arguments=plan.arguments,
        results=plan.results,
        temporary=plan.temporary,
        state=state,
        flops=hlo.flops(module),
        flops_by_dtype=hlo.flops_by_dtype(module),
        model_flops=model_flops,
        bytes_moved=traffic.total(module),
        sent=_sent(moved),
        peak=peak,
        estimate=estimate(module, moved, topology, mesh, fastest),
    )


def _sent(moved: list[collectives.Collective]) -> tuple[Sent, ...]:
    """By axes, kind and whether it is waited for; the most first."""
    found: dict[tuple, list] = {}
    for one in moved:
        place = found.setdefault((one.axes, one.kind, one.asynchronous, one.outside), [0.0, 0])
        place[0] += one.sent
        place[1] += one.times
    parts = [Sent(*key, *value) for key, value in found.items()]
    return tuple(sorted(parts, key=lambda part: -part.bytes))
