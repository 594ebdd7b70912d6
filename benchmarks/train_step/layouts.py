"""What recomputation and the scan over layers cost and save: memory, time, compiling.

    python -m benchmarks.train_step --layouts

One table of `config.model.remat` ("none", "dots", "full") by `config.model.scan` (on, off). The
compiled steps take turns on one state. Memory is what XLA plans for the step beside parameters,
optimiser state and batch; FLOPs are XLA's count with every layer written out, so that what is
computed twice is counted twice.
"""

import dataclasses
import functools
import statistics
import time

import jax

from benchmarks.timing import take_turns
from benchmarks.train_step.jax_glscl import count_flops, fresh_state, jitted_step, make_inputs
from glscl_jax.models.encoders.transformer import REMAT
from glscl_jax.models.glscl import GLSCLConfig


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step in one layout.

    Attributes:
      call: (state, batch) -> (state, metrics), the old state donated.
      seconds: that tracing and compiling took.
      temporary: bytes that XLA plans beside the arguments and results.
      flops: of a step by XLA's count.
    """

    call: jax.stages.Compiled
    seconds: float
    temporary: int
    flops: float


class Turns:
    """Steps of compiled programs on one state, which each leaves to the next."""

    def __init__(self, state, inputs):
        self.state, self.inputs = state, inputs

    def step(self, compiled: Compiled) -> None:
        self.state, metrics = compiled.call(self.state, self.inputs)
        jax.block_until_ready((self.state, metrics))


def measure(config: GLSCLConfig, clips: int, rounds: int) -> list[str]:
    """Times `config` in every layout, in `rounds` turns; the table's lines."""
    inputs = make_inputs(clips, config.clip)
    compiled = {layout: compile_step(layout, inputs) for layout in layouts(config)}
    turns = Turns(jax.jit(functools.partial(fresh_state, config))(), inputs)
    contenders = {layout: functools.partial(turns.step, compiled[layout]) for layout in compiled}
    return table(compiled, take_turns(contenders, rounds))


def layouts(config: GLSCLConfig) -> list[GLSCLConfig]:
    """`config` in every layout."""
    return [
        dataclasses.replace(config, remat=remat, scan=scan)
        for remat in REMAT
        for scan in (True, False)
    ]


def compile_step(config: GLSCLConfig, inputs) -> Compiled:
    """Compiles the step of one layout."""
    start = time.perf_counter()
    state = jax.eval_shape(functools.partial(fresh_state, config))
    call = jitted_step(config).lower(state, inputs).compile()
    seconds = time.perf_counter() - start
    temporary = call.memory_analysis().temp_size_in_bytes
    return Compiled(call, seconds, temporary, count_flops(config, inputs))


def table(
    compiled: dict[GLSCLConfig, Compiled], times: dict[GLSCLConfig, list[float]]
) -> list[str]:
    """Its lines: a row for a layout, with the factors on the first one's time and memory."""
    lines = [
        f"{'remat':<8}{'scan':<6}{'temporary':>12}{'':>8}{'s a step':>12}{'':>8}"
        f"{'range':>18}{'GFLOP':>10}{'compiling':>12}"
    ]
    first = next(iter(compiled))
    usual = statistics.median(times[first])
    for layout, made in compiled.items():
        median = statistics.median(times[layout])
        span = f"{min(times[layout]):.3f} to {max(times[layout]):.3f}"
        lines.append(
            f"{layout.remat:<8}{'on' if layout.scan else 'off':<6}"
            f"{made.temporary / 1e6:>9,.0f} MB{made.temporary / compiled[first].temporary:>8.2f}"
            f"{median:>12.3f}{median / usual:>8.2f}{span:>18}{made.flops / 1e9:>10,.1f}"
            f"{made.seconds:>10.1f} s"
        )
    return lines
