"""How long a compiled module would take on devices that are not here, as far as it can be told.

An estimate, not a measurement: trust ratios of two of them. Of a TPU it is the cycles that the
compiler itself expects of each instruction, over the clock; of a GPU for each kernel the longer of
its products at the published peak and its bytes at the published rate, which is a floor.
"""

import dataclasses
from collections.abc import Mapping

from glscl_jax.profiling import traffic
from glscl_jax.profiling.collectives import Collective
from glscl_jax.profiling.hlo import Instruction, Module, product_flops
from glscl_jax.profiling.topologies import Topology

LEFT_OUT = (
    "input, the host, starting kernels, latency of links, and links that others use at the time"
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one call.

    Attributes:
      computing: all that a device does itself, one thing after the other.
      waiting: what is sent while it does nothing else.
      behind: what is sent while it computes; more of it than of computing is waited for.
      method: how computing was found.
    """

    computing: float
    waiting: float
    behind: float
    method: str

    @property
    def seconds(self) -> float:
        return max(self.computing, self.behind) + self.waiting


def estimate(
    module: Module,
    sent: list[Collective],
    topology: Topology,
    mesh: Mapping[str, int],
    peak: float,
) -> Estimate:
    """What a call of `module` is expected to take.

    Args:
      module: compiled for `topology`.
      sent: its collectives.
      topology: the devices.
      mesh: axes and their sizes.
      peak: FLOP/s of a device, of which GPUs' kernels are taken to reach all.
    """
    chip = topology.chip
    if topology.is_tpu:
        cycles = sum(times * instruction.cycles for instruction, times in module.scheduled())
        computing = cycles / chip.clock
        method = f"{cycles:,} cycles by the compiler at {chip.clock / 1e9:g} GHz"
    else:
        computing = sum(
            times * kernel_seconds(module, instruction, peak, chip.memory_rate)
            for instruction, times in module.scheduled()
        )
        method = "the sum over kernels of products at the peak, or of bytes at the memory's rate"
    waiting, behind = (
        sum(x.sent / _rate(topology, mesh, x) for x in sent if x.asynchronous is hidden)
        for hidden in (False, True)
    )
    return Estimate(computing, waiting, behind, method)


def kernel_seconds(module: Module, kernel: Instruction, peak: float, memory_rate: float) -> float:
    """A floor of one run of a GPU's kernel."""
    inner = [name for name in kernel.runs if kernel.opcode == "fusion"]
    parts = [kernel, *(part for name in inner for part in module.computations[name])]
    computed = sum(map(product_flops, parts)) / peak
    return max(computed, traffic.bytes_moved(module, kernel) / memory_rate)


def _rate(topology: Topology, mesh: Mapping[str, int], sent: Collective) -> float:
    """Bytes a second of one collective. The compiler for TPUs says itself what leaves a slice."""
    if sent.outside:
        return topology.chip.outside
    return rate(topology, mesh, sent.axes)


def rate(topology: Topology, mesh: Mapping[str, int], axes: str) -> float:
    """Bytes a second that a device sends along `axes`, such as "data+fsdp".

    What leaves a GPUs' host leaves it over the adapters of all that share a ring.
    """
    chip, island = topology.chip, topology.island
    if topology.is_tpu or "data" not in axes or topology.size <= island:
        return chip.link
    inside = island // (mesh["fsdp"] * mesh["tensor"])
    together = max(1, inside) * (mesh["fsdp"] if "fsdp" in axes else 1)
    return min(chip.link, together * chip.outside)
