"""Rows of training steps on a GPU: this project's in every layout, and PyTorch's."""

import dataclasses
import statistics
import time
from collections.abc import Iterator

import jax.numpy as jnp

from benchmarks.compiled import counts
from benchmarks.on_gpu.contender import ContenderError, Task, in_process
from benchmarks.timing import summary
from glscl_jax import target
from glscl_jax.models.encoders.attention import is_fused
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.profiling.topologies import CHIPS

# The aims, on a GPU: the second is PyTorch's time over this project's.
UTILISATION, SPEED_UP = {"ViT-B/16": 0.40}, 1.2
# Attention and remat of this project's rows, the most telling ones first.
LAYOUTS = (("fused", "dots"), ("plain", "dots"), ("fused", "full"), ("plain", "full"))
MORE_LAYOUTS = (("fused", "none"), ("plain", "none"))
# A process that has less time than this left would not get through.
SHORTEST = 30.0


@dataclasses.dataclass(frozen=True)
class Size:
    """What a run times: variants, a batch, and how many steps of a row."""

    variants: tuple[str, ...]
    clips: int
    frames: int
    steps: int


class Clock:
    """Runs tasks until the minutes are over."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes

    def run(self, name: str, task: Task) -> dict | None:
        """What the task found out; None, with a line that says why, if it did not get through."""
        left = self._end - time.monotonic()
        try:
            if left < SHORTEST:
                raise ContenderError("left out: no time")
            return in_process(task, left)
        except ContenderError as error:
            print(f"  {name:<34}{'does not fit' if error.out_of_memory else error}", flush=True)
            return None


def steps(clock: Clock, size: Size, ceiling: dict, compiled: bool) -> None:
    """Rows of training steps: of every variant what matters most first, then the rest."""
    print(f"\ntraining steps in bfloat16, {size.clips} clips x {size.frames} frames", flush=True)
    fastest: dict[str, float] = {}
    for layouts in (LAYOUTS[:2], LAYOUTS[2:], MORE_LAYOUTS):
        for variant in size.variants:
            for attention, remat in layouts:
                task = Task("jax", variant, size.clips, size.frames, size.steps)
                task = dataclasses.replace(task, attention=attention, remat=remat)
                if seconds := jax_row(clock, task, ceiling):
                    fastest[variant] = min(seconds, fastest.get(variant, seconds))
            if layouts == LAYOUTS[:2]:
                torch_row(clock, size, variant, compiled, fastest.get(variant))
    for variant, seconds in fastest.items():
        print(f"  {variant}: the fastest row of this project takes {seconds:.3f} s")


def jax_row(clock: Clock, task: Task, ceiling: dict) -> float | None:
    """Prints a row, and how far the compiler's estimate was off; the median of a step's seconds."""
    name = f"{task.variant}, {task.attention}, remat {task.remat}"
    found = clock.run(name, task)
    if found is None:
        return None
    median = statistics.median(found["seconds"])
    share = found["flops"] / median / ceiling["ceiling"]
    aim = f" (aim {100 * UTILISATION[task.variant]:.0f})" if task.variant in UTILISATION else ""
    print(
        f"  {name:<34}{summary(found['seconds'])}, {100 * share:.1f} % of the ceiling{aim},"
        f" {found['peak'] / 2**30:.1f} GiB at most, {found['compiling']:.0f} s to compile",
        flush=True,
    )
    if estimate := estimated(task, ceiling["machine"]):
        print(
            f"    the compiler's estimate is {estimate.seconds:.3f} s and {estimate.gib:.1f} GiB: "
            f"it took {median / estimate.seconds:.2f} times as long",
            flush=True,
        )
    return median


def estimated(task: Task, machine: str) -> counts.Counts | None:
    """What `benchmarks.compiled` keeps of a row, if it has this device, step and layout."""
    chip = next((x.name for x in CHIPS.values() if x.device_kind in machine), None)
    found = counts.read()[counts.LAST].get(f"{chip}x1 {task.variant} {task.clips}")
    with target.compiling_for("gpu"):
        tokens = 1 + VARIANTS[task.variant].patches
        chosen = "fused" if is_fused("auto", jnp.dtype("bfloat16"), tokens) else "plain"
    same = found and found.layout == f"remat {task.remat}" and chosen == task.attention
    return found if same and task.frames == 12 and task.scan else None


def torch_row(clock: Clock, size: Size, variant: str, compiled: bool, own: float | None) -> None:
    """Prints PyTorch's row, in the fastest form that gets through."""
    for attempt in torch_attempts(size, variant, compiled):
        how = "compiled" if attempt.compiled else "eager"
        name = f"{variant}, PyTorch {how}{', recomputing' * attempt.checkpointing}"
        found = clock.run(name, attempt)
        if found is None:
            continue
        ratio = statistics.median(found["seconds"]) / own if own else float("nan")
        print(
            f"  {name:<34}{summary(found['seconds'])}, {found['peak'] / 2**30:.1f} GiB at most,"
            f" {ratio:.2f} times this project's so far (aim {SPEED_UP})",
            flush=True,
        )
        return


def torch_attempts(size: Size, variant: str, compiled: bool) -> Iterator[Task]:
    """PyTorch's step, and what it may fall back to."""
    task = Task("torch", variant, size.clips, size.frames, size.steps, compiled=compiled)
    yield task
    yield dataclasses.replace(task, checkpointing=True)
    if compiled:
        yield dataclasses.replace(task, compiled=False, checkpointing=True)
