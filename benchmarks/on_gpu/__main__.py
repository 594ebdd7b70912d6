"""What a GPU makes of this project: training steps, fused attention, scores, augmentation.

    python -m benchmarks.on_gpu                     on a GPU: within 8 minutes
    python -m benchmarks.on_gpu --minutes=20 --only=step --variants=ViT-L/14 --clips=64
    python -m benchmarks.on_gpu --only=step         on a CPU: a tiny model, to show that it works

The step is a whole one in bfloat16: both towers, temporal module, LIM, losses, backward pass and
optimiser. PyTorch's beside it has autocast to bfloat16, torch.compile, fused attention and a fused
AdamW, and recomputes layers only where it would not fit otherwise. Each row is a process of its
own with the whole device to itself; what the minutes do not suffice for is named and left out.

Utilisation is the model's FLOPs (`model_flops.py`: matrix products without recomputation) over
time, as a share of what a chain of 8192 x 8192 products reaches in the same run.

Needs jax, flax, optax and absl, torch and transformers for PyTorch's rows, Pillow for its own;
nothing of the input pipeline.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator

from absl import flags

from benchmarks.on_gpu.contender import ContenderError, Task, in_process
from benchmarks.timing import summary
from glscl_jax.models.encoders.clip import VARIANTS
from glscl_jax.runtime import program

# The aims, on a GPU: the second is PyTorch's time over this project's.
UTILISATION, SPEED_UP = {"ViT-B/16": 0.40}, 1.2
# Attention and remat of this project's rows, the most telling ones first.
LAYOUTS = (("fused", "dots"), ("plain", "dots"), ("fused", "full"), ("plain", "full"))
MORE_LAYOUTS = (("fused", "none"), ("plain", "none"))
PARTS = ("attention", "step", "scores", "augment")
# A process that has less time than this left would not get through.
SHORTEST = 30.0


@dataclasses.dataclass(frozen=True)
class Size:
    """What a run times: variants, a batch, and how many steps of a row."""

    variants: tuple[str, ...]
    clips: int
    frames: int
    steps: int


FULL = Size(("ViT-B/16", "ViT-B/32"), 128, 12, 10)
SMALL = Size(("tiny",), 4, 3, 2)


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


def main(_):
    clock = Clock(flags.FLAGS.minutes)
    ceiling = in_process(Task("ceiling"))
    on_cpu = ceiling["platform"] == "cpu"
    size = chosen(SMALL if on_cpu else FULL)
    print(ceiling["machine"])
    if on_cpu:
        print("there is no GPU here: what follows shows that the program works, and no more")
    square = f"{ceiling['size']} x {ceiling['size']}"
    print(f"ceiling: {ceiling['ceiling'] / 1e12:.2f} TFLOP/s in {square} bfloat16 products")
    parts = flags.FLAGS.only or PARTS
    if "attention" in parts:
        print("\nfused attention against written out, float32 on the same numbers", flush=True)
        show(clock.run("attention", Task("attention")))
    if "step" in parts:
        steps(clock, size, ceiling, compiled=not on_cpu)
    for part in ("scores", "augment"):
        if part in parts:
            print(f"\n{part}", flush=True)
            show(clock.run(part, Task(part)))


def chosen(usual: Size) -> Size:
    """`usual` with what the flags change."""
    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Size)}
    given["variants"] = tuple(given["variants"] or ())
    return dataclasses.replace(usual, **{name: value for name, value in given.items() if value})


def show(found: dict | None) -> None:
    """Prints what a task says line by line."""
    for line in (found or {}).get("lines", ()):
        print(f"  {line}", flush=True)


def steps(clock: Clock, size: Size, ceiling: dict, compiled: bool) -> None:
    """Rows of training steps: of every variant what matters most first, then the rest."""
    print(f"\ntraining steps in bfloat16, {size.clips} clips x {size.frames} frames", flush=True)
    fastest: dict[str, float] = {}
    for layouts in (LAYOUTS[:2], LAYOUTS[2:], MORE_LAYOUTS):
        for variant in size.variants:
            for attention, remat in layouts:
                task = Task("jax", variant, size.clips, size.frames, size.steps)
                task = dataclasses.replace(task, attention=attention, remat=remat)
                if seconds := jax_row(clock, task, ceiling["ceiling"]):
                    fastest[variant] = min(seconds, fastest.get(variant, seconds))
            if layouts == LAYOUTS[:2]:
                torch_row(clock, size, variant, compiled, fastest.get(variant))
    for variant, seconds in fastest.items():
        print(f"  {variant}: the fastest row of this project takes {seconds:.3f} s")


def jax_row(clock: Clock, task: Task, ceiling: float) -> float | None:
    """Prints a row; the median of a step's seconds."""
    name = f"{task.variant}, {task.attention}, remat {task.remat}"
    found = clock.run(name, task)
    if found is None:
        return None
    median = statistics.median(found["seconds"])
    share = found["flops"] / median / ceiling
    aim = f" (aim {100 * UTILISATION[task.variant]:.0f})" if task.variant in UTILISATION else ""
    print(
        f"  {name:<34}{summary(found['seconds'])}, {100 * share:.1f} % of the ceiling{aim},"
        f" {found['peak'] / 2**30:.1f} GiB at most, {found['compiling']:.0f} s to compile",
        flush=True,
    )
    return median


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


def _define_flags() -> None:
    flags.DEFINE_float("minutes", 8.0, "After which nothing new is begun.", lower_bound=0.1)
    flags.DEFINE_multi_enum("only", None, PARTS, "These parts alone; repeatable.")
    flags.DEFINE_list("variants", None, "CLIP's sizes.")
    flags.DEFINE_integer("clips", None, "Clips in a batch.", lower_bound=2)
    flags.DEFINE_integer("frames", None, "Frames a clip.", lower_bound=1)
    flags.DEFINE_integer("steps", None, "Timed steps of a row.", lower_bound=1)
    flags.register_validator(
        "variants",
        lambda names: all(name in VARIANTS for name in names or ()),
        f"there are {', '.join(VARIANTS)}",
    )


if __name__ == "__main__":
    _define_flags()
    program.run(main)
